"""Postgres or the server killed under load: nothing runs unrecorded, nothing that ran is lost, all goes on after."""

import asyncio
import os
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from e2e_server import Server, new_folder, new_home, sdk_http, sdk_sse, text_of, until
from portoser.store.cluster import Cluster
from portoser.store.embedded import EmbeddedPostgres

MARK = '''\
import os, time

def NAME(n: int, file: str) -> dict:
    """Leave a mark of having begun, and take a moment."""
    with open(file, "a") as marks:
        marks.write(f"{n}\\n")
    time.sleep(0.02)
    return {"n": n}
'''
TOOLS = ("look", "change")
AWAY_SECONDS = float(os.environ.get("PORTOSER_TEST_AWAY_SECONDS", "6"))
"""How long Postgres is away. A minute is worth a try by hand."""


def with_tools(folder: Path, **env: str) -> Server:
    # Not isolated: what its tools write down is what really ran, whatever the audit log says.
    env = {"PORTOSER_WORKERS": "4", "PORTOSER_SANDBOX": "off", **env}
    server = Server(new_home(folder / "home", examples=False), **env)
    for name in TOOLS:
        server.write(f"{name}.py", MARK.replace("NAME", name))
        server.write(f"{name}.yaml", f"kind: Tool\nannotations: {{readOnly: {str(name == 'look').lower()}}}\n")
    return server


class OwnPostgres:
    """A Postgres of the test's own, which nobody but the test starts again."""

    def __init__(self, data: Path) -> None:
        self._cluster = Cluster(data)
        self._embedded = asyncio.run(EmbeddedPostgres.start(data))
        self.dsn = self._embedded.owner_dsn
        self._sockets = Path(self.dsn.partition("host=")[2])

    def kill(self) -> None:
        kill_postgres(self._cluster.folder / "cluster")

    def start(self) -> None:
        assert self._cluster.revive({}, self._sockets, lambda: True)

    def stop(self) -> None:
        asyncio.run(self._embedded.stop())


def kill_postgres(cluster: Path) -> None:
    postmaster = psutil.Process(int((cluster / "postmaster.pid").read_text().split("\n", 1)[0]))
    postmaster.kill()
    postmaster.wait(20)


class Load:
    """Clients that call the tools without pause, each call under a number of its own."""

    def __init__(self, server: Server, marks: Path) -> None:
        self._server = server
        self._marks = marks
        self._next = 0
        self._is_over = False
        self.answers: dict[int, str] = {}
        """What came of each call: ``ok``, or the error's text; nothing where there was no answer."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._client(way)) for way in ("sse", "sse", "legacy", "2026-07-28")]
            try:
                yield
            finally:
                self._is_over = True  # a cancellation may be lost in what a client says of a server that was killed
                for task in tasks:
                    task.cancel()

    async def _client(self, way: str) -> None:
        while not self._is_over:
            with suppress(Exception, BaseExceptionGroup):  # the server may be killed at any moment
                async with sdk_sse(self._server) if way == "sse" else sdk_http(self._server, way) as (client, _):
                    while not self._is_over:
                        await self._call(client)
            await asyncio.sleep(0.1)

    async def _call(self, client: Any) -> None:
        number, self._next = self._next, self._next + 1
        # Leaving in the middle would take the call back: that is another test's.
        call = asyncio.ensure_future(client.call_tool(TOOLS[number % 2], {"n": number, "file": str(self._marks)}))
        try:
            result = await asyncio.shield(call)
        except asyncio.CancelledError:
            async with asyncio.timeout(20):
                result = await call
            raise
        finally:
            if call.done() and not call.cancelled() and call.exception() is None:
                result = call.result()
                self.answers[number] = text_of(result) if result.is_error else "ok"

    def ok(self, least: int) -> Callable[[], Any]:
        async def look() -> bool:
            return self.count("ok") >= least

        return look

    def count(self, answer: str) -> int:
        return sum(1 for each in self.answers.values() if each == answer)

    def marked(self) -> Counter[int]:
        return Counter(map(int, self._marks.read_text().split()))


def entries(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for tool in TOOLS:
        params: dict[str, Any] = {"tool": tool, "event": "tool.call", "limit": 500}
        while True:
            page = server.api("GET", "/api/mcp/audit/logs", params=params).json()
            found += page["entries"]
            if not page["next_cursor"]:
                break
            params["cursor"] = page["next_cursor"]
    return found


@pytest.fixture
def own_postgres() -> Iterator[OwnPostgres]:
    with new_folder() as folder:
        postgres = OwnPostgres(folder / "data")
        yield postgres
        postgres.stop()


def by_number(told: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The entries by the number of their call, each of which has one."""
    numbers = Counter(entry["arguments"]["n"] for entry in told)
    assert set(numbers.values()) <= {1}, [number for number, count in numbers.items() if count > 1]
    return {entry["arguments"]["n"]: entry for entry in told}


