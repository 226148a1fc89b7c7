-- Why a failed attempt failed: the first 64 bits of its fingerprint, which name a group of its integration.
ALTER TABLE attempt ADD COLUMN failure_group bigint;

-- What sending again would risk, by how far the worst attempt so far got: 0 none failed, 1 never sent, 2 refused,
-- 3 ambiguous. Not indexed: a retry stays on its page (HOT) but for its due time.
ALTER TABLE live ADD COLUMN risk smallint NOT NULL DEFAULT 0 CHECK (risk BETWEEN 0 AND 3);
ALTER TABLE dead ADD COLUMN risk smallint NOT NULL DEFAULT 3 CHECK (risk BETWEEN 1 AND 3);
ALTER TABLE dead ADD COLUMN failure_group bigint;
ALTER TABLE dead ADD COLUMN superseded_by bigint;  -- the corrected copy of it that succeeded
CREATE INDEX dead_group ON dead (integration, failure_group, id);
CREATE INDEX dead_open ON dead (integration, failure_group, id) WHERE resolved_at IS NULL AND superseded_by IS NULL;
UPDATE live SET risk = w.risk FROM live o CROSS JOIN LATERAL (
    SELECT max(CASE WHEN reach = 'not_sent' THEN 1
                    WHEN reach = 'answered' AND (http_status < 500 OR http_status = 503) THEN 2 ELSE 3 END) AS risk
      FROM attempt WHERE integration = o.integration AND item = o.id AND failure_code IS NOT NULL OFFSET 0) w
 WHERE live.integration = o.integration AND live.id = o.id AND live.risk <> w.risk;
UPDATE dead SET risk = w.risk FROM dead o CROSS JOIN LATERAL (
    SELECT max(CASE WHEN reach = 'not_sent' THEN 1
                    WHEN reach = 'answered' AND (http_status < 500 OR http_status = 503) THEN 2 ELSE 3 END) AS risk
      FROM attempt WHERE integration = o.integration AND item = o.id AND failure_code IS NOT NULL OFFSET 0) w
 WHERE dead.integration = o.integration AND dead.id = o.id AND dead.risk <> w.risk;

-- A corrected copy of an item, and of which; of a copy's copy, the first.
CREATE TABLE edit (
    integration integer NOT NULL,
    item bigint NOT NULL,
    original bigint NOT NULL,
    PRIMARY KEY (integration, item)
);
CREATE INDEX edit_of ON edit (integration, original, item);
-- Of an item and its copies at most one is under way, and none once one has succeeded: whichever copy is to be sent takes
-- this place in the row of the first, which is there only while that is not under way itself.
ALTER TABLE dead ADD COLUMN edited_as bigint;

-- Failures of one cause. How many there were before they were counted in parts, or in another database.
CREATE TABLE failure_group (
    integration integer NOT NULL,
    number bigint NOT NULL,  -- the first 64 bits of the fingerprint
    fingerprint text NOT NULL,
    failure_class text NOT NULL,
    failure_code text NOT NULL,
    detail text NOT NULL,
    failures bigint NOT NULL CHECK (failures >= 0),
    first_seen_at bigint NOT NULL,
    last_seen_at bigint NOT NULL,
    sample bigint NOT NULL,  -- the item that failed so last
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'acknowledged', 'resolved')),
    state_at bigint,
    state_by text,
    muted_until bigint,
    PRIMARY KEY (integration, number),
    CHECK ((state_at IS NULL) = (state_by IS NULL))
) WITH (fillfactor = 50);

-- And since: by part, which is a process's. An outage fails in one way everywhere, and whoever counts in a row holds it
-- until its commit is on disk: of one row, all processes would wait for each other.
CREATE TABLE failure_count (
    integration integer NOT NULL,
    number bigint NOT NULL,
    part smallint NOT NULL,
    failures bigint NOT NULL CHECK (failures > 0),
    last_seen_at bigint NOT NULL,
    sample bigint NOT NULL,
    PRIMARY KEY (integration, number, part)
) WITH (fillfactor = 50);

