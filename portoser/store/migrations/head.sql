CREATE TABLE mcp_schema_version (
    version_num VARCHAR(32) NOT NULL, 
    CONSTRAINT mcp_schema_version_pkc PRIMARY KEY (version_num)
);

-- Running upgrade  -> 0001

CREATE TABLE mcp_admissions (
    key TEXT NOT NULL, 
    outcome JSON NOT NULL, 
    digest TEXT, 
    at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mcp_admissions PRIMARY KEY (key)
);

CREATE TABLE mcp_audit_intents (
    id UUID NOT NULL, 
    at TIMESTAMP WITH TIME ZONE NOT NULL, 
    replica TEXT NOT NULL, 
    entry JSONB NOT NULL, 
    CONSTRAINT pk_mcp_audit_intents PRIMARY KEY (id)
);

CREATE INDEX ix_mcp_audit_intents_replica ON mcp_audit_intents (replica);

CREATE TABLE mcp_audit_logs (
    id UUID NOT NULL, 
    at TIMESTAMP WITH TIME ZONE NOT NULL, 
    event TEXT NOT NULL, 
    caller JSONB NOT NULL, 
    caller_subject TEXT NOT NULL, 
    ip TEXT, 
    client TEXT, 
    agent TEXT, 
    session TEXT, 
    tool TEXT, 
    digest TEXT, 
    version INTEGER, 
    commit TEXT, 
    path TEXT, 
    owner TEXT, 
    arguments JSONB, 
    result JSONB, 
    result_digest TEXT, 
    outcome TEXT NOT NULL, 
    reason TEXT, 
    error TEXT, 
    duration_ms DOUBLE PRECISION, 
    request_id TEXT, 
    chain TEXT NOT NULL, 
    seq BIGINT NOT NULL, 
    prev_hash BYTEA, 
    hash BYTEA, 
    CONSTRAINT pk_mcp_audit_logs PRIMARY KEY (id), 
    CONSTRAINT uq_mcp_audit_logs_chain_seq UNIQUE (chain, seq)
);

CREATE INDEX ix_mcp_audit_logs_caller_newest ON mcp_audit_logs (caller_subject, at DESC, id DESC);

CREATE INDEX ix_mcp_audit_logs_event_newest ON mcp_audit_logs (event, at DESC, id DESC);

CREATE INDEX ix_mcp_audit_logs_newest ON mcp_audit_logs (at DESC, id DESC);

CREATE INDEX ix_mcp_audit_logs_outcome_newest ON mcp_audit_logs (outcome, at DESC, id DESC);

CREATE INDEX ix_mcp_audit_logs_request_id ON mcp_audit_logs (request_id);

CREATE INDEX ix_mcp_audit_logs_tool_newest ON mcp_audit_logs (tool, at DESC, id DESC);

CREATE TABLE mcp_groups (
    name TEXT NOT NULL, 
    owner TEXT, 
    enabled BOOLEAN NOT NULL, 
    permissions JSONB NOT NULL, 
    description TEXT NOT NULL, 
    path TEXT, 
    override_enabled BOOLEAN, 
    override_reason TEXT, 
    override_by TEXT, 
    override_at TIMESTAMP WITH TIME ZONE, 
    override_expires_at TIMESTAMP WITH TIME ZONE, 
    generation BIGINT NOT NULL, 
    CONSTRAINT pk_mcp_groups PRIMARY KEY (name)
);

CREATE TABLE mcp_policy (
    id SMALLINT NOT NULL, 
    owner TEXT NOT NULL, 
    path TEXT, 
    body JSON NOT NULL, 
    generation BIGINT NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    CONSTRAINT pk_mcp_policy PRIMARY KEY (id), 
    CONSTRAINT ck_mcp_policy_one_row CHECK (id = 1)
);

CREATE TABLE mcp_registry (
    id SMALLINT NOT NULL, 
    generation BIGINT NOT NULL, 
    CONSTRAINT pk_mcp_registry PRIMARY KEY (id), 
    CONSTRAINT ck_mcp_registry_one_row CHECK (id = 1)
);

CREATE TABLE mcp_replicas (
    replica TEXT NOT NULL, 
    lease_expires_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    generation BIGINT, 
    CONSTRAINT pk_mcp_replicas PRIMARY KEY (replica)
);

CREATE TABLE mcp_revisions (
    digest TEXT NOT NULL, 
    listing_digest TEXT NOT NULL, 
    body JSON NOT NULL, 
    lock TEXT, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mcp_revisions PRIMARY KEY (digest)
);

CREATE TABLE mcp_sources (
    name TEXT NOT NULL, 
    kind TEXT NOT NULL, 
    ref TEXT, 
    path TEXT, 
    phase TEXT NOT NULL, 
    conditions JSONB DEFAULT '[]' NOT NULL, 
    problems JSONB DEFAULT '[]' NOT NULL, 
    observed_commit TEXT, 
    applied_commit TEXT, 
    applied_tree TEXT, 
    generation BIGINT, 
    pinned_to TEXT, 
    failures INTEGER DEFAULT 0 NOT NULL, 
    next_retry_at TIMESTAMP WITH TIME ZONE, 
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    CONSTRAINT pk_mcp_sources PRIMARY KEY (name)
);

