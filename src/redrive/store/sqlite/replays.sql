-- Plans of replays, jobs, and what became of each of their items.

-- name: replay_candidates
-- Along the index that is told in the place of {along}, with its condition.
SELECT x.id, x.cycle, x.risk, x.died_at, x.resolved_at IS NOT NULL,
       EXISTS (SELECT 1 FROM replay_job WHERE NOT settled AND integration = :integration
                                          AND state IN ('canary', 'running', 'paused'))
       AND EXISTS (SELECT 1 FROM replay_item r INDEXED BY replay_item_of JOIN replay_job j ON j.integration = r.integration AND j.id = r.job
                    WHERE r.integration = x.integration AND r.item = x.id AND r.state = 'waiting'
                      AND j.state IN ('canary', 'running', 'paused')),
       d.event_type, length(d.payload), EXISTS (SELECT 1 FROM erased e WHERE e.item = x.id), 0,
       x.superseded_by IS NOT NULL, x.edited_as IS NOT NULL,
       EXISTS (SELECT 1 FROM edit WHERE integration = x.integration AND item = x.id)
  FROM dead x INDEXED BY {along} CROSS JOIN delivery d ON d.id = x.id
 WHERE x.integration = :integration AND +x.status = :status AND x.id > :after AND x.died_at <= :as_of
   AND (:event_type IS NULL OR d.event_type = :event_type)
 ORDER BY x.id LIMIT :most

-- name: replay_named
SELECT given.value, coalesce(x.cycle, 0), coalesce(x.risk, 0), coalesce(x.died_at, 0), x.resolved_at IS NOT NULL,
       x.id IS NOT NULL AND EXISTS (
           SELECT 1 FROM replay_item r INDEXED BY replay_item_of JOIN replay_job j ON j.integration = r.integration AND j.id = r.job
            WHERE r.integration = :integration AND r.item = x.id AND r.state = 'waiting'
              AND j.state IN ('canary', 'running', 'paused')),
       d.event_type, coalesce(length(d.payload), 0), EXISTS (SELECT 1 FROM erased e WHERE e.item = d.id), l.id IS NOT NULL,
       x.superseded_by IS NOT NULL, x.edited_as IS NOT NULL,
       EXISTS (SELECT 1 FROM edit WHERE integration = :integration AND item = d.id)
  FROM json_each(:items) AS given
  LEFT JOIN delivery d ON d.id = given.value AND d.integration = :integration
  LEFT JOIN dead x ON x.id = d.id LEFT JOIN live l ON l.id = d.id

-- name: replay_failures_of
SELECT item FROM replay_item INDEXED BY replay_item_next
 WHERE integration = ? AND job = ? AND state = 'failed' AND item > ? ORDER BY item LIMIT ?

-- name: mean_duration
SELECT sum(duration_us), sum(succeeded + failed) FROM tally WHERE integration = ? AND minute >= ?

-- name: freeze
-- In one statement, for each lets go of the GIL. A plan is written down while it is being made, by nobody else.
INSERT INTO replay_item (integration, job, item, cycle, risk, state, reason)
SELECT :integration, :job, given.value ->> 0, given.value ->> 1, given.value ->> 2,
       iif(given.value ->> 3 IS NULL, 'waiting', 'skipped'), given.value ->> 3
  FROM json_each(:rows) AS given
 WHERE EXISTS (SELECT 1 FROM replay_job WHERE integration = :integration AND id = :job AND state = 'planning')
    ON CONFLICT DO NOTHING

-- name: add_job
INSERT INTO replay_job (integration, id, state, version, digest, settled, config) VALUES (?, ?, ?, ?, ?, ?, ?)

-- name: change_job
UPDATE replay_job SET state = ?, version = ?, digest = ?, settled = ?, config = ?
 WHERE integration = ? AND id = ? AND version = ? RETURNING id

-- name: job
SELECT integration, id, state, version, settled, config FROM replay_job WHERE integration = ? AND id = ?

-- name: job_of_digest
SELECT integration, id, state, version, settled, config FROM replay_job INDEXED BY replay_job_digest
 WHERE digest = ? AND integration = ?

-- name: jobs
SELECT integration, id, state, version, settled, config FROM replay_job
 WHERE integration = ? AND id < ? ORDER BY id DESC LIMIT ?

