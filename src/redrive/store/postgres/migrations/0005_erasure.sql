-- What was delivered and answered is gone for good, on request; that it was stays, and why it is gone.
CREATE TABLE erased (
    integration integer NOT NULL,
    item bigint NOT NULL,
    erased_at bigint NOT NULL,
    erased_by text NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (integration, item)
);

-- What an answer tells of, so that it goes with it.
ALTER TABLE answer ADD COLUMN item bigint;
CREATE INDEX answer_item ON answer (item) WHERE item IS NOT NULL;
