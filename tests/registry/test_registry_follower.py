"""A replica follows the registry, by notification or without, and over every absence of Postgres."""

import asyncio
import contextlib
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from registry_samples import ALICE, delete, put

from portoser.catalog.change import OverrideGroup
from portoser.catalog.errors import Unavailable
from portoser.registry.changes import RegistryWriter
from portoser.registry.follower import Follower
from portoser.store.database import Database
from portoser.store.embedded import SERVER_ROLE, EmbeddedPostgres
from portoser.store.migrate import migrate


@contextlib.asynccontextmanager
async def following(follower):
    await follower.start()
    task = asyncio.create_task(follower.run())
    try:
        yield follower
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition, deadline=15):
    async with asyncio.timeout(deadline):
        while not condition():  # noqa: ASYNC110 (conditions of other processes have no event)
            await asyncio.sleep(0.01)


async def test_a_change_reaches_the_snapshot_by_notification_and_callbacks_are_told(database):
    writer = RegistryWriter(database)
    swaps = []
    async with following(Follower(database, reread=60)) as follower:
        follower.on_swap(lambda old, new: swaps.append((old.generation, new.generation)))
        before = follower.snapshot
        await asyncio.sleep(0)
        await writer.apply([put("add")], caller=ALICE)
        await until(lambda: follower.snapshot.generation == 1)
        await writer.apply([delete("add")], caller=ALICE)
        await until(lambda: follower.snapshot.generation == 2)
        assert swaps == [(0, 1), (1, 2)]
        assert dict(before.tools) == {}


async def test_a_lost_notification_costs_a_moment_not_a_stale_replica(database):
    async with following(Follower(database, reread=0.1)) as follower:
        async with database.acquire() as connection:
            await connection.execute("UPDATE mcp_registry SET generation = 5")  # and nobody is notified
        await until(lambda: follower.snapshot.generation == 5)


async def test_a_lost_connection_for_notifications_is_made_anew_and_what_was_missed_is_read(database, dsns):
    listeners = "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    admin = await asyncpg.connect(dsns.admin)
    async with following(Follower(database, reread=60)) as follower:
        for generation in (1, 2):
            async with asyncio.timeout(10):
                while not await admin.fetchval(f"SELECT count(*) {listeners}"):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await admin.execute(f"SELECT pg_terminate_backend(pid) {listeners}")
            await admin.execute("UPDATE mcp_registry SET generation = $1", generation)  # and nobody is notified
            await until(lambda generation=generation: follower.snapshot.generation == generation)
    await admin.close()


async def test_a_callback_that_fails_keeps_neither_the_replica_nor_the_others_behind(database):
    heard = []

    def fails(old, new):
        raise RuntimeError("a listener's fault")

    follower = Follower(database)
    await follower.start()
    follower.on_swap(fails)
    follower.on_swap(lambda old, new: heard.append(new.generation))
    await RegistryWriter(database).apply([put("add")], caller=ALICE)
    await follower.refresh()
    assert (heard, follower.snapshot.generation) == ([1], 1)


async def test_a_generation_can_be_waited_for(database):
    follower = Follower(database, reread=0.05)
    await follower.start()
    applied = await RegistryWriter(database).apply([put("add")], caller=ALICE)
    assert "add" in (await follower.at_least(applied.generation, 5)).tools
    with pytest.raises(Unavailable, match="Generation 9 did not come within"):
        await follower.at_least(9, 0.2)


async def test_an_override_ends_on_time_without_any_change_of_the_registry(database):
    end = datetime.now(UTC) + timedelta(seconds=0.4)
    override = OverrideGroup(name="g", owner="rest:bob", enabled=False, reason="r", expires_at=end)
    await RegistryWriter(database).apply([put("add", group="g"), override], caller=ALICE)
    swaps = []
    async with following(Follower(database, reread=60)) as follower:
        follower.on_swap(lambda old, new: swaps.append(new))
        await until(lambda: follower.snapshot.tools["add"].enabled)
        assert follower.snapshot.generation == 1
        assert datetime.now(UTC) >= end
        assert [swap.tools["add"].enabled for swap in swaps] == [True]


@pytest.mark.parametrize("error", [Unavailable("It is away."), asyncpg.InterfaceError("It is closed.")])
async def test_an_override_that_ends_while_postgres_is_away_asks_no_more_often_for_it(database, monkeypatch, error):
    end = datetime.now(UTC) + timedelta(seconds=0.2)
    override = OverrideGroup(name="g", owner="rest:bob", enabled=False, reason="r", expires_at=end)
    await RegistryWriter(database).apply([put("add", group="g"), override], caller=ALICE)
    follower = Follower(database, reread=60)
    await follower.start()
    asked = []

    async def refresh():
        asked.append(error)
        raise error

    monkeypatch.setattr(follower, "refresh", refresh)
    task = asyncio.create_task(follower._follow())
    await until(lambda: asked)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(asked) == 1
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])


async def test_the_follower_serves_on_while_postgres_is_away_and_catches_up_when_it_is_back():
    data = Path(tempfile.mkdtemp(prefix="portoser-test-"))
    postgres = await EmbeddedPostgres.start(data)
    try:
        await migrate(postgres.owner_dsn, server_role=SERVER_ROLE)
        database = await Database.connect(postgres.server_dsn)
        writer = RegistryWriter(database)
        await writer.apply([put("add")], caller=ALICE)
        async with following(Follower(database, reread=0.2)) as follower:
            await postgres.stop()
            with pytest.raises(Unavailable):
                await follower.refresh()
            with pytest.raises(Unavailable):
                await writer.apply([put("sub")], caller=ALICE)
            await until(lambda: follower._away)
            assert "add" in follower.snapshot.tools
            read_before = follower.last_read_at
            postgres = await EmbeddedPostgres.start(data)
            await until(lambda: follower.last_read_at > read_before)
            await writer.apply([put("sub")], caller=ALICE)
            await until(lambda: "sub" in follower.snapshot.tools)
        await database.close()
    finally:
        await postgres.stop()
        shutil.rmtree(data)


async def test_what_was_lost_during_an_absence_is_not_believed_any_more(database):
    """A failover may lose the last generations; a replica that saw them forgets them, though the number grew again."""
    writer = RegistryWriter(database)
    await writer.apply([put("lost")], caller=ALICE)
    follower = Follower(database)
    await follower.start()
    async with database.acquire() as connection:
        await connection.execute("UPDATE mcp_registry SET generation = 0")
        await connection.execute("UPDATE mcp_tools SET deleted_at = now(), generation = 0")
    await writer.apply([put("kept")], caller=ALICE)
    follower._away = True
    assert list((await follower.refresh()).tools) == ["kept"]
