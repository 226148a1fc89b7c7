-- `= ANY (ARRAY[x])` instead of `= x` where rows that are known are looked up in a large table: with statistics of a
-- time when that table was nearly empty, the planner would turn a plain join round and walk over all of it.

-- name: now
SELECT redrive_now()

-- name: last_id
-- One step down the newest partition for each integration, never a walk over the deliveries.
SELECT greatest((SELECT max(newest.id) FROM integration i CROSS JOIN LATERAL (
                   SELECT id FROM delivery WHERE integration = i.number ORDER BY id DESC LIMIT 1) newest),
                (SELECT max(id) FROM audit), 0)

-- name: enter
-- Its low ten bits must be free among the living; a taken number is skipped and the next one tried.
-- What is contained by then, it cannot claim from.
INSERT INTO incarnation (process, started_at, lease_until, sends, follows)
SELECT $1, redrive_now(), redrive_now() + $2, $3, version FROM catalogue
ON CONFLICT DO NOTHING RETURNING id

-- name: renew
UPDATE incarnation SET lease_until = redrive_now() + $2 WHERE id = $1 RETURNING redrive_now()

-- name: step_down
UPDATE incarnation SET sends = false WHERE id = $1 AND sends

-- name: leave
DELETE FROM incarnation WHERE id = $1

-- name: bury_expired
-- Nobody could renew while the database was away: after its own start everyone has a lease's time to come back.
DELETE FROM incarnation WHERE lease_until < redrive_now()
   AND pg_postmaster_start_time() < statement_timestamp() - $1 * interval '1 millisecond' RETURNING id

-- name: bury_process
DELETE FROM incarnation WHERE process = $1 RETURNING id

-- name: free_lanes_of_the_dead
-- A statement of its own: in that of the burial it would not see a lane that was acquired beside it. What was under
-- way may still be at its receiver, for at most the timeout ($1: milliseconds, where the integration names none).
UPDATE lane l
   SET owner = NULL,
       held_until = redrive_now() + coalesce(
           -- not read as JSON: one damaged row must not keep the lanes of all the dead from the living
           (substring(i.config FROM '[{,]"timeout_seconds":([0-9]+(?:[.][0-9]+)?)')::float8 * 1000)::bigint, $1::bigint)
  FROM integration i
 WHERE i.number = l.integration AND l.owner IS NOT NULL AND NOT EXISTS (SELECT FROM incarnation WHERE id = l.owner)

-- name: senders
SELECT id FROM incarnation WHERE sends ORDER BY id

-- name: lanes
-- Of the splits in force.
SELECT l.integration, l.shards, l.shard FROM lane l JOIN integration i ON i.number = l.integration AND i.shards = l.shards

-- name: lanes_of
-- Those of a process, and those of nobody.
SELECT integration, shards, shard, owner FROM lane WHERE owner = $1
UNION ALL SELECT integration, shards, shard, owner FROM lane WHERE owner IS NULL

-- name: drop_stale_lanes
-- Of earlier splits, once nobody owns them and nothing of them is under way.
-- An integration whose split is just being changed is left for the next time.
DELETE FROM lane l USING (
    SELECT i.number, i.shards FROM integration i
     WHERE EXISTS (SELECT FROM lane s WHERE s.integration = i.number AND s.shards <> i.shards)
       FOR SHARE OF i SKIP LOCKED) i
 WHERE i.number = l.integration AND i.shards <> l.shards AND l.owner IS NULL AND l.held_until <= redrive_now()

-- name: acquire
-- The fence first; then only lanes that are free, of the split in force, and only while no lane of another split
-- is owned, or held for what its dead owner sent: of the same split, orphans keep their places. The integration's row is held so that a new split waits for us, or we for it.
WITH alive AS MATERIALIZED (SELECT id FROM incarnation WHERE id = $1 FOR KEY SHARE),
free AS MATERIALIZED (
    SELECT l.integration, l.shards, l.shard
      FROM alive, unnest($2::int[], $3::smallint[], $4::smallint[]) AS w (integration, shards, shard)
      JOIN integration i ON i.number = w.integration AND i.shards = w.shards
      JOIN lane l ON l.integration = w.integration AND l.shards = w.shards AND l.shard = w.shard
     WHERE l.owner IS NULL
       AND NOT EXISTS (SELECT FROM lane o WHERE o.integration = l.integration AND o.shards <> l.shards
                          AND (o.owner IS NOT NULL OR o.held_until > redrive_now()))
     ORDER BY 1, 2, 3 FOR SHARE OF i FOR UPDATE OF l SKIP LOCKED)
UPDATE lane l SET owner = $1 FROM free f
 WHERE l.integration = f.integration AND l.shards = f.shards AND l.shard = f.shard AND l.owner IS NULL
RETURNING l.integration, l.shards, l.shard

-- name: release
UPDATE lane l SET owner = NULL
  FROM unnest($2::int[], $3::smallint[], $4::smallint[]) AS w (integration, shards, shard)
 WHERE l.integration = w.integration AND l.shards = w.shards AND l.shard = w.shard AND l.owner = $1

-- name: lifecycle
SELECT lifecycle FROM integration WHERE number = $1

-- name: accept
-- One row comes back for each delivery that was stored. A key that is taken by someone else is not stored, and
-- looked up by a statement of its own: this one's snapshot may be too old to see its winner.
WITH alive AS MATERIALIZED (SELECT id FROM incarnation WHERE id = $1 FOR KEY SHARE),
given AS MATERIALIZED (
    SELECT g.*, i.lifecycle = 'active' AND i.containment IS NULL AND g.mine AND EXISTS (SELECT FROM alive) AS claimed
      FROM unnest($3::bigint[], $4::int[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
                  $10::text[], $11::int[], $12::text[], $13::text[], $14::bytea[], $15::bytea[], $16::bool[])
        AS g (id, integration, event_type, request_id, traceparent, tracestate, key, created_by, max_attempts,
              content_type, headers, payload, fingerprint, mine)
      JOIN integration i ON i.number = g.integration
     WHERE i.lifecycle IN ('active', 'paused') AND i.containment IS DISTINCT FROM 'reject'),
keyed AS (
    INSERT INTO dedupe (integration, key, item, fingerprint)
    SELECT integration, key, id, fingerprint FROM given WHERE key IS NOT NULL ORDER BY integration, key, id
    ON CONFLICT DO NOTHING RETURNING item),
stored AS MATERIALIZED (SELECT * FROM given WHERE key IS NULL OR id IN (SELECT item FROM keyed)),
d AS (
    INSERT INTO delivery (id, integration, event_type, request_id, traceparent, tracestate, idempotency_key,
                          created_by, max_attempts, content_type, headers, payload)
    SELECT id, integration, event_type, request_id, traceparent, tracestate, key, created_by, max_attempts,
           content_type, headers, payload FROM stored),
l AS (
    INSERT INTO live (id, integration, status, cycle, attempt, max_attempts, due_at, claimed_by, claimed_at)
    SELECT id, integration, 'pending', 1, claimed::int, max_attempts,
           least((id >> 22) + 1704067200000, redrive_now()), -- an id may run ahead of the clock
           CASE WHEN claimed THEN $1 END, CASE WHEN claimed THEN $2::bigint END FROM stored)
SELECT id, claimed FROM stored

-- name: accepted
-- Which of these are there, and whether by this call's claim: the look-up after a commit nobody answered for.
SELECT d.id, coalesce(l.claimed_by = $1 AND l.claimed_at = $2::bigint, false)
  FROM unnest($3::int[], $4::bigint[]) AS g (integration, id)
  JOIN delivery d ON d.integration = ANY (ARRAY[g.integration]) AND d.id = ANY (ARRAY[g.id])
  LEFT JOIN live l ON l.integration = d.integration AND l.id = d.id

-- name: keys
SELECT k.integration, k.key, k.item, k.fingerprint
  FROM unnest($1::int[], $2::text[]) AS g (integration, key)
  JOIN dedupe k ON k.integration = ANY (ARRAY[g.integration]) AND k.key = ANY (ARRAY[g.key])

-- name: lifecycles
SELECT number, lifecycle FROM integration WHERE number = ANY($1::int[])

-- name: take_key
INSERT INTO dedupe (integration, key, item, fingerprint) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING item

-- name: insert_delivery
INSERT INTO delivery (id, integration, event_type, request_id, traceparent, tracestate, idempotency_key,
                      created_by, max_attempts, content_type, headers, payload)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)

