-- A token may be bound to a tenant: to the integrations whose id begins with its name and a dot.
ALTER TABLE token ADD COLUMN tenant text;
