-- What was delivered and answered is gone for good, on request; that it was stays, and why it is gone.
CREATE TABLE erased (
    item INTEGER PRIMARY KEY,
    integration INTEGER NOT NULL,
    erased_at INTEGER NOT NULL,
    erased_by TEXT NOT NULL,
    reason TEXT NOT NULL
) STRICT;

-- What an answer tells of, so that it goes with it.
ALTER TABLE answer ADD COLUMN item INTEGER;
CREATE INDEX answer_item ON answer (item) WHERE item IS NOT NULL;
