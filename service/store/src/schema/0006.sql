-- Which secrets.key this database belongs to.
CREATE TABLE service_owner (
    number INTEGER PRIMARY KEY CHECK (number = 1),
    sealed BLOB NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

-- The sweep of blobs that nobody names asks by these.
CREATE INDEX object_file ON object (file);
CREATE INDEX upload_part_file ON upload_part (file);

-- Copies of the service that run now, or did a moment ago.
CREATE TABLE service_copy (
    copy_id TEXT PRIMARY KEY,
    started_ms INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL
) STRICT;

-- Which copy has a client's connection.
CREATE TABLE mqtt_connection (
    client TEXT PRIMARY KEY,
    copy_id TEXT NOT NULL REFERENCES service_copy (copy_id) ON DELETE CASCADE,
    connection TEXT NOT NULL,       -- a name that no other connection has
    device_id TEXT NOT NULL,
    is_device INTEGER NOT NULL,     -- 0: a claim
    since_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX mqtt_connection_copy ON mqtt_connection (copy_id);

-- What one copy tells another about a client that is connected there.
CREATE TABLE copy_note (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    copy_id TEXT NOT NULL REFERENCES service_copy (copy_id) ON DELETE CASCADE,
    client TEXT NOT NULL,
    note TEXT NOT NULL              -- JSON
) STRICT;
CREATE INDEX copy_note_copy ON copy_note (copy_id, sequence);
