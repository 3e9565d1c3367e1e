"""What calls do is in the log before anybody hears of it, once, in order, and whatever happens to Postgres."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import msgspec
import pytest
from audit_world import ANN, entry, intents, rows, until

from portoser.audit.entry import Event, Outcome
from portoser.audit.registry_chain import append_registry
from portoser.audit.rows import entry_of, mask_session
from portoser.audit.writer import AuditWriter
from portoser.catalog.errors import Unavailable
from portoser.store.database import Database


@contextlib.asynccontextmanager
async def writing(database: Database, *, patience: float = 5.0, lease: float = 15.0) -> AsyncIterator[AuditWriter]:
    writer = AuditWriter(database, replica="one", patience=patience, lease=lease)
    await writer.start()
    try:
        yield writer
    finally:
        await writer.aclose()


class Gate:
    """Lets Postgres go away for the server's role, and come back."""

    def __init__(self, postgres: object, dsns: object) -> None:
        self._postgres = postgres
        self.name = urlsplit(str(getattr(dsns, "server"))).path[1:]  # noqa: B009

    async def close(self) -> None:
        await self._postgres.admin(f"ALTER DATABASE {self.name} CONNECTION LIMIT 0")  # type: ignore[attr-defined]
        await self._postgres.admin(  # type: ignore[attr-defined]
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.name}'"
        )

    async def open(self) -> None:
        await self._postgres.admin(f"ALTER DATABASE {self.name} CONNECTION LIMIT -1")  # type: ignore[attr-defined]


@pytest.fixture
async def gate(postgres: object, dsns: object) -> AsyncIterator[Gate]:
    gate = Gate(postgres, dsns)
    yield gate
    await gate.open()


async def test_an_intent_is_there_until_the_outcome_takes_its_place(database: Database) -> None:
    call = entry(outcome=Outcome.INTERRUPTED, arguments={"order_id": "A1"})
    async with writing(database) as writer:
        await writer.begin(call)
        assert [str(row["id"]) for row in await intents(database)] == [call.id]
        assert await rows(database) == []
        await writer.finish(msgspec.structs.replace(call, outcome=Outcome.OK), had_intent=True)
        assert await intents(database) == []
        assert [(row["id"], row["outcome"]) for row in await rows(database)] == [(call.id, "ok")]


async def test_a_row_tells_all_of_its_entry(database: Database) -> None:
    told = entry(
        caller=msgspec.structs.replace(ANN, session="abc", agent="cursor/1.0"),
        arguments={"a": [1, None, "ä\n"]},
        result={"structured": {"x": 1.5}},
        result_digest="00ff",
        digest="d1",
        version=3,
        commit="c0ffee+dirty",
        path="orders/refund.yaml",
        owner="git:main",
        outcome=Outcome.ERROR,
        reason="exception",
        error="ValueError",
        duration_ms=1.25,
        request_id="r-1",
    )
    async with writing(database) as writer:
        await writer.finish(told, had_intent=False)
    [row] = await rows(database)
    session = mask_session("abc")
    assert entry_of(row) == msgspec.structs.replace(told, caller=msgspec.structs.replace(told.caller, session=session))
    assert row["caller"] == {"subject": "ann", "name": "Ann", "groups": ["operator"], "kind": "token"}
    assert (row["chain"], row["seq"], row["ip"], row["session"]) == ("calls:one", 1, "10.0.0.1", session)


async def test_calls_at_once_are_numbered_without_a_gap(database: Database) -> None:
    async def call(writer: AuditWriter) -> None:
        mine = entry()
        await writer.begin(mine)
        await writer.finish(mine, had_intent=True)

    async with writing(database) as writer:
        await asyncio.gather(*(call(writer) for _ in range(100)))
        assert await intents(database) == []
    assert [row["seq"] for row in await rows(database)] == list(range(1, 101))


async def test_a_writer_goes_on_where_the_one_before_it_ended(database: Database) -> None:
    for _ in range(3):
        async with writing(database) as writer:
            await writer.finish(entry(), had_intent=False)
    assert [row["seq"] for row in await rows(database)] == [1, 2, 3]


async def test_while_postgres_is_away_nothing_begins_and_outcomes_are_kept_until_it_is_back(
    database: Database, gate: Gate
) -> None:
    running = entry()
    async with writing(database, patience=0.3) as writer:
        await writer.begin(running)
        await gate.close()
        with pytest.raises(Unavailable, match="cannot be written"):
            await writer.finish(running, had_intent=True)
        refused = entry()
        with pytest.raises(Unavailable):
            await writer.begin(refused)
        writer.note(msgspec.structs.replace(refused, outcome=Outcome.ERROR, reason="unrecorded"), had_intent=True)
        assert not writer.status.available
        assert writer.status.owed == 2
        await gate.open()
        await until(lambda: writer.status.available and writer.status.owed == 0)
    assert [(row["id"], row["outcome"], row["seq"]) for row in await rows(database)] == [
        (running.id, "ok", 1),
        (refused.id, "error", 2),
    ]
    assert await intents(database) == []


