-- Plans of replays, jobs, and what became of each of their items. What is known is looked up in a subquery of its own
-- (OFFSET 0), by all of its primary key: of a table that has just grown the planner knows nothing, and would take any
-- index that begins with the integration.

-- name: replay_candidates
-- Dead items of one status, by id, along the index whose columns are told in the place of {along}.
SELECT x.id, x.cycle, x.risk, x.died_at, x.resolved_at IS NOT NULL,
       EXISTS (SELECT FROM replay_job WHERE NOT settled AND integration = $1 AND state IN ('canary', 'running', 'paused'))
       AND EXISTS (SELECT FROM replay_item r JOIN replay_job j ON j.integration = r.integration AND j.id = ANY (ARRAY[r.job])
                    WHERE r.integration = x.integration AND r.item = x.id AND r.state = 'waiting'
                      AND j.state IN ('canary', 'running', 'paused') OFFSET 0),
       d.event_type, length(d.payload), EXISTS (SELECT FROM erased e WHERE e.integration = x.integration AND e.item = x.id), false,
       x.superseded_by IS NOT NULL, x.edited_as IS NOT NULL,
       EXISTS (SELECT FROM edit t WHERE t.integration = x.integration AND t.item = x.id)
  FROM (SELECT * FROM dead x
         WHERE x.integration = $1 AND x.status = $2 AND {along}
           AND x.died_at <= $3 AND ($6::bigint IS NULL OR x.id < $6)
           AND ($7::bigint IS NULL OR x.failure_group = $7) AND ($8::text IS NULL OR x.failure_code = $8)
           AND ($9::int IS NULL OR x.risk = $9) AND ($10::int IS NULL OR x.cycle = $10)
           AND ($11::text IS NULL OR EXISTS (
               SELECT FROM delivery w WHERE w.integration = x.integration AND w.id = x.id AND w.event_type = $11))
         ORDER BY {order} LIMIT $5) x
 CROSS JOIN LATERAL (SELECT event_type, payload FROM delivery WHERE integration = x.integration AND id = x.id OFFSET 0) d

-- name: replay_named
SELECT g.id, coalesce(x.cycle, 0), coalesce(x.risk, 0), coalesce(x.died_at, 0), x.resolved_at IS NOT NULL,
       x.id IS NOT NULL AND EXISTS (
           SELECT FROM replay_item r JOIN replay_job j ON j.integration = r.integration AND j.id = ANY (ARRAY[r.job])
            WHERE r.integration = $1 AND r.item = g.id AND r.state = 'waiting'
              AND j.state IN ('canary', 'running', 'paused') OFFSET 0),
       d.event_type, coalesce(length(d.payload), 0),
       EXISTS (SELECT FROM erased e WHERE e.integration = $1 AND e.item = g.id), l.id IS NOT NULL,
       x.superseded_by IS NOT NULL, x.edited_as IS NOT NULL,
       EXISTS (SELECT FROM edit t WHERE t.integration = $1 AND t.item = g.id)
  FROM unnest($2::bigint[]) WITH ORDINALITY AS g (id, at)
  LEFT JOIN LATERAL (SELECT * FROM delivery WHERE integration = $1 AND id = g.id OFFSET 0) d ON true
  LEFT JOIN LATERAL (SELECT * FROM dead WHERE integration = $1 AND id = g.id OFFSET 0) x ON true
  LEFT JOIN LATERAL (SELECT * FROM live WHERE integration = $1 AND id = g.id OFFSET 0) l ON true

-- name: replay_failures_of
SELECT item FROM replay_item WHERE integration = $1 AND job = $2 AND state = 'failed' AND item > $3
 ORDER BY item LIMIT $4

-- name: mean_duration
SELECT sum(duration_us)::float8, sum(succeeded + failed)::float8 FROM tally WHERE integration = $1 AND minute >= $2

-- name: freeze
-- A plan is written down while it is being made, by nobody else; the row of the job is held for that.
WITH job AS MATERIALIZED (
    SELECT id FROM replay_job WHERE integration = $1 AND id = $2 AND state = 'planning' FOR SHARE),
r AS (
    INSERT INTO replay_item (integration, job, item, cycle, risk, state, reason)
    SELECT $1, job.id, g.item, g.cycle, g.risk, CASE WHEN g.reason IS NULL THEN 'waiting' ELSE 'skipped' END, g.reason
      FROM job, unnest($3::bigint[], $4::int[], $5::smallint[], $6::text[]) AS g (item, cycle, risk, reason)
        ON CONFLICT DO NOTHING)
