-- What was delivered and answered is gone for good, on request; that it was stays, and why it is gone.
CREATE TABLE erased (
    item INTEGER PRIMARY KEY,
    integration INTEGER NOT NULL,
    erased_at INTEGER NOT NULL,
    erased_by TEXT NOT NULL,
    reason TEXT NOT NULL
) STRICT;