CREATE VIEW failure_group_now AS
SELECT g.integration, g.number, g.fingerprint, g.failure_class, g.failure_code, g.detail,
       (g.failures + coalesce(c.failures, 0))::bigint AS failures, g.first_seen_at,
       greatest(g.last_seen_at, c.last_seen_at) AS last_seen_at,
       CASE WHEN c.last_seen_at >= g.last_seen_at THEN c.sample ELSE g.sample END AS sample,
       g.state, g.state_at, g.state_by, g.muted_until
  FROM failure_group g
  LEFT JOIN LATERAL (
    SELECT sum(failures) AS failures, max(last_seen_at) AS last_seen_at,
           (max(ARRAY[last_seen_at, sample]))[2] AS sample
      FROM failure_count p WHERE p.integration = g.integration AND p.number = g.number) c ON true;

CREATE TABLE group_comment (
    id bigint NOT NULL,
    integration integer NOT NULL,
    failure_group bigint NOT NULL,
    written_by text NOT NULL,
    text text NOT NULL,
    PRIMARY KEY (integration, failure_group, id)
);

-- A plan that became, or may become, a job: the items stand in `replay_item`.
CREATE TABLE replay_job (
    integration integer NOT NULL,
    id bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('planning', 'planned', 'canary', 'running', 'paused', 'halted', 'cancelled',
                                         'completed', 'completed_with_failures', 'expired')),
    version integer NOT NULL,
    digest text,  -- of what was planned; NULL while that is written down
    settled boolean NOT NULL DEFAULT false,  -- nothing more comes of it
    config text NOT NULL,  -- every other field, as JSON
    PRIMARY KEY (integration, id)
);
CREATE INDEX replay_job_unsettled ON replay_job (integration, id) WHERE NOT settled;
CREATE INDEX replay_job_digest ON replay_job (digest);

-- One item of a plan: what became of it, by outcome.
CREATE TABLE replay_item (
    integration integer NOT NULL,
    job bigint NOT NULL,
    item bigint NOT NULL,
    cycle integer NOT NULL,  -- it was planned in; its replay is the next
    risk smallint NOT NULL,
    state text NOT NULL CHECK (state IN ('waiting', 'in_flight', 'succeeded', 'failed', 'skipped', 'cancelled')),
    reason text,  -- why it was skipped, or how it failed
    told_at bigint,  -- when its first attempt ended
    stumbled boolean NOT NULL DEFAULT false,  -- its first attempt failed
    PRIMARY KEY (integration, job, item)
);
CREATE INDEX replay_item_next ON replay_item (integration, job, state, item);
CREATE INDEX replay_item_told ON replay_item (integration, job, told_at) WHERE told_at IS NOT NULL;
CREATE INDEX replay_item_of ON replay_item (integration, item);

ALTER TABLE cycle ADD COLUMN job bigint;  -- that opened it

-- Stopped for a while, whatever its lifecycle: `hold` accepts and does not send, `reject` refuses.
ALTER TABLE integration ADD COLUMN containment text CHECK (containment IN ('hold', 'reject'));
-- How it is held, released and throttled, as JSON: changes beside `config`, and not its version.
ALTER TABLE integration ADD COLUMN traffic text;
-- The version of the catalogue that a process has taken over: from then on it starts nothing that is held.
ALTER TABLE incarnation ADD COLUMN follows bigint NOT NULL DEFAULT 0;

-- What came of attempts, by the minute in which they were recorded and the process that did.
CREATE TABLE tally (
    integration integer NOT NULL,
    minute bigint NOT NULL,  -- since 1970
    owner bigint NOT NULL,
    succeeded bigint NOT NULL,
    failed bigint NOT NULL,
    duration_us bigint NOT NULL,  -- of all of them together
    PRIMARY KEY (integration, minute, owner)
) WITH (fillfactor = 50);

-- The SHA-256 of the record; NULL: of before there was one. A record names that of its target's event before it.
ALTER TABLE audit ADD COLUMN digest bytea CHECK (length(digest) = 32);

-- What died lately, for alerts. Its condition always holds: so only a query that names it is planned with this index, and
-- none that knows the id and should go by that.
CREATE INDEX dead_died ON dead (integration, died_at) WHERE died_at > 0;

-- What was done under the name of an incident.
CREATE INDEX audit_incident ON audit ((record::json #>> '{metadata,incident}'), id)
 WHERE strpos(record, '"incident":') > 0;
-- The id from which on no record was ever forgotten: before it nobody wrote that down.
INSERT INTO secret_of_database (name, value)
SELECT 'audit_forgotten', int8send(since)
  FROM (SELECT coalesce((SELECT min(id) FROM audit), (SELECT max(id) + 1 FROM delivery)) AS since) AS first_kept
 WHERE since IS NOT NULL;
