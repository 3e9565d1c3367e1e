"""Locks of required packages: one for each set that was ever resolved, the same for every replica."""

from collections.abc import Collection, Sequence

import msgspec

from portoser.catalog.requirement import Lock
from portoser.store.database import Connection

HISTORY_DAYS = 30
"""How long the packages of a tool's former versions are kept, for going back to them."""


async def by_set(connection: Connection, keys: Collection[str]) -> dict[str, Lock]:
    """The locks of sets, by the sets' keys."""
    records = await connection.fetch("SELECT key, lock FROM mcp_locks WHERE key = ANY($1::text[])", list(keys))
    return {record["key"]: Lock(record["lock"]) for record in records}


async def by_digest(connection: Connection, digests: Collection[str]) -> dict[str, Lock]:
    """The locks of these digests; those that are not stored are left out."""
    records = await connection.fetch(
        "SELECT DISTINCT ON (digest) digest, lock FROM mcp_locks WHERE digest = ANY($1::text[])", list(digests)
    )
    return {record["digest"]: Lock(record["lock"]) for record in records}


async def put(connection: Connection, key: str, requires: Sequence[str], lock: Lock) -> Lock:
    """Store the lock of a set that has none; the one that stands is the answer."""
    await connection.execute(
        """
        INSERT INTO mcp_locks (key, digest, requires, lock)
        VALUES ($1, $2, $3::jsonb, $4)
        ON CONFLICT (key) DO NOTHING
        """,
        key,
        lock.digest,
        msgspec.json.encode(list(requires)).decode(),
        lock.text,
    )
    return (await by_set(connection, [key]))[key]


async def needed(connection: Connection) -> set[str]:
    """The digests of the locks of living tools, and of versions of the last `HISTORY_DAYS` days."""
    records = await connection.fetch(
        """
        SELECT DISTINCT r.lock
        FROM mcp_revisions r
        WHERE r.lock IS NOT NULL
          AND (
            EXISTS (SELECT FROM mcp_tools t WHERE t.digest = r.digest AND t.deleted_at IS NULL)
            OR EXISTS (
              SELECT FROM mcp_tool_versions v
              WHERE v.digest = r.digest AND v.at > now() - make_interval(days => $1)
            )
          )
        """,
        HISTORY_DAYS,
    )
    return {record["lock"] for record in records}