-- name: insert_imported
INSERT INTO imported (integration, item, failure_code, failure_detail, retryable, occurred_at, http_status,
                      headers, truncated, body)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)

-- name: bury
INSERT INTO dead (id, integration, status, cycle, attempt, max_attempts, failure_code, died_at, risk, failure_group)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)

-- name: claim
-- Along the due index from where this process got to ($6: a millisecond), never past what is wanted. What another
-- process claimed that is no more is taken over uncounted: its attempt ended, nobody knows how.
WITH alive AS MATERIALIZED (SELECT id FROM incarnation WHERE id = $1 FOR KEY SHARE),
pick AS MATERIALIZED (
    SELECT p.* FROM alive,
           unnest($3::int[], $4::int[], $5::int[], $6::bigint[], $7::int[]) AS w (integration, shards, shard, since, most)
      JOIN integration i ON i.number = w.integration AND i.lifecycle = 'active' AND i.containment IS NULL
     CROSS JOIN LATERAL (
        SELECT l.integration, l.id, l.attempt, l.claimed_by, l.claimed_at AS orphaned_at
          FROM live l
         WHERE l.integration = w.integration AND l.due_at >= w.since AND l.due_at <= redrive_now()
           AND (w.shards = 1 OR l.id % w.shards = w.shard)
           AND (l.claimed_by IS NULL OR NOT EXISTS (SELECT FROM incarnation x WHERE x.id = l.claimed_by))
         ORDER BY l.due_at, l.id LIMIT w.most) p)
UPDATE live l SET claimed_by = $1, attempt = l.attempt + (p.orphaned_at IS NULL)::int,
       claimed_at = $2::bigint + (p.orphaned_at IS NOT NULL)::int -- so that a look-up can tell an orphan from a claim
  FROM pick p
 WHERE l.integration = ANY (ARRAY[p.integration]) AND l.id = ANY (ARRAY[p.id]) AND l.attempt = p.attempt
   AND l.claimed_by IS NOT DISTINCT FROM p.claimed_by -- of two that picked it one gets it
RETURNING l.integration, l.id, l.due_at, l.cycle, l.attempt, l.max_attempts, l.risk, p.orphaned_at

-- name: claimed
-- What a claim got that nobody answered for; of an orphan it is no longer known when it was claimed first. From
-- where the claim began ($6), among what is due: what waits to be retried later is not walked.
SELECT l.integration, l.id, l.due_at, l.cycle, l.attempt, l.max_attempts, l.risk,
       CASE WHEN l.claimed_at > $2::bigint THEN l.claimed_at END
  FROM unnest($3::int[], $4::int[], $5::int[], $6::bigint[]) AS w (integration, shards, shard, since)
 CROSS JOIN LATERAL (
    SELECT * FROM live
     WHERE (w.shards = 1 OR id % w.shards = w.shard) AND integration = w.integration AND due_at >= w.since AND due_at <= redrive_now()
       AND claimed_by = $1 AND claimed_at IN ($2::bigint, $2::bigint + 1)
     ORDER BY due_at, id) l

-- name: undo_call
-- What a call claimed that reached nobody: as if it had never been claimed. An orphan stays one (nobody is 0).
WITH alive AS MATERIALIZED (SELECT id FROM incarnation WHERE id = $1 FOR KEY SHARE),
untold AS MATERIALIZED (
    SELECT l.integration, l.id
      FROM alive, unnest($3::int[], $4::int[], $5::int[], $6::bigint[]) AS w (integration, shards, shard, since)
     CROSS JOIN LATERAL (
        SELECT * FROM live
         WHERE (w.shards = 1 OR id % w.shards = w.shard) AND integration = w.integration AND due_at >= w.since AND due_at <= redrive_now()
           AND claimed_by = $1 AND claimed_at IN ($2::bigint, $2::bigint + 1)
         ORDER BY due_at, id) l)
UPDATE live l
   SET attempt = l.attempt - (l.claimed_at = $2::bigint)::int,
       claimed_by = CASE WHEN l.claimed_at > $2::bigint THEN 0 END,
       claimed_at = CASE WHEN l.claimed_at > $2::bigint THEN l.claimed_at END
  FROM untold u
 WHERE l.integration = ANY (ARRAY[u.integration]) AND l.id = ANY (ARRAY[u.id]) AND l.claimed_by = $1
   AND l.claimed_at IN ($2::bigint, $2::bigint + 1)

-- name: claimed_deliveries
SELECT d.id, d.integration, d.event_type, d.request_id, d.traceparent, d.tracestate, d.idempotency_key,
       d.created_by, d.max_attempts, d.content_type, d.headers, d.payload, c.request_id, c.job, e.original,
       encode(h.digest, 'hex'), h.id
  FROM unnest($1::int[], $2::bigint[], $3::int[], $4::text[], $5::int[]) AS g (integration, id, cycle, name, attempt)
  JOIN delivery d ON d.integration = ANY (ARRAY[g.integration]) AND d.id = ANY (ARRAY[g.id])
  LEFT JOIN cycle c ON c.integration = g.integration AND c.item = g.id AND c.cycle = g.cycle
  LEFT JOIN edit e ON e.integration = g.integration AND e.item = g.id
  LEFT JOIN LATERAL (
    SELECT a.id, a.digest FROM audit a WHERE a.integration = g.integration AND a.target_id = g.name AND a.id > g.id
       AND (g.cycle > 1 OR g.attempt > 1 OR e.item IS NOT NULL) -- a first attempt comes before them all, but for a copy's
     ORDER BY a.target_id DESC, a.id DESC LIMIT 1) h ON true

-- name: next_due_of
SELECT w.integration, w.shards, w.shard,
       (SELECT l.due_at FROM live l
         WHERE l.integration = w.integration AND l.due_at >= w.since
           AND (l.claimed_by IS NULL OR NOT EXISTS (SELECT FROM incarnation x WHERE x.id = l.claimed_by))
           AND (w.shards = 1 OR l.id % w.shards = w.shard)
           AND ($5::bigint IS NULL OR EXISTS (SELECT FROM incarnation WHERE id = $5))
         ORDER BY l.due_at, l.id LIMIT 1)
  FROM unnest($1::int[], $2::int[], $3::int[], $4::bigint[]) AS w (integration, shards, shard, since)

