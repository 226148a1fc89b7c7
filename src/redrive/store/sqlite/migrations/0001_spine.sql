-- Instants are milliseconds since 1970 UTC. Item and event ids hold the millisecond they were made.

CREATE TABLE secret_of_database (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE incarnation (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice: a late write must not find a namesake
    started_at INTEGER NOT NULL,
    renewed_at INTEGER,
    process TEXT NOT NULL
) STRICT;

CREATE TABLE token (
    token_id TEXT PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    subject TEXT NOT NULL,
    permissions TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE integration (
    number INTEGER PRIMARY KEY,
    integration_id TEXT NOT NULL UNIQUE,
    lifecycle TEXT NOT NULL CHECK (lifecycle IN ('draft', 'active', 'paused', 'retired')),
    version INTEGER NOT NULL CHECK (version > 0),
    config TEXT NOT NULL  -- every other field, as JSON
) STRICT;

CREATE TABLE signing_secret (
    integration INTEGER NOT NULL REFERENCES integration (number),
    position INTEGER NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (integration, position)
) STRICT, WITHOUT ROWID;

-- What was accepted: inserted once, never updated. The payload stands last, so that a row is read
-- without it (SQLite leaves overflow pages alone until their column is asked for).
CREATE TABLE delivery (
    id INTEGER PRIMARY KEY,
    integration INTEGER NOT NULL,
    event_type TEXT NOT NULL,
    request_id TEXT NOT NULL,
    traceparent TEXT NOT NULL,
    tracestate TEXT,
    idempotency_key TEXT,
    created_by TEXT NOT NULL,
    max_attempts INTEGER NOT NULL CHECK (max_attempts > 0),
    content_type TEXT NOT NULL,
    headers TEXT,
    payload BLOB NOT NULL
) STRICT;
CREATE INDEX delivery_of_integration ON delivery (integration, id);

-- Unfinished work and nothing else: the only table whose rows change.
CREATE TABLE live (
    id INTEGER PRIMARY KEY,
    integration INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'retrying', 'replayed')),
    cycle INTEGER NOT NULL CHECK (cycle > 0),
    attempt INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    claimed_by INTEGER,
    CHECK (attempt BETWEEN 0 AND max_attempts),
    CHECK (claimed_by IS NULL OR attempt > 0),
    CHECK (status <> 'pending' OR cycle = 1),
    CHECK (status <> 'replayed' OR cycle > 1),
    CHECK (status <> 'retrying' OR attempt > 0)
) STRICT;
-- Partial: what is accepted already claimed (the healthy path) never enters it.
CREATE INDEX live_due ON live (integration, due_at, id) WHERE claimed_by IS NULL;
CREATE INDEX live_status ON live (integration, status, id);

-- What waits for a person.
CREATE TABLE dead (
    id INTEGER PRIMARY KEY,
    integration INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('failed', 'dlq')),
    cycle INTEGER NOT NULL CHECK (cycle > 0),
    attempt INTEGER NOT NULL CHECK (attempt >= 0),
    max_attempts INTEGER NOT NULL,
    failure_code TEXT,
    died_at INTEGER NOT NULL,
    resolved_at INTEGER,
    resolved_by TEXT,
    resolved_reason TEXT,
    CHECK ((resolved_at IS NULL) = (resolved_by IS NULL) AND (resolved_at IS NULL) = (resolved_reason IS NULL))
) STRICT;
CREATE INDEX dead_status ON dead (integration, status, id);
CREATE INDEX dead_code ON dead (integration, failure_code, id);

-- The cycles after the first: who asked for them, why, and under which request.
CREATE TABLE cycle (
    item INTEGER NOT NULL,
    cycle INTEGER NOT NULL CHECK (cycle > 1),
    request_id TEXT NOT NULL,
    traceparent TEXT NOT NULL,
    max_attempts INTEGER NOT NULL CHECK (max_attempts > 0),
    opened_at INTEGER NOT NULL,
    opened_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (item, cycle)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempt (
    item INTEGER NOT NULL,
    cycle INTEGER NOT NULL,
    attempt INTEGER NOT NULL CHECK (attempt > 0),
    started_at INTEGER NOT NULL,
    duration_us INTEGER NOT NULL,
    failure_code TEXT,  -- NULL: it succeeded
    failure_detail TEXT,
    retryable INTEGER,
    reach TEXT NOT NULL CHECK (reach IN ('not_sent', 'sent', 'answered')),
    retry_after_ms INTEGER,
    span_id TEXT NOT NULL,
    http_status INTEGER,
    headers TEXT,
    truncated INTEGER,
    body BLOB,
    PRIMARY KEY (item, cycle, attempt),
    CHECK ((failure_code IS NULL) = (failure_detail IS NULL) AND (failure_code IS NULL) = (retryable IS NULL)),
    CHECK (failure_code IS NOT NULL OR http_status BETWEEN 200 AND 299)
) STRICT, WITHOUT ROWID;

-- What was known of a delivery that failed before it was handed over to us.
CREATE TABLE imported (
    item INTEGER PRIMARY KEY,
    failure_code TEXT,
    failure_detail TEXT,
    retryable INTEGER,
    occurred_at INTEGER,
    http_status INTEGER,
    headers TEXT,
    truncated INTEGER,
    body BLOB
) STRICT;

-- A producer's deduplication key, within its integration.
CREATE TABLE dedupe (
    integration INTEGER NOT NULL,
    key TEXT NOT NULL,
    item INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,
    PRIMARY KEY (integration, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX dedupe_age ON dedupe (item);

-- The stored answer of a call that carried an Idempotency-Key.
CREATE TABLE answer (
    scope BLOB PRIMARY KEY,
    fingerprint BLOB NOT NULL,
    status INTEGER NOT NULL,
    body BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX answer_age ON answer (created_at);

CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    event_type TEXT NOT NULL,
    request_id TEXT,
    integration_id TEXT,
    target_id TEXT NOT NULL,
    actor TEXT NOT NULL,
    record TEXT NOT NULL  -- the whole event, as JSON
) STRICT;
CREATE INDEX audit_request ON audit (request_id);
CREATE INDEX audit_target ON audit (target_id);
CREATE INDEX audit_integration ON audit (integration_id);
CREATE INDEX audit_type ON audit (event_type);
CREATE INDEX audit_actor ON audit (actor);
