-- Times are milliseconds since 1970. JSON columns hold text. `secret` columns are sealed (see secrets.rs).

CREATE TABLE access_key (
    access_key_id TEXT PRIMARY KEY,
    secret BLOB NOT NULL,
    description TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    revoked_ms INTEGER
) STRICT;

CREATE TABLE device (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    device_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    thing_name TEXT NOT NULL UNIQUE,
    description TEXT,
    tags TEXT NOT NULL,
    networking TEXT,                -- NetworkPayload as given
    provisioning_status TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    serial_number TEXT,
    software_version TEXT,
    network_status TEXT,            -- NetworkStatus as reported
    network_status_ms INTEGER,
    lease_expires_ms INTEGER,
    connected INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX device_name ON device (name);

CREATE TABLE certificate (
    fingerprint TEXT PRIMARY KEY,   -- SHA-256 of the DER, hexadecimal; also the certificate's identifier
    common_name TEXT NOT NULL,
    device_id TEXT NOT NULL REFERENCES device (device_id) ON DELETE CASCADE,
    kind TEXT NOT NULL,             -- claim, device
    status TEXT NOT NULL,           -- active, pending, consumed, revoked
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    claim TEXT,                     -- fingerprint of the claim that asked for this certificate
    token_hash TEXT,                -- SHA-256 of the ownership token
    token_expires_ms INTEGER
) STRICT;
CREATE INDEX certificate_device ON certificate (device_id);

CREATE TABLE shadow (
    thing_name TEXT NOT NULL REFERENCES device (thing_name) ON DELETE CASCADE,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,       -- kept when the shadow is deleted: versions never go back
    document TEXT,                  -- {"desired","reported","metadata"}; NULL: deleted
    PRIMARY KEY (thing_name, name)
) STRICT;

CREATE TABLE package (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    package_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    tags TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE package_version (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    package_id TEXT NOT NULL REFERENCES package (package_id) ON DELETE CASCADE,
    version TEXT NOT NULL,
    patch TEXT NOT NULL,
    status TEXT NOT NULL,
    status_description TEXT,
    latest INTEGER NOT NULL,
    registered_ms INTEGER NOT NULL,
    manifest TEXT NOT NULL,         -- package.json as registered
    camera BLOB,                    -- sealed template parameters, when it is a camera
    UNIQUE (package_id, version, patch)
) STRICT;

CREATE TABLE node (
    node_id TEXT PRIMARY KEY,
    version_sequence INTEGER NOT NULL REFERENCES package_version (sequence) ON DELETE CASCADE,
    name TEXT NOT NULL,
    category TEXT NOT NULL,
    description TEXT NOT NULL,
    asset TEXT,
    interface TEXT NOT NULL,        -- NodeInterface
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE template_job (
    job_id TEXT PRIMARY KEY,
    input TEXT NOT NULL,            -- the request, its secrets replaced
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE application_instance (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    application_instance_id TEXT NOT NULL UNIQUE,
    device_id TEXT NOT NULL,
    device_name TEXT NOT NULL,
    name TEXT,
    description TEXT,
    manifest TEXT NOT NULL,
    overrides TEXT,
    role_arn TEXT,
    tags TEXT NOT NULL,
    replaces TEXT,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    removed INTEGER NOT NULL DEFAULT 0,
    status TEXT NOT NULL,
    status_description TEXT NOT NULL,
    health TEXT NOT NULL,
    device_reported_status TEXT,
    device_reported_ms INTEGER,
    document BLOB,                  -- the deployment document, sealed: it holds camera passwords; NULL once removed
    document_sha256 TEXT NOT NULL,
    nodes TEXT NOT NULL             -- NodeRecord[]
) STRICT;
CREATE INDEX application_instance_device ON application_instance (device_id);

-- What a device may read because one of its deployments names it.
CREATE TABLE deployment_object (
    application_instance_id TEXT NOT NULL REFERENCES application_instance (application_instance_id) ON DELETE CASCADE,
    device_id TEXT NOT NULL,
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (device_id, bucket, key, application_instance_id)
) STRICT;

CREATE TABLE object (
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    crc32 TEXT,                     -- base64, big endian; NULL for objects put together from parts
    content_type TEXT NOT NULL,
    modified_ms INTEGER NOT NULL,
    file TEXT NOT NULL,
    PRIMARY KEY (bucket, key)
) STRICT;

CREATE TABLE upload (
    upload_id TEXT PRIMARY KEY,
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,
    content_type TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE upload_part (
    upload_id TEXT NOT NULL REFERENCES upload (upload_id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,
    file TEXT NOT NULL,
    PRIMARY KEY (upload_id, number)
) STRICT;

CREATE TABLE log_group (
    name TEXT PRIMARY KEY,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE log_stream (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    log_group TEXT NOT NULL REFERENCES log_group (name) ON DELETE CASCADE,
    name TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    first_event_ms INTEGER,
    last_event_ms INTEGER,
    last_ingestion_ms INTEGER,
    UNIQUE (log_group, name)
) STRICT;

CREATE TABLE log_event (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    stream INTEGER NOT NULL REFERENCES log_stream (sequence) ON DELETE CASCADE,
    timestamp_ms INTEGER NOT NULL,
    ingestion_ms INTEGER NOT NULL,
    message TEXT NOT NULL
) STRICT;
CREATE INDEX log_event_time ON log_event (stream, timestamp_ms, sequence);