def everything_is_recorded(load: Load, told: dict[int, dict[str, Any]]) -> None:
    marked = load.marked()
    assert set(marked.values()) == {1}
    assert not marked.keys() - told.keys()  # what began is in the log
    # Of refusals that are more than the server keeps while Postgres is away, it records the number alone.
    refused = sum(1 for answer in load.answers.values() if "the tool was not run" in answer)
    for number, answer in load.answers.items():
        if answer == "ok":
            assert told[number]["outcome"] == "ok"
            assert number in marked
        elif "the tool was not run" in answer:
            assert number not in marked
            assert told[number]["reason"] == "unrecorded" if number in told else refused > 5_000
        else:
            assert "though the tool has run" in answer, answer
            assert number in marked


@pytest.mark.timeout(240)
async def test_postgres_gone_for_long_under_load_and_back(own_postgres: OwnPostgres, tmp_path: Path) -> None:
    with new_folder() as folder:
        server = with_tools(folder)
        server.env["DATABASE_URL"] = own_postgres.dsn
        server.start()
        try:
            load = Load(server, tmp_path / "marks")
            async with load.running():
                await until(load.ok(30), 20)
                await asyncio.to_thread(own_postgres.kill)
                back = time.monotonic() + AWAY_SECONDS
                while time.monotonic() < back:
                    async with asyncio.timeout(5), sdk_sse(server) as (client, _):
                        assert {tool.name for tool in (await client.list_tools()).tools} == set(TOOLS)
                    await asyncio.sleep(0.2)
                refused = [each for each in load.answers.values() if "the tool was not run" in each]
                assert refused
                assert all(re.search("Try again in a moment", each) for each in refused)
                ran = load.marked().total()
                await asyncio.to_thread(own_postgres.start)
                good = load.count("ok")
                await until(load.ok(good + 30), 30)
                assert load.marked().total() > ran
            everything_is_recorded(load, by_number(await asyncio.to_thread(entries, server)))
            assert server.api("GET", "/ready").status_code == 200
        finally:
            assert server.stop() == 0, server.output()


async def test_postgres_killed_under_load_is_started_again_and_nothing_is_lost(tmp_path: Path) -> None:
    with new_folder() as folder:
        server = with_tools(folder)
        server.start()
        try:
            load = Load(server, tmp_path / "marks")
            async with load.running():
                for _ in range(3):
                    await until(load.ok(load.count("ok") + 20), 30)
                    await asyncio.to_thread(kill_postgres, server.home / ".portoser" / "postgres" / "cluster")
                await until(load.ok(load.count("ok") + 20), 30)
            everything_is_recorded(load, by_number(await asyncio.to_thread(entries, server)))
        finally:
            assert server.stop() == 0, server.output()


async def test_a_server_killed_under_load_has_every_call_that_began_in_the_log(tmp_path: Path) -> None:
    with new_folder() as folder:
        server = with_tools(folder)
        server.start()
        try:
            load = Load(server, tmp_path / "marks")
            async with load.running():
                await until(load.ok(40), 20)
                await asyncio.to_thread(server.stop, signal.SIGKILL)
            await asyncio.to_thread(server.start)

            async def all_told() -> dict[int, dict[str, Any]] | None:
                told = by_number(await asyncio.to_thread(entries, server))
                return told if load.marked().keys() <= told.keys() else None

            told = await until(all_told, 40)
            assert {entry["outcome"] for entry in told.values()} <= {"ok", "interrupted"}
            assert set(load.marked().values()) == {1}
            for number, answer in load.answers.items():
                assert answer == "ok"
                assert told[number]["outcome"] == "ok"
        finally:
            assert server.stop() == 0, server.output()
