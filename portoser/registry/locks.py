"""The registry's locks of required packages, as those who resolve and install ask for them."""

from collections.abc import Collection, Mapping

from portoser.catalog.requirement import Lock
from portoser.registry.snapshot import Snapshot
from portoser.store import locks
from portoser.store.database import Database


class RegistryLocks:
    """Locks in the database, which all replicas share. Every method raises Unavailable where Postgres is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def known(self, keys: Collection[str]) -> Mapping[str, Lock]:
        """The locks of these sets, by the sets' keys."""
        async with self._database.acquire() as connection:
            return await locks.by_set(connection, keys)

    async def by_digest(self, digests: Collection[str]) -> Mapping[str, Lock]:
        """The locks of these digests."""
        async with self._database.acquire() as connection:
            return await locks.by_digest(connection, digests)

    async def keep(self, key: str, requires: tuple[str, ...], lock: Lock) -> Lock:
        """Keep the lock of a set; the answer is what counts: the first that was kept."""
        async with self._database.acquire() as connection:
            return await locks.put(connection, key, requires, lock)

    async def needed(self) -> set[str]:
        """The digests of the locks of living tools and of their recent history."""
        async with self._database.acquire() as connection:
            return await locks.needed(connection)


def new_locks(old: Snapshot, new: Snapshot) -> set[str]:
    """The digests of the locks of tools that are new in a snapshot, or changed."""
    return {
        tool.registered.revision.lock
        for name, tool in new.tools.items()
        if tool.registered.revision.lock is not None and old.tools.get(name) is not tool
    }
