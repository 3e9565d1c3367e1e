"""The tools' rows: living ones and tombstones, read and written as sets."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from asyncpg import Record

from portoser.catalog.tool import Provenance, ToolStatus
from portoser.store.database import Connection


class ToolRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of ``mcp_tools``. There is one for each name and owner that ever was; a tombstone has ``deleted_at``."""

    id: str
    name: str
    owner: str
    group_name: str | None
    permissions: tuple[str, ...] | None
    digest: str
    version: int
    status: ToolStatus
    problem: str | None
    source: str
    path: str | None
    commit: str | None
    author: str | None
    applied_commit: str | None
    generation: int
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None

    @property
    def is_living(self) -> bool:
        """Whether this is a tool, not a tombstone."""
        return self.deleted_at is None

    @property
    def provenance(self) -> Provenance:
        """Where the tool's declaration came from."""
        return Provenance(
            source=self.source,
            path=self.path,
            commit=self.commit,
            author=self.author,
            applied_commit=self.applied_commit,
        )


class VersionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of ``mcp_tool_versions``."""

    tool_id: str
    version: int
    digest: str
    commit: str | None
    author: str | None
    at: datetime


_TYPES = {
    "id": "uuid",
    "name": "text",
    "owner": "text",
    "group_name": "text",
    "permissions": "text",  # as JSON: unnest would flatten an array of arrays
    "digest": "text",
    "version": "int",
    "status": "text",
    "problem": "text",
    "source": "text",
    "path": "text",
    "commit": "text",
    "author": "text",
    "applied_commit": "text",
    "generation": "bigint",
    "created_at": "timestamptz",
    "updated_at": "timestamptz",
    "deleted_at": "timestamptz",
}
_COMMON = (
    "owner",
    "group_name",
    "permissions",
    "source",
    "commit",
    "author",
    "applied_commit",
    "created_at",
    "updated_at",
)
"""The columns that many rows have the same values in."""

_COLUMNS = ", ".join(_TYPES)
_PARAMETERS = ", ".join(f"${position}::{kind}[]" for position, kind in enumerate(_TYPES.values(), 1))
_VALUES = ", ".join(f"n.{column}::jsonb" if column == "permissions" else f"n.{column}" for column in _TYPES)

_SELECT = f"SELECT {_COLUMNS} FROM mcp_tools"  # noqa: S608 (constants)

_INSERT = f"INSERT INTO mcp_tools ({_COLUMNS}) SELECT {_VALUES} FROM unnest({_PARAMETERS}) AS n ({_COLUMNS})"  # noqa: S608

_SETTABLE = [column for column in _TYPES if column not in {"id", "name", "owner", "created_at"}]
_SET = ", ".join(f"{column} = n.{column}" + ("::jsonb" if column == "permissions" else "") for column in _SETTABLE)
_UPDATE = f"""
    UPDATE mcp_tools AS t SET {_SET}
    FROM unnest({_PARAMETERS}, ${len(_TYPES) + 1}::int[], ${len(_TYPES) + 2}::boolean[])
        AS n ({_COLUMNS}, old_version, was_living)
    WHERE t.id = n.id AND t.name = n.name AND t.owner = n.owner
        AND t.version = n.old_version AND (t.deleted_at IS NULL) = n.was_living
"""  # noqa: S608


async def named(connection: Connection, names: Iterable[str]) -> list[ToolRow]:
    """Every row of these names, living or not, of whatever owner."""
    return _rows(await connection.fetch(f"{_SELECT} WHERE name = ANY($1::text[])", list(names)))


async def changed_since(connection: Connection, generation: int) -> list[ToolRow]:
    """The rows changed after a generation, tombstones too."""
    return _rows(await connection.fetch(f"{_SELECT} WHERE generation > $1", generation))


async def living(connection: Connection) -> list[ToolRow]:
    """Every living tool."""
    return _rows(await connection.fetch(f"{_SELECT} WHERE deleted_at IS NULL"))


async def deleted_within(connection: Connection, owner: str, seconds: float, *, after_generation: int = 0) -> int:
    """How many tools of an owner were deleted in the last seconds, in generations after one.

    Those that live on under another name do not count.
    """
    told = await connection.fetchval(
        """
        SELECT count(*) FROM mcp_tools AS gone
        WHERE owner = $1 AND deleted_at > now() - make_interval(secs => $2) AND generation > $3
            AND NOT EXISTS (
                SELECT FROM mcp_tools AS named_anew
                WHERE named_anew.owner = gone.owner AND named_anew.digest = gone.digest
                    AND named_anew.deleted_at IS NULL AND named_anew.updated_at >= gone.deleted_at
            )
        """,
        owner,
        seconds,
        after_generation,
    )
    return int(told)


async def insert(connection: Connection, rows: Sequence[ToolRow]) -> int:
    """Add rows; returns how many were added."""
    return _touched(await connection.execute(_INSERT, *_columns(rows))) if rows else 0


async def update(connection: Connection, rows: Sequence[tuple[ToolRow, ToolRow]]) -> int:
    """Change rows, given as (before, after); returns how many were changed.

    A row is left alone where it is not as it was before: another owner's, of another version, or no longer
    (or again) living. The caller compares the number, and rolls back.
    """
    if not rows:
        return 0
    before = [row for row, _ in rows]
    guards = [row.version for row in before], [row.is_living for row in before]
    return _touched(await connection.execute(_UPDATE, *_columns([row for _, row in rows]), *guards))


async def append_versions(connection: Connection, rows: Sequence[VersionRow]) -> None:
    """Add to the tools' history."""
    if rows:
        await connection.execute(
            """
            INSERT INTO mcp_tool_versions (tool_id, version, digest, commit, author, at)
            SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
            """,
            *([getattr(row, field) for row in rows] for field in VersionRow.__struct_fields__),
        )


async def versions(connection: Connection, name: str) -> list[VersionRow]:
    """The history of the living tool of a name, else of its newest tombstone; newest version first."""
    records = await connection.fetch(
        """
        SELECT v.tool_id, v.version, v.digest, v.commit, v.author, v.at
        FROM mcp_tool_versions AS v
        WHERE v.tool_id = (
            SELECT id FROM mcp_tools WHERE name = $1 ORDER BY deleted_at DESC NULLS FIRST LIMIT 1
        )
        ORDER BY v.version DESC
        """,
        name,
    )
    return [VersionRow(**dict(record)) for record in records]


def _columns(rows: Sequence[ToolRow]) -> list[list[Any]]:
    columns = {column: [getattr(row, column) for row in rows] for column in _TYPES}
    columns["permissions"] = [
        None if permissions is None else msgspec.json.encode(permissions).decode()
        for permissions in columns["permissions"]
    ]
    return list(columns.values())


def _rows(records: Iterable[Record]) -> list[ToolRow]:
    seen: dict[Any, Any] = {}
    return [_row(record, seen) for record in records]


def _row(record: Record, seen: dict[Any, Any]) -> ToolRow:
    """A row. What rows have in common is one object for all of them: thousands of tools come with one commit."""
    fields = dict(zip(_TYPES, record, strict=True))
    fields["status"] = ToolStatus(fields["status"])
    if fields["permissions"] is not None:
        fields["permissions"] = tuple(fields["permissions"])
    for column in _COMMON:
        fields[column] = seen.setdefault(fields[column], fields[column])
    return ToolRow(**fields)


def _touched(status: str) -> int:
    """The number at the end of ``UPDATE 3`` and ``INSERT 0 3``."""
    return int(status.rsplit(" ", 1)[1])
