"""Reading the log: newest first, by filter, page by page, while it grows."""

import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from audit_world import ANN, entry

from portoser.audit.entry import Entry, Event, Outcome
from portoser.audit.queries import AuditFilter, AuditLog
from portoser.audit.registry_chain import append_registry
from portoser.audit.writer import AuditWriter
from portoser.catalog.errors import Invalid
from portoser.store.database import Database

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[AuditWriter]:
    writer = AuditWriter(database, replica="one")
    await writer.start()
    yield writer
    await writer.aclose()


async def write(writer: AuditWriter, *entries: Entry) -> None:
    for each in entries:
        writer.note(each)
    await writer.finish(entry(at=START - timedelta(days=365)), had_intent=False)


async def told(log: AuditLog, limit: int = 1000, **fields: object) -> list[str]:
    page = await log.page(AuditFilter(**fields), limit=limit)  # type: ignore[arg-type]
    return [each.id for each in page.entries if each.at.year == 2026]


async def test_each_filter_leaves_what_it_names(database: Database, writer: AuditWriter) -> None:
    bob = msgspec.structs.replace(ANN, subject="bob")
    entries = {
        "plain": entry(at=START),
        "bob": entry(at=START + timedelta(seconds=1), caller=bob),
        "denied": entry(at=START + timedelta(seconds=2), outcome=Outcome.DENIED),
        "other": entry(at=START + timedelta(seconds=3), tool="other", request_id="r-1"),
        "signin": entry(at=START + timedelta(seconds=4), tool=None, event=Event.SIGNIN_FAILED, outcome=Outcome.DENIED),
    }
    await write(writer, *entries.values())
    log = AuditLog(database)
    names = {each.id: name for name, each in entries.items()}

    async def found(**fields: object) -> list[str]:
        return [names[each] for each in await told(log, **fields)]

    assert await found() == ["signin", "other", "denied", "bob", "plain"]
    assert await found(tool="other") == ["other"]
    assert await found(caller="bob") == ["bob"]
    assert await found(outcome="denied") == await found(outcome=Outcome.DENIED) == ["signin", "denied"]
    assert await found(event=Event.SIGNIN_FAILED) == ["signin"]
    assert await found(request_id="r-1") == ["other"]
    assert await found(since=START + timedelta(seconds=3)) == ["signin", "other"]
    assert await found(since=START, until=START + timedelta(seconds=2)) == ["bob", "plain"]
    assert await found(tool="orders.refund", outcome="denied", caller="ann") == ["denied"]
    assert await found(tool="none") == []


async def test_entries_come_back_as_they_were(database: Database, writer: AuditWriter) -> None:
    change = entry(event=Event.TOOL_CREATED, arguments={"fields": ["a"]}, version=1)
    async with database.acquire() as connection:
        await append_registry(connection, [change])
    [found] = (await AuditLog(database).page(AuditFilter(event=Event.TOOL_CREATED))).entries
    assert found == change


async def test_pages_hold_each_entry_once_while_the_log_grows(database: Database, writer: AuditWriter) -> None:
    same_moment = [entry(at=START) for _ in range(10)]
    later = [entry(at=START + timedelta(seconds=n)) for n in range(1, 16)]
    await write(writer, *same_moment, *later)
    log = AuditLog(database)
    seen: list[Entry] = []
    cursor = None
    while True:
        page = await log.page(AuditFilter(tool="orders.refund"), limit=4, cursor=cursor)
        seen.extend(page.entries)
        await write(writer, entry(at=START + timedelta(hours=len(seen))))
        cursor = page.next_cursor
        if cursor is None:
            break
        assert len(page.entries) == 4
    ids = [each.id for each in seen]
    assert len(set(ids)) == len(ids)
    assert {each.id for each in (*same_moment, *later)} <= set(ids)
    assert [each.at for each in seen] == sorted((each.at for each in seen), reverse=True)


async def test_the_last_page_says_that_it_is_the_last(database: Database, writer: AuditWriter) -> None:
    await write(writer, entry())
    log = AuditLog(database)
    assert (await log.page(AuditFilter(), limit=2)).next_cursor is None
    assert (await log.page(AuditFilter(), limit=1)).next_cursor is not None


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "ä", "%%%", base64.urlsafe_b64encode(b'["2026-11-22T00:00:00","x"]').decode(), "eyJhIjoxfQ", "x" * 500],
)
async def test_a_made_up_cursor_is_refused(database: Database, cursor: str) -> None:
    with pytest.raises(Invalid, match="cursor"):
        await AuditLog(database).page(AuditFilter(), limit=1, cursor=cursor)


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_a_page_has_a_bound(database: Database, limit: int) -> None:
    with pytest.raises(Invalid, match="between 1 and 1000"):
        await AuditLog(database).page(AuditFilter(), limit=limit)


async def test_a_tail_misses_nothing(database: Database, writer: AuditWriter) -> None:
    log = AuditLog(database)
    first = [entry() for _ in range(3)]
    for each in first:
        await writer.finish(each, had_intent=False)
    assert [each.id for each in await log.tail("calls:one", after=1)] == [each.id for each in first[1:]]
    assert await log.tail("calls:one", after=3) == ()
    assert [each.id for each in await log.tail("calls:one", after=0, limit=1)] == [first[0].id]


async def test_entries_of_a_clock_that_was_set_back_are_all_there_and_chained_as_they_came(
    database: Database, writer: AuditWriter
) -> None:
    entries = [entry(at=START - timedelta(hours=number % 3, minutes=number)) for number in range(9)]
    for each in entries:
        await writer.finish(each, had_intent=False)
    log = AuditLog(database)
    assert [each.id for each in await log.tail("calls:one", after=0)] == [each.id for each in entries]
    seen: list[str] = []
    cursor = None
    while True:
        page = await log.page(AuditFilter(), limit=2, cursor=cursor)
        seen += [each.id for each in page.entries]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sorted(seen) == sorted(each.id for each in entries)
