"""Every table of the registry, declared once.

The migrations build them, and a test holds both equal. Hot paths do not come through here: they speak
SQL over asyncpg, one file per subject, beside this one. JSON that must come back as it was written
(schemas, whose order of keys clients show to people) is ``json``; what is only searched is ``jsonb``.
"""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlmodel import Field, SQLModel

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _column(kind: Any, *arguments: Any, null: bool = False, **options: Any) -> Any:
    return Field(sa_column=Column(kind, *arguments, nullable=null, **options))


_MOMENT = DateTime(timezone=True)
_JSON = JSON(none_as_null=True)
_JSONB = JSONB(none_as_null=True)
_UUID = Uuid(as_uuid=False)


class Table(SQLModel):
    """The root of our tables, with a metadata of its own."""

    metadata: ClassVar[MetaData] = metadata


class Registry(Table, table=True):
    """One row: the generation. Every change of the registry locks it first."""

    __tablename__ = "mcp_registry"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)
    id: int = _column(SmallInteger, primary_key=True, autoincrement=False)
    generation: int = _column(BigInteger)


class Revisions(Table, table=True):
    """Immutable revisions by digest; ``body`` is every field but the digest and the files.

    ``lock`` is the digest of what ``requires`` was resolved to, null where nothing is required.
    """

    __tablename__ = "mcp_revisions"
    digest: str = _column(Text, primary_key=True)
    listing_digest: str = _column(Text)
    body: dict[str, Any] = _column(_JSON)
    lock: str | None = _column(Text, null=True)
    created_at: datetime = _column(_MOMENT, server_default=text("now()"))


class Locks(Table, table=True):
    """What each set of required packages was resolved to, by the set's key; equal locks have equal digests."""

    __tablename__ = "mcp_locks"
    __table_args__ = (Index(None, "digest"),)
    key: str = _column(Text, primary_key=True)
    digest: str = _column(Text)
    requires: Any = _column(_JSONB)
    lock: str = _column(Text)
    created_at: datetime = _column(_MOMENT, server_default=text("now()"))


class RevisionFiles(Table, table=True):
    """The Python modules of a revision; ``position`` is the order of import."""

    __tablename__ = "mcp_revision_files"
    digest: str = _column(Text, ForeignKey("mcp_revisions.digest"), primary_key=True)
    position: int = _column(Integer, primary_key=True, autoincrement=False)
    path: str = _column(Text)
    content: str = _column(Text)


class Tools(Table, table=True):
    """Living tools and tombstones: one row for each name and owner that ever was."""

    __tablename__ = "mcp_tools"
    __table_args__ = (
        UniqueConstraint("name", "owner"),
        Index("uq_mcp_tools_living_name", "name", unique=True, postgresql_where=text("deleted_at IS NULL")),
        Index(None, "generation"),
    )
    id: str = _column(_UUID, primary_key=True)
    name: str = _column(Text)
    owner: str = _column(Text)
    group_name: str | None = _column(Text, null=True)
    permissions: list[str] | None = _column(_JSONB, null=True)
    digest: str = _column(Text, ForeignKey("mcp_revisions.digest"))
    version: int = _column(Integer)
    status: str = _column(Text)
    problem: str | None = _column(Text, null=True)
    source: str = _column(Text)
    path: str | None = _column(Text, null=True)
    commit: str | None = _column(Text, null=True)
    author: str | None = _column(Text, null=True)
    applied_commit: str | None = _column(Text, null=True)
    generation: int = _column(BigInteger)
    created_at: datetime = _column(_MOMENT)
    updated_at: datetime = _column(_MOMENT)
    deleted_at: datetime | None = _column(_MOMENT, null=True)


class ToolVersions(Table, table=True):
    """The history of each tool, append-only."""

    __tablename__ = "mcp_tool_versions"
    tool_id: str = _column(_UUID, ForeignKey("mcp_tools.id"), primary_key=True)
    version: int = _column(Integer, primary_key=True, autoincrement=False)
    digest: str = _column(Text, ForeignKey("mcp_revisions.digest"))
    commit: str | None = _column(Text, null=True)
    author: str | None = _column(Text, null=True)
    at: datetime = _column(_MOMENT)


class Groups(Table, table=True):
    """Groups: what their owner declares (null where nobody does) and what an operator overrides."""

    __tablename__ = "mcp_groups"
    name: str = _column(Text, primary_key=True)
    owner: str | None = _column(Text, null=True)
    enabled: bool = _column(Boolean)
    permissions: list[str] = _column(_JSONB)
    description: str = _column(Text)
    path: str | None = _column(Text, null=True)
    override_enabled: bool | None = _column(Boolean, null=True)
    override_reason: str | None = _column(Text, null=True)
    override_by: str | None = _column(Text, null=True)
    override_at: datetime | None = _column(_MOMENT, null=True)
    override_expires_at: datetime | None = _column(_MOMENT, null=True)
    generation: int = _column(BigInteger)


class PolicyRow(Table, table=True):
    """At most one row: the policy and who declares it."""

    __tablename__ = "mcp_policy"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)
    id: int = _column(SmallInteger, primary_key=True, autoincrement=False)
    owner: str = _column(Text)
    path: str | None = _column(Text, null=True)
    body: dict[str, Any] = _column(_JSON)
    generation: int = _column(BigInteger)
    updated_at: datetime = _column(_MOMENT)


