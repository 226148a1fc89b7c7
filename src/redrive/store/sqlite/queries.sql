-- name: last_id
SELECT max(coalesce((SELECT max(id) FROM delivery), 0), coalesce((SELECT max(id) FROM audit), 0))

-- name: alive
SELECT 1 FROM incarnation WHERE id = ?

-- name: enter
INSERT INTO incarnation (started_at, process) VALUES (?, ?) RETURNING id

-- name: renew
UPDATE incarnation SET renewed_at = ? WHERE id = ? RETURNING id

-- name: leave
DELETE FROM incarnation WHERE id = ?

-- name: door
SELECT lifecycle, containment FROM integration WHERE number = ?

-- name: insert_delivery
INSERT INTO delivery (id, integration, event_type, request_id, traceparent, tracestate, idempotency_key,
                      created_by, max_attempts, content_type, headers, payload)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: insert_live
INSERT INTO live (id, integration, status, cycle, attempt, max_attempts, due_at, claimed_by)
VALUES (?, ?, 'pending', 1, ?, ?, ?, ?)

-- name: take_key
INSERT INTO dedupe (integration, key, item, fingerprint) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING item

-- name: key
SELECT item, fingerprint FROM dedupe WHERE integration = ? AND key = ?

-- name: due
-- The oldest due items of one lane; the partial index holds exactly the unclaimed ones, in this order.
SELECT id FROM live INDEXED BY live_due
 WHERE integration = ? AND claimed_by IS NULL AND due_at <= ?
 ORDER BY due_at, id LIMIT ?

-- name: next_due_of
SELECT due_at FROM live INDEXED BY live_due
 WHERE integration = ? AND claimed_by IS NULL ORDER BY due_at LIMIT 1

-- name: stamp
-- SQLite has one writer, so no SKIP LOCKED: what the line above read is still so.
UPDATE live SET claimed_by = ?, attempt = attempt + 1
 WHERE id IN (SELECT value FROM json_each(?)) AND claimed_by IS NULL

-- name: claimed
-- Each is given with its public name, under which what was recorded of it stands; of a first attempt there is nothing, but of a
-- copy's.
SELECT l.cycle, l.attempt, l.max_attempts, c.request_id, l.risk, c.job, e.original,
       CASE WHEN l.attempt > 1 OR l.cycle > 1 OR e.item IS NOT NULL THEN (
           SELECT lower(hex(a.digest)) FROM audit a WHERE a.target_id = given.value ->> 1 ORDER BY a.id DESC LIMIT 1) END,
       d.id, d.integration, d.event_type, d.request_id, d.traceparent, d.tracestate, d.idempotency_key,
       d.created_by, d.max_attempts, d.content_type, d.headers, d.payload
  FROM json_each(?) AS given
 CROSS JOIN live l ON l.id = given.value ->> 0
 CROSS JOIN delivery d ON d.id = l.id LEFT JOIN cycle c ON c.item = l.id AND c.cycle = l.cycle
  LEFT JOIN edit e ON e.integration = l.integration AND e.item = l.id

-- name: claimed_by
-- The fence: what a process that lost its lease or its claim would change, does not come back. In one row, for
-- each row that is fetched has to win back the GIL.
SELECT json_group_array(json_array(l.id, l.cycle, l.attempt))
  FROM json_each(?) AS given CROSS JOIN live l ON l.id = given.value
 WHERE l.claimed_by = ? AND EXISTS (SELECT 1 FROM incarnation WHERE id = l.claimed_by)

-- name: finish
-- SQLite has one writer, so no second fence: what the line above read is still so. The same goes for the next.
DELETE FROM live WHERE id IN (SELECT value FROM json_each(?))

-- name: retry
-- Each is given with its due time and its risk.
UPDATE live SET status = 'retrying', due_at = given.value ->> 1, risk = given.value ->> 2, claimed_by = NULL
  FROM json_each(?) AS given WHERE live.id = given.value ->> 0

