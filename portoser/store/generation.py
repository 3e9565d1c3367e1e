"""The generation: one row that every change of the registry locks first, and the channel that tells of it."""

from datetime import datetime

from portoser.store.database import Connection

CHANNEL = "portoser_generation"


async def current(connection: Connection) -> int:
    """The generation that is committed, or that this transaction has made."""
    return int(await connection.fetchval("SELECT generation FROM mcp_registry"))


async def lock(connection: Connection) -> tuple[int, datetime]:
    """The generation, locked until the transaction ends: changes of the registry come one after the other.

    Told with it is what time it is for Postgres, whose clock all servers share.
    """
    record = await connection.fetchrow("SELECT generation, clock_timestamp() AS now FROM mcp_registry FOR UPDATE")
    if record is None:
        raise RuntimeError("The row of mcp_registry is gone.")
    return int(record["generation"]), record["now"]


async def advance(connection: Connection, generation: int) -> None:
    """Set the generation, and tell the replicas when the transaction commits. They are told the number alone."""
    await connection.execute("UPDATE mcp_registry SET generation = $1", generation)
    await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, str(generation))


async def writable(connection: Connection) -> bool:
    """Whether the database takes writes: after a failover, a connection may lead to a standby."""
    return bool(await connection.fetchval("SELECT current_setting('transaction_read_only') = 'off'"))