-- name: record
-- Fenced twice: by the process's row, and by the claim. What lost either comes back in neither part.
WITH alive AS MATERIALIZED (SELECT id FROM incarnation WHERE id = $1 FOR KEY SHARE),
r AS MATERIALIZED (
    SELECT t.* FROM alive,
           unnest($2::int[], $3::bigint[], $4::int[], $5::int[], $6::bigint[], $7::text[], $8::bigint[], $9::bigint[],
                  $10::bigint[], $11::text[], $12::text[], $13::bool[], $14::text[], $15::bigint[], $16::text[],
                  $17::int[], $18::text[], $19::bool[], $20::bytea[], $21::bigint[], $22::int[], $23::bigint[])
        AS t (integration, id, cycle, attempt, due_at, grave, died_at, started_at, duration_us, failure_code,
              failure_detail, retryable, reach, retry_after_ms, span_id, http_status, headers, truncated, body,
              failure_group, risk, job)),
gone AS (
    DELETE FROM live l USING r
     WHERE l.integration = ANY (ARRAY[r.integration]) AND l.id = ANY (ARRAY[r.id]) AND l.claimed_by = $1
       AND l.cycle = r.cycle AND l.attempt = r.attempt AND r.due_at IS NULL
    RETURNING r.*, l.max_attempts),
kept AS (
    UPDATE live l SET status = 'retrying', due_at = r.due_at, risk = r.risk, claimed_by = NULL, claimed_at = NULL FROM r
     WHERE l.integration = ANY (ARRAY[r.integration]) AND l.id = ANY (ARRAY[r.id]) AND l.claimed_by = $1
       AND l.cycle = r.cycle AND l.attempt = r.attempt AND r.due_at IS NOT NULL
    RETURNING r.*, l.max_attempts),
won AS MATERIALIZED (SELECT * FROM gone UNION ALL SELECT * FROM kept),
a AS (
    INSERT INTO attempt (integration, item, cycle, attempt, started_at, duration_us, failure_code, failure_detail,
                         retryable, reach, retry_after_ms, span_id, http_status, headers, truncated, body,
                         failure_group)
    SELECT integration, id, cycle, attempt, started_at, duration_us, failure_code, failure_detail, retryable, reach,
           retry_after_ms, span_id, http_status, headers, truncated, body, failure_group FROM won),
d AS (
    INSERT INTO dead (id, integration, status, cycle, attempt, max_attempts, failure_code, died_at, risk, failure_group)
    SELECT id, integration, grave, cycle, attempt, max_attempts, failure_code, died_at, risk, failure_group FROM gone
     WHERE grave IS NOT NULL),
e AS (
    INSERT INTO audit (integration, id, event_type, request_id, integration_id, target_id, actor, record, digest)
    SELECT v.integration, v.id, v.event_type, v.request_id, v.integration_id, v.target_id, v.actor, v.record, v.digest
      FROM unnest($24::bigint[], $25::int[], $26::bigint[], $27::text[], $28::text[], $29::text[], $30::text[],
                  $31::text[], $32::text[], $33::bytea[])
        AS v (item, integration, id, event_type, request_id, integration_id, target_id, actor, record, digest)
     WHERE (v.item IN (SELECT id FROM won)) IS TRUE),  -- not a join: as a subplan it is hashed
t AS (
    INSERT INTO tally (integration, minute, owner, succeeded, failed, duration_us)
    SELECT integration, died_at / 60000, $1, count(*) - count(failure_code), count(failure_code), sum(duration_us)
      FROM won GROUP BY 1, 2
    ON CONFLICT (integration, minute, owner) DO UPDATE
       SET succeeded = tally.succeeded + excluded.succeeded, failed = tally.failed + excluded.failed,
           duration_us = tally.duration_us + excluded.duration_us),
s AS MATERIALIZED (
    SELECT integration, failure_group AS number, count(*) AS failures, min(died_at) AS first_seen_at,
           max(died_at) AS last_seen_at, max(id) AS sample
      FROM won WHERE failure_group IS NOT NULL GROUP BY 1, 2),
n AS (
    -- In one order, as shards of one integration have the same groups.
    INSERT INTO failure_count (integration, number, part, failures, last_seen_at, sample)
    SELECT integration, number, $1 % 8, failures, last_seen_at, sample FROM s ORDER BY 1, 2
    ON CONFLICT (integration, number, part) DO UPDATE
       SET failures = failure_count.failures + excluded.failures,
           last_seen_at = greatest(failure_count.last_seen_at, excluded.last_seen_at), sample = excluded.sample
    RETURNING integration, number),
g AS (
    -- Once it is counted: a group that is being forgotten meanwhile is there again.
    INSERT INTO failure_group (integration, number, fingerprint, failure_class, failure_code, detail, failures,
                               first_seen_at, last_seen_at, sample)
    SELECT integration, number, c.fingerprint, c.failure_class, c.failure_code, c.detail, 0, s.first_seen_at,
           s.last_seen_at, s.sample
      FROM n JOIN s USING (integration, number)
      JOIN unnest($34::int[], $35::bigint[], $36::text[], $37::text[], $38::text[], $39::text[])
           AS c (integration, number, fingerprint, failure_class, failure_code, detail) USING (integration, number)
     ORDER BY 1, 2
    ON CONFLICT (integration, number) DO NOTHING),
j AS (
    UPDATE replay_item i
       SET told_at = coalesce(i.told_at, w.died_at), stumbled = i.stumbled OR w.failure_code IS NOT NULL,
           state = CASE WHEN w.due_at IS NOT NULL THEN i.state WHEN w.grave IS NULL THEN 'succeeded' ELSE 'failed' END,
           reason = w.failure_code
      FROM (SELECT * FROM won WHERE job IS NOT NULL OFFSET 0) w
     WHERE i.integration = ANY (ARRAY[w.integration]) AND i.job = ANY (ARRAY[w.job]) AND i.item = ANY (ARRAY[w.id])
       AND i.state = 'in_flight')
SELECT id, cycle, attempt FROM won

-- name: recorded
-- Which of these attempts are written, and are ours: the look-up after a commit nobody answered for.
SELECT a.item, a.cycle, a.attempt
  FROM unnest($1::int[], $2::bigint[], $3::int[], $4::int[], $5::text[]) AS g (integration, item, cycle, attempt, span_id)
  JOIN attempt a ON a.integration = ANY (ARRAY[g.integration]) AND a.item = ANY (ARRAY[g.item]) AND a.cycle = g.cycle
   AND a.attempt = g.attempt
 WHERE a.span_id = g.span_id

-- name: claims_to_give_back
SELECT l.integration, l.id, l.cycle, l.attempt, l.claimed_at
  FROM unnest($2::int[], $3::bigint[], $4::int[], $5::int[]) AS g (integration, id, cycle, attempt)
  JOIN live l ON l.integration = ANY (ARRAY[g.integration]) AND l.id = ANY (ARRAY[g.id]) AND l.claimed_by = $1
   AND l.cycle = g.cycle AND l.attempt = g.attempt

-- name: give_back
-- By when it was claimed: run again, it must not undo a newer claim, which has the same attempt number.
WITH alive AS MATERIALIZED (SELECT id FROM incarnation WHERE id = $1 FOR KEY SHARE)
UPDATE live l SET claimed_by = NULL, claimed_at = NULL, attempt = l.attempt - 1
  FROM alive, unnest($2::int[], $3::bigint[], $4::bigint[]) AS g (integration, id, claimed_at)
 WHERE l.integration = ANY (ARRAY[g.integration]) AND l.id = ANY (ARRAY[g.id]) AND l.claimed_by = $1
   AND l.claimed_at = g.claimed_at