-- name: give_back
UPDATE live SET claimed_by = NULL, attempt = attempt - 1
 WHERE id = ? AND claimed_by = ? AND cycle = ? AND attempt = ?

-- name: set_aside
UPDATE live SET claimed_by = NULL, attempt = attempt - 1, due_at = ? WHERE id = ?

-- name: orphans
-- A scan of unfinished work, once a start: whoever else claimed from this file is dead by then.
SELECT id FROM live WHERE claimed_by IS NOT NULL AND claimed_by <> ? LIMIT ?

-- name: adopt
UPDATE live SET claimed_by = ? WHERE id IN (SELECT value FROM json_each(?))

-- name: forget_dead_owners
DELETE FROM incarnation WHERE id <> ?

-- name: next_due
-- One index probe an integration, never a walk over the backlog.
SELECT number, (SELECT due_at FROM live INDEXED BY live_due
                 WHERE integration = number AND claimed_by IS NULL ORDER BY due_at LIMIT 1) AS due_at
  FROM integration

-- name: insert_attempt
INSERT INTO attempt (item, cycle, attempt, started_at, duration_us, failure_code, failure_detail, retryable,
                     reach, retry_after_ms, span_id, http_status, headers, truncated, body, failure_group)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: count_failures
INSERT INTO failure_group (integration, number, fingerprint, failure_class, failure_code, detail, failures,
                           first_seen_at, last_seen_at, sample)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (integration, number) DO UPDATE
   SET failures = failures + excluded.failures, last_seen_at = max(last_seen_at, excluded.last_seen_at),
       sample = excluded.sample

-- name: count_attempts
INSERT INTO tally (integration, minute, owner, succeeded, failed, duration_us) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (integration, minute, owner) DO UPDATE
   SET succeeded = succeeded + excluded.succeeded, failed = failed + excluded.failed,
       duration_us = duration_us + excluded.duration_us

-- name: tell_job
-- What came of an attempt on an item that a job replayed; its cycle ended in a state, or goes on (NULL).
UPDATE replay_item
   SET told_at = coalesce(told_at, ?), stumbled = max(stumbled, ?), state = coalesce(?, state), reason = ?
 WHERE integration = ? AND job = ? AND item = ? AND state = 'in_flight'

-- name: bury
INSERT INTO dead (id, integration, status, cycle, attempt, max_attempts, failure_code, died_at, risk, failure_group)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: insert_imported
INSERT INTO imported (item, failure_code, failure_detail, retryable, occurred_at, http_status, headers,
                      truncated, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: insert_event
INSERT INTO audit (id, event_type, request_id, integration_id, target_id, actor, record, digest)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)

-- name: exhume
-- Repeats what made the replay right: the very cycle that was judged, dead, not resolved, nothing in its place. Its risk
-- goes with it. What waits in a job that runs is replayed by that.
DELETE FROM dead WHERE id = ? AND integration = ? AND status = ? AND cycle = ?
   AND resolved_at IS NULL AND edited_as IS NULL AND superseded_by IS NULL
   AND (SELECT original FROM edit WHERE edit.integration = dead.integration AND edit.item = dead.id) IS ?
   AND NOT EXISTS (
    SELECT 1 FROM replay_item r INDEXED BY replay_item_of JOIN replay_job j ON j.integration = r.integration AND j.id = r.job
     WHERE r.integration = dead.integration AND r.item = dead.id AND r.state = 'waiting'
       AND j.state IN ('canary', 'running', 'paused'))
RETURNING risk

-- name: reopen
INSERT INTO live (id, integration, status, cycle, attempt, max_attempts, due_at, claimed_by, risk)
VALUES (?, ?, 'replayed', ?, 0, ?, ?, NULL, ?)

-- name: open_cycle
INSERT INTO cycle (item, cycle, request_id, traceparent, max_attempts, opened_at, opened_by, reason)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)

