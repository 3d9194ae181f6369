-- Roles: what applications and people may do for an hour or so.
CREATE TABLE role (
    role_id TEXT PRIMARY KEY,       -- AROA…
    name TEXT NOT NULL UNIQUE,
    path TEXT NOT NULL,
    description TEXT,
    trust_policy TEXT NOT NULL,     -- who may assume it
    max_session_s INTEGER NOT NULL,
    tags TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE role_policy (
    role_id TEXT NOT NULL REFERENCES role (role_id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (role_id, name)
) STRICT;

CREATE TABLE managed_policy (
    policy_id TEXT PRIMARY KEY,     -- ANPA…
    arn TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    path TEXT NOT NULL,
    description TEXT,
    document TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE role_attachment (
    role_id TEXT NOT NULL REFERENCES role (role_id) ON DELETE CASCADE,
    policy_id TEXT NOT NULL REFERENCES managed_policy (policy_id),
    PRIMARY KEY (role_id, policy_id)
) STRICT;

-- Who called what. Only added to, and pruned by age and number.
CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    time_ms INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    caller TEXT NOT NULL,           -- an ARN; "unverified <access key>" if the signature was refused
    access_key_id TEXT NOT NULL,
    source TEXT NOT NULL,           -- address that the connection came from
    action TEXT NOT NULL,           -- panorama:ListDevices
    resource TEXT NOT NULL,
    status INTEGER NOT NULL
) STRICT;
CREATE INDEX audit_time ON audit (time_ms);

-- Secrets Manager.
CREATE TABLE secret (
    arn TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    description TEXT,
    tags TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    changed_ms INTEGER NOT NULL,
    accessed_ms INTEGER,
    deletion_ms INTEGER             -- when it will be gone for good
) STRICT;

CREATE TABLE secret_version (
    arn TEXT NOT NULL REFERENCES secret (arn) ON DELETE CASCADE,
    version_id TEXT NOT NULL,
    stage TEXT,                     -- AWSCURRENT, AWSPREVIOUS
    kind TEXT NOT NULL,             -- string, binary
    value BLOB NOT NULL,            -- sealed
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (arn, version_id)
) STRICT;

-- CloudFormation.
CREATE TABLE stack (
    stack_id TEXT PRIMARY KEY,      -- its ARN
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    status_reason TEXT,
    template TEXT NOT NULL,         -- as given; empty until a change set was executed
    parameters TEXT NOT NULL,       -- {name: value}
    outputs TEXT NOT NULL,          -- [{key, value, description}]
    description TEXT,
    capabilities TEXT NOT NULL,
    tags TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER,
    deleted_ms INTEGER
) STRICT;
CREATE UNIQUE INDEX stack_live ON stack (name) WHERE deleted_ms IS NULL;

CREATE TABLE stack_resource (
    stack_id TEXT NOT NULL REFERENCES stack (stack_id) ON DELETE CASCADE,
    logical_id TEXT NOT NULL,
    kind TEXT NOT NULL,             -- AWS::IAM::Role
    physical_id TEXT NOT NULL,
    properties TEXT NOT NULL,       -- resolved
    attributes TEXT NOT NULL,
    status TEXT NOT NULL,
    updated_ms INTEGER NOT NULL,
    PRIMARY KEY (stack_id, logical_id)
) STRICT;

CREATE TABLE stack_event (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL,
    stack_id TEXT NOT NULL REFERENCES stack (stack_id) ON DELETE CASCADE,
    logical_id TEXT NOT NULL,
    physical_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT,
    time_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX stack_event_stack ON stack_event (stack_id, sequence);

CREATE TABLE change_set (
    change_set_id TEXT PRIMARY KEY, -- its ARN
    name TEXT NOT NULL,
    stack_id TEXT NOT NULL REFERENCES stack (stack_id) ON DELETE CASCADE,
    kind TEXT NOT NULL,             -- CREATE, UPDATE
    status TEXT NOT NULL,
    status_reason TEXT,
    execution_status TEXT NOT NULL,
    description TEXT,
    template TEXT NOT NULL,
    parameters TEXT NOT NULL,
    capabilities TEXT NOT NULL,
    tags TEXT NOT NULL,
    changes TEXT NOT NULL,          -- [{action, logical_id, kind, physical_id, replacement}]
    created_ms INTEGER NOT NULL,
    UNIQUE (stack_id, name)
) STRICT;
