"""Calls that go wrong in a real server: each has its one answer and its one entry, and harms no other call."""

import asyncio
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import psutil
import pytest

from e2e_server import Server, new_folder, new_home, sdk_http, sdk_sse, text_of, until
from portoser.identity.tokens import new_token

MANY, MANY_HASH = new_token()
FEW, FEW_HASH = new_token()
TOKENS = f"""\
- {{name: many, hash: "{MANY_HASH}", groups: [admins]}}
- {{name: few, hash: "{FEW_HASH}", groups: [admins]}}
"""
TROUBLE = '''\
import ctypes, os, sys, time

def trouble(kind: str, seconds: float = 0.0) -> dict:
    """Get into trouble."""
    if kind == "wait":
        time.sleep(seconds)
        return {"waited": seconds}
    if kind == "exit":
        sys.exit(3)
    if kind == "_exit":
        os._exit(7)
    if kind == "segfault":
        ctypes.string_at(0)
    if kind == "unserializable":
        return {"x": object()}
    if kind == "100 MB":
        return {"x": "y" * 100_000_000}
    if kind == "values":
        return {"x": [[]] * 1_000_000}
    if kind == "1 GB":
        for _ in range(1024 * 1024):
            print("z" * 1023)
    if kind == "logs":
        while True:
            ctx.info("again")
    if kind == "progress":
        while True:
            ctx.report_progress(1)
    if kind == "raise":
        raise ValueError("no such order")
'''
NAP = '''\
import time

def nap(n: int, seconds: float = 0.01, until: str = "") -> dict:
    """Sleep for a moment, or until the registry has a service."""
    time.sleep(seconds)
    while until and until not in str(registry.read("services")):
        time.sleep(0.1)
    return {"n": n}
'''
PIDS = '''\
import ctypes, os, time

def pids(seconds: float) -> dict:
    """Sleep, in a process that is called by a name as long."""
    ctypes.CDLL(None).prctl(15, b"pids sleeps", 0, 0, 0)
    time.sleep(seconds)
    ctypes.CDLL(None).prctl(15, b"pids has slept", 0, 0, 0)
    return {"pid": os.getpid()}
'''
TROUBLES = {
    "exit": ("exited", "exit code 3"),
    "_exit": ("exited", "exit code 7"),
    "segfault": ("crashed", "SIGSEGV"),
    "unserializable": ("not_serializable", "cannot be sent"),
    "100 MB": ("result_too_large", "the limit is 8 MiB"),
    "values": ("result_too_large", "2,000,013 values"),
    "1 GB": ("output_limit", "printed or logged more than a call may"),
    "logs": ("output_limit", "printed or logged more than a call may"),
    "progress": ("output_limit", "printed or logged more than a call may"),
    "raise": ("exception", "no such order"),
}


@pytest.fixture(scope="module")
def busy() -> Iterator[Server]:
    """A server with four workers and two callers."""
    with new_folder() as folder:
        home = new_home(folder / "home", examples=False)
        (home / "tokens.yml").write_text(TOKENS)
        server = Server(home, PORTOSER_TOKENS="tokens.yml", PORTOSER_ADMIN_GROUPS="admins", PORTOSER_WORKERS="4")
        (home / "registry.yml").write_text("services: {}\n")
        server.write("trouble.py", TROUBLE)
        server.write("trouble.yaml", "kind: Tool\nlimits: {memory: 1GiB}\n")
        server.write("stuck.py", "def stuck(kind: str) -> None:\n    while True:\n        pass\n")
        server.write("stuck.yaml", "kind: Tool\nlimits: {timeout: 1s}\n")
        server.write("nap.py", NAP)
        server.write("nap.yaml", "kind: Tool\nannotations: {readOnly: true}\nlimits: {timeout: 100s, powers: 5000}\n")
        server.write("pids.py", PIDS)
        server.write("pids.yaml", "kind: Tool\n")
        server.start()
        yield server
        assert server.stop() == 0, server.output()


@asynccontextmanager
async def client_of(server: Server, transport: str, token: str = MANY) -> Any:
    async with AsyncExitStack() as stack:
        way = sdk_sse(server, token) if transport == "sse" else sdk_http(server, transport, token)
        client, _ = await stack.enter_async_context(way)
        yield client