-- name: set_aside
-- By when it was claimed, as give_back. An orphan, whose attempt was not counted now, stays one.
UPDATE live
   SET attempt = attempt - (claimed_at = $4::bigint)::int, due_at = redrive_now() + $5,
       claimed_by = CASE WHEN claimed_at > $4::bigint THEN 0 END,
       claimed_at = CASE WHEN claimed_at > $4::bigint THEN claimed_at END
 WHERE integration = $1 AND id = $2 AND claimed_by = $3 AND claimed_at IN ($4::bigint, $4::bigint + 1)

-- name: insert_events
-- What comes back is an event of the same target that was there, and would stand after these.
WITH given AS MATERIALIZED (
    SELECT v.* FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                           $8::bytea[])
      AS v (id, event_type, request_id, integration_id, target_id, actor, record, digest)),
written AS (
    INSERT INTO audit (integration, id, event_type, request_id, integration_id, target_id, actor, record, digest)
    SELECT coalesce((SELECT number FROM integration i WHERE i.integration_id = v.integration_id), 0), v.* FROM given v)
SELECT a.id FROM given CROSS JOIN LATERAL (
    SELECT id FROM audit WHERE target_id = given.target_id AND id > given.id
     ORDER BY target_id DESC, id DESC LIMIT 1) a

-- name: has_event
SELECT 1 FROM audit WHERE id = $1

-- name: replay
-- Repeats what made the replay right: the very cycle that was judged, dead, not resolved, nothing in its place, its
-- integration sending.
-- One statement for all of it, as every round trip costs both sides. Its event ($11 to $18) must not stand before one
-- that is there, nor after another than the one that it names ($20): whoever writes the next event of a dead item
-- changes its row, and then nothing of this is done. `xmin` tells that: of a row that was waited for, the server looks
-- at the columns of the new version, in which an edit that failed again leaves no trace, and at an old `last`.
WITH last AS MATERIALIZED (
    SELECT id, digest FROM audit WHERE target_id = $15::text AND id > $1 ORDER BY target_id DESC, id DESC LIMIT 1),
later AS MATERIALIZED (SELECT id FROM last WHERE id > $11::bigint),
seen AS MATERIALIZED (SELECT xmin AS version FROM dead WHERE id = $1 AND integration = $2),
exhumed AS (
    DELETE FROM dead WHERE id = $1 AND integration = $2 AND status = $3 AND cycle = $4 AND resolved_at IS NULL
       AND xmin = (SELECT version FROM seen)
       AND edited_as IS NULL AND superseded_by IS NULL
       AND (SELECT original FROM edit WHERE integration = $2 AND item = $1) IS NOT DISTINCT FROM $19::bigint
       AND EXISTS (SELECT FROM integration WHERE number = $2 AND lifecycle = 'active' AND (containment IS NULL OR $21))
       AND NOT EXISTS ( -- what waits in a job that runs is replayed by that
           SELECT FROM replay_item r JOIN replay_job j ON j.integration = r.integration AND j.id = ANY (ARRAY[r.job])
            WHERE r.integration = $2 AND r.item = $1 AND r.state = 'waiting' AND j.state IN ('canary', 'running', 'paused'))
       AND (SELECT digest FROM last WHERE starts_with($15, 'rec_')) IS NOT DISTINCT FROM $20::bytea
       AND NOT EXISTS (SELECT FROM later) RETURNING id, risk),
l AS (
    INSERT INTO live (id, integration, status, cycle, attempt, max_attempts, due_at, risk)
    SELECT id, $2, 'replayed', $4 + 1, 0, $5::int, least($6::bigint, redrive_now()), risk FROM exhumed),
c AS (
    INSERT INTO cycle (integration, item, cycle, request_id, traceparent, max_attempts, opened_at, opened_by, reason)
    SELECT $2, id, $4 + 1, $7::text, $8::text, $5::int, $6::bigint, $9::text, $10::text FROM exhumed),
e AS (
    INSERT INTO audit (integration, id, event_type, request_id, integration_id, target_id, actor, record, digest)
    SELECT $2, $11::bigint, $12::text, $13::text, $14::text, $15::text, $16::text, $17::text, $18::bytea FROM exhumed)
SELECT EXISTS (SELECT FROM exhumed) AS is_done, (SELECT id FROM later) AS later

-- name: resolve
-- With its event ($8 to $15), in the way of `replay`.
WITH last AS MATERIALIZED (
    SELECT id, digest FROM audit WHERE target_id = $12::text AND id > $4 ORDER BY target_id DESC, id DESC LIMIT 1),
later AS MATERIALIZED (SELECT id FROM last WHERE id > $8::bigint),
seen AS MATERIALIZED (SELECT xmin AS version FROM dead WHERE id = $4 AND integration = $5),
resolved AS (
    UPDATE dead SET resolved_at = $1, resolved_by = $2, resolved_reason = $3
     WHERE id = $4 AND integration = $5 AND status = $6 AND cycle = $7 AND resolved_at IS NULL
       AND edited_as IS NULL AND superseded_by IS NULL AND xmin = (SELECT version FROM seen)
       AND (SELECT digest FROM last WHERE starts_with($12, 'rec_')) IS NOT DISTINCT FROM $16::bytea
       AND NOT EXISTS (SELECT FROM later) RETURNING integration),
e AS (
    INSERT INTO audit (integration, id, event_type, request_id, integration_id, target_id, actor, record, digest)
    SELECT integration, $8::bigint, $9::text, $10::text, $11::text, $12::text, $13::text, $14::text, $15::bytea FROM resolved)
SELECT EXISTS (SELECT FROM resolved) AS is_done, (SELECT id FROM later) AS later

-- name: hold_item
-- Before it is judged: whoever else erases it waits for its row, whoever replays or resolves it for its place.
WITH d AS (SELECT id FROM delivery WHERE integration = $1 AND id = $2 FOR UPDATE)
SELECT id FROM dead WHERE integration = $1 AND id = (SELECT id FROM d) FOR UPDATE

-- name: is_erasable
-- Not open, not erased yet, and if it is dead, as it was judged.
SELECT coalesce((SELECT status = $3 AND cycle = $4 FROM dead x WHERE x.integration = $1 AND x.id = $2),
                $3 = 'succeeded')
   AND NOT EXISTS (SELECT FROM live l WHERE l.integration = $1 AND l.id = $2)
   AND NOT EXISTS (SELECT FROM erased r WHERE r.integration = $1 AND r.item = $2)
  FROM delivery d WHERE d.integration = $1 AND d.id = $2

-- name: close_dead
-- A resolution that there is stays as it is.
UPDATE dead SET resolved_at = $3, resolved_by = $4, resolved_reason = $5
 WHERE integration = $1 AND id = $2 AND resolved_at IS NULL

-- name: note_erasure
INSERT INTO erased (integration, item, erased_at, erased_by, reason) VALUES ($1, $2, $3, $4, $5)

-- name: erase_delivery
-- A parameter of the content type may be a file's name.
UPDATE delivery SET payload = '', headers = NULL, tracestate = NULL,
                    content_type = rtrim(split_part(content_type, ';', 1))
 WHERE integration = $1 AND id = $2

