-- Why a failed attempt failed: the first 64 bits of its fingerprint, which name a group of its integration.
ALTER TABLE attempt ADD COLUMN failure_group INTEGER;

-- What sending again would risk, by how far the worst attempt so far got: 0 none failed, 1 never sent, 2 refused,
-- 3 ambiguous.
ALTER TABLE live ADD COLUMN risk INTEGER NOT NULL DEFAULT 0 CHECK (risk BETWEEN 0 AND 3);
ALTER TABLE dead ADD COLUMN risk INTEGER NOT NULL DEFAULT 3 CHECK (risk BETWEEN 1 AND 3);
ALTER TABLE dead ADD COLUMN failure_group INTEGER;
ALTER TABLE dead ADD COLUMN superseded_by INTEGER;  -- the corrected copy of it that succeeded
CREATE INDEX dead_group ON dead (integration, failure_group, id);
CREATE INDEX dead_open ON dead (integration, failure_group, id) WHERE resolved_at IS NULL AND superseded_by IS NULL;
UPDATE live SET risk = coalesce((
    SELECT max(CASE WHEN reach = 'not_sent' THEN 1
                    WHEN reach = 'answered' AND (http_status < 500 OR http_status = 503) THEN 2 ELSE 3 END)
      FROM attempt WHERE item = live.id AND failure_code IS NOT NULL), 0);
UPDATE dead SET risk = coalesce((
    SELECT max(CASE WHEN reach = 'not_sent' THEN 1
                    WHEN reach = 'answered' AND (http_status < 500 OR http_status = 503) THEN 2 ELSE 3 END)
      FROM attempt WHERE item = dead.id AND failure_code IS NOT NULL), 3);

-- A corrected copy of an item, and of which; of a copy's copy, the first.
CREATE TABLE edit (
    integration INTEGER NOT NULL,
    item INTEGER NOT NULL,
    original INTEGER NOT NULL,
    PRIMARY KEY (integration, item)
) STRICT, WITHOUT ROWID;
CREATE INDEX edit_of ON edit (integration, original, item);
-- Of an item and its copies at most one is under way, and none once one has succeeded: whichever copy is to be sent takes
-- this place in the row of the first, which is there only while that is not under way itself.
ALTER TABLE dead ADD COLUMN edited_as INTEGER;

-- Failures of one cause.
CREATE TABLE failure_group (
    integration INTEGER NOT NULL,
    number INTEGER NOT NULL,  -- the first 64 bits of the fingerprint
    fingerprint TEXT NOT NULL,
    failure_class TEXT NOT NULL,
    failure_code TEXT NOT NULL,
    detail TEXT NOT NULL,
    failures INTEGER NOT NULL CHECK (failures > 0),
    first_seen_at INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    sample INTEGER NOT NULL,  -- the item that failed so last
    state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'acknowledged', 'resolved')),
    state_at INTEGER,
    state_by TEXT,
    muted_until INTEGER,
    PRIMARY KEY (integration, number),
    CHECK ((state_at IS NULL) = (state_by IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX failure_group_seen ON failure_group (integration, last_seen_at);

CREATE TABLE group_comment (
    id INTEGER PRIMARY KEY,
    integration INTEGER NOT NULL,
    failure_group INTEGER NOT NULL,
    written_by TEXT NOT NULL,
    text TEXT NOT NULL
) STRICT;
CREATE INDEX comment_of_group ON group_comment (integration, failure_group, id);

-- A plan that became, or may become, a job: the items stand in `replay_item`.
CREATE TABLE replay_job (
    integration INTEGER NOT NULL,
    id INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('planning', 'planned', 'canary', 'running', 'paused', 'halted', 'cancelled',
                                         'completed', 'completed_with_failures', 'expired')),
    version INTEGER NOT NULL,
    digest TEXT,  -- of what was planned; NULL while that is written down
    settled INTEGER NOT NULL DEFAULT 0,  -- nothing more comes of it
    config TEXT NOT NULL,  -- every other field, as JSON
    PRIMARY KEY (integration, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX replay_job_unsettled ON replay_job (integration, id) WHERE NOT settled;
CREATE INDEX replay_job_digest ON replay_job (digest);

-- One item of a plan: what became of it, by outcome.
CREATE TABLE replay_item (
    integration INTEGER NOT NULL,
    job INTEGER NOT NULL,
    item INTEGER NOT NULL,
    cycle INTEGER NOT NULL,  -- it was planned in; its replay is the next
    risk INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'in_flight', 'succeeded', 'failed', 'skipped', 'cancelled')),
    reason TEXT,  -- why it was skipped, or how it failed
    told_at INTEGER,  -- when its first attempt ended
    stumbled INTEGER NOT NULL DEFAULT 0,  -- its first attempt failed
    PRIMARY KEY (integration, job, item)
) STRICT, WITHOUT ROWID;
CREATE INDEX replay_item_next ON replay_item (integration, job, state, item);
CREATE INDEX replay_item_told ON replay_item (integration, job, told_at) WHERE told_at IS NOT NULL;
CREATE INDEX replay_item_of ON replay_item (integration, item);

ALTER TABLE cycle ADD COLUMN job INTEGER;  -- that opened it

-- Stopped for a while, whatever its lifecycle: `hold` accepts and does not send, `reject` refuses.
ALTER TABLE integration ADD COLUMN containment TEXT CHECK (containment IN ('hold', 'reject'));
-- How it is held, released and throttled, as JSON: changes beside `config`, and not its version.
ALTER TABLE integration ADD COLUMN traffic TEXT;

-- What came of attempts, by the minute in which they were recorded and the process that did.
CREATE TABLE tally (
    integration INTEGER NOT NULL,
    minute INTEGER NOT NULL,  -- since 1970
    owner INTEGER NOT NULL,
    succeeded INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    duration_us INTEGER NOT NULL,  -- of all of them together
    PRIMARY KEY (integration, minute, owner)
) STRICT, WITHOUT ROWID;

-- The SHA-256 of the record; NULL: of before there was one. A record names that of its target's event before it.
ALTER TABLE audit ADD COLUMN digest BLOB CHECK (length(digest) = 32);

-- What died lately, for alerts. Its condition always holds: so only a query that names it is planned with this index.
CREATE INDEX dead_died ON dead (integration, died_at) WHERE died_at > 0;

-- What was done under the name of an incident.
CREATE INDEX audit_incident ON audit (record ->> '$.metadata.incident') WHERE instr(record, '"incident":') > 0;
-- The id from which on no record was ever forgotten, as 8 bytes: before it nobody wrote that down.
INSERT INTO secret_of_database (name, value)
SELECT 'audit_forgotten', unhex(printf('%016x', since))
  FROM (SELECT coalesce((SELECT min(id) FROM audit), (SELECT max(id) + 1 FROM delivery)) AS since)
 WHERE since IS NOT NULL;
