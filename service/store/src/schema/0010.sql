-- Messages of the service that wait for an external broker which cannot be reached now.
CREATE TABLE broker_message (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    quality INTEGER NOT NULL,
    retain INTEGER NOT NULL,
    publisher_expires_ms INTEGER,       -- as given
    expires_ms INTEGER NOT NULL         -- the earlier of that and a week
) STRICT;
CREATE INDEX broker_message_expires ON broker_message (expires_ms);