def entries(server: Server, tool: str) -> list[dict[str, Any]]:
    """All entries of a tool's calls, the latest first."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        more = {"cursor": cursor} if cursor else {}
        page = server.api(
            "GET",
            "/api/mcp/audit/logs",
            params={"tool": tool, "event": "tool.call", "limit": 500, **more},
            headers={"Authorization": f"Bearer {MANY}"},
        ).json()
        found += page["entries"]
        cursor = page.get("next_cursor")
        if not cursor:
            return found


@pytest.mark.parametrize("transport", ["sse", "legacy", "2026-07-28"])
async def test_a_tool_in_trouble_says_which_and_harms_no_other_call_of_it(busy: Server, transport: str) -> None:
    before = len(entries(busy, "trouble"))
    async with client_of(busy, transport) as client, asyncio.TaskGroup() as tasks:
        waits = [tasks.create_task(client.call_tool("trouble", {"kind": "wait", "seconds": 1.5})) for _ in range(2)]
        calls = {kind: tasks.create_task(client.call_tool("trouble", {"kind": kind})) for kind in TROUBLES}
        stuck = tasks.create_task(client.call_tool("stuck", {"kind": "hang"}))
    for wait in waits:
        assert wait.result().structured_content == {"waited": 1.5}
    for kind, call in calls.items():
        assert call.result().is_error, kind
        assert TROUBLES[kind][1] in text_of(call.result()), kind
    assert "longer than the 1 s that it may" in text_of(stuck.result())
    assert entries(busy, "stuck")[0]["outcome"] == "timeout"
    told = entries(busy, "trouble")[: -before or None]
    assert Counter((entry["arguments"]["kind"], entry["reason"]) for entry in told) == Counter(
        [("wait", None)] * 2 + [(kind, reason) for kind, (reason, _) in TROUBLES.items()]
    )


async def test_500_calls_at_once_on_four_workers_are_fair_and_each_is_answered_and_recorded_once(
    busy: Server,
) -> None:
    already = len(entries(busy, "nap"))
    done: list[str] = []

    async def call(client: Any, who: str, n: int) -> None:
        result = await client.call_tool("nap", {"n": n, "until": "first" if n < 4 else ""})
        assert result.structured_content == {"n": n}
        done.append(who)

    async with client_of(busy, "sse", MANY) as many, client_of(busy, "sse", FEW) as few, asyncio.TaskGroup() as tasks:
        for n in range(495):
            tasks.create_task(call(many, "many", n))
        await until(_waiting(busy, 491), 60)
        for n in range(495, 500):
            tasks.create_task(call(few, "few", n))
        await until(_waiting(busy, 496), 60)
        wake(busy, "first")
    assert len(done) == 500
    assert len(done) - 1 - done[::-1].index("few") < 300  # the last of the few
    told = entries(busy, "nap")
    told = told[: len(told) - already]
    assert sorted(entry["arguments"]["n"] for entry in told) == list(range(500))
    assert {entry["outcome"] for entry in told} == {"ok"}


async def test_beyond_the_queue_calls_are_told_when_to_come_back_and_another_caller_still_gets_in(
    busy: Server,
) -> None:
    already = len(entries(busy, "nap"))
    async with client_of(busy, "sse", MANY) as many, client_of(busy, "2026-07-28", FEW) as few:
        calls = [asyncio.create_task(many.call_tool("nap", {"n": n, "until": "second"})) for n in range(4)]
        calls += [asyncio.create_task(many.call_tool("nap", {"n": n})) for n in range(4, 1100)]

        async def answered(count: int) -> bool:
            return sum(call.done() for call in calls) == count

        await until(partial(answered, 1100 - 4 - 1000), 60)  # the others run or wait: the line is full
        other = asyncio.create_task(few.call_tool("nap", {"n": -1}))
        await until(partial(answered, 1100 - 4 - 1000 + 1), 60)  # one of the many gave up its place
        wake(busy, "second")
        assert (await other).structured_content == {"n": -1}
        results = await asyncio.gather(*calls)
        told = [text_of(result) for result in results if result.is_error]
        assert told
        seconds = [re.fullmatch(r"busy, try again in (\d+) s", text) for text in told]
        assert all(seconds), set(told)
        assert not (await many.call_tool("nap", {"n": -2})).is_error
    rows = entries(busy, "nap")
    rows = rows[: len(rows) - already]
    assert sorted(row["arguments"]["n"] for row in rows) == [-2, -1, *range(1100)]
    assert Counter(row["reason"] for row in rows) == {None: 1102 - len(told), "busy": len(told)}


def wake(server: Server, name: str) -> None:
    """Give the registry a service, which calls of ``nap`` wait for."""
    new = server.home / "registry.new"
    new.write_text(f"hosts: {{h: {{address: 127.0.0.1}}}}\nservices: {{{name}: {{host: h}}}}\n")
    new.replace(server.home / "registry.yml")


def _waiting(server: Server, least: int) -> Callable[[], Any]:
    async def look() -> bool:
        status = await asyncio.to_thread(
            server.api, "GET", "/api/mcp/status", headers={"Authorization": f"Bearer {MANY}"}
        )
        return bool(status.json()["runtime"]["queued"] >= least)

    return look


@pytest.mark.parametrize("transport", ["sse", "legacy", "2026-07-28"])
async def test_a_worker_that_is_killed_costs_its_call_alone(busy: Server, transport: str) -> None:
    async with client_of(busy, transport) as client, asyncio.TaskGroup() as tasks:
        killed = tasks.create_task(client.call_tool("pids", {"seconds": 20}))
        other = tasks.create_task(client.call_tool("nap", {"n": 1, "seconds": 1.0}))
        pid = int(await until(_sleeping(busy)))
        os.kill(pid, signal.SIGKILL)
        assert "SIGKILL" in text_of(await killed)
        assert (await other).structured_content == {"n": 1}
        again = await client.call_tool("pids", {"seconds": 0})
        assert not again.is_error
    assert [entry["reason"] for entry in entries(busy, "pids")[:2]] == [None, "crashed"]


async def test_a_killed_zygote_costs_the_running_calls_and_the_next_one_works(busy: Server) -> None:
    async with client_of(busy, "sse") as client, asyncio.TaskGroup() as tasks:
        call = tasks.create_task(client.call_tool("pids", {"seconds": 20}))
        pid = int(await until(_sleeping(busy)))
        zygote = psutil.Process(pid).parent()
        assert zygote is not None
        assert zygote.pid != busy.process.pid  # type: ignore[union-attr]
        zygote.kill()
        assert "lost with the process that started it" in text_of(await call)
        again = await client.call_tool("pids", {"seconds": 0})
        assert not again.is_error
    await until(_gone(pid))
    assert [entry["reason"] for entry in entries(busy, "pids")[:2]] == [None, "crashed"]


def _gone(pid: int) -> Callable[[], Any]:
    async def look() -> bool:
        return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE

    return look


def _sleeping(server: Server) -> Callable[[], Any]:
    async def look() -> int | None:
        return server.worker("pids sleeps")

    return look