class Sources(Table, table=True):
    """How each source stands."""

    __tablename__ = "mcp_sources"
    name: str = _column(Text, primary_key=True)
    kind: str = _column(Text)
    ref: str | None = _column(Text, null=True)
    path: str | None = _column(Text, null=True)
    phase: str = _column(Text)
    conditions: Any = _column(_JSONB, server_default=text("'[]'"))
    problems: Any = _column(_JSONB, server_default=text("'[]'"))
    observed_commit: str | None = _column(Text, null=True)
    applied_commit: str | None = _column(Text, null=True)
    applied_tree: str | None = _column(Text, null=True)
    generation: int | None = _column(BigInteger, null=True)
    pinned_to: str | None = _column(Text, null=True)
    failures: int = _column(Integer, server_default=text("0"))
    next_retry_at: datetime | None = _column(_MOMENT, null=True)
    updated_at: datetime = _column(_MOMENT)


class SyncRuns(Table, table=True):
    """Every attempt to apply a plan, whatever its end."""

    __tablename__ = "mcp_sync_runs"
    __table_args__ = (
        Index("ix_mcp_sync_runs_newest", text("started_at DESC"), text("id DESC")),
        Index("ix_mcp_sync_runs_source_newest", "source", text("started_at DESC"), text("id DESC")),
    )
    id: str = _column(_UUID, primary_key=True)
    source: str = _column(Text)
    cause: str = _column(Text)
    started_at: datetime = _column(_MOMENT)
    finished_at: datetime | None = _column(_MOMENT, null=True)
    base_generation: int | None = _column(BigInteger, null=True)
    generation: int | None = _column(BigInteger, null=True)
    commit: str | None = _column(Text, null=True)
    author: str | None = _column(Text, null=True)
    outcome: str | None = _column(Text, null=True)
    plan: Any = _column(_JSONB, null=True)
    summary: Any = _column(_JSONB, null=True)
    problems: Any = _column(_JSONB, null=True)
    error: str | None = _column(Text, null=True)
    durations: Any = _column(_JSONB, null=True)


class Admissions(Table, table=True):
    """What admission said of a declaration, by its key; a cache."""

    __tablename__ = "mcp_admissions"
    key: str = _column(Text, primary_key=True)
    outcome: dict[str, Any] = _column(_JSON)
    digest: str | None = _column(Text, null=True)
    at: datetime = _column(_MOMENT, server_default=text("now()"))


def _newest(name: str, *columns: str) -> Index:
    """An index that serves one filter with paging by (at, id), newest first."""
    return Index(f"ix_mcp_audit_logs_{name}", *columns, text("at DESC"), text("id DESC"))


class AuditLogs(Table, table=True):
    """The audit log. A trigger and missing privileges keep it append-only."""

    __tablename__ = "mcp_audit_logs"
    __table_args__ = (
        UniqueConstraint("chain", "seq"),
        _newest("newest"),
        _newest("tool_newest", "tool"),
        _newest("caller_newest", "caller_subject"),
        _newest("outcome_newest", "outcome"),
        _newest("event_newest", "event"),
        Index("ix_mcp_audit_logs_request_id", "request_id"),
    )
    id: str = _column(_UUID, primary_key=True)
    at: datetime = _column(_MOMENT)
    event: str = _column(Text)
    caller: dict[str, Any] = _column(_JSONB)
    caller_subject: str = _column(Text)
    ip: str | None = _column(Text, null=True)
    client: str | None = _column(Text, null=True)
    agent: str | None = _column(Text, null=True)
    session: str | None = _column(Text, null=True)
    tool: str | None = _column(Text, null=True)
    digest: str | None = _column(Text, null=True)
    version: int | None = _column(Integer, null=True)
    commit: str | None = _column(Text, null=True)
    path: str | None = _column(Text, null=True)
    owner: str | None = _column(Text, null=True)
    arguments: Any = _column(_JSONB, null=True)
    result: Any = _column(_JSONB, null=True)
    result_digest: str | None = _column(Text, null=True)
    outcome: str = _column(Text)
    reason: str | None = _column(Text, null=True)
    error: str | None = _column(Text, null=True)
    duration_ms: float | None = _column(Double, null=True)
    request_id: str | None = _column(Text, null=True)
    powers: Any = _column(_JSONB, null=True)
    chain: str = _column(Text)
    seq: int = _column(BigInteger)
    prev_hash: bytes | None = _column(LargeBinary, null=True)
    hash: bytes | None = _column(LargeBinary, null=True)


class AuditIntents(Table, table=True):
    """Calls that have begun; what is left of a replica that died becomes ``interrupted`` entries."""

    __tablename__ = "mcp_audit_intents"
    __table_args__ = (Index(None, "replica"),)
    id: str = _column(_UUID, primary_key=True)
    at: datetime = _column(_MOMENT)
    replica: str = _column(Text)
    entry: dict[str, Any] = _column(_JSONB)


class Replicas(Table, table=True):
    """Running servers, by their leases."""

    __tablename__ = "mcp_replicas"
    replica: str = _column(Text, primary_key=True)
    lease_expires_at: datetime = _column(_MOMENT)
    generation: int | None = _column(BigInteger, null=True)


class Keys(Table, table=True):
    """What replicas sign with what they give to clients to keep. The audit log's keys are not among them."""

    __tablename__ = "mcp_keys"
    name: str = _column(Text, primary_key=True)
    key: bytes = _column(LargeBinary)


class SpentNonces(Table, table=True):
    """Answers of people that were used: each counts once. A row is of no use after ``expires_at``."""

    __tablename__ = "mcp_spent_nonces"
    __table_args__ = (Index(None, "expires_at"),)
    nonce: str = _column(Text, primary_key=True)
    expires_at: datetime = _column(_MOMENT)
