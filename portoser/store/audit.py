"""The audit log's SQL: sets of rows in, pages of rows out.

A row is a tuple in the order of ``COLUMNS``. JSON goes in and comes out as Python values; the connection's
codecs see to that.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import asyncpg
import msgspec

from portoser.store.database import Connection

COLUMNS = (
    ("id", "uuid"),
    ("at", "timestamptz"),
    ("event", "text"),
    ("caller", "jsonb"),
    ("caller_subject", "text"),
    ("ip", "text"),
    ("client", "text"),
    ("agent", "text"),
    ("session", "text"),
    ("tool", "text"),
    ("digest", "text"),
    ("version", "int"),
    ("commit", "text"),
    ("path", "text"),
    ("owner", "text"),
    ("arguments", "jsonb"),
    ("result", "jsonb"),
    ("result_digest", "text"),
    ("outcome", "text"),
    ("reason", "text"),
    ("error", "text"),
    ("duration_ms", "float8"),
    ("request_id", "text"),
    ("powers", "jsonb"),
)
"""What a writer gives of each entry, with its type; chain and seq are the chain's."""

Row: TypeAlias = tuple[Any, ...]

_NAMES = ", ".join(f'"{name}"' for name, _ in COLUMNS)
_ARRAYS = ", ".join(f"${number}::{kind}[]" for number, (_, kind) in enumerate(COLUMNS, 1))
_COUNT = len(COLUMNS)
_SOME_ROWS = f"unnest({_ARRAYS}) WITH ORDINALITY AS entry({_NAMES}, place)"

_APPEND = (
    f"INSERT INTO mcp_audit_logs ({_NAMES}, chain, seq) "  # noqa: S608 (names and types of this module alone)
    f"SELECT {_NAMES}, ${_COUNT + 1}::text, ${_COUNT + 2}::bigint + place FROM {_SOME_ROWS}"
)
_END = f"DELETE FROM mcp_audit_intents WHERE id = ANY(${_COUNT + 3}::uuid[])"  # noqa: S608 (as above)


def _begin(first: int) -> str:
    return (
        "INSERT INTO mcp_audit_intents (id, at, replica, entry) "  # noqa: S608 (as above)
        f"SELECT id, at, ${first}::text, entry FROM "
        f"unnest(${first + 1}::uuid[], ${first + 2}::timestamptz[], ${first + 3}::jsonb[]) AS intent(id, at, entry) "
        "ON CONFLICT (id) DO NOTHING"
    )


_BEGIN = _begin(1)
_APPEND_AND_END = f"WITH ended AS ({_END}) {_APPEND}"
_ALL = f"WITH ended AS ({_END}), begun AS ({_begin(_COUNT + 4)}) {_APPEND}"


class Intents(msgspec.Struct, frozen=True):
    """Calls that begin on a replica: by id, moment and entry."""

    replica: str
    ids: Sequence[str]
    moments: Sequence[datetime]
    entries: Sequence[Any]


async def write(
    connection: Connection,
    *,
    chain: str,
    last_seq: int,
    rows: Sequence[Row] = (),
    ended: Sequence[str] = (),
    begun: Intents | None = None,
) -> None:
    """Append rows to a chain after ``last_seq``, remove the intents of calls that ended, and add new ones.

    All of it is one statement: one round trip, and one transaction. Intents that are there already stay.

    Raises:
        asyncpg.UniqueViolationError: another writer took one of the seqs, or one of the ids is there already.
    """
    intents = (begun.replica, begun.ids, begun.moments, begun.entries) if begun is not None else ()
    if not rows:
        if begun is not None:
            await connection.fetch(_BEGIN, *intents)
        return
    columns = zip(*rows, strict=True)
    if begun is not None:
        await connection.fetch(_ALL, *columns, chain, last_seq, ended, *intents)
    elif ended:
        await connection.fetch(_APPEND_AND_END, *columns, chain, last_seq, ended)
    else:
        await connection.fetch(_APPEND, *columns, chain, last_seq)


async def take_chain(connection: Connection, chain: str) -> bool:
    """Take a chain for as long as the connection lives; False where another connection has it."""
    return bool(
        await connection.fetchval("SELECT pg_try_advisory_lock(hashtextextended($1, 0))", f"portoser:chain:{chain}")
    )