SELECT EXISTS (SELECT FROM job)

-- name: add_job
INSERT INTO replay_job (integration, id, state, version, digest, settled, config) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING

-- name: change_job
UPDATE replay_job SET state = $1, version = $2, digest = $3, settled = $4, config = $5
 WHERE integration = $6 AND id = $7 AND version = $8 RETURNING id

-- name: job
SELECT integration, id, state, version, settled, config FROM replay_job WHERE integration = $1 AND id = $2

-- name: job_of_digest
SELECT integration, id, state, version, settled, config FROM replay_job WHERE digest = $1 AND integration = $2

-- name: jobs
SELECT integration, id, state, version, settled, config FROM replay_job
 WHERE integration = $1 AND id < $2 ORDER BY id DESC LIMIT $3

-- name: unsettled_jobs
SELECT integration, id, state, version, settled, config FROM replay_job WHERE NOT settled ORDER BY integration, id

-- name: replay_progress
SELECT state, count(*) FROM replay_item WHERE integration = $1 AND job = $2 GROUP BY state

-- name: replay_progresses
SELECT g.job, r.state, r.count FROM unnest($2::bigint[]) AS g (job)
 CROSS JOIN LATERAL (SELECT state, count(*) FROM replay_item WHERE integration = $1 AND job = g.job GROUP BY state) r

-- name: told_since
SELECT count(*) FROM replay_item WHERE integration = $1 AND job = $2 AND told_at > $3

-- name: replay_items
SELECT item, cycle, risk, state, reason, told_at, stumbled FROM replay_item
 WHERE integration = $1 AND job = $2 AND item > $3 ORDER BY item LIMIT $4

-- name: replay_items_in
SELECT item, cycle, risk, state, reason, told_at, stumbled FROM replay_item
 WHERE integration = $1 AND job = $2 AND (state, item) > ($4, $3) AND state = $4 ORDER BY state, item LIMIT $5

-- name: moved_on
-- What a plan holds and is dead no more, in another cycle, closed, or spoken for by a job that runs.
SELECT count(*) FILTER (WHERE x.id IS NULL OR x.cycle <> r.cycle),
       count(*) FILTER (WHERE x.resolved_at IS NOT NULL AND x.cycle = r.cycle),
       count(*) FILTER (WHERE x.resolved_at IS NULL AND coalesce(x.edited_as, x.superseded_by) IS NOT NULL AND x.cycle = r.cycle),
       count(*) FILTER (WHERE x.resolved_at IS NULL AND coalesce(x.edited_as, x.superseded_by) IS NULL AND x.cycle = r.cycle AND EXISTS (
           SELECT FROM replay_item o JOIN replay_job j ON j.integration = o.integration AND j.id = ANY (ARRAY[o.job])
            WHERE o.integration = r.integration AND o.item = r.item AND o.state = 'waiting' AND o.job <> r.job
              AND j.state IN ('canary', 'running', 'paused')))
  FROM replay_item r LEFT JOIN LATERAL (SELECT * FROM dead WHERE integration = r.integration AND id = r.item OFFSET 0) x ON true
 WHERE r.integration = $1 AND r.job = $2 AND r.state = 'waiting'

-- name: waits_in
SELECT r.job FROM replay_item r JOIN replay_job j ON j.integration = r.integration AND j.id = ANY (ARRAY[r.job])
 WHERE r.integration = $1 AND r.item = $2 AND r.state = 'waiting' AND j.state IN ('canary', 'running', 'paused') LIMIT 1

-- name: figures
-- Each part is a walk along an index over what is in flight, or over the latest outcomes; none over the whole job.
SELECT i.lifecycle = 'active' AND i.containment IS NULL,
       f.in_flight, f.untold,
       EXISTS (SELECT FROM replay_item WHERE integration = $1 AND job = $2 AND state = 'waiting'),
       ARRAY(SELECT stumbled FROM replay_item WHERE integration = $1 AND job = $2 AND told_at >= $4
              ORDER BY integration DESC, job DESC, told_at DESC LIMIT $5),
       (SELECT count(*) FROM replay_item WHERE integration = $1 AND job = $2 AND told_at > $6)
  FROM replay_job j JOIN integration i ON i.number = j.integration
 CROSS JOIN LATERAL (SELECT count(*) AS in_flight, count(*) FILTER (WHERE told_at IS NULL) AS untold FROM replay_item
                      WHERE integration = $1 AND job = $2 AND state = 'in_flight') f
 WHERE j.integration = $1 AND j.id = $2 AND j.version = $3

