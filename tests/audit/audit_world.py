"""Entries, and what stands in the log, for the tests of the audit room."""

import asyncio
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg

from portoser.audit.entry import Entry, Event, Outcome
from portoser.catalog.caller import Caller
from portoser.store.database import Database

ANN = Caller(subject="ann", name="Ann", groups=frozenset({"operator"}), client="cursor", address="10.0.0.1")


def entry(**fields: Any) -> Entry:
    return Entry(
        **{
            "id": str(uuid.uuid4()),
            "at": datetime.now(UTC),
            "event": Event.TOOL_CALL,
            "caller": ANN,
            "outcome": Outcome.OK,
            "tool": "orders.refund",
            **fields,
        }
    )


async def rows(database: Database) -> list[asyncpg.Record]:
    async with database.acquire() as connection:
        return list(await connection.fetch("SELECT * FROM mcp_audit_logs ORDER BY chain, seq"))


async def intents(database: Database) -> list[asyncpg.Record]:
    async with database.acquire() as connection:
        return list(await connection.fetch("SELECT * FROM mcp_audit_intents ORDER BY at"))


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)