async def last_seq(connection: Connection, chain: str) -> int:
    """The highest seq of a chain, 0 where it is empty."""
    return int(await connection.fetchval("SELECT coalesce(max(seq), 0) FROM mcp_audit_logs WHERE chain = $1", chain))


async def outcomes(connection: Connection, ids: Sequence[str]) -> dict[str, str]:
    """The outcomes of those entries that are in the log, by id."""
    found = await connection.fetch("SELECT id, outcome FROM mcp_audit_logs WHERE id = ANY($1::uuid[])", ids)
    return {record["id"]: record["outcome"] for record in found}


async def renew_lease(connection: Connection, replica: str, duration: timedelta) -> None:
    """Say that a replica lives, for ``duration`` from now."""
    await connection.execute(
        """
        INSERT INTO mcp_replicas (replica, lease_expires_at) VALUES ($1, now() + $2)
        ON CONFLICT (replica) DO UPDATE SET lease_expires_at = excluded.lease_expires_at
        """,
        replica,
        duration,
    )


async def end_lease(connection: Connection, replica: str) -> None:
    """Say that a replica has ended."""
    await connection.execute("DELETE FROM mcp_replicas WHERE replica = $1", replica)


async def take_orphans(connection: Connection, replica: str) -> list[Any]:
    """Remove the intents of replicas whose lease has expired, and give their entries, oldest first.

    Of two replicas that do this at once, each intent goes to one.
    """
    await connection.execute(
        """
        DELETE FROM mcp_replicas AS dead WHERE lease_expires_at < now() - interval '1 day'
        AND NOT EXISTS (SELECT FROM mcp_audit_intents AS intent WHERE intent.replica = dead.replica)
        """
    )
    taken = await connection.fetch(
        """
        WITH taken AS (
          DELETE FROM mcp_audit_intents AS intent WHERE intent.replica <> $1 AND NOT EXISTS (
            SELECT FROM mcp_replicas AS living WHERE living.replica = intent.replica AND living.lease_expires_at > now()
          ) RETURNING at, entry
        ) SELECT entry FROM taken ORDER BY at
        """,
        replica,
    )
    return [record["entry"] for record in taken]


class LogFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries are wanted. ``caller`` is a subject; ``since`` is included, ``until`` is not."""

    tool: str | None = None
    caller: str | None = None
    outcome: str | None = None
    event: str | None = None
    request_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


_CONDITIONS = (
    ("tool", "tool = "),
    ("caller", "caller_subject = "),
    ("outcome", "outcome = "),
    ("event", "event = "),
    ("request_id", "request_id = "),
    ("since", "at >= "),
    ("until", "at < "),
)


async def page(
    connection: Connection, wanted: LogFilter, *, before: tuple[datetime, str] | None, limit: int
) -> list[asyncpg.Record]:
    """The newest entries that are wanted, older than ``before`` (moment and id), at most ``limit``."""
    values: list[Any] = []
    conditions: list[str] = []
    for field, condition in _CONDITIONS:
        value = getattr(wanted, field)
        if value is not None:
            values.append(value)
            conditions.append(f"{condition}${len(values)}")
    if before is not None:
        values.extend(before)
        conditions.append(f"(at, id) < (${len(values) - 1}, ${len(values)}::uuid)")
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    values.append(limit)
    query = f"SELECT {_NAMES}, chain, seq FROM mcp_audit_logs {where} ORDER BY at DESC, id DESC LIMIT ${len(values)}"  # noqa: S608 (conditions of this module alone)
    return list(await connection.fetch(query, *values))


async def tail(connection: Connection, chain: str, after: int, limit: int) -> list[asyncpg.Record]:
    """The entries of one chain after a seq, in order. One writer assigns seq, so none comes late."""
    query = f"SELECT {_NAMES}, chain, seq FROM mcp_audit_logs WHERE chain = $1 AND seq > $2 ORDER BY seq LIMIT $3"  # noqa: S608 (as above)
    return list(await connection.fetch(query, chain, after, limit))
