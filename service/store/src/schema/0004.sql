-- MQTT sessions that outlive their connection: what a client subscribed to, and what waits for it.
CREATE TABLE mqtt_session (
    client TEXT PRIMARY KEY REFERENCES device (thing_name) ON DELETE CASCADE,
    connection TEXT NOT NULL,       -- the one that has it now, or had it last
    expiry_ms INTEGER NOT NULL,     -- how long it lasts without a connection
    expires_ms INTEGER NOT NULL,    -- when it ends unless the client comes back; moved on while it is connected
    next_number INTEGER NOT NULL,   -- of the next message
    sent_number INTEGER NOT NULL,   -- messages below it were sent on an earlier connection
    queued INTEGER NOT NULL,        -- messages that wait
    queued_bytes INTEGER NOT NULL   -- their topics and payloads
) STRICT;

CREATE TABLE mqtt_subscription (
    client TEXT NOT NULL REFERENCES mqtt_session (client) ON DELETE CASCADE,
    filter TEXT NOT NULL,
    quality INTEGER NOT NULL,       -- granted: 0, 1
    no_local INTEGER NOT NULL,
    keep_retain INTEGER NOT NULL,   -- "retain as published"
    PRIMARY KEY (client, filter)
) STRICT;

CREATE TABLE mqtt_message (
    client TEXT NOT NULL REFERENCES mqtt_session (client) ON DELETE CASCADE,
    number INTEGER NOT NULL,        -- the order of delivery
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    properties BLOB NOT NULL,       -- of MQTT 5, as on the wire
    retain INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (client, number)
) STRICT;

-- The last message of a topic that was published to be kept.
CREATE TABLE mqtt_retained (
    topic TEXT PRIMARY KEY,
    client TEXT NOT NULL REFERENCES device (thing_name) ON DELETE CASCADE,
    payload BLOB NOT NULL,
    properties BLOB NOT NULL,
    quality INTEGER NOT NULL,
    expires_ms INTEGER,
    modified_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX mqtt_retained_client ON mqtt_retained (client);

-- When a job was begun, and when it counts as timed out: as a whole, and its present step.
ALTER TABLE device_job ADD COLUMN started_ms INTEGER;
ALTER TABLE device_job ADD COLUMN deadline_ms INTEGER;
ALTER TABLE device_job ADD COLUMN step_deadline_ms INTEGER;
