-- name: server
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::int AS version_number,
       current_setting('fsync') AS fsync,
       current_setting('full_page_writes') AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit,
       (SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'async') AS asynchronous_standbys,
       pg_is_in_recovery() AS is_standby,
       current_setting('default_transaction_read_only') = 'on' AS is_read_only,
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
         - coalesce(current_setting('reserved_connections', true)::int, 0) AS connections,  -- true: new in 16
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connected,
       current_user AS role,
       current_schema() AS schema,
       has_schema_privilege(current_schema(), 'CREATE') AS may_create,
       to_regclass('migration') IS NOT NULL AS has_schema

-- name: time
SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint

-- name: oldest
-- What keeps dead rows from being cleaned up in this database, whoever holds it back most. The times of other
-- roles' sessions are hidden from a role without pg_read_all_stats, their transactions are not.
SELECT who, seconds, transactions, remedy FROM (
    SELECT format('server process %s (%s, %s)', pid, coalesce(nullif(application_name, ''), usename, backend_type),
                  coalesce(state, 'of another role')) AS who,
           extract(epoch FROM clock_timestamp() - xact_start)::float AS seconds,
           greatest(age(backend_xmin), age(backend_xid)) AS transactions,
           format('SELECT pg_terminate_backend(%s)', pid) AS remedy
      FROM pg_stat_activity
     WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND pid <> pg_backend_pid()
       AND backend_type <> 'autovacuum worker' AND coalesce(datname, current_database()) = current_database()
    UNION ALL
    SELECT format('the prepared transaction %L', gid), extract(epoch FROM clock_timestamp() - prepared)::float,
           age(transaction), format('ROLLBACK PREPARED %L', gid)
      FROM pg_prepared_xacts WHERE database = current_database()
    UNION ALL
    SELECT format('the replication slot %L', slot_name), NULL, age(xmin),
           format('SELECT pg_drop_replication_slot(%L), if its standby is no more', slot_name)
      FROM pg_replication_slots WHERE xmin IS NOT NULL) AS holding
 ORDER BY transactions DESC, seconds DESC NULLS LAST LIMIT 1

-- name: processes
SELECT process, sends, (lease_until - redrive_now()) / 1000.0::float AS lease_seconds FROM incarnation ORDER BY id

-- name: lanes
SELECT count(*) AS lanes,
       count(*) FILTER (WHERE NOT EXISTS (SELECT FROM incarnation WHERE id = l.owner)) AS ownerless
  FROM lane l JOIN integration i ON i.number = l.integration AND i.shards = l.shards

-- name: longest_timeout
SELECT max((config::json ->> 'timeout_seconds')::float) FROM integration

-- name: ends
-- Up to which id the partitions of a table reach.
SELECT coalesce(max((regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''(\d+)''\)'))[1]::bigint), 0)
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = $1::text::regclass