-- name: erase_answers
DELETE FROM answer WHERE item = $2 AND $1::int IS NOT NULL

-- name: erase_attempts
UPDATE attempt SET headers = NULL, body = CASE WHEN body IS NULL THEN NULL ELSE ''::bytea END
 WHERE integration = $1 AND item = $2

-- name: erase_imported
UPDATE imported SET headers = NULL, failure_detail = CASE WHEN failure_detail IS NOT NULL THEN '[ERASED]' END,
                    body = CASE WHEN body IS NULL THEN NULL ELSE ''::bytea END
 WHERE integration = $1 AND item = $2

-- name: recall
SELECT scope, fingerprint, status, body, created_at, item FROM answer WHERE scope = $1

-- name: remember
-- Waits for whoever is writing the same scope; no row: they were first.
INSERT INTO answer (scope, fingerprint, status, body, created_at, item) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT DO NOTHING RETURNING status

-- name: next_version
UPDATE catalogue SET version = version + 1 RETURNING version

-- name: version
SELECT version FROM catalogue

-- name: insert_integration
INSERT INTO integration (integration_id, lifecycle, version, changed, shards, config)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT DO NOTHING RETURNING number

-- name: update_integration
UPDATE integration SET lifecycle = $1, version = $2, changed = $3, shards = $4, config = $5
 WHERE number = $6 AND version = $7
RETURNING number

-- name: number_of
SELECT number FROM integration WHERE integration_id = $1

-- name: add_lanes
INSERT INTO lane (integration, shards, shard) SELECT $1, $2::smallint, s FROM generate_series(0, $2::int - 1) s
ON CONFLICT DO NOTHING

-- name: integrations
SELECT number, lifecycle, version, config, containment, traffic
  FROM integration WHERE changed > $1 ORDER BY integration_id

-- name: items
-- Everything that is known of some items, a row each: the parts of `Found` one after another. $3: whole, or for
-- a list, which leaves payload and bodies out. $4: with every attempt. OFFSET 0 has the ids come first: the other way
-- round the server would read whatever the integration has.
SELECT d.id, d.integration, d.event_type, d.request_id, d.traceparent, d.tracestate, d.idempotency_key,
       d.created_by, d.max_attempts, d.content_type, d.headers, CASE WHEN $3 THEN d.payload ELSE '' END,
       (SELECT original FROM edit e WHERE e.integration = d.integration AND e.item = d.id), length(d.payload),
       l.integration, l.status, l.cycle, l.attempt, l.max_attempts, l.due_at, l.claimed_by, l.risk,
       x.integration, x.status, x.cycle, x.attempt, x.max_attempts, x.resolved_at, x.resolved_by, x.resolved_reason,
       x.risk, x.failure_group, x.edited_as, x.superseded_by,
       a.cycle, a.attempt, a.started_at, a.duration_us, a.failure_code, a.failure_detail, a.retryable, a.reach,
       a.retry_after_ms, a.span_id, a.failure_group, a.http_status, a.headers, a.truncated,
       CASE WHEN $3 OR a.body IS NULL THEN a.body ELSE '' END, length(a.body),
       m.item, m.failure_code, m.failure_detail, m.retryable, m.occurred_at, m.http_status, m.headers, m.truncated,
       CASE WHEN $3 OR m.body IS NULL THEN m.body ELSE '' END, length(m.body),
       r.erased_at, r.erased_by, r.reason,
       ARRAY(SELECT (c.cycle, c.request_id, c.max_attempts, c.opened_at, c.opened_by) FROM cycle c
              WHERE c.integration = d.integration AND c.item = d.id ORDER BY c.cycle),
       CASE WHEN $4 THEN ARRAY(
           SELECT (t.cycle, t.attempt, t.started_at, t.duration_us, t.failure_code, t.failure_detail, t.retryable,
                   t.reach, t.retry_after_ms, t.span_id, t.failure_group, t.http_status, t.headers, t.truncated,
                   t.body)
             FROM attempt t WHERE t.integration = d.integration AND t.item = d.id ORDER BY t.cycle, t.attempt) END,
       CASE WHEN $3 THEN (
           SELECT encode(h.digest, 'hex') FROM audit h WHERE h.target_id = g.name AND h.id > g.id
            ORDER BY h.target_id DESC, h.id DESC LIMIT 1) END
  FROM unnest($2::bigint[], $5::text[]) AS g (id, name)
 CROSS JOIN LATERAL (SELECT * FROM delivery WHERE integration = $1 AND id = g.id OFFSET 0) d
  LEFT JOIN live l ON l.integration = d.integration AND l.id = d.id
  LEFT JOIN dead x ON x.integration = d.integration AND x.id = d.id
  LEFT JOIN LATERAL (SELECT * FROM attempt t WHERE t.integration = d.integration AND t.item = d.id
                      ORDER BY t.cycle DESC, t.attempt DESC LIMIT 1) a ON true
  LEFT JOIN imported m ON m.integration = d.integration AND m.item = d.id
  LEFT JOIN erased r ON r.integration = d.integration AND r.item = d.id

-- name: queue_of_live
-- One status, in an order that only the index by status has: an estimate may find the primary key just as good, and
-- walk past a million of another status.
SELECT id FROM live WHERE integration = $1 AND (status, id) >= ($5, $2) AND (status, id) < ($5, $3)
 ORDER BY status DESC, id DESC LIMIT $4

-- name: queue_of_dead
SELECT id FROM dead WHERE integration = $1 AND (status, id) >= ($5, $2) AND (status, id) < ($5, $3)
 ORDER BY status DESC, id DESC LIMIT $4

-- name: queue_of_code
SELECT id FROM dead WHERE integration = $1 AND (failure_code, id) >= ($5, $2) AND (failure_code, id) < ($5, $3)
 ORDER BY failure_code DESC, id DESC LIMIT $4

-- name: queue_of_all
SELECT id FROM delivery WHERE integration = $1 AND id >= $2 AND id < $3 ORDER BY id DESC LIMIT $4

-- name: backlog
-- Counted up to 100,000 an integration: a figure for people must not walk ten million rows.
SELECT coalesce(sum(due), 0)::bigint, min(oldest) FROM integration CROSS JOIN LATERAL (
    SELECT count(*) AS due, min(due_at) AS oldest FROM (
        SELECT due_at FROM live WHERE integration = number AND due_at <= redrive_now() AND claimed_by IS NULL
         ORDER BY due_at LIMIT 100000) AS due_items) AS counted

-- name: add_token
INSERT INTO token (token_id, digest, subject, permissions, created_at, expires_at, tenant)
VALUES ($1, $2, $3, $4, $5, $6, $7)

-- name: has_token
SELECT 1 FROM token WHERE token_id = $1 AND digest = $2

-- name: tokens
SELECT token_id, subject, permissions, created_at, expires_at, revoked_at, tenant FROM token
 ORDER BY created_at DESC, token_id

-- name: revoke_token
UPDATE token SET revoked_at = coalesce(revoked_at, $1) WHERE token_id = $2 RETURNING token_id

-- name: token
SELECT token_id, subject, permissions, created_at, expires_at, revoked_at, tenant FROM token WHERE digest = $1

-- name: prune_keys
WITH old AS MATERIALIZED (
    SELECT integration, key FROM dedupe WHERE item < $1 ORDER BY item LIMIT $2 FOR UPDATE SKIP LOCKED)
