-- Certificates of devices that were deleted. Their appliances are free, and hear of it when they next ask.
CREATE TABLE released_certificate (
    fingerprint TEXT PRIMARY KEY,   -- as in certificate
    thing_name TEXT NOT NULL,
    device_id TEXT NOT NULL,
    released_ms INTEGER NOT NULL,
    told_ms INTEGER,                -- when the appliance first heard of it
    expires_ms INTEGER NOT NULL     -- the certificate's end: after it nobody can ask
) STRICT;
