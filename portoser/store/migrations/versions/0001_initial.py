"""The first tables.

The audit log is append-only twice: the server's role has no privilege to change it, and a trigger stops
everybody else, TRUNCATE included, who does not take the trigger away first.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSON, JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "mcp_admissions",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("outcome", JSON(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_mcp_admissions"),
    )
    op.create_table(
        "mcp_audit_intents",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("replica", sa.Text(), nullable=False),
        sa.Column("entry", JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mcp_audit_intents"),
    )
    op.create_index("ix_mcp_audit_intents_replica", "mcp_audit_intents", ["replica"], unique=False)
    op.create_table(
        "mcp_audit_logs",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("caller", JSONB(), nullable=False),
        sa.Column("caller_subject", sa.Text(), nullable=False),
        sa.Column("ip", sa.Text(), nullable=True),
        sa.Column("client", sa.Text(), nullable=True),
        sa.Column("agent", sa.Text(), nullable=True),
        sa.Column("session", sa.Text(), nullable=True),
        sa.Column("tool", sa.Text(), nullable=True),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("commit", sa.Text(), nullable=True),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("arguments", JSONB(), nullable=True),
        sa.Column("result", JSONB(), nullable=True),
        sa.Column("result_digest", sa.Text(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("duration_ms", sa.Double(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("prev_hash", sa.LargeBinary(), nullable=True),
        sa.Column("hash", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_mcp_audit_logs"),
        sa.UniqueConstraint("chain", "seq", name="uq_mcp_audit_logs_chain_seq"),
    )
    op.create_index(
        "ix_mcp_audit_logs_caller_newest",
        "mcp_audit_logs",
        ["caller_subject", sa.text("at DESC"), sa.text("id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_mcp_audit_logs_event_newest",
        "mcp_audit_logs",
        ["event", sa.text("at DESC"), sa.text("id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_mcp_audit_logs_newest", "mcp_audit_logs", [sa.text("at DESC"), sa.text("id DESC")], unique=False
    )
    op.create_index(
        "ix_mcp_audit_logs_outcome_newest",
        "mcp_audit_logs",
        ["outcome", sa.text("at DESC"), sa.text("id DESC")],
        unique=False,
    )
    op.create_index("ix_mcp_audit_logs_request_id", "mcp_audit_logs", ["request_id"], unique=False)
    op.create_index(
        "ix_mcp_audit_logs_tool_newest",
        "mcp_audit_logs",
        ["tool", sa.text("at DESC"), sa.text("id DESC")],
        unique=False,
    )
    op.create_table(
        "mcp_groups",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("permissions", JSONB(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("override_enabled", sa.Boolean(), nullable=True),
        sa.Column("override_reason", sa.Text(), nullable=True),
        sa.Column("override_by", sa.Text(), nullable=True),
        sa.Column("override_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("override_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_mcp_groups"),
    )
    op.create_table(
        "mcp_policy",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("body", JSON(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("id = 1", name="ck_mcp_policy_one_row"),
        sa.PrimaryKeyConstraint("id", name="pk_mcp_policy"),
    )
    op.create_table(
        "mcp_registry",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name="ck_mcp_registry_one_row"),
        sa.PrimaryKeyConstraint("id", name="pk_mcp_registry"),
    )
    op.create_table(
        "mcp_replicas",
        sa.Column("replica", sa.Text(), nullable=False),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("replica", name="pk_mcp_replicas"),
    )
    op.create_table(
        "mcp_revisions",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("listing_digest", sa.Text(), nullable=False),
        sa.Column("body", JSON(), nullable=False),
        sa.Column("lock", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_mcp_revisions"),
    )
    op.create_table(
        "mcp_sources",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("ref", sa.Text(), nullable=True),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("conditions", JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("problems", JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("observed_commit", sa.Text(), nullable=True),
        sa.Column("applied_commit", sa.Text(), nullable=True),
        sa.Column("applied_tree", sa.Text(), nullable=True),
        sa.Column("generation", sa.BigInteger(), nullable=True),
        sa.Column("pinned_to", sa.Text(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_mcp_sources"),
    )
    op.create_table(
        "mcp_sync_runs",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("base_generation", sa.BigInteger(), nullable=True),
        sa.Column("generation", sa.BigInteger(), nullable=True),
        sa.Column("commit", sa.Text(), nullable=True),
        sa.Column("author", sa.Text(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("plan", JSONB(), nullable=True),
        sa.Column("summary", JSONB(), nullable=True),
        sa.Column("problems", JSONB(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("durations", JSONB(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_mcp_sync_runs"),
    )
    op.create_index(
        "ix_mcp_sync_runs_newest", "mcp_sync_runs", [sa.text("started_at DESC"), sa.text("id DESC")], unique=False
    )
    op.create_index(
        "ix_mcp_sync_runs_source_newest",
        "mcp_sync_runs",
        ["source", sa.text("started_at DESC"), sa.text("id DESC")],
        unique=False,
    )
    op.create_table(
        "mcp_revision_files",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["mcp_revisions.digest"], name="fk_mcp_revision_files_digest"),
        sa.PrimaryKeyConstraint("digest", "position", name="pk_mcp_revision_files"),
    )
    op.create_table(
        "mcp_tools",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("group_name", sa.Text(), nullable=True),
        sa.Column("permissions", JSONB(), nullable=True),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("commit", sa.Text(), nullable=True),
        sa.Column("author", sa.Text(), nullable=True),
        sa.Column("applied_commit", sa.Text(), nullable=True),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["digest"], ["mcp_revisions.digest"], name="fk_mcp_tools_digest"),
        sa.PrimaryKeyConstraint("id", name="pk_mcp_tools"),
        sa.UniqueConstraint("name", "owner", name="uq_mcp_tools_name_owner"),
    )
    op.create_index("ix_mcp_tools_generation", "mcp_tools", ["generation"], unique=False)
    op.create_index(
        "uq_mcp_tools_living_name", "mcp_tools", ["name"], unique=True, postgresql_where=sa.text("deleted_at IS NULL")
    )
    op.create_table(
        "mcp_tool_versions",
        sa.Column("tool_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("commit", sa.Text(), nullable=True),
        sa.Column("author", sa.Text(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["mcp_revisions.digest"], name="fk_mcp_tool_versions_digest"),
        sa.ForeignKeyConstraint(["tool_id"], ["mcp_tools.id"], name="fk_mcp_tool_versions_tool_id"),
        sa.PrimaryKeyConstraint("tool_id", "version", name="pk_mcp_tool_versions"),
    )
    op.execute("INSERT INTO mcp_registry (id, generation) VALUES (1, 0)")
    op.execute(
        """
        CREATE FUNCTION mcp_audit_logs_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'mcp_audit_logs is append-only: % is not allowed', TG_OP
                USING ERRCODE = 'insufficient_privilege';
        END
        $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER mcp_audit_logs_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON mcp_audit_logs
        FOR EACH STATEMENT EXECUTE FUNCTION mcp_audit_logs_append_only()
        """
    )