-- name: resolve
UPDATE dead SET resolved_at = ?, resolved_by = ?, resolved_reason = ?
 WHERE id = ? AND integration = ? AND status = ? AND cycle = ? AND resolved_at IS NULL AND edited_as IS NULL
   AND superseded_by IS NULL
RETURNING id

-- name: is_erasable
-- Not open, not erased yet, and if it is dead, as it was judged.
SELECT 1 FROM delivery d
 WHERE coalesce((SELECT x.status = ? AND x.cycle = ? FROM dead x WHERE x.id = d.id), ? = 'succeeded')
   AND NOT EXISTS (SELECT 1 FROM live l WHERE l.id = d.id)
   AND NOT EXISTS (SELECT 1 FROM erased r WHERE r.item = d.id)
   AND d.id = ? AND d.integration = ?

-- name: close_dead
-- A resolution that there is stays as it is.
UPDATE dead SET resolved_at = ?, resolved_by = ?, resolved_reason = ? WHERE id = ? AND resolved_at IS NULL

-- name: note_erasure
INSERT INTO erased (item, integration, erased_at, erased_by, reason) VALUES (?, ?, ?, ?, ?)

-- name: erase_delivery
-- A parameter of the content type may be a file's name.
UPDATE delivery SET payload = x'', headers = NULL, tracestate = NULL,
                    content_type = rtrim(substr(content_type, 1, instr(content_type || ';', ';') - 1))
 WHERE id = ?

-- name: erase_answers
DELETE FROM answer WHERE item = ?

-- name: erase_attempts
UPDATE attempt SET headers = NULL, body = iif(body IS NULL, NULL, x'') WHERE item = ?

-- name: erase_imported
UPDATE imported SET headers = NULL, failure_detail = CASE WHEN failure_detail IS NOT NULL THEN '[ERASED]' END,
                    body = iif(body IS NULL, NULL, x'') WHERE item = ?

-- name: erased
SELECT erased_at, erased_by, reason FROM erased WHERE item = ?

-- name: recall
SELECT scope, fingerprint, status, body, created_at, item FROM answer WHERE scope = ?

-- name: remember
INSERT INTO answer (scope, fingerprint, status, body, created_at, item) VALUES (?, ?, ?, ?, ?, ?)

-- name: insert_integration
INSERT INTO integration (integration_id, lifecycle, version, config) VALUES (?, ?, ?, ?)
ON CONFLICT DO NOTHING RETURNING number

-- name: update_integration
UPDATE integration SET lifecycle = ?, version = ?, config = ? WHERE number = ? AND version = ? RETURNING number

-- name: integrations
SELECT number, lifecycle, version, config, containment, traffic FROM integration ORDER BY integration_id

-- name: delivery
SELECT id, integration, event_type, request_id, traceparent, tracestate, idempotency_key, created_by,
       max_attempts, content_type, headers, payload,
       (SELECT original FROM edit e WHERE e.integration = delivery.integration AND e.item = delivery.id), length(payload)
  FROM delivery WHERE id = ?

-- name: delivery_without_payload
SELECT id, integration, event_type, request_id, traceparent, tracestate, idempotency_key, created_by,
       max_attempts, content_type, headers, x'',
       (SELECT original FROM edit e WHERE e.integration = delivery.integration AND e.item = delivery.id), length(payload)
  FROM delivery WHERE id = ?

-- name: live
SELECT integration, status, cycle, attempt, max_attempts, due_at, claimed_by, risk FROM live WHERE id = ?

-- name: dead
SELECT integration, status, cycle, attempt, max_attempts, resolved_at, resolved_by, resolved_reason, risk,
       failure_group, edited_as, superseded_by
  FROM dead WHERE id = ?

-- name: cycles
SELECT cycle, request_id, max_attempts, opened_at, opened_by FROM cycle WHERE item = ? ORDER BY cycle

