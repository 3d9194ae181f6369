-- Metrics: sums of what came, per minute at first, coarser with age.
CREATE TABLE metric (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    dimensions TEXT NOT NULL,       -- [[name, value], ...], by name
    last_ms INTEGER NOT NULL,       -- time of the newest datapoint
    UNIQUE (namespace, name, dimensions)
) STRICT;

CREATE TABLE datapoint (
    metric INTEGER NOT NULL REFERENCES metric (sequence) ON DELETE CASCADE,
    period_s INTEGER NOT NULL,      -- 60, 300 or 3600
    start_ms INTEGER NOT NULL,
    unit TEXT NOT NULL,
    samples REAL NOT NULL,
    total REAL NOT NULL,
    smallest REAL NOT NULL,
    greatest REAL NOT NULL,
    PRIMARY KEY (metric, period_s, start_ms, unit)
) STRICT;
CREATE INDEX datapoint_age ON datapoint (period_s, start_ms);

CREATE TABLE alarm (
    name TEXT PRIMARY KEY,
    region TEXT NOT NULL,           -- of its ARN
    definition TEXT NOT NULL,       -- as PutMetricAlarm has it
    state TEXT NOT NULL,            -- OK, ALARM, INSUFFICIENT_DATA
    reason TEXT NOT NULL,
    reason_data TEXT,
    state_updated_ms INTEGER NOT NULL,
    configured_ms INTEGER NOT NULL,
    version INTEGER NOT NULL        -- grows with each change
) STRICT;

CREATE TABLE alarm_history (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    alarm TEXT NOT NULL,            -- kept when the alarm is deleted
    kind TEXT NOT NULL,             -- ConfigurationUpdate, StateUpdate, Action
    summary TEXT NOT NULL,
    data TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX alarm_history_alarm ON alarm_history (alarm, sequence);
CREATE INDEX alarm_history_age ON alarm_history (created_ms);

CREATE TABLE topic (
    name TEXT PRIMARY KEY,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE subscription (
    subscription_id TEXT PRIMARY KEY,
    topic TEXT NOT NULL REFERENCES topic (name) ON DELETE CASCADE,
    protocol TEXT NOT NULL,         -- http, https, email
    endpoint BLOB NOT NULL,         -- sealed: addresses of webhooks often hold a password
    raw INTEGER NOT NULL,           -- 1: the message alone, 0: in SNS's envelope
    created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX subscription_topic ON subscription (topic);

-- Messages that are still to be delivered. Written with what they tell of, deleted when the other side has them.
CREATE TABLE outbox (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    subscription_id TEXT NOT NULL REFERENCES subscription (subscription_id) ON DELETE CASCADE,
    message_id TEXT NOT NULL,
    topic_arn TEXT NOT NULL,
    subject TEXT NOT NULL,
    message TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    due_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX outbox_due ON outbox (due_ms);
CREATE INDEX outbox_subscription ON outbox (subscription_id, sequence);

ALTER TABLE log_group ADD COLUMN retention_days INTEGER;        -- NULL: for ever
ALTER TABLE log_group ADD COLUMN tags TEXT NOT NULL DEFAULT '{}';
ALTER TABLE log_stream ADD COLUMN stored_bytes INTEGER NOT NULL DEFAULT 0;

CREATE TABLE log_export (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    task_id TEXT NOT NULL UNIQUE,
    name TEXT,
    log_group TEXT NOT NULL,
    stream_prefix TEXT NOT NULL,
    from_ms INTEGER NOT NULL,
    to_ms INTEGER NOT NULL,
    bucket TEXT NOT NULL,
    prefix TEXT NOT NULL,
    status TEXT NOT NULL,           -- PENDING, RUNNING, COMPLETED, CANCELLED, FAILED
    message TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    completed_ms INTEGER,
    claimed_ms INTEGER NOT NULL     -- until when whoever writes it has it for itself
) STRICT;