-- name: canary_items
SELECT r.item, r.state, r.told_at IS NOT NULL, r.stumbled FROM unnest($3::bigint[]) WITH ORDINALITY AS g (item, at)
 CROSS JOIN LATERAL (SELECT * FROM replay_item WHERE integration = $1 AND job = $2 AND item = g.item OFFSET 0) r

-- name: next_waiting
-- In the order that is told in the place of {order}. OFFSET 0 has the items come first, and then what is known of each.
SELECT r.item, r.cycle, x.status, coalesce(x.cycle, 0), coalesce(x.attempt, 0), x.failure_code,
       x.resolved_at IS NOT NULL, l.id IS NOT NULL, e.item IS NOT NULL, d.request_id,
       d.request_id = $3 OR EXISTS (SELECT FROM cycle c WHERE c.integration = $1 AND c.item = r.item AND c.request_id = $3),
       x.superseded_by IS NOT NULL, x.edited_as IS NOT NULL,
       EXISTS (SELECT FROM edit t WHERE t.integration = r.integration AND t.item = r.item)
  FROM (SELECT integration, item, cycle FROM replay_item
         WHERE integration = $1 AND job = $2 AND state = 'waiting' AND ($5::bigint[] IS NULL OR item = ANY ($5))
         ORDER BY {order} LIMIT $4 OFFSET 0) r
  LEFT JOIN LATERAL (SELECT * FROM dead WHERE integration = r.integration AND id = r.item OFFSET 0) x ON true
  LEFT JOIN LATERAL (SELECT * FROM live WHERE integration = r.integration AND id = r.item OFFSET 0) l ON true
  LEFT JOIN LATERAL (SELECT request_id FROM delivery WHERE integration = r.integration AND id = r.item OFFSET 0) d ON true
  LEFT JOIN LATERAL (SELECT * FROM erased WHERE integration = r.integration AND item = r.item OFFSET 0) e ON true

-- name: heads
SELECT g.name, a.id, a.digest FROM unnest($1::text[]) AS g (name)
 CROSS JOIN LATERAL (SELECT id, digest FROM audit WHERE target_id = g.name ORDER BY target_id DESC, id DESC LIMIT 1) a

-- name: release_batch
-- The guard of all that a job releases: its very version, releasing; this process alive; its integration sending. The
-- job's row is held until the end: whoever pauses it waits for us, or we see that it is paused. Then of each item the
-- same as of a single replay ($13 and after: what the item was judged by, and its event, which must follow the one that
-- it names). By its place, as the planner, knowing nothing of a table that has just grown, would rather walk along an
-- index; a row that was changed meanwhile has another version (see `replay`), and is left for the next batch.
WITH alive AS MATERIALIZED (SELECT id FROM incarnation WHERE id = $1 FOR KEY SHARE),
job AS MATERIALIZED (
    SELECT j.integration, j.id FROM alive, replay_job j
     WHERE j.integration = $2 AND j.id = $3 AND j.version = $4 AND j.state IN ('canary', 'running')
       AND EXISTS (SELECT FROM integration WHERE number = $2 AND lifecycle = 'active' AND containment IS NULL)
       FOR SHARE OF j),
dropped AS MATERIALIZED (
    SELECT job.integration, job.id AS job, g.* FROM job CROSS JOIN unnest($5::bigint[], $6::text[]) AS g (item, reason)),
s AS (
    UPDATE replay_item r SET state = 'skipped', reason = g.reason FROM dropped g
     WHERE r.integration = ANY (ARRAY[g.integration]) AND r.job = ANY (ARRAY[g.job]) AND r.item = ANY (ARRAY[g.item])
       AND r.state = 'waiting'),