DELETE FROM dedupe k USING old
 WHERE k.integration = ANY (ARRAY[old.integration]) AND k.key = ANY (ARRAY[old.key])

-- name: prune_answers
WITH old AS MATERIALIZED (
    SELECT scope FROM answer WHERE created_at < $1 ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)
DELETE FROM answer a USING old WHERE a.scope = ANY (ARRAY[old.scope])

-- name: forget_resolved
DELETE FROM dead WHERE id < $1 AND coalesce(resolved_at, superseded_by) IS NOT NULL

-- name: forget_cycles
DELETE FROM cycle c WHERE item < $1
   AND NOT EXISTS (SELECT FROM delivery d WHERE d.integration = c.integration AND d.id = c.item)

-- name: forget_imported
DELETE FROM imported m WHERE item < $1
   AND NOT EXISTS (SELECT FROM delivery d WHERE d.integration = m.integration AND d.id = m.item)

-- name: forget_erased
DELETE FROM erased r WHERE item < $1
   AND NOT EXISTS (SELECT FROM delivery d WHERE d.integration = r.integration AND d.id = r.item)

-- name: forget_edits
DELETE FROM edit e WHERE item < $1
   AND NOT EXISTS (SELECT FROM delivery d WHERE d.integration = e.integration AND d.id = e.item)

-- name: is_open
-- Of a row of history, called old.
EXISTS (SELECT FROM live l WHERE l.integration = old.integration AND l.id = old.{item})
OR EXISTS (SELECT FROM dead x WHERE x.integration = old.integration AND x.id = old.{item})

-- name: oldest_open
-- One step down each integration's keys.
SELECT least(min(l.id), min(x.id)) FROM integration
  LEFT JOIN LATERAL (SELECT id FROM live WHERE integration = number ORDER BY id LIMIT 1) l ON true
  LEFT JOIN LATERAL (SELECT id FROM dead WHERE integration = number AND resolved_at IS NULL AND superseded_by IS NULL
                      ORDER BY id LIMIT 1) x ON true

-- name: weeks
-- Of a partitioned table: their numbers, and the first id after each.
SELECT substring(c.relname FROM '_w([0-9]+)$')::int AS week,
       substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''?([0-9]+)')::bigint
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = $1::text::regclass ORDER BY week

-- name: bounds
SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = $1::text::regclass

-- name: keep
INSERT INTO secret_of_database (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING

-- name: kept
SELECT value FROM secret_of_database WHERE name = $1

-- name: exchange
UPDATE secret_of_database SET value = $3 WHERE name = $1 AND value IN ($2, $3) RETURNING true

-- name: take_duty
-- Several times a second for each job that waits: so whoever has it writes only when less than half of its time is
-- left, and others, while it lives and has time, not at all (a conflict that changes nothing still locks the row).
WITH known AS (
    SELECT d.owner = $2 AS is_ours, d.until - redrive_now() AS time_left,
           EXISTS (SELECT FROM incarnation WHERE id = d.owner) AS lives
      FROM duty d WHERE d.name = $1),
held AS (SELECT FROM known WHERE is_ours AND time_left >= $3::bigint / 2),
elsewhere AS (SELECT FROM known WHERE NOT is_ours AND lives AND time_left >= 0),
taken AS (
    INSERT INTO duty AS d (name, owner, until)
    SELECT $1, $2, redrive_now() + $3::bigint
     WHERE NOT EXISTS (SELECT FROM held) AND NOT EXISTS (SELECT FROM elsewhere)
    ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until
     WHERE d.owner = excluded.owner OR d.until < redrive_now()
        OR NOT EXISTS (SELECT FROM incarnation WHERE id = d.owner)
    RETURNING owner)
SELECT true FROM held UNION ALL SELECT true FROM taken

-- name: forget_duties
-- Anyone may take what has run out: it is as good as not there.
DELETE FROM duty WHERE until < redrive_now()

-- containment

-- name: steer
-- The version within is that of the traffic alone: who changes the rest of an integration does not stand in its way.
UPDATE integration SET containment = $1, traffic = $2, changed = $3
 WHERE number = $4 AND coalesce((traffic::jsonb ->> 'version')::int, 0) = $5
RETURNING number

-- name: is_steered
SELECT 1 FROM integration WHERE number = $1 AND traffic = $2

-- name: amend
UPDATE answer SET status = $1, body = $2 WHERE scope = $3

-- name: standing
-- What the dead had claimed waits for whoever takes it over.
SELECT count(*) - count(x.id), count(x.id)
  FROM live l LEFT JOIN incarnation x ON x.id = l.claimed_by WHERE l.integration = $1

-- name: has_backlog
SELECT EXISTS (SELECT FROM live WHERE integration = $1 AND due_at <= $2 AND claimed_by IS NULL)

-- name: follow
UPDATE incarnation SET follows = $2 WHERE id = $1 AND follows < $2

-- name: is_followed
-- By every process whose lease has not run out; one whose lease has starts nothing.
SELECT NOT EXISTS (SELECT FROM incarnation WHERE lease_until >= redrive_now() AND follows < $1)

-- failure groups

-- name: count_failure
-- Of an import.
INSERT INTO failure_group AS g (integration, number, fingerprint, failure_class, failure_code, detail, failures,
                                first_seen_at, last_seen_at, sample)
VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $7, $8)
ON CONFLICT (integration, number) DO UPDATE
   SET failures = g.failures + 1, last_seen_at = greatest(g.last_seen_at, excluded.last_seen_at), sample = excluded.sample

-- name: queue_of_group
SELECT id FROM dead WHERE integration = $1 AND (failure_group, id) >= ($5, $2) AND (failure_group, id) < ($5, $3)
 ORDER BY failure_group DESC, id DESC LIMIT $4

-- name: groups
-- One that failed again after it was resolved is open. When it failed last is in no index, so that a failure stays on
-- its page (HOT): all groups of the integration are read. Items are counted of those that are listed,
-- in an order that only indexes by group have.
SELECT g.*, i.items FROM (
    SELECT integration, number, fingerprint, failure_class, failure_code, detail, failures, first_seen_at, last_seen_at,
           sample, state, state_at, state_by, muted_until
      FROM failure_group_now
     WHERE integration = $1 AND (last_seen_at, number) < ($3, $4)
       AND ($2::text IS NULL
            OR $2 = CASE WHEN state = 'resolved' AND last_seen_at > state_at THEN 'open' ELSE state END)
     ORDER BY last_seen_at DESC, number DESC LIMIT $5) g
 CROSS JOIN LATERAL (
    SELECT count(*) AS items FROM (
        SELECT FROM dead x
         WHERE x.integration = g.integration AND (x.failure_group, x.id) >= (g.number, 0)
           AND (x.failure_group, x.id) <= (g.number, 9223372036854775807)
           AND x.resolved_at IS NULL AND x.superseded_by IS NULL ORDER BY x.failure_group, x.id LIMIT $6) found) i
 ORDER BY g.last_seen_at DESC, g.number DESC

