-- name: take_your_time
-- All of it is one transaction, and some of it one statement, for as long as that takes. It reads whole tables.
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL enable_seqscan = on

-- name: columns
-- With whether they hold true or false, which SQLite writes as a number.
SELECT attname, atttypid = 'boolean'::regtype FROM pg_attribute
 WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum

-- name: last_number
SELECT coalesce(max(number), 0) FROM integration

-- name: make_lanes
INSERT INTO lane (integration, shards, shard)
SELECT number, shards, shard FROM integration CROSS JOIN LATERAL generate_series(0, shards - 1) shard

-- name: set_version
UPDATE catalogue SET version = (SELECT coalesce(max(changed), 0) FROM integration)
