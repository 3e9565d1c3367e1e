"""The chain of the registry's own changes, written inside of the transactions that make them."""

from collections.abc import Sequence

from portoser.audit.entry import Entry
from portoser.audit.rows import row_of
from portoser.store import audit as sql
from portoser.store.database import Connection

REGISTRY_CHAIN = "registry"


async def append_registry(connection: Connection, entries: Sequence[Entry]) -> None:
    """Append entries to the registry's chain.

    Call it inside of the change's transaction, which holds the lock of ``mcp_registry``: the lock is what
    keeps two changes from taking the same seq.
    """
    if not entries:
        return
    last = await sql.last_seq(connection, REGISTRY_CHAIN)
    await sql.write(connection, chain=REGISTRY_CHAIN, last_seq=last, rows=[row_of(entry) for entry in entries])