-- name: group
SELECT integration, number, fingerprint, failure_class, failure_code, detail, failures, first_seen_at, last_seen_at,
       sample, state, state_at, state_by, muted_until,
       (SELECT count(*) FROM (
            SELECT FROM dead x
             WHERE x.integration = g.integration AND (x.failure_group, x.id) >= (g.number, 0)
               AND (x.failure_group, x.id) <= (g.number, 9223372036854775807)
               AND x.resolved_at IS NULL AND x.superseded_by IS NULL ORDER BY x.failure_group, x.id LIMIT $3) found)
  FROM failure_group_now g WHERE integration = $1 AND number = $2

-- name: hold_group
SELECT FROM failure_group WHERE integration = $1 AND number = $2 FOR NO KEY UPDATE

-- name: judge
-- Repeats what was judged: nobody else has said anything since.
UPDATE failure_group SET state = $3, state_at = $4, state_by = $5, muted_until = $6
 WHERE integration = $1 AND number = $2 AND state = $7 AND state_at IS NOT DISTINCT FROM $8
   AND state_by IS NOT DISTINCT FROM $9 AND muted_until IS NOT DISTINCT FROM $10
RETURNING number

-- name: add_comment
INSERT INTO group_comment (id, integration, failure_group, written_by, text) VALUES ($1, $2, $3, $4, $5)

-- name: comments
SELECT id, integration, failure_group, written_by, text FROM group_comment
 WHERE integration = $1 AND failure_group = $2 AND id < $3 ORDER BY id DESC LIMIT $4

-- name: unresolved
-- In an order that only the index of what is not resolved has.
SELECT x.id, x.status, x.cycle, x.attempt, x.failure_code, d.request_id
  FROM (SELECT * FROM dead
         WHERE integration = $1 AND (failure_group, id) > ($2, $3) AND (failure_group, id) < ($2, $4)
           AND resolved_at IS NULL AND superseded_by IS NULL AND died_at <= $5
         ORDER BY failure_group, id LIMIT $6) x
 CROSS JOIN LATERAL (SELECT request_id FROM delivery WHERE integration = $1 AND id = x.id OFFSET 0) d
 ORDER BY x.id

-- name: close_items
-- Each with its event, in the way of `resolve`: of what moved on, neither is written. The coalesce keeps the server
-- from the index of what is not resolved, all of which it would walk.
WITH given AS MATERIALIZED (
    SELECT $1::int AS integration, g.*
      FROM unnest($5::bigint[], $6::text[], $7::int[], $8::bigint[], $9::text[], $10::text[], $11::text[], $12::text[],
                  $13::text[], $14::text[], $15::bytea[], $16::bytea[])
        AS g (item, status, cycle, id, event_type, request_id, integration_id, target_id, actor, record, digest,
              previous)),
judged AS MATERIALIZED (
    SELECT g.*, d.version, a.last,
           NOT starts_with(g.target_id, 'rec_') OR a.head IS NOT DISTINCT FROM g.previous AS follows
      FROM given g
      LEFT JOIN LATERAL (SELECT xmin AS version FROM dead WHERE integration = g.integration AND id = g.item OFFSET 0) d ON true
      LEFT JOIN LATERAL (
        SELECT id AS last, digest AS head FROM audit WHERE target_id = g.target_id AND id > g.item
         ORDER BY target_id DESC, id DESC LIMIT 1) a ON true),
later AS MATERIALIZED (SELECT last AS id FROM judged WHERE last > id),
closed AS (
    UPDATE dead x SET resolved_at = $2, resolved_by = $3, resolved_reason = $4 FROM judged g
     WHERE x.integration = ANY (ARRAY[g.integration]) AND x.id = ANY (ARRAY[g.item]) AND x.status = g.status
       AND x.cycle = g.cycle AND x.xmin = g.version AND g.follows
       AND coalesce(x.resolved_at, x.edited_as, x.superseded_by) IS NULL
       AND NOT EXISTS (SELECT FROM later)
    RETURNING g.*),
e AS (
    INSERT INTO audit (integration, id, event_type, request_id, integration_id, target_id, actor, record, digest)
    SELECT integration, id, event_type, request_id, integration_id, target_id, actor, record, digest FROM closed)
SELECT (SELECT count(*) FROM closed), (SELECT max(id) FROM later)

-- name: closed_items
-- Which of these events are there: the look-up after a commit nobody answered for.
SELECT count(*) FROM unnest($1::bigint[]) AS g (id) CROSS JOIN LATERAL (SELECT FROM audit WHERE id = g.id LIMIT 1) a

-- name: erase_groups
-- Of groups that nothing but this item ever failed into: what they say of the cause was its answer.
UPDATE failure_group g SET detail = '[ERASED]' FROM (
    SELECT number, sum(failures) AS failures FROM (
        SELECT failure_group AS number, count(*) AS failures FROM attempt
         WHERE integration = $1 AND item = $2 AND failure_group IS NOT NULL GROUP BY failure_group
        UNION ALL
        SELECT x.failure_group, (SELECT count(*) FROM imported m WHERE m.integration = $1 AND m.item = $2)
          FROM dead x WHERE x.integration = $1 AND x.id = $2 AND x.failure_group IS NOT NULL) found
     GROUP BY number) own
 WHERE g.integration = $1 AND g.number = ANY (ARRAY[own.number])
   AND own.failures >= (SELECT failures FROM failure_group_now w WHERE w.integration = $1 AND w.number = g.number)

-- name: cold_groups
-- Not seen since, and nothing waits in them.
SELECT integration, number FROM failure_group_now g
 WHERE last_seen_at < $1
   AND NOT EXISTS (SELECT FROM dead x
                    WHERE x.integration = ANY (ARRAY[g.integration]) AND x.failure_group = ANY (ARRAY[g.number]))
 LIMIT 1000

-- name: hold_counts
-- Nobody counts a failure meanwhile: whoever does next finds the group, or that it is gone.
LOCK TABLE failure_count IN SHARE MODE

-- name: forget_groups
-- Those of them that are so still.
WITH old AS (
    DELETE FROM failure_group g USING unnest($2::int[], $3::bigint[]) AS w (integration, number)
     WHERE g.integration = ANY (ARRAY[w.integration]) AND g.number = ANY (ARRAY[w.number])
       AND $1 > (SELECT last_seen_at FROM failure_group_now n
                  WHERE n.integration = w.integration AND n.number = w.number)
       AND NOT EXISTS (SELECT FROM dead x
                        WHERE x.integration = ANY (ARRAY[g.integration]) AND x.failure_group = ANY (ARRAY[g.number]))
    RETURNING g.integration, g.number),
parts AS (
    DELETE FROM failure_count c USING old
     WHERE c.integration = ANY (ARRAY[old.integration]) AND c.number = ANY (ARRAY[old.number]))
DELETE FROM group_comment c USING old
 WHERE c.integration = ANY (ARRAY[old.integration]) AND c.failure_group = ANY (ARRAY[old.number])

-- corrected copies

-- name: hold_correctable
-- By a new version of its row, by which whoever waited to write its next record sees that one was written: of a copy,
-- the place that is taken is in another row.
UPDATE dead SET status = status
 WHERE id = $1 AND integration = $2 AND status = $3 AND cycle = $4 AND resolved_at IS NULL
   AND edited_as IS NULL AND superseded_by IS NULL
   AND EXISTS (SELECT FROM integration WHERE number = $2 AND lifecycle = 'active' AND containment IS NULL)
RETURNING id

-- name: place
-- Held, so that of two that want it one waits and finds it taken.
SELECT edited_as IS NULL AND superseded_by IS NULL AND resolved_at IS NULL FROM dead WHERE integration = $1 AND id = $2 FOR UPDATE

