-- Jobs of devices. Kept when they have ended: their numbers are never given again.
CREATE TABLE device_job (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    device_id TEXT NOT NULL REFERENCES device (device_id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    document TEXT NOT NULL,         -- the job document
    status TEXT NOT NULL,           -- QUEUED, IN_PROGRESS, SUCCEEDED, FAILED, REJECTED
    details TEXT NOT NULL,          -- statusDetails
    version INTEGER NOT NULL,       -- grows with each change
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    UNIQUE (device_id, number)
) STRICT;
