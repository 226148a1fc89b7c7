-- What was delivered and answered is gone for good, on request; that it was stays, and why it is gone.
CREATE TABLE erased (
    integration integer NOT NULL,
    item bigint NOT NULL,
    erased_at bigint NOT NULL,
    erased_by text NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (integration, item)
);