-- name: unsettled_jobs
SELECT integration, id, state, version, settled, config FROM replay_job INDEXED BY replay_job_unsettled
 WHERE NOT settled ORDER BY integration, id

-- name: replay_progress
SELECT state, count(*) FROM replay_item INDEXED BY replay_item_next WHERE integration = ? AND job = ? GROUP BY state

-- name: replay_progresses
SELECT r.job, r.state, count(*) FROM json_each(:jobs) AS given
 CROSS JOIN replay_item r INDEXED BY replay_item_next ON r.integration = :integration AND r.job = given.value
 GROUP BY r.job, r.state

-- name: told_since
SELECT count(*) FROM replay_item INDEXED BY replay_item_told WHERE integration = ? AND job = ? AND told_at > ?

-- name: replay_items
SELECT item, cycle, risk, state, reason, told_at, stumbled FROM replay_item
 WHERE integration = ? AND job = ? AND item > ? ORDER BY item LIMIT ?

-- name: replay_items_in
SELECT item, cycle, risk, state, reason, told_at, stumbled FROM replay_item INDEXED BY replay_item_next
 WHERE integration = ? AND job = ? AND item > ? AND state = ? ORDER BY item LIMIT ?

-- name: moved_on
-- What a plan holds and is dead no more, in another cycle, closed, or spoken for by a job that runs.
SELECT sum(x.id IS NULL OR x.cycle <> r.cycle), sum(x.resolved_at IS NOT NULL AND x.cycle = r.cycle),
       sum(x.resolved_at IS NULL AND coalesce(x.edited_as, x.superseded_by) IS NOT NULL AND x.cycle = r.cycle),
       sum(x.resolved_at IS NULL AND coalesce(x.edited_as, x.superseded_by) IS NULL AND x.cycle = r.cycle AND EXISTS (
           SELECT 1 FROM replay_item o INDEXED BY replay_item_of JOIN replay_job j ON j.integration = o.integration AND j.id = o.job
            WHERE o.integration = r.integration AND o.item = r.item AND o.state = 'waiting' AND o.job <> r.job
              AND j.state IN ('canary', 'running', 'paused')))
  FROM replay_item r INDEXED BY replay_item_next LEFT JOIN dead x ON x.id = r.item
 WHERE r.integration = ? AND r.job = ? AND r.state = 'waiting'

-- name: waits_in
SELECT r.job FROM replay_item r INDEXED BY replay_item_of JOIN replay_job j ON j.integration = r.integration AND j.id = r.job
 WHERE r.integration = ? AND r.item = ? AND r.state = 'waiting' AND j.state IN ('canary', 'running', 'paused') LIMIT 1

-- name: job_sends
SELECT i.lifecycle = 'active' AND i.containment IS NULL FROM replay_job j JOIN integration i ON i.number = j.integration
 WHERE j.integration = ? AND j.id = ? AND j.version = ?

-- name: job_in_flight
SELECT count(*), coalesce(sum(told_at IS NULL), 0) FROM replay_item INDEXED BY replay_item_next
 WHERE integration = ? AND job = ? AND state = 'in_flight'

-- name: job_has_waiting
SELECT EXISTS (SELECT 1 FROM replay_item INDEXED BY replay_item_next WHERE integration = ? AND job = ? AND state = 'waiting')

-- name: job_left
SELECT EXISTS (SELECT 1 FROM replay_item INDEXED BY replay_item_next
                WHERE integration = :integration AND job = :job AND state = 'waiting'),
       EXISTS (SELECT 1 FROM replay_item INDEXED BY replay_item_next
                WHERE integration = :integration AND job = :job AND state = 'in_flight')

-- name: last_told
SELECT stumbled FROM replay_item INDEXED BY replay_item_told
 WHERE integration = ? AND job = ? AND told_at >= ? ORDER BY told_at DESC LIMIT ?

-- name: canary_items
SELECT r.item, r.state, r.told_at IS NOT NULL, r.stumbled
  FROM json_each(:items) AS given
 CROSS JOIN replay_item r ON r.integration = :integration AND r.job = :job AND r.item = given.value