-- name: take_place
UPDATE dead SET edited_as = $3 WHERE integration = $1 AND id = $2

-- name: is_known
SELECT 1 FROM delivery WHERE integration = $1 AND id = $2

-- name: insert_copy
WITH e AS (INSERT INTO edit (integration, item, original) VALUES ($2, $1, $13))
INSERT INTO delivery (id, integration, event_type, request_id, traceparent, tracestate, idempotency_key,
                      created_by, max_attempts, content_type, headers, payload)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)

-- name: insert_live
INSERT INTO live (id, integration, status, cycle, attempt, max_attempts, due_at)
VALUES ($1, $2, 'pending', 1, 0, $3, least(($1::bigint >> 22) + 1704067200000, redrive_now()))

-- name: free_place
UPDATE dead SET edited_as = NULL WHERE integration = $1 AND id = $2 AND edited_as = $3

-- name: family
-- Those in whose place a copy was sent: the first, and other copies, which failed.
SELECT x.id FROM (SELECT $2::bigint AS id UNION ALL SELECT item FROM edit WHERE integration = $1 AND original = $2) g
  JOIN dead x ON x.integration = ANY (ARRAY[$1::int]) AND x.id = ANY (ARRAY[g.id])
 WHERE x.superseded_by IS NULL ORDER BY x.id FOR UPDATE OF x

-- name: supersede
UPDATE dead SET superseded_by = $3, edited_as = NULL WHERE integration = $1 AND id = $2

-- alerts

-- name: count_dead
-- In an order that only the index by time has. What came back is bounded: a count for people must not walk ten million.
SELECT i.number, (SELECT count(*) FROM (
           SELECT FROM (SELECT * FROM dead WHERE integration = i.number AND died_at >= $1 AND died_at < $3 AND died_at > 0
                         ORDER BY integration DESC, died_at DESC) x
            WHERE x.resolved_at IS NULL AND x.superseded_by IS NULL
              AND NOT EXISTS (SELECT FROM failure_group g WHERE g.integration = x.integration
                                 AND g.number = x.failure_group AND g.muted_until > redrive_now())
            LIMIT $2) found)
  FROM integration i

-- the chains of audit records

-- name: head
SELECT digest FROM audit WHERE target_id = $1 ORDER BY target_id DESC, id DESC LIMIT 1

-- name: heads
SELECT (SELECT a.digest FROM audit a WHERE a.target_id = g.name AND a.id > g.id
         ORDER BY a.target_id DESC, a.id DESC LIMIT 1)
  FROM unnest($1::bigint[], $2::text[]) WITH ORDINALITY AS g (id, name, place) ORDER BY g.place

-- name: chains
-- A target at a time, each along its index; an item's records are no older than the item itself.
SELECT a.id, a.target_id, a.record, a.digest, a.event_type, a.request_id, a.integration_id, a.actor
  FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS g (name, since, place)
 CROSS JOIN LATERAL (
    SELECT * FROM audit
     WHERE (target_id, id) >= (g.name, g.since) AND (target_id, id) <= (g.name, 9223372036854775807)
     ORDER BY target_id, id OFFSET 0) a

-- name: every_chain
SELECT id, target_id, record, digest, event_type, request_id, integration_id, actor FROM audit
 WHERE (target_id, id) > ($1, $2) ORDER BY target_id, id LIMIT $3

-- name: next_items
SELECT id FROM delivery WHERE integration = $1 AND id > $2 ORDER BY id LIMIT $3

-- name: whereabouts
-- Where each of some items is, and its last record. OFFSET 0 as in `items`.
SELECT d.id, l.status, l.cycle, l.attempt - (l.claimed_by IS NOT NULL)::int,
       x.status, x.cycle, x.attempt, x.resolved_at IS NOT NULL, r.item IS NOT NULL, t.cycle, t.attempt,
       a.id, a.record, a.digest
  FROM unnest($2::bigint[], $3::text[]) AS g (id, name)
 CROSS JOIN LATERAL (SELECT integration, id FROM delivery WHERE integration = $1 AND id = g.id OFFSET 0) d
  LEFT JOIN live l ON l.integration = d.integration AND l.id = d.id
  LEFT JOIN dead x ON x.integration = d.integration AND x.id = d.id
  LEFT JOIN erased r ON r.integration = d.integration AND r.item = d.id
  LEFT JOIN LATERAL (SELECT cycle, attempt FROM attempt WHERE integration = d.integration AND item = d.id
                      ORDER BY cycle DESC, attempt DESC LIMIT 1) t ON true
  LEFT JOIN LATERAL (SELECT id, record, digest FROM audit WHERE target_id = g.name AND id > g.id
                      ORDER BY target_id DESC, id DESC LIMIT 1) a ON true

-- name: jobs_of
-- In any order: that of the primary key would be found by walking all the jobs of the integration.
SELECT job, state, reason, told_at FROM replay_item WHERE integration = $1 AND item = $2

-- name: note_forgotten
INSERT INTO secret_of_database AS s (name, value) VALUES ('audit_forgotten', int8send($1))
ON CONFLICT (name) DO UPDATE SET value = greatest(s.value, excluded.value)

-- health and probes

-- name: take
WITH alive AS MATERIALIZED (SELECT id FROM incarnation WHERE id = $1 FOR KEY SHARE)
UPDATE live l SET claimed_by = $1, claimed_at = $2::bigint, attempt = l.attempt + 1
  FROM alive, integration i
 WHERE l.integration = ANY (ARRAY[$3::int]) AND l.id = ANY (ARRAY[$4::bigint]) AND l.claimed_by IS NULL
   AND l.cycle = $5 AND l.attempt = $6 AND i.number = $3::int AND i.lifecycle = 'active'
RETURNING l.integration, l.id, l.due_at, l.cycle, l.attempt, l.max_attempts, l.risk, NULL::bigint

-- name: taken
-- What `take` got at $4, by its row as a claim gives it.
SELECT integration, id, due_at, cycle, attempt, max_attempts, risk, NULL::bigint FROM live
 WHERE integration = ANY (ARRAY[$1::int]) AND id = ANY (ARRAY[$2::bigint]) AND claimed_by = $3 AND claimed_at = $4

-- name: tallies
SELECT minute, sum(succeeded)::bigint, sum(failed)::bigint, sum(duration_us)::bigint FROM tally
 WHERE integration = $1 AND minute >= $2 GROUP BY minute ORDER BY minute

-- name: last_minutes
SELECT (SELECT minute FROM tally WHERE integration = $1 AND succeeded > 0 ORDER BY integration DESC, minute DESC LIMIT 1),
       (SELECT minute FROM tally WHERE integration = $1 AND failed > 0 ORDER BY integration DESC, minute DESC LIMIT 1)

-- name: arrivals
SELECT count(*), min(id) FROM (
    SELECT id FROM delivery WHERE integration = $1 AND id >= $2 ORDER BY id DESC LIMIT $3) AS newest

-- name: forget_tallies
-- Down the key of each integration, never over the whole table.
DELETE FROM tally WHERE ctid = ANY (ARRAY(
    SELECT old.ctid FROM integration i CROSS JOIN LATERAL (
        SELECT t.ctid FROM tally t WHERE t.integration = i.number AND t.minute < $1
         ORDER BY t.integration, t.minute LIMIT $2) old LIMIT $2))
