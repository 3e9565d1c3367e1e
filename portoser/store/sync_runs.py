"""The sync runs' rows: every attempt to bring a source into the registry that is worth telling of."""

from datetime import datetime
from typing import Any

import msgspec
from asyncpg import Record

from portoser.store.database import Connection

_COLUMNS = (
    "id, source, cause, started_at, finished_at, base_generation, generation, commit, author, outcome, summary, "
    "problems, error, durations"
)


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of ``mcp_sync_runs``. ``plan`` is left out of lists; ``durations`` is in milliseconds, by step.

    A run without an ``outcome`` has begun: it goes on, or its server has died.
    """

    id: str
    source: str
    cause: str
    started_at: datetime
    finished_at: datetime | None = None
    base_generation: int | None = None
    generation: int | None = None
    commit: str | None = None
    author: str | None = None
    outcome: str | None = None
    summary: dict[str, int] | None = None
    problems: list[dict[str, Any]] | None = None
    error: str | None = None
    durations: dict[str, float] | None = None
    plan: dict[str, Any] | None = None


async def put(connection: Connection, run: RunRow) -> None:
    """Record a run, or what has become of it since."""
    await connection.execute(
        """
        INSERT INTO mcp_sync_runs (id, source, cause, started_at, finished_at, base_generation, generation, commit,
            author, outcome, summary, problems, error, durations, plan)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
        ON CONFLICT (id) DO UPDATE SET finished_at = excluded.finished_at,
            base_generation = excluded.base_generation, generation = excluded.generation, outcome = excluded.outcome,
            summary = excluded.summary, problems = excluded.problems, error = excluded.error,
            durations = excluded.durations, plan = excluded.plan
        """,
        *(getattr(run, name) for name in RunRow.__struct_fields__),
    )


async def begin(connection: Connection, run: RunRow) -> None:
    """Record that a run has begun: it has no outcome yet."""
    await connection.execute(
        """
        INSERT INTO mcp_sync_runs (id, source, cause, started_at, commit, author)
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING
        """,
        run.id,
        run.source,
        run.cause,
        run.started_at,
        run.commit,
        run.author,
    )


async def has_ended(connection: Connection, run_id: str) -> bool:
    """Whether it is recorded what became of a run."""
    told = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM mcp_sync_runs WHERE id = $1 AND outcome IS NOT NULL)", run_id
    )
    return bool(told)


async def drop(connection: Connection, run_id: str) -> None:
    """Forget a run that came to nothing worth telling of."""
    await connection.execute("DELETE FROM mcp_sync_runs WHERE id = $1", run_id)


async def unfinished(connection: Connection, source: str) -> list[RunRow]:
    """The runs of a source that began and have no outcome, oldest first."""
    records = await connection.fetch(
        f"SELECT {_COLUMNS} FROM mcp_sync_runs WHERE source = $1 AND outcome IS NULL "  # noqa: S608 (constants)
        "ORDER BY started_at, id",
        source,
    )
    return [_row(record) for record in records]


async def newest(connection: Connection, *, source: str | None = None, limit: int = 50, skip: int = 0) -> list[RunRow]:
    """Runs without their plans, newest first; of every source where none is named."""
    records = await connection.fetch(
        f"""
        SELECT {_COLUMNS} FROM mcp_sync_runs WHERE $1::text IS NULL OR source = $1
        ORDER BY started_at DESC, id DESC LIMIT $2 OFFSET $3
        """,  # noqa: S608 (constants)
        source,
        limit,
        skip,
    )
    return [_row(record) for record in records]


async def count(connection: Connection, *, source: str | None = None) -> int:
    """How many runs are recorded."""
    told = await connection.fetchval("SELECT count(*) FROM mcp_sync_runs WHERE $1::text IS NULL OR source = $1", source)
    return int(told)


async def last_approved(connection: Connection, source: str) -> int:
    """The generation of the last run that was applied although a guard had held its plan back; 0 without one."""
    told = await connection.fetchval(
        """
        SELECT max(generation) FROM mcp_sync_runs
        WHERE source = $1 AND outcome = 'applied' AND jsonb_array_length(plan -> 'guards') > 0
            AND started_at > now() - interval '1 hour'
        """,
        source,
    )
    return int(told or 0)


async def named(connection: Connection, run_id: str) -> RunRow | None:
    """One run with its plan, None where there is none of that id."""
    record = await connection.fetchrow(
        f"SELECT {_COLUMNS}, plan FROM mcp_sync_runs WHERE id = $1",  # noqa: S608 (constants)
        run_id,
    )
    return _row(record) if record is not None else None


def _row(record: Record) -> RunRow:
    return RunRow(**dict(record))