-- name: next_waiting
-- In the order told in the place of {order}, from what is told in the place of {among}.
SELECT r.item, r.cycle, x.status, coalesce(x.cycle, 0), coalesce(x.attempt, 0), x.failure_code,
       x.resolved_at IS NOT NULL, l.id IS NOT NULL, e.item IS NOT NULL, d.request_id,
       d.request_id = :request_id OR EXISTS (
           SELECT 1 FROM cycle c WHERE c.item = r.item AND c.request_id = :request_id),
       x.superseded_by IS NOT NULL, x.edited_as IS NOT NULL,
       EXISTS (SELECT 1 FROM edit WHERE integration = r.integration AND item = r.item)
  FROM replay_item r INDEXED BY replay_item_next
  LEFT JOIN dead x ON x.id = r.item LEFT JOIN live l ON l.id = r.item
  LEFT JOIN delivery d ON d.id = r.item LEFT JOIN erased e ON e.item = r.item
 WHERE r.integration = :integration AND r.job = :job AND r.state = 'waiting' AND {among}
 ORDER BY r.item {order} LIMIT :most

-- name: heads
SELECT a.target_id, a.id, a.digest FROM json_each(?) AS given
 CROSS JOIN audit a ON a.id = (SELECT max(id) FROM audit WHERE target_id = given.value)

-- name: may_release
-- The guard of all that a job releases: its very version, releasing; this process alive; its integration sending.
SELECT 1 FROM replay_job j JOIN integration i ON i.number = j.integration
 WHERE j.integration = ? AND j.id = ? AND j.version = ? AND j.state IN ('canary', 'running')
   AND i.lifecycle = 'active' AND i.containment IS NULL AND EXISTS (SELECT 1 FROM incarnation WHERE id = ?)

-- name: skip_items
UPDATE replay_item SET state = 'skipped', reason = given.value ->> 1
  FROM json_each(:rows) AS given
 WHERE integration = :integration AND job = :job AND item = given.value ->> 0 AND state = 'waiting'

-- name: standing
-- Given are item, status, cycle, its name and its last event: those that are still so. SQLite has one writer, so
-- what this reads is so for the statements after it.
SELECT x.id, x.risk FROM json_each(:rows) AS given
 CROSS JOIN replay_item r ON r.integration = :integration AND r.job = :job AND r.item = given.value ->> 0
 CROSS JOIN dead x ON x.id = r.item
 WHERE r.state = 'waiting' AND x.status = given.value ->> 1 AND x.cycle = given.value ->> 2 AND x.resolved_at IS NULL
   AND x.edited_as IS NULL AND x.superseded_by IS NULL
   AND NOT EXISTS (SELECT 1 FROM edit WHERE integration = x.integration AND item = x.id)
   AND (SELECT max(id) FROM audit WHERE target_id = given.value ->> 3) IS given.value ->> 4

-- name: exhume_items
DELETE FROM dead WHERE id IN (SELECT value FROM json_each(?))

-- name: reopen_items
INSERT INTO live (id, integration, status, cycle, attempt, max_attempts, due_at, claimed_by, risk)
VALUES (?, ?, 'replayed', ?, 0, ?, ?, NULL, ?)

-- name: open_cycles
INSERT INTO cycle (item, cycle, request_id, traceparent, max_attempts, opened_at, opened_by, reason, job)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: release_items
UPDATE replay_item SET state = 'in_flight'
 WHERE integration = ? AND job = ? AND item IN (SELECT value FROM json_each(?))

-- name: sweep_items
UPDATE replay_item SET state = 'cancelled'
 WHERE integration = :integration AND job = :job AND item IN (
    SELECT item FROM replay_item INDEXED BY replay_item_next
     WHERE integration = :integration AND job = :job AND state = 'waiting' LIMIT :most)
   AND EXISTS (SELECT 1 FROM replay_job WHERE integration = :integration AND id = :job
                  AND state IN ('halted', 'cancelled'))

-- name: discard_items
DELETE FROM replay_item WHERE (integration, job, item) IN (
    SELECT integration, job, item FROM replay_item WHERE integration = :integration AND job = :job LIMIT :most)

-- name: old_job
SELECT integration, id FROM replay_job WHERE id < ? AND settled ORDER BY id LIMIT 1

-- name: forget_job
DELETE FROM replay_job WHERE integration = ? AND id = ? AND settled
   AND NOT EXISTS (SELECT 1 FROM replay_item WHERE integration = ? AND job = ?)
