-- Who uses this node: network and quotas as JSON.
CREATE TABLE tenants (
    id         TEXT PRIMARY KEY,
    body       TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

-- Instances of one image. `build` is the current revision, made of `source`; `detail` says why the last
-- build failed, and `retry_at_ms` when the next is due; `create_at_ms` when instances may be created again.
CREATE TABLE pools (
    tenant        TEXT NOT NULL REFERENCES tenants(id),
    id            TEXT NOT NULL,
    body          TEXT NOT NULL,
    build         TEXT,
    source        TEXT,
    detail        TEXT,
    failures      INTEGER NOT NULL DEFAULT 0,
    retry_at_ms   INTEGER,
    create_at_ms  INTEGER,
    held_until_ms INTEGER,
    created_ms    INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;

-- What a pool's flake gave, in order.
CREATE TABLE revisions (
    number     INTEGER PRIMARY KEY,
    tenant     TEXT NOT NULL,
    pool       TEXT NOT NULL,
    build      TEXT NOT NULL,
    source     TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    FOREIGN KEY (tenant, pool) REFERENCES pools(tenant, id) ON DELETE CASCADE
) STRICT;

-- One VM each, which bears the instance's name. `host` is its number in the tenant's subnet; `resources`
-- and `lease` are JSON.
CREATE TABLE instances (
    id            TEXT PRIMARY KEY,
    tenant        TEXT NOT NULL,
    pool          TEXT NOT NULL,
    build         TEXT NOT NULL,
    state         TEXT NOT NULL,
    detail        TEXT,
    host          INTEGER NOT NULL,
    resources     TEXT NOT NULL,
    lease         TEXT,
    failures      INTEGER NOT NULL DEFAULT 0,
    retry_at_ms   INTEGER,
    held_until_ms INTEGER,
    since_ms      INTEGER NOT NULL,
    created_ms    INTEGER NOT NULL,
    FOREIGN KEY (tenant, pool) REFERENCES pools(tenant, id)
) STRICT;

CREATE UNIQUE INDEX instances_host ON instances(tenant, host);
CREATE INDEX instances_pool ON instances(tenant, pool);

-- An instance's VM is found by its name.
CREATE INDEX vms_name ON vms(name);
