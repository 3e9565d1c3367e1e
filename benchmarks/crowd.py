"""The crowd that a soak sends: sessions of several callers on each transport, and an open loop of requests.

Requests are due at a constant rate, and their latency counts from when they were due, not from when a session was
free: a server that stalls is not asked less (Tene, "How NOT to Measure Latency").
"""

import asyncio
import itertools
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.http import HttpError
from benchmarks.mix import Caller, Mix
from benchmarks.protocol import LegacySession, ModernSession, Session, SseSession, WrongAnswer
from benchmarks.servers import Server
from benchmarks.toolset import tool_name

TRANSPORTS = ("2026-07-28", "SSE", "legacy HTTP")
SHARES = (50, 30, 20)
ORDINARY = frozenset({"add", "write", "logs", "fail", "REST call"})
"""The requests whose latency is told; the others take as long as they are made to."""

_MOST_WAITING = 2000
_PATIENCE = 60.0
Failures = (WrongAnswer, HttpError, OSError, TimeoutError, AssertionError)


@dataclass
class Interval:
    """What came of the requests since the last look."""

    latencies: list[float] = field(default_factory=list)
    answered: int = 0
    wrong: int = 0


@dataclass
class Tally:
    """What came of all requests."""

    interval: Interval = field(default_factory=Interval)
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    """Messages of wrong answers, by what was asked."""

    def took(self, kind: str, seconds: float) -> None:
        """A request was answered as expected."""
        self.kinds[kind] += 1
        self.interval.answered += 1
        if kind in ORDINARY:
            self.interval.latencies.append(seconds)

    def went_wrong(self, kind: str, error: BaseException) -> None:
        """A request was not."""
        self.interval.wrong += 1
        self.wrong[f"{kind}: {type(error).__name__}: {error}"[:500]] += 1

    def cut(self) -> Interval:
        """The interval so far; a new one begins."""
        interval, self.interval = self.interval, Interval()
        return interval


@dataclass
class Member:
    """One session and whose it is."""

    transport: str
    caller: Caller
    session: Session | None = None


async def open_session(
    server: Server, transport: str, caller: Caller, on_notification: Callable[[str], None] | None = None
) -> Session:
    """Connect ``caller`` by ``transport``."""
    if transport == "SSE":
        return await SseSession.open(server.port, server.sse_path, on_notification, caller.token)
    if transport == "legacy HTTP":
        return await LegacySession.open(server.port, caller.token, on_notification)
    return await ModernSession.open(server.port, caller.token)


class Crowd:
    """``each`` sessions on each transport, shared out among the callers."""

    def __init__(self, server: Server, mix: Mix, people: Sequence[Caller], tally: Tally, *, each: int) -> None:
        self.members = [
            Member(transport, caller)
            for transport in TRANSPORTS
            for caller in itertools.islice(itertools.cycle(people), each)
        ]
        self._server = server
        self._mix = mix
        self._tally = tally
        self._random = random.Random(7)
        self._free: dict[str, deque[Member]] = {transport: deque() for transport in TRANSPORTS}
        self._wanted: dict[str, deque[asyncio.Future[Member]]] = {transport: deque() for transport in TRANSPORTS}
        self._waiting = 0

    async def arrive(self) -> None:
        """Open all sessions."""
        for member in self.members:
            await self._connect(member)
            self._free[member.transport].append(member)

    def leave(self) -> None:
        """Close them."""
        for member in self.members:
            if member.session is not None:
                member.session.close()

    async def call_each(self, tools: int) -> None:
        """Call each tool once."""
        numbers = iter(range(tools))

        async def keep_calling(session: Session) -> None:
            for number in numbers:
                await session.call_add(tool_name(number), number, 1_000_003)

        await asyncio.gather(*(keep_calling(each.session) for each in self.members if each.session is not None))

    async def saturate(self, seconds: float) -> float:
        """As many requests as the server answers: one after the other on every session. Requests a second."""
        end = time.perf_counter() + seconds
        done = 0

        async def keep_asking(member: Member) -> None:
            nonlocal done
            while (now := time.perf_counter()) < end:
                await self._ask(self._mix.choose(), member, now)
                done += 1

        started = time.perf_counter()
        await asyncio.gather(*(keep_asking(member) for member in self.members))
        return done / (time.perf_counter() - started)

    async def offer(self, rate: float, until: asyncio.Event) -> None:
        """Send ``rate`` requests a second, evenly, until ``until`` is set; then wait for the last answers."""
        async with asyncio.TaskGroup() as tasks:
            started = time.perf_counter()
            for number in itertools.count():
                due = started + number / rate
                while (early := due - time.perf_counter()) > 0 and not until.is_set():  # noqa: ASYNC110 - a clock
                    await asyncio.sleep(min(early, 0.5))
                if until.is_set():
                    return
                if self._waiting >= _MOST_WAITING:
                    self._tally.went_wrong("offer", TimeoutError(f"{_MOST_WAITING:,} requests wait for a session"))
                    continue
                tasks.create_task(self._ask_somebody(due))

    async def _ask_somebody(self, due: float) -> None:
        kind, transport = self._mix.choose(), self._random.choices(TRANSPORTS, SHARES)[0]
        self._waiting += 1
        try:
            member = await self._take(transport)
        finally:
            self._waiting -= 1
        try:
            await self._ask(kind, member, due)
        finally:
            self._give_back(member)

    async def _ask(self, kind: str, member: Member, due: float) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                session = member.session or await self._connect(member)
                await self._mix.make(kind, session, member.caller)
        except Failures as error:
            self._tally.went_wrong(f"{kind}, {member.transport}", error)
            if not isinstance(error, WrongAnswer) and member.session is not None:
                member.session.close()  # nobody knows what still comes on it
                member.session = None
        else:
            self._tally.took(kind, time.perf_counter() - due)

    async def _connect(self, member: Member) -> Session:
        member.session = await open_session(self._server, member.transport, member.caller)
        return member.session

    async def _take(self, transport: str) -> Member:
        free = self._free[transport]
        if free:
            return free.popleft()  # first in, first out: everybody gets their turn
        turn: asyncio.Future[Member] = asyncio.get_running_loop().create_future()
        self._wanted[transport].append(turn)
        return await turn

    def _give_back(self, member: Member) -> None:
        wanted = self._wanted[member.transport]
        while wanted:
            turn = wanted.popleft()
            if not turn.done():
                turn.set_result(member)
                return
        self._free[member.transport].append(member)
