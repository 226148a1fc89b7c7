-- Instants are milliseconds since 1970 UTC by this database's clock. Item and event ids hold the millisecond
-- they were made. Every key begins with the integration, so that tables can be split or distributed by it.

-- Stable, so that an index can be searched with it; it is the time the statement arrived.
CREATE FUNCTION redrive_now() RETURNS bigint LANGUAGE sql STABLE
    AS $$ SELECT floor(extract(epoch FROM statement_timestamp()) * 1000)::bigint $$;

CREATE TABLE secret_of_database (name text PRIMARY KEY, value bytea NOT NULL);

-- The live processes. A row is a lease: every write of its process asks for it, deleting it ends its rights.
CREATE TABLE incarnation (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,  -- never used twice: a late write must not find a namesake
    process text NOT NULL,
    started_at bigint NOT NULL,
    lease_until bigint NOT NULL,
    sends boolean NOT NULL DEFAULT true  -- whether it takes lanes
) WITH (fillfactor = 50);
-- Ten bits of its id are in every id that a process makes: no two live ones may share them.
CREATE UNIQUE INDEX incarnation_slot ON incarnation ((id & 1023));

CREATE TABLE token (
    token_id text PRIMARY KEY,
    digest bytea NOT NULL UNIQUE CHECK (length(digest) = 32),
    subject text NOT NULL,
    permissions text NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint,
    revoked_at bigint
);

-- One row: the version of the catalogue. Whoever changes an integration holds it, so that versions commit in order.
CREATE TABLE catalogue (only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row), version bigint NOT NULL);
INSERT INTO catalogue (version) VALUES (0);

CREATE TABLE integration (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    integration_id text NOT NULL UNIQUE,
    lifecycle text NOT NULL CHECK (lifecycle IN ('draft', 'active', 'paused', 'retired')),
    version integer NOT NULL CHECK (version > 0),
    changed bigint NOT NULL,  -- the version of the catalogue it came with
    shards smallint NOT NULL CHECK (shards BETWEEN 1 AND 64),
    config text NOT NULL  -- every other field, as JSON
);
CREATE INDEX integration_changed ON integration (changed);

CREATE TABLE signing_secret (
    integration integer NOT NULL REFERENCES integration (number),
    position integer NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (integration, position)
);

-- Who sends to an integration: one live process owns a lane. `shards` lanes of one integration stand side by
-- side; lanes of an earlier split go when their owners let go of them.
CREATE TABLE lane (
    integration integer NOT NULL REFERENCES integration (number),
    shards smallint NOT NULL CHECK (shards BETWEEN 1 AND 64),
    shard smallint NOT NULL CHECK (shard >= 0 AND shard < shards),
    owner bigint,
    PRIMARY KEY (integration, shards, shard)
) WITH (fillfactor = 50);
CREATE INDEX lane_owner ON lane (owner);

-- What was accepted: inserted once, never updated.
CREATE TABLE delivery (
    id bigint NOT NULL,
    integration integer NOT NULL,
    event_type text NOT NULL,
    request_id text NOT NULL,
    traceparent text NOT NULL,
    tracestate text,
    idempotency_key text,
    created_by text NOT NULL,
    max_attempts integer NOT NULL CHECK (max_attempts > 0),
    content_type text NOT NULL,
    headers text,
    payload bytea NOT NULL,
    PRIMARY KEY (integration, id)
) PARTITION BY RANGE (id);

-- Unfinished work and nothing else: the only table whose rows change. A claim changes no indexed column, so it
-- stays on its page (HOT); the rest of each page is kept free for that.
CREATE TABLE live (
    id bigint NOT NULL,
    integration integer NOT NULL,
    status text NOT NULL CHECK (status IN ('pending', 'retrying', 'replayed')),
    cycle integer NOT NULL CHECK (cycle > 0),
    attempt integer NOT NULL,
    max_attempts integer NOT NULL,
    due_at bigint NOT NULL,
    claimed_by bigint,
    claimed_at bigint,  -- unique to a call of its process: it also names the claims of that call
    PRIMARY KEY (integration, id),
    CHECK (attempt BETWEEN 0 AND max_attempts),
    CHECK (claimed_by IS NULL OR attempt > 0),
    CHECK ((claimed_by IS NULL) = (claimed_at IS NULL)),
    CHECK (status <> 'pending' OR cycle = 1),
    CHECK (status <> 'replayed' OR cycle > 1),
    CHECK (status <> 'retrying' OR attempt > 0)
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.05
);
CREATE INDEX live_due ON live (integration, due_at, id);
CREATE INDEX live_status ON live (integration, status, id);

