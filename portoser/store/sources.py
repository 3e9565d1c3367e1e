"""The sources' rows: how each source stands."""

from datetime import datetime
from typing import Any

import msgspec

from portoser.store.database import Connection


class SourceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of ``mcp_sources``. ``applied_tree`` names what was applied last, content and reader together."""

    name: str
    kind: str
    ref: str | None = None
    path: str | None = None
    phase: str
    conditions: list[dict[str, Any]] = []
    problems: list[dict[str, Any]] = []
    observed_commit: str | None = None
    applied_commit: str | None = None
    applied_tree: str | None = None
    generation: int | None = None
    pinned_to: str | None = None
    failures: int = 0
    next_retry_at: datetime | None = None


_COLUMNS = ", ".join(SourceRow.__struct_fields__)
_PARAMETERS = ", ".join(f"${position}" for position in range(1, len(SourceRow.__struct_fields__) + 1))
_SET = ", ".join(f"{name} = excluded.{name}" for name in SourceRow.__struct_fields__ if name != "name")


async def put(connection: Connection, source: SourceRow) -> None:
    """Write how a source stands now."""
    await connection.execute(
        f"""
        INSERT INTO mcp_sources ({_COLUMNS}, updated_at) VALUES ({_PARAMETERS}, now())
        ON CONFLICT (name) DO UPDATE SET {_SET}, updated_at = excluded.updated_at
        """,  # noqa: S608 (constants)
        *(getattr(source, name) for name in SourceRow.__struct_fields__),
    )


async def named(connection: Connection, name: str) -> SourceRow | None:
    """How a source stood when that was last written, None where it never was."""
    record = await connection.fetchrow(f"SELECT {_COLUMNS} FROM mcp_sources WHERE name = $1", name)  # noqa: S608 (constants)
    return SourceRow(**dict(record)) if record is not None else None


async def every(connection: Connection) -> list[SourceRow]:
    """All sources, by name."""
    records = await connection.fetch(f"SELECT {_COLUMNS} FROM mcp_sources ORDER BY name")  # noqa: S608 (constants)
    return [SourceRow(**dict(record)) for record in records]
