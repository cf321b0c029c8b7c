-- How long builds of derivations took, by the name without its hash; `host` is empty for this machine.
CREATE TABLE durations (
    id          INTEGER PRIMARY KEY,
    name        TEXT NOT NULL,
    host        TEXT NOT NULL,
    duration_ms INTEGER NOT NULL,
    time_ms     INTEGER NOT NULL
) STRICT;

CREATE INDEX durations_name ON durations(name, host);