-- What waits for a person.
CREATE TABLE dead (
    id bigint NOT NULL,
    integration integer NOT NULL,
    status text NOT NULL CHECK (status IN ('failed', 'dlq')),
    cycle integer NOT NULL CHECK (cycle > 0),
    attempt integer NOT NULL CHECK (attempt >= 0),
    max_attempts integer NOT NULL,
    failure_code text,
    died_at bigint NOT NULL,
    resolved_at bigint,
    resolved_by text,
    resolved_reason text,
    PRIMARY KEY (integration, id),
    CHECK ((resolved_at IS NULL) = (resolved_by IS NULL) AND (resolved_at IS NULL) = (resolved_reason IS NULL))
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX dead_status ON dead (integration, status, id);
CREATE INDEX dead_code ON dead (integration, failure_code, id);

-- The cycles after the first: who asked for them, why, and under which request.
CREATE TABLE cycle (
    integration integer NOT NULL,
    item bigint NOT NULL,
    cycle integer NOT NULL CHECK (cycle > 1),
    request_id text NOT NULL,
    traceparent text NOT NULL,
    max_attempts integer NOT NULL CHECK (max_attempts > 0),
    opened_at bigint NOT NULL,
    opened_by text NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (integration, item, cycle)
);

CREATE TABLE attempt (
    integration integer NOT NULL,
    item bigint NOT NULL,
    cycle integer NOT NULL,
    attempt integer NOT NULL CHECK (attempt > 0),
    started_at bigint NOT NULL,
    duration_us bigint NOT NULL,
    failure_code text,  -- NULL: it succeeded
    failure_detail text,
    retryable boolean,
    reach text NOT NULL CHECK (reach IN ('not_sent', 'sent', 'answered')),
    retry_after_ms bigint,
    span_id text NOT NULL,
    http_status integer,
    headers text,
    truncated boolean,
    body bytea,
    PRIMARY KEY (integration, item, cycle, attempt),
    CHECK ((failure_code IS NULL) = (failure_detail IS NULL) AND (failure_code IS NULL) = (retryable IS NULL)),
    CHECK (failure_code IS NOT NULL OR http_status BETWEEN 200 AND 299)
) PARTITION BY RANGE (item);

-- What was known of a delivery that failed before it was handed over to us.
CREATE TABLE imported (
    integration integer NOT NULL,
    item bigint NOT NULL,
    failure_code text,
    failure_detail text,
    retryable boolean,
    occurred_at bigint,
    http_status integer,
    headers text,
    truncated boolean,
    body bytea,
    PRIMARY KEY (integration, item)
);

-- A producer's deduplication key, within its integration.
CREATE TABLE dedupe (
    integration integer NOT NULL,
    key text NOT NULL,
    item bigint NOT NULL,
    fingerprint bytea NOT NULL,
    PRIMARY KEY (integration, key)
);
CREATE INDEX dedupe_age ON dedupe (item);

-- The stored answer of a call that carried an Idempotency-Key.
CREATE TABLE answer (
    scope bytea PRIMARY KEY,
    fingerprint bytea NOT NULL,
    status integer NOT NULL,
    body bytea NOT NULL,
    created_at bigint NOT NULL
);
CREATE INDEX answer_age ON answer (created_at);

CREATE TABLE audit (
    id bigint NOT NULL,
    integration integer NOT NULL,  -- 0: of none that there was
    event_type text NOT NULL,
    request_id text,
    integration_id text,
    target_id text NOT NULL,
    actor text NOT NULL,
    record text NOT NULL,  -- the whole event, as JSON
    PRIMARY KEY (integration, id)
) PARTITION BY RANGE (id);
CREATE INDEX audit_id ON audit (id);
CREATE INDEX audit_unknown ON audit (integration_id, id) WHERE integration = 0;
CREATE INDEX audit_request ON audit (request_id, id);
CREATE INDEX audit_target ON audit (target_id, id);
CREATE INDEX audit_type ON audit (event_type, id);
CREATE INDEX audit_actor ON audit (actor, id);

-- What one process at a time does for all of them.
CREATE TABLE duty (name text PRIMARY KEY, owner bigint NOT NULL, until bigint NOT NULL);
