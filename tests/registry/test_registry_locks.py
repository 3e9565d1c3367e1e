"""Locks of required packages in a real Postgres: one for each set, and which of them are still referred to."""

import asyncio

import msgspec
from registry_samples import ALICE, a_revision, delete, desired

from portoser.catalog.change import PutTool
from portoser.catalog.requirement import Lock
from portoser.registry.changes import RegistryWriter
from portoser.registry.locks import RegistryLocks, new_locks
from portoser.registry.snapshot import EMPTY, load
from portoser.store.database import Database


async def test_the_first_lock_of_a_set_counts_for_every_replica(database: Database) -> None:
    one, two = RegistryLocks(database), RegistryLocks(database)
    assert await one.known(["key"]) == {}
    kept = await asyncio.gather(
        one.keep("key", ("a>=1",), Lock("a==1 --hash=sha256:0\n")),
        two.keep("key", ("a>=1",), Lock("a==2 --hash=sha256:1\n")),
    )
    assert kept[0] == kept[1]
    assert await two.known(["key", "other"]) == {"key": kept[0]}
    await one.keep("another", ("a",), kept[0])
    assert await two.by_digest([kept[0].digest, "none"]) == {kept[0].digest: kept[0]}


async def test_locks_are_needed_by_living_tools_and_by_recent_history(database: Database) -> None:
    locks, writer = RegistryLocks(database), RegistryWriter(database)

    async def version(name: str, lock: str | None, expected: int | None = None) -> None:
        revision = msgspec.structs.replace(a_revision(), lock=lock, digest=f"{name} {lock}")
        tool = msgspec.structs.replace(desired(name), revision=revision)
        await writer.apply([PutTool(desired=tool, expected_version=expected)], caller=ALICE)

    await version("a", "lock-of-a")
    await version("b", "old-lock-of-b")
    await version("b", "lock-of-b", expected=1)
    await version("c", None)
    await version("d", "lock-of-d")
    await writer.apply([delete("d")], caller=ALICE)
    assert await locks.needed() == {"lock-of-a", "old-lock-of-b", "lock-of-b", "lock-of-d"}
    async with database.acquire() as connection:
        snapshot = await load(connection, previous=None, enabled_groups=frozenset())
    assert new_locks(EMPTY, snapshot) == {"lock-of-a", "lock-of-b"}
    assert new_locks(snapshot, snapshot) == set()
    assert snapshot.tools["b"].registered.revision.lock == "lock-of-b"