-- name: last_attempt
SELECT cycle, attempt, started_at, duration_us, failure_code, failure_detail, retryable, reach,
       retry_after_ms, span_id, failure_group, http_status, headers, truncated, body, length(body)
  FROM attempt WHERE item = ? ORDER BY cycle DESC, attempt DESC LIMIT 1

-- name: last_attempt_without_body
-- For lists: length() leaves the overflow pages of a body alone.
SELECT cycle, attempt, started_at, duration_us, failure_code, failure_detail, retryable, reach,
       retry_after_ms, span_id, failure_group, http_status, headers, truncated, iif(body IS NULL, NULL, x''), length(body)
  FROM attempt WHERE item = ? ORDER BY cycle DESC, attempt DESC LIMIT 1

-- name: attempts
SELECT cycle, attempt, started_at, duration_us, failure_code, failure_detail, retryable, reach,
       retry_after_ms, span_id, failure_group, http_status, headers, truncated, body
  FROM attempt WHERE item = ? ORDER BY cycle, attempt

-- name: imported
SELECT failure_code, failure_detail, retryable, occurred_at, http_status, headers, truncated, body,
       length(body)
  FROM imported WHERE item = ?

-- name: imported_without_body
SELECT failure_code, failure_detail, retryable, occurred_at, http_status, headers, truncated,
       iif(body IS NULL, NULL, x''), length(body)
  FROM imported WHERE item = ?

-- name: queue_of_live
SELECT id FROM live INDEXED BY live_status
 WHERE integration = ? AND status = ? AND id >= ? AND id < ? ORDER BY id DESC LIMIT ?

-- name: queue_of_dead
SELECT id FROM dead INDEXED BY dead_status
 WHERE integration = ? AND status = ? AND id >= ? AND id < ? ORDER BY id DESC LIMIT ?

-- name: queue_of_code
SELECT id FROM dead INDEXED BY dead_code
 WHERE integration = ? AND failure_code = ? AND id >= ? AND id < ? ORDER BY id DESC LIMIT ?

-- name: queue_of_all
SELECT id FROM delivery INDEXED BY delivery_of_integration
 WHERE integration = ? AND id >= ? AND id < ? ORDER BY id DESC LIMIT ?

-- name: backlog
SELECT coalesce(sum((SELECT count(*) FROM live INDEXED BY live_due
                      WHERE integration = number AND claimed_by IS NULL AND due_at <= :now)), 0),
       min((SELECT due_at FROM live INDEXED BY live_due
             WHERE integration = number AND claimed_by IS NULL AND due_at <= :now ORDER BY due_at LIMIT 1))
  FROM integration

-- name: add_token
INSERT INTO token (token_id, digest, subject, permissions, created_at, expires_at, tenant)
VALUES (?, ?, ?, ?, ?, ?, ?)

-- name: tokens
SELECT token_id, subject, permissions, created_at, expires_at, revoked_at, tenant FROM token
 ORDER BY created_at DESC, token_id

-- name: revoke_token
UPDATE token SET revoked_at = coalesce(revoked_at, ?) WHERE token_id = ? RETURNING token_id

-- name: token
SELECT token_id, subject, permissions, created_at, expires_at, revoked_at, tenant FROM token WHERE digest = ?

-- name: prune_keys
DELETE FROM dedupe WHERE (integration, key) IN (SELECT integration, key FROM dedupe WHERE item < ? LIMIT ?)

-- name: prune_answers
DELETE FROM answer WHERE scope IN (SELECT scope FROM answer WHERE created_at < ? LIMIT ?)

-- name: old_deliveries
-- And whether each is done with: it succeeded, or was resolved or superseded and is from before an id of its own.
SELECT d.id, l.id IS NULL AND (x.id IS NULL OR (coalesce(x.resolved_at, x.superseded_by) IS NOT NULL AND d.id < ?))
  FROM delivery d LEFT JOIN live l ON l.id = d.id LEFT JOIN dead x ON x.id = d.id
 WHERE d.id > ? AND d.id < ? ORDER BY d.id LIMIT ?

