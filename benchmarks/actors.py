"""Who else is there while the crowd calls tools: an author, an operator, clients that come and go, a probe."""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.crowd import TRANSPORTS, Failures, Tally, open_session
from benchmarks.http import Connection, EventStream, get
from benchmarks.measures import list_tools
from benchmarks.mix import Caller, rest
from benchmarks.protocol import LegacySession, ModernSession, Session, SseSession, WrongAnswer
from benchmarks.servers import Server
from benchmarks.toolset import python_file, source_of, tool_name

EDIT_EVERY = 5.0
CHANGE_EVERY = 7.0
VISIT_EVERY = 1.0
PROBE_EVERY = 0.5
_VISITS_LEFT_OPEN = 60
"""One visitor in so many goes without ending its session of Streamable HTTP; the server keeps that for half an hour."""

_TOLD_WITHIN = 10.0


class Actors:
    """Each goes on until it is cancelled. What goes wrong is tallied, and it goes on."""

    def __init__(
        self, server: Server, root: Path, tools: int, people: list[Caller], admin: Caller, tally: Tally
    ) -> None:
        self.edits: list[float] = []
        """When files were saved, by the performance counter."""
        self.told: list[float] = []
        """Seconds from a save until every listener had list_changed, since the last look."""
        self.lags: list[float] = []
        """Seconds that ``/health`` took, which waits for nothing but the event loop, since the last look."""
        self._server = server
        self._root = root
        self._tools = tools
        self._people = people
        self._admin = admin
        self._tally = tally
        self._random = random.Random(5)
        self._heard: dict[str, float] = {}

    async def run(self) -> None:
        """All of them."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._author())
            tasks.create_task(self._every(CHANGE_EVERY, "REST change", self._change()))
            tasks.create_task(self._every(VISIT_EVERY, "visitor", self._visit()))
            tasks.create_task(self._probe())

    async def _every(self, seconds: float, kind: str, deeds: Iterator[Callable[[], Awaitable[None]]]) -> None:
        for deed in deeds:
            await asyncio.sleep(seconds)
            await self._attempt(kind, deed)

    async def _attempt(self, kind: str, deed: Callable[[], Awaitable[None]]) -> None:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(60):
                await deed()
        except Failures as error:
            self._tally.went_wrong(kind, error)
        else:
            self._tally.took(kind, time.perf_counter() - started)

    # The author -----------------------------------------------------------------------------------------------

    async def _author(self) -> None:
        open_now: list[Session | EventStream] = []
        try:
            for transport in TRANSPORTS:
                session = await open_session(self._server, transport, self._people[0], self._hears(transport))
                open_now.append(session)
                if isinstance(session, ModernSession):
                    open_now.append(await session.listen(self._hears(transport)))
            reader = next(each for each in open_now if isinstance(each, SseSession))
            for edition in itertools.count(1):
                await asyncio.sleep(EDIT_EVERY)
                await self._attempt("edit", partial(self._edit, edition, reader))
        finally:
            for each in open_now:
                each.close()

    def _hears(self, transport: str) -> Callable[[str], None]:
        def on_notification(method: str) -> None:
            if method == "notifications/tools/list_changed":
                self._heard[transport] = time.perf_counter()

        return on_notification

    async def _edit(self, edition: int, reader: SseSession) -> None:
        """Save a tool; wait until every listener was told; see that the list has it."""
        hot = edition % 4 == 0
        tool = self._random.choice(self._people[0].hot) if hot else tool_name(self._random.randrange(self._tools))
        path = python_file(self._root, int(tool.rpartition("_")[2]))
        saved = time.perf_counter()
        if edition % 2:
            path.write_text(source_of(tool, edition))
        else:  # as editors do
            beside = path.with_suffix(".py~")
            beside.write_text(source_of(tool, edition))
            beside.rename(path)
        self.edits.append(saved)
        while True:
            while any(self._heard.get(transport, 0.0) <= saved for transport in TRANSPORTS):
                if time.perf_counter() - saved > _TOLD_WITHIN:
                    missing = [each for each in TRANSPORTS if self._heard.get(each, 0.0) <= saved]
                    raise WrongAnswer(f"{_TOLD_WITHIN:.0f} s after a save nobody had told {', '.join(missing)}")
                await asyncio.sleep(0.005)
            told = max(self._heard.values()) - saved
            names, _ = await list_tools(reader)
            if f"edition {edition}." in names[tool]:
                break
            if time.perf_counter() - saved > _TOLD_WITHIN:
                raise WrongAnswer(f"{_TOLD_WITHIN:.0f} s after a save {tool} is listed as {names[tool]!r}")
            await asyncio.sleep(0.02)  # it was another change that was told of
        self.told.append(told)

    # The operator ---------------------------------------------------------------------------------------------

    def _change(self) -> Iterator[Callable[[], Awaitable[None]]]:
        for number in itertools.count():
            yield partial(self._put_or_delete, number)

    async def _put_or_delete(self, number: int) -> None:
        name, port = f"rest_{number // 3 % 5}", self._server.port
        if number % 3 == 2:
            await rest(port, self._admin, "DELETE", f"/api/mcp/tools/{name}")
            return
        body = {"code": source_of(name, number), "permissions": ["staff"]}
        await rest(port, self._admin, "PUT", f"/api/mcp/tools/{name}", body)
        called = await rest(
            port, self._people[0], "POST", f"/api/mcp/tools/{name}/call", {"arguments": {"a": 1, "b": 2}}
        )
        if called.get("isError"):
            raise WrongAnswer(f"A tool that was just put answered {called}")

    # The others -----------------------------------------------------------------------------------------------

    def _visit(self) -> Iterator[Callable[[], Awaitable[None]]]:
        for number in itertools.count():
            yield partial(self._come_and_go, number)

    async def _come_and_go(self, number: int) -> None:
        caller, transport = self._people[number % len(self._people)], TRANSPORTS[number % len(TRANSPORTS)]
        session = await open_session(self._server, transport, caller)
        try:
            await session.call_add(caller.hot[0], number, 1)
            if isinstance(session, SseSession) and number % 10 == 0:  # leaves in the middle of a call
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await session.call("soak_slow", {"n": number})
            elif isinstance(session, LegacySession) and number % _VISITS_LEFT_OPEN != 2:
                await session.end()
        finally:
            session.close()

    async def _probe(self) -> None:
        connection: Connection | None = None
        while True:
            await asyncio.sleep(PROBE_EVERY)
            started = time.perf_counter()
            try:
                async with asyncio.timeout(30):
                    if connection is None or connection.closed:
                        connection = await Connection.open(self._server.port)
                    response = await connection.request(get(self._server.port, "/health"))
                if response.status != 200:
                    raise WrongAnswer(f"/health: HTTP {response.status}: {response.body[:200]!r}")
                self.lags.append(time.perf_counter() - started)
            except Failures as error:
                self._tally.went_wrong("/health", error)
