-- The live VM of the same name whose place a VM is about to take, or which took its own.
ALTER TABLE vms ADD COLUMN beside TEXT;

DROP INDEX vms_live_name;
CREATE UNIQUE INDEX vms_live_name ON vms(name)
    WHERE state IN ('created', 'booting', 'running', 'paused') AND beside IS NULL;
