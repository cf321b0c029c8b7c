-- Builds whose artifacts lie in dev/builds/<id>/.
CREATE TABLE builds (
    id         TEXT PRIMARY KEY,
    flake      TEXT NOT NULL,
    attribute  TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    used_ms    INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL
) STRICT;

-- What the source looked like when it gave a build: key of flake, attribute and options → build.
CREATE TABLE sources (
    key         TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    build       TEXT NOT NULL REFERENCES builds(id) ON DELETE CASCADE
) STRICT;

CREATE TABLE vms (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    build      TEXT NOT NULL,
    state      TEXT NOT NULL,
    detail     TEXT,
    spec       TEXT NOT NULL,
    process    TEXT,
    created_ms INTEGER NOT NULL,
    changed_ms INTEGER NOT NULL
) STRICT;

-- A name is a label; only one VM that is not over may bear it.
CREATE UNIQUE INDEX vms_live_name ON vms(name) WHERE state IN ('created', 'booting', 'running', 'paused');

-- Audit: what happened to what.
CREATE TABLE events (
    id      INTEGER PRIMARY KEY,
    time_ms INTEGER NOT NULL,
    subject TEXT NOT NULL,
    what    TEXT NOT NULL
) STRICT;
