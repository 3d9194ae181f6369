-- What was signalled to camera nodes last: PAUSE or RESUME.
CREATE TABLE node_signal (
    application_instance_id TEXT NOT NULL REFERENCES application_instance (application_instance_id) ON DELETE CASCADE,
    node TEXT NOT NULL,             -- the node instance's name
    signal TEXT NOT NULL,
    updated_ms INTEGER NOT NULL,
    PRIMARY KEY (application_instance_id, node)
) STRICT;

-- Jobs that imported package versions. Stored when they have ended.
CREATE TABLE import_job (
    job_id TEXT PRIMARY KEY,
    client_token TEXT NOT NULL UNIQUE,
    input TEXT NOT NULL,            -- the request
    status TEXT NOT NULL,           -- SUCCEEDED, FAILED
    status_message TEXT NOT NULL,
    output TEXT NOT NULL,           -- PackageImportJobOutput
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX application_instance_created ON application_instance (device_id, created_ms);