-- name: forget_attempts
DELETE FROM attempt WHERE item = ?

-- name: forget_cycles
DELETE FROM cycle WHERE item = ?

-- name: forget_imported
DELETE FROM imported WHERE item = ?

-- name: forget_erased
DELETE FROM erased WHERE item = ?

-- name: forget_edit
DELETE FROM edit WHERE (integration, item) IN (SELECT integration, id FROM delivery WHERE id = ?)

-- name: forget_dead
DELETE FROM dead WHERE id = ?

-- name: forget_delivery
DELETE FROM delivery WHERE id = ?

-- name: forget_events
-- None since the oldest open item was accepted: what is still open keeps its whole chain.
DELETE FROM audit WHERE id IN (
    SELECT id FROM audit
     WHERE id < min(:before, coalesce((SELECT min(id) FROM live), :before),
                    coalesce((SELECT min(id) FROM dead WHERE resolved_at IS NULL AND superseded_by IS NULL), :before))
     ORDER BY id LIMIT :most) RETURNING id

-- name: keep
INSERT INTO secret_of_database (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING

-- name: kept
SELECT value FROM secret_of_database WHERE name = ?

-- name: exchange
UPDATE secret_of_database SET value = ? WHERE name = ? AND value = ? RETURNING name

-- containment

-- name: steer
-- The version within is that of the traffic alone: who changes the rest of an integration does not stand in its way.
UPDATE integration SET containment = ?, traffic = ?
 WHERE number = ? AND coalesce(traffic ->> '$.version', 0) = ? RETURNING number

-- name: amend
UPDATE answer SET status = ?, body = ? WHERE scope = ?

-- name: standing
SELECT (SELECT count(*) FROM live INDEXED BY live_due WHERE integration = :number AND claimed_by IS NULL),
       (SELECT count(*) FROM live INDEXED BY live_status WHERE integration = :number)

-- name: has_backlog
SELECT 1 FROM live INDEXED BY live_due WHERE integration = ? AND claimed_by IS NULL AND due_at <= ? LIMIT 1

-- failure groups

-- name: queue_of_group
SELECT id FROM dead INDEXED BY dead_group
 WHERE integration = ? AND failure_group = ? AND id >= ? AND id < ? ORDER BY id DESC LIMIT ?

-- name: groups
-- One that failed again after it was resolved is open.
SELECT g.integration, g.number, g.fingerprint, g.failure_class, g.failure_code, g.detail, g.failures, g.first_seen_at,
       g.last_seen_at, g.sample, g.state, g.state_at, g.state_by, g.muted_until,
       (SELECT count(*) FROM (SELECT 1 FROM dead INDEXED BY dead_open
                               WHERE integration = g.integration AND failure_group = g.number AND resolved_at IS NULL
                                 AND superseded_by IS NULL
                               LIMIT :most))
  FROM failure_group g INDEXED BY failure_group_seen
 WHERE g.integration = :integration AND (g.last_seen_at, g.number) < (:below_ms, :below)
   AND (:state IS NULL OR :state = iif(g.state = 'resolved' AND g.last_seen_at > g.state_at, 'open', g.state))
 ORDER BY g.last_seen_at DESC, g.number DESC LIMIT :limit

-- name: group
SELECT g.integration, g.number, g.fingerprint, g.failure_class, g.failure_code, g.detail, g.failures, g.first_seen_at,
       g.last_seen_at, g.sample, g.state, g.state_at, g.state_by, g.muted_until,
       (SELECT count(*) FROM (SELECT 1 FROM dead INDEXED BY dead_open
                               WHERE integration = g.integration AND failure_group = g.number AND resolved_at IS NULL
                                 AND superseded_by IS NULL
                               LIMIT :most))
  FROM failure_group g WHERE g.integration = :integration AND g.number = :number

-- name: judge
-- Repeats what was judged: nobody else has said anything since.
UPDATE failure_group SET state = ?, state_at = ?, state_by = ?, muted_until = ?
 WHERE integration = ? AND number = ? AND state = ? AND state_at IS ? AND state_by IS ? AND muted_until IS ?
RETURNING number

-- name: add_comment
INSERT INTO group_comment (id, integration, failure_group, written_by, text)
SELECT ?, integration, number, ?, ? FROM failure_group WHERE integration = ? AND number = ? RETURNING id

-- name: comments
SELECT id, integration, failure_group, written_by, text FROM group_comment INDEXED BY comment_of_group
 WHERE integration = ? AND failure_group = ? AND id < ? ORDER BY id DESC LIMIT ?

-- name: unresolved
SELECT x.id, x.status, x.cycle, x.attempt, x.failure_code, d.request_id
  FROM dead x INDEXED BY dead_open CROSS JOIN delivery d ON d.id = x.id
 WHERE x.integration = ? AND x.failure_group = ? AND x.resolved_at IS NULL AND x.superseded_by IS NULL
   AND x.id > ? AND x.id < ? AND x.died_at <= ?
 ORDER BY x.id LIMIT ?

-- name: erase_groups
-- Of groups that nothing but this item ever failed into: what they say of the cause was its answer.
UPDATE failure_group SET detail = '[ERASED]'
 WHERE integration = :integration
   AND number IN (SELECT failure_group FROM attempt WHERE item = :item AND failure_group IS NOT NULL
                  UNION ALL SELECT failure_group FROM dead WHERE id = :item AND failure_group IS NOT NULL)
   AND failures <= (SELECT count(*) FROM attempt a WHERE a.item = :item AND a.failure_group = failure_group.number)
                   + (SELECT count(*) FROM imported WHERE item = :item)

-- name: old_groups
-- That nothing waits in.
SELECT g.integration, g.number FROM integration i CROSS JOIN failure_group g INDEXED BY failure_group_seen
    ON g.integration = i.number AND g.last_seen_at < ?
 WHERE NOT EXISTS (SELECT 1 FROM dead INDEXED BY dead_group WHERE integration = g.integration AND failure_group = g.number)
 LIMIT ?

-- name: forget_group
DELETE FROM failure_group WHERE integration = ? AND number = ?

-- name: forget_comments
DELETE FROM group_comment WHERE integration = ? AND failure_group = ?
-- corrected copies

-- name: is_correctable
SELECT 1 FROM dead WHERE id = ? AND integration = ? AND status = ? AND cycle = ? AND resolved_at IS NULL
   AND edited_as IS NULL AND superseded_by IS NULL

-- name: place
SELECT edited_as IS NULL AND superseded_by IS NULL AND resolved_at IS NULL FROM dead WHERE id = ? AND integration = ?

-- name: take_place
UPDATE dead SET edited_as = ? WHERE id = ?

-- name: is_known
SELECT 1 FROM delivery WHERE id = ?

-- name: note_edit
INSERT INTO edit (integration, item, original) VALUES (?, ?, ?)

-- name: free_place
UPDATE dead SET edited_as = NULL WHERE id = ? AND edited_as = ?

-- name: family
-- Those in whose place a copy was sent: the first, and other copies, which failed.
SELECT id FROM dead WHERE integration = ? AND superseded_by IS NULL
   AND id IN (SELECT ? UNION ALL SELECT item FROM edit WHERE integration = ? AND original = ?)

-- name: supersede
UPDATE dead SET superseded_by = ?, edited_as = NULL WHERE id = ?

-- name: last_event_of
SELECT id, lower(hex(digest)) FROM audit WHERE target_id = ? ORDER BY id DESC LIMIT 1

-- alerts

-- name: count_dead
SELECT number, (SELECT count(*) FROM (
           SELECT 1 FROM dead x INDEXED BY dead_died
            WHERE x.integration = number AND x.died_at >= :since AND x.died_at < :before AND x.died_at > 0
              AND x.resolved_at IS NULL AND x.superseded_by IS NULL
              AND NOT EXISTS (SELECT 1 FROM failure_group g WHERE g.integration = x.integration
                                 AND g.number = x.failure_group AND g.muted_until > :now)
            LIMIT :most))
  FROM integration

-- the chains of audit records

-- name: head
SELECT digest FROM audit WHERE target_id = ? ORDER BY id DESC LIMIT 1

-- name: chain
-- As bytes: a text that is none must be read, too.
SELECT id, target_id, CAST(record AS BLOB), digest, event_type, request_id, integration_id, actor
  FROM audit INDEXED BY audit_target WHERE target_id = ? ORDER BY id

-- name: every_chain
SELECT id, target_id, CAST(record AS BLOB), digest, event_type, request_id, integration_id, actor
  FROM audit INDEXED BY audit_target
 WHERE (target_id, id) > (?, ?) ORDER BY target_id, id LIMIT ?

-- name: next_items
SELECT id FROM delivery INDEXED BY delivery_of_integration WHERE integration = ? AND id > ? ORDER BY id LIMIT ?

-- name: whereabouts
-- Each is given with its public name, under which its records stand.
SELECT d.id, l.status, l.cycle, l.attempt - (l.claimed_by IS NOT NULL),
       x.status, x.cycle, x.attempt, x.resolved_at IS NOT NULL, r.item IS NOT NULL, t.cycle, t.attempt,
       a.id, CAST(a.record AS BLOB), a.digest
  FROM json_each(?) AS given
 CROSS JOIN delivery d ON d.id = given.value ->> 0
  LEFT JOIN live l ON l.id = d.id
  LEFT JOIN dead x ON x.id = d.id
  LEFT JOIN erased r ON r.item = d.id
  LEFT JOIN attempt t ON t.item = d.id AND (t.cycle, t.attempt) = (
      SELECT cycle, attempt FROM attempt WHERE item = d.id ORDER BY cycle DESC, attempt DESC LIMIT 1)
  LEFT JOIN audit a ON a.id = (SELECT max(id) FROM audit INDEXED BY audit_target WHERE target_id = given.value ->> 1)

-- name: jobs_of
SELECT job, state, reason, told_at FROM replay_item INDEXED BY replay_item_of
 WHERE integration = ? AND item = ? ORDER BY job

-- name: note_forgotten
INSERT INTO secret_of_database (name, value) VALUES ('audit_forgotten', ?)
ON CONFLICT DO UPDATE SET value = max(value, excluded.value)

-- health and probes

-- name: take
UPDATE live SET claimed_by = ?, attempt = attempt + 1
 WHERE id = ? AND integration = ? AND claimed_by IS NULL AND cycle = ? AND attempt = ? RETURNING id

-- name: tallies
SELECT minute, sum(succeeded), sum(failed), sum(duration_us) FROM tally
 WHERE integration = ? AND minute >= ? GROUP BY minute ORDER BY minute

-- name: last_minutes
SELECT (SELECT minute FROM tally WHERE integration = :number AND succeeded > 0 ORDER BY minute DESC LIMIT 1),
       (SELECT minute FROM tally WHERE integration = :number AND failed > 0 ORDER BY minute DESC LIMIT 1)

-- name: arrivals
SELECT count(*), min(id) FROM (
    SELECT id FROM delivery WHERE integration = ? AND id >= ? ORDER BY id DESC LIMIT ?)

-- name: forget_tallies
-- By the key, which begins with the integration.
DELETE FROM tally WHERE integration IN (SELECT number FROM integration) AND minute < ?