given AS MATERIALIZED (
    SELECT job.integration, job.id AS job, x.place, x.version, g.* FROM job
     CROSS JOIN unnest($13::bigint[], $14::text[], $15::int[], $16::bigint[], $17::text[], $18::text[], $19::text[],
                       $20::text[], $21::text[], $22::text[], $23::bytea[], $24::bytea[])
      AS g (item, status, cycle, event, event_type, request_id, integration_id, target_id, actor, record, digest,
            previous)
     CROSS JOIN LATERAL (SELECT FROM replay_item WHERE integration = $2 AND job = $3 AND item = g.item AND state = 'waiting' OFFSET 0) r
     CROSS JOIN LATERAL (SELECT ctid AS place, xmin AS version FROM dead WHERE integration = $2 AND id = g.item OFFSET 0) x
      LEFT JOIN LATERAL (
        SELECT id AS last, digest AS head FROM audit WHERE target_id = g.target_id AND id > g.item
         ORDER BY target_id DESC, id DESC LIMIT 1) a ON true
     WHERE (NOT starts_with(g.target_id, 'rec_') OR a.head IS NOT DISTINCT FROM g.previous)
       AND coalesce(a.last, 0) < g.event),
exhumed AS MATERIALIZED (
    DELETE FROM dead x USING given g
     WHERE x.ctid = g.place AND x.xmin = g.version AND x.id = g.item AND x.status = g.status AND x.cycle = g.cycle
       AND coalesce(x.resolved_at, x.edited_as, x.superseded_by) IS NULL
       AND NOT EXISTS (SELECT FROM edit t WHERE t.integration = $2 AND t.item = g.item)
    RETURNING g.*, x.risk),
l AS (
    INSERT INTO live (id, integration, status, cycle, attempt, max_attempts, due_at, risk)
    SELECT item, $2, 'replayed', cycle + 1, 0, $7::int, least($8::bigint, redrive_now()), risk FROM exhumed),
c AS (
    INSERT INTO cycle (integration, item, cycle, request_id, traceparent, max_attempts, opened_at, opened_by, reason, job)
    SELECT $2, item, cycle + 1, $9::text, $10::text, $7::int, $8::bigint, $11::text, $12::text, $3 FROM exhumed),
r AS (
    UPDATE replay_item r SET state = 'in_flight' FROM exhumed x
     WHERE r.integration = ANY (ARRAY[x.integration]) AND r.job = ANY (ARRAY[x.job]) AND r.item = ANY (ARRAY[x.item])),
e AS (
    INSERT INTO audit (integration, id, event_type, request_id, integration_id, target_id, actor, record, digest)
    SELECT $2, event, event_type, request_id, integration_id, target_id, actor, record, digest FROM exhumed)
SELECT EXISTS (SELECT FROM job), ARRAY(SELECT item FROM exhumed)

-- name: released
-- Which of these items have the event that was to be written with it: the look-up after a commit nobody answered for.
SELECT g.item FROM unnest($2::bigint[], $3::bigint[]) AS g (item, event)
 WHERE EXISTS (SELECT FROM audit a WHERE a.integration = $1 AND a.id = g.event)

-- name: job_left
SELECT EXISTS (SELECT FROM replay_item WHERE integration = $1 AND job = $2 AND state = 'waiting'),
       EXISTS (SELECT FROM replay_item WHERE integration = $1 AND job = $2 AND state = 'in_flight')

-- name: sweep_items
WITH part AS MATERIALIZED (
    SELECT r.integration, r.job, r.item FROM replay_item r
     WHERE r.integration = $1 AND r.job = $2 AND r.state = 'waiting'
       AND EXISTS (SELECT FROM replay_job WHERE integration = $1 AND id = $2 AND state IN ('halted', 'cancelled'))
     LIMIT $3)
UPDATE replay_item r SET state = 'cancelled' FROM part
 WHERE r.integration = ANY (ARRAY[part.integration]) AND r.job = ANY (ARRAY[part.job]) AND r.item = ANY (ARRAY[part.item])
   AND r.state = 'waiting'

-- name: discard_items
WITH part AS MATERIALIZED (SELECT integration, job, item FROM replay_item WHERE integration = $1 AND job = $2 LIMIT $3)
DELETE FROM replay_item r USING part
 WHERE r.integration = ANY (ARRAY[part.integration]) AND r.job = ANY (ARRAY[part.job]) AND r.item = ANY (ARRAY[part.item])

-- name: old_job
SELECT integration, id FROM replay_job WHERE id < $1 AND settled ORDER BY integration, id LIMIT 1

-- name: forget_job
DELETE FROM replay_job WHERE integration = $1 AND id = $2 AND settled
   AND NOT EXISTS (SELECT FROM replay_item WHERE integration = $1 AND job = $2)
