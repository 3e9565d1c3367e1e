"""What one asks a server about: its runs, a plan that waits, what a folder's problems are, and who may call what."""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from live_server import LiveServer

from portoser.store import sync_runs
from portoser.store.sync_runs import RunRow

Run = Callable[..., Any]


@contextmanager
def saved(server: LiveServer, path: str, text: str) -> Iterator[None]:
    file = server.tools / path
    file.write_text(text)
    try:
        server.api("POST", "/api/mcp/sync").raise_for_status()
        yield
    finally:
        file.unlink()
        server.api("POST", "/api/mcp/sync").raise_for_status()


def test_history_shows_what_runs_changed(at: Run) -> None:
    told = at("history", "-n", "1")
    assert told.code == 0
    assert "create" in told.out
    assert "applied" in told.out
    assert [run["outcome"] for run in at("history", "--json").json["runs"]] == ["applied"]


def test_explain_says_why_and_exits_1_where_one_may_not(at: Run) -> None:
    mine = at("explain", "hello")
    assert (mine.code, "yes (allowed)" in mine.out) == (0, True)
    other = at("explain", "hello", "--groups", "strangers")
    assert (other.code, "no (forbidden)" in other.out) == (1, True)
    assert "operator" in other.out
    assert at("explain", "hello", "--groups", "operator", "--json").json["allowed"]
    assert "Did you mean 'hello'?" in at("explain", "helo").err


def test_approving_a_plan_that_does_not_wait_is_told_and_exits_1(at: Run) -> None:
    told = at("sync", "--approve", "0123456789abcdef")
    assert told.code == 1
    assert "no plan '0123456789abcdef' is held back" in told.err


def test_the_servers_own_plan_tells_what_is_wrong_in_its_folder(at: Run, server: LiveServer) -> None:
    with saved(server, "odd.yaml", "kind: Tool\nnmae: x\n"):
        told = at("plan")
        assert told.code == 1
        assert "! odd.yaml:2:1: 'nmae' is not known" in told.out
        assert "2 errors" in told.out
    assert at("plan").code == 0


@pytest.mark.parametrize("command", ["status", "sync"])
def test_a_problem_is_told_as_validate_writes_it(at: Run, server: LiveServer, command: str) -> None:
    with saved(server, "odd.yaml", "kind: Tool\nnmae: x\n"):
        assert "odd.yaml:2:1: error: 'nmae' is not known. Did you mean 'name'?" in at(command).err


def test_history_says_of_a_run_that_goes_on_that_it_does(at: Run, server: LiveServer) -> None:
    row = RunRow(id=str(uuid.uuid4()), source="elsewhere", cause="start", started_at=datetime.now(UTC))

    async def begin() -> None:
        async with server.services.database.acquire() as connection:
            await sync_runs.begin(connection, row)

    async def drop() -> None:
        async with server.services.database.acquire() as connection:
            await sync_runs.drop(connection, row.id)

    asyncio.run_coroutine_threadsafe(begin(), server.loop).result(10)
    assert "running" in at("history", "-n", "1").out
    asyncio.run_coroutine_threadsafe(drop(), server.loop).result(10)