async def test_a_full_disk_is_an_absence_of_postgres(database: Database, postgres: Any, dsns: Any) -> None:
    """Raised by a trigger, as Postgres raises it where it cannot extend a file."""
    owner = await asyncpg.connect(dsns.owner)
    await owner.execute(
        """
        CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
        END $$;
        CREATE TRIGGER full_disk BEFORE INSERT ON mcp_audit_logs EXECUTE FUNCTION full_disk();
        CREATE TRIGGER full_disk BEFORE INSERT ON mcp_audit_intents EXECUTE FUNCTION full_disk();
        """
    )
    running = entry()
    try:
        async with writing(database, patience=0.3) as writer:
            with pytest.raises(Unavailable, match="No space left on device"):
                await writer.begin(entry())
            with pytest.raises(Unavailable):
                await writer.finish(running, had_intent=False)
            await owner.execute("DROP TRIGGER full_disk ON mcp_audit_logs; DROP TRIGGER full_disk ON mcp_audit_intents")
            await until(lambda: writer.status.available and writer.status.owed == 0)
            await writer.begin(entry())
    finally:
        await owner.close()
    assert [row["id"] for row in await rows(database)] == [running.id]


async def test_refusals_beyond_what_is_kept_are_counted_and_told(
    database: Database, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portoser.audit.writer._MAX_KEPT", 3)
    async with writing(database, patience=0.2) as writer:
        running = entry()
        await writer.begin(running)
        await gate.close()
        for _ in range(8):
            writer.note(entry(outcome=Outcome.DENIED))
        with pytest.raises(Unavailable):
            await writer.finish(entry(outcome=Outcome.DENIED), had_intent=False)
        with pytest.raises(Unavailable):
            await writer.finish(running, had_intent=True)
        assert writer.status.left_out >= 5
        await gate.open()
        await until(lambda: writer.status.available and not writer.status.owed)
        await writer.finish(entry(), had_intent=False)
    found = await rows(database)
    assert running.id in {row["id"] for row in found}
    [told] = [row for row in found if row["reason"] == "audit_overflow"]
    assert told["error"].startswith("6 entries of refused calls")


async def test_closing_without_postgres_ends(database: Database, gate: Gate) -> None:
    async with writing(database, patience=0.2) as writer:
        await gate.close()
        writer.note(entry())
        await until(lambda: not writer.status.available)
    assert writer.status.owed == 0


async def test_a_short_absence_is_waited_out(database: Database, gate: Gate) -> None:
    async with writing(database, patience=30) as writer:
        await writer.finish(entry(), had_intent=False)
        await gate.close()
        calls = [asyncio.ensure_future(writer.begin(entry())) for _ in range(5)]
        await until(lambda: not writer.status.available)
        await gate.open()
        await asyncio.gather(*calls)
        assert len(await intents(database)) == 5


async def test_postgres_going_away_again_and_again_loses_and_doubles_nothing(database: Database, gate: Gate) -> None:
    done = asyncio.Event()
    written: list[str] = []

    async def caller(writer: AuditWriter) -> None:
        while not done.is_set():
            mine = entry()
            written.append(mine.id)
            await writer.finish(mine, had_intent=False)

    async with writing(database, patience=60) as writer:
        callers = [asyncio.ensure_future(caller(writer)) for _ in range(8)]
        for _ in range(3):
            seen = len(written)
            await until(lambda: len(written) > seen + 50)  # noqa: B023
            await gate.close()
            await gate.open()
        done.set()
        await asyncio.gather(*callers)
    found = await rows(database)
    assert sorted(row["id"] for row in found) == sorted(written)
    assert [row["seq"] for row in found] == list(range(1, len(written) + 1))


async def test_an_entry_that_postgres_does_not_take_does_not_stop_the_others(database: Database) -> None:
    strange = [entry(duration_ms="soon"), entry(version=2**40)]
    nameless = entry(id="not an id")
    plain = [entry() for _ in range(3)]
    async with writing(database) as writer:
        await asyncio.gather(
            *(writer.finish(each, had_intent=False) for each in (*strange, nameless, *plain)), return_exceptions=True
        )
        await writer.finish(entry(arguments={"a\0": "\ud800", "n": 2**70}, tool="t\0\ud800" * 200), had_intent=False)
        with pytest.raises(Unavailable):
            await writer.begin(entry(id="not an id"))
        await writer.begin(entry())
    kept = {row["id"]: row for row in await rows(database)}
    assert {each.id for each in plain} <= kept.keys()
    assert [kept[each.id]["error"][:13] for each in strange] == ["The audit log"] * 2
    assert len(kept) == 7


async def test_the_calls_of_a_dead_server_become_interrupted_once(database: Database) -> None:
    dead = AuditWriter(database, replica="dead", lease=0.2)
    await dead.start()
    call = entry(outcome=Outcome.OK, caller=msgspec.structs.replace(ANN, session="s3cr3t-session"))
    await dead.begin(call)
    dead._task.cancel()  # type: ignore[union-attr]
    await asyncio.wait([dead._task])  # type: ignore[list-item]

    async with writing(database) as one, writing(database) as other:
        alive = entry()
        await one.begin(alive)
        found = 0
        while not found:
            found = sum(await asyncio.gather(one.recover(), other.recover()))
        assert found == 1
        assert await one.recover() == 0
        assert [str(row["id"]) for row in await intents(database)] == [alive.id]
        assert "s3cr3t-session" not in str(await intents(database))
    [row] = await rows(database)
    assert (row["id"], row["outcome"], row["reason"]) == (call.id, "interrupted", "server_lost")
    assert row["session"] == mask_session("s3cr3t-session")


async def test_an_outcome_that_comes_after_its_call_was_ended_by_another_server_is_kept_too(database: Database) -> None:
    call = entry()
    async with writing(database) as writer:
        await writer.finish(msgspec.structs.replace(call, outcome=Outcome.INTERRUPTED), had_intent=False)
        await writer.finish(call, had_intent=True)
        await writer.finish(call, had_intent=True)  # and what was written already is not written again
    told = [(row["id"] == call.id, row["outcome"], row["reason"]) for row in await rows(database)]
    assert told[:2] == [(True, "interrupted", None), (False, "ok", "after_interrupted")]


async def test_a_call_that_is_cancelled_while_it_waits_loses_no_outcome(database: Database) -> None:
    call = entry()
    async with writing(database) as writer:
        task = asyncio.ensure_future(writer.finish(call, had_intent=False))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [row["id"] for row in await rows(database)] == [call.id]


async def test_a_beginning_that_nobody_waits_for_is_not_written(database: Database) -> None:
    async with writing(database) as writer:
        tasks = [asyncio.ensure_future(writer.begin(entry())) for _ in range(3)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await writer.finish(entry(), had_intent=False)
        assert await intents(database) == []


async def test_what_is_noted_is_written_before_the_writer_closes(database: Database) -> None:
    async with writing(database) as writer:
        for _ in range(600):
            writer.note(entry(event=Event.SIGNIN_FAILED, tool=None, outcome=Outcome.DENIED))
    assert len(await rows(database)) == 600


async def test_a_closed_writer_refuses(database: Database) -> None:
    async with writing(database) as writer:
        pass
    with pytest.raises(Unavailable):
        await writer.begin(entry())


async def test_changes_of_the_registry_are_chained_on_their_own(database: Database) -> None:
    async with database.acquire() as connection:
        for _ in range(2):
            async with connection.transaction():
                await append_registry(connection, [entry(event=Event.TOOL_CREATED), entry(event=Event.GROUP_PUT)])
        await append_registry(connection, [])
    async with writing(database) as writer:
        await writer.finish(entry(), had_intent=False)
    assert [(row["chain"], row["seq"]) for row in await rows(database)] == [
        ("calls:one", 1),
        ("registry", 1),
        ("registry", 2),
        ("registry", 3),
        ("registry", 4),
    ]


async def test_a_lease_is_renewed_and_given_back(database: Database) -> None:
    async def leases() -> list[datetime]:
        async with database.acquire() as connection:
            return [row[0] for row in await connection.fetch("SELECT lease_expires_at FROM mcp_replicas")]

    async with writing(database, lease=0.6):
        [first] = await leases()
        deadline = datetime.now(UTC) + timedelta(seconds=10)
        while (await leases())[0] == first:
            assert datetime.now(UTC) < deadline
    assert await leases() == []


async def test_ids_of_entries_are_unique_in_the_log(database: Database) -> None:
    same = str(uuid.uuid4())
    async with writing(database) as writer:
        await writer.finish(entry(id=same), had_intent=False)
        await writer.finish(entry(id=same), had_intent=False)
    assert len(await rows(database)) == 1


async def test_servers_of_one_name_write_chains_of_their_own_and_go_on_with_them(database: Database) -> None:
    for _ in range(2):
        async with writing(database) as first, writing(database) as second:
            await asyncio.gather(*(writer.finish(entry(), had_intent=False) for writer in (first, second) * 3))
    chains = [(row["chain"], row["seq"]) for row in await rows(database)]
    assert chains == [(chain, seq) for chain in ("calls:one", "calls:one#2") for seq in range(1, 7)]


async def test_a_writer_that_lost_its_connection_goes_on_with_its_chain(database: Database, gate: Gate) -> None:
    async with writing(database) as writer:
        await writer.finish(entry(), had_intent=False)
        await gate.close()
        await gate.open()
        await writer.finish(entry(), had_intent=False)
    assert [(row["chain"], row["seq"]) for row in await rows(database)] == [("calls:one", 1), ("calls:one", 2)]