CREATE TABLE mcp_sync_runs (
    id UUID NOT NULL, 
    source TEXT NOT NULL, 
    cause TEXT NOT NULL, 
    started_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    finished_at TIMESTAMP WITH TIME ZONE, 
    base_generation BIGINT, 
    generation BIGINT, 
    commit TEXT, 
    author TEXT, 
    outcome TEXT, 
    plan JSONB, 
    summary JSONB, 
    problems JSONB, 
    error TEXT, 
    durations JSONB, 
    CONSTRAINT pk_mcp_sync_runs PRIMARY KEY (id)
);

CREATE INDEX ix_mcp_sync_runs_newest ON mcp_sync_runs (started_at DESC, id DESC);

CREATE INDEX ix_mcp_sync_runs_source_newest ON mcp_sync_runs (source, started_at DESC, id DESC);

CREATE TABLE mcp_revision_files (
    digest TEXT NOT NULL, 
    position INTEGER NOT NULL, 
    path TEXT NOT NULL, 
    content TEXT NOT NULL, 
    CONSTRAINT pk_mcp_revision_files PRIMARY KEY (digest, position), 
    CONSTRAINT fk_mcp_revision_files_digest FOREIGN KEY(digest) REFERENCES mcp_revisions (digest)
);

CREATE TABLE mcp_tools (
    id UUID NOT NULL, 
    name TEXT NOT NULL, 
    owner TEXT NOT NULL, 
    group_name TEXT, 
    permissions JSONB, 
    digest TEXT NOT NULL, 
    version INTEGER NOT NULL, 
    status TEXT NOT NULL, 
    problem TEXT, 
    source TEXT NOT NULL, 
    path TEXT, 
    commit TEXT, 
    author TEXT, 
    applied_commit TEXT, 
    generation BIGINT NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    deleted_at TIMESTAMP WITH TIME ZONE, 
    CONSTRAINT pk_mcp_tools PRIMARY KEY (id), 
    CONSTRAINT fk_mcp_tools_digest FOREIGN KEY(digest) REFERENCES mcp_revisions (digest), 
    CONSTRAINT uq_mcp_tools_name_owner UNIQUE (name, owner)
);

CREATE INDEX ix_mcp_tools_generation ON mcp_tools (generation);

CREATE UNIQUE INDEX uq_mcp_tools_living_name ON mcp_tools (name) WHERE deleted_at IS NULL;

CREATE TABLE mcp_tool_versions (
    tool_id UUID NOT NULL, 
    version INTEGER NOT NULL, 
    digest TEXT NOT NULL, 
    commit TEXT, 
    author TEXT, 
    at TIMESTAMP WITH TIME ZONE NOT NULL, 
    CONSTRAINT pk_mcp_tool_versions PRIMARY KEY (tool_id, version), 
    CONSTRAINT fk_mcp_tool_versions_digest FOREIGN KEY(digest) REFERENCES mcp_revisions (digest), 
    CONSTRAINT fk_mcp_tool_versions_tool_id FOREIGN KEY(tool_id) REFERENCES mcp_tools (id)
);

INSERT INTO mcp_registry (id, generation) VALUES (1, 0);

CREATE FUNCTION mcp_audit_logs_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'mcp_audit_logs is append-only: % is not allowed', TG_OP
                USING ERRCODE = 'insufficient_privilege';
        END
        $$;

CREATE TRIGGER mcp_audit_logs_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON mcp_audit_logs
        FOR EACH STATEMENT EXECUTE FUNCTION mcp_audit_logs_append_only();

INSERT INTO mcp_schema_version (version_num) VALUES ('0001') RETURNING mcp_schema_version.version_num;

-- Running upgrade 0001 -> 0003

CREATE TABLE mcp_locks (
    key TEXT NOT NULL, 
    digest TEXT NOT NULL, 
    requires JSONB NOT NULL, 
    lock TEXT NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mcp_locks PRIMARY KEY (key)
);

CREATE INDEX ix_mcp_locks_digest ON mcp_locks (digest);

UPDATE mcp_schema_version SET version_num='0003' WHERE mcp_schema_version.version_num = '0001';

-- Running upgrade 0003 -> 0004

CREATE TABLE mcp_keys (
    name TEXT NOT NULL, 
    key BYTEA NOT NULL, 
    CONSTRAINT pk_mcp_keys PRIMARY KEY (name)
);

CREATE TABLE mcp_spent_nonces (
    nonce TEXT NOT NULL, 
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    CONSTRAINT pk_mcp_spent_nonces PRIMARY KEY (nonce)
);

CREATE INDEX ix_mcp_spent_nonces_expires_at ON mcp_spent_nonces (expires_at);

INSERT INTO mcp_keys (name, key)
        SELECT 'questions', sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'));

UPDATE mcp_schema_version SET version_num='0004' WHERE mcp_schema_version.version_num = '0003';

-- Running upgrade 0004 -> 0005

ALTER TABLE mcp_audit_logs ADD COLUMN powers JSONB;

UPDATE mcp_schema_version SET version_num='0005' WHERE mcp_schema_version.version_num = '0004';

