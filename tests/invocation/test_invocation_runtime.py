"""The whole way of a call, with real workers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from invocation_world import ANN, World, tool, until

from portoser.audit.entry import Outcome
from portoser.audit.redaction import PLACEHOLDER
from portoser.audit.writer import AuditWriter
from portoser.catalog.revision import SourceFile
from portoser.invocation import Invocation
from portoser.invocation.nonces import OwnNonces
from portoser.powers.host import Powers
from portoser.registry.access import Access
from portoser.registry.code import CodeCache
from portoser.registry.follower import Follower
from portoser.runtime.runtime import Runtime
from portoser.store.database import Database

CODE = """
import time

def refund(order_id: str, password: str = "") -> dict:
    print("printed")
    if order_id == "wait":
        time.sleep(60)
    if order_id == "fail":
        raise ValueError(f"no {password}")
    return {"status": "refunded", "echo": password}
"""

SCHEMA = {"type": "object", "properties": {"order_id": {"type": "string"}, "password": {"type": "string"}}}


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[tuple[World, Invocation]]:
    audit = AuditWriter(database, replica="test")
    await audit.start()
    runtime = Runtime(workers=2, scratch=tmp_path / "scratch")
    await runtime.start()
    world = World(database, audit)
    world.serve(tool(input_schema=SCHEMA))

    async def files(digest: str) -> tuple[SourceFile, ...]:
        return (SourceFile("refund.py", CODE),)

    world.files = files  # type: ignore[method-assign]
    invocation = Invocation(
        cast("Follower", world), Access(), cast("CodeCache", world), runtime, Powers([]), audit, OwnNonces()
    )
    yield world, invocation
    await runtime.aclose()
    await audit.aclose()


async def test_a_tool_runs_and_its_secret_stays_out_of_the_log(world: tuple[World, Invocation]) -> None:
    seen, invocation = world
    result = await invocation.invoke("refund", {"order_id": "A1", "password": "correct-horse"}, ANN)
    assert (result.outcome, result.structured) == (Outcome.OK, {"status": "refunded", "echo": "correct-horse"})
    assert result.logs == "printed\n"
    row = await seen.row()
    assert row["arguments"] == {"order_id": "A1", "password": PLACEHOLDER}
    assert row["result"] == {"structured": {"status": "refunded", "echo": PLACEHOLDER}}


async def test_a_tool_that_raises_is_an_error_with_its_traceback(world: tuple[World, Invocation]) -> None:
    seen, invocation = world
    result = await invocation.invoke("refund", {"order_id": "fail", "password": "correct-horse"}, ANN)
    assert (result.outcome, result.reason) == (Outcome.ERROR, "exception")
    row = await seen.row()
    assert "refund.py" in row["error"]
    assert "correct-horse" not in str(dict(row))


async def test_what_no_worker_can_be_sent_is_invalid(world: tuple[World, Invocation]) -> None:
    seen, invocation = world
    for arguments in ({"order_id": "\ud800"}, {"order_id": "A1", "more": 2**80}):
        result = await invocation.invoke("refund", cast("dict[str, Any]", arguments), ANN)
        assert (result.outcome, result.reason) == (Outcome.INVALID, "invalid_arguments")
    assert [row["outcome"] for row in await seen.rows()] == ["invalid", "invalid"]
    assert await seen.intents() == []


async def test_leaving_ends_the_tool(world: tuple[World, Invocation]) -> None:
    seen, invocation = world
    task = asyncio.ensure_future(invocation.invoke("refund", {"order_id": "wait"}, ANN))
    runtime = cast("Any", invocation)._runtime
    await until(lambda: runtime.status().busy == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await seen.row())["outcome"] == "cancelled"
    await until(lambda: runtime.status().busy == 0)
