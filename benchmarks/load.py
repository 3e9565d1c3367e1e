"""Load: many connections with one call in flight on each, in rounds that alternate between servers.

Two servers are never compared by two long runs: the machine drifts. Rounds of a few seconds alternate (A-B-A-B),
each ratio is taken inside a pair of neighbours, and the median of the pairs counts.
"""

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import psutil

from benchmarks.protocol import ModernSession, Session, SseSession
from benchmarks.servers import Server

CONNECTIONS = 16
WARM_UP = 0.5


@dataclass(frozen=True)
class Round:
    """What one round gave. ``latencies`` are seconds, sorted; ``cpu`` is seconds of the server's processes.

    ``others`` is how many CPUs whoever is neither the server nor the client used meanwhile: above a few
    hundredths, a round says as much about them as about the server.
    """

    calls: int
    seconds: float
    latencies: list[float]
    cpu: float
    others: float

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.calls / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of CPU a call, of all of the server's processes."""
        return 1000 * self.cpu / self.calls


@dataclass
class Contestant:
    """A server as one load sees it: a transport, the tools to call by turns, and the rounds so far."""

    server: Server
    open_session: Callable[[], Awaitable[Session]]
    tools: Sequence[str]
    connections: int = CONNECTIONS
    rounds: list[Round] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Median of the rounds' calls a second."""
        return statistics.median(each.rate for each in self.rounds)

    @property
    def cpu_ms(self) -> float:
        """Median of the rounds' CPU a call, in milliseconds."""
        return statistics.median(each.cpu_ms for each in self.rounds)

    def latency_ms(self, fraction: float) -> float:
        """A quantile of the latencies of all rounds, in milliseconds."""
        return 1000 * quantile(sorted(itertools.chain.from_iterable(each.latencies for each in self.rounds)), fraction)


def quantile(ordered: Sequence[float], fraction: float) -> float:
    """The value below which ``fraction`` of the sorted values lie."""
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


def paired_ratio(ours: Contestant, theirs: Contestant) -> float:
    """The median, over pairs of neighbouring rounds, of our calls a second through theirs."""
    return statistics.median(a.rate / b.rate for a, b in zip(ours.rounds, theirs.rounds, strict=True))


async def alternate(contestants: Sequence[Contestant], *, rounds: int, seconds: float) -> None:
    """Let the contestants take turns, ``rounds`` times ``seconds`` each."""
    for _ in range(rounds):
        for contestant in contestants:
            contestant.rounds.append(await one_round(contestant, seconds))


async def one_round(contestant: Contestant, seconds: float) -> Round:
    """Drive one server for ``seconds``, after a short warm-up on the same connections."""
    sessions: list[Session] = []
    try:
        async with asyncio.timeout(seconds + 120):
            for _ in range(contestant.connections):
                sessions.append(await contestant.open_session())  # noqa: PERF401 - closed below, however far it came
            await _drive(contestant, sessions, WARM_UP)
            cpu, started = contestant.server.cpu_seconds(), time.perf_counter()
            machine = _machine_seconds() - time.process_time()
            latencies = await _drive(contestant, sessions, seconds)
            elapsed = time.perf_counter() - started
            cpu = contestant.server.cpu_seconds() - cpu
            machine = _machine_seconds() - time.process_time() - machine
    finally:
        for session in sessions:
            session.close()
    return Round(len(latencies), elapsed, sorted(latencies), cpu, max(0.0, machine - cpu) / elapsed)


def _machine_seconds() -> float:
    """CPU seconds that all processes of the machine, and its hypervisor, have used."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait - times.guest - times.guest_nice


async def _drive(contestant: Contestant, sessions: Sequence[Session], seconds: float) -> list[float]:
    latencies: list[float] = []
    numbers, clock = itertools.count(), time.perf_counter
    tools = itertools.cycle(contestant.tools)
    end = clock() + seconds

    async def keep_calling(session: Session) -> None:
        while (started := clock()) < end:
            await session.call_add(next(tools), next(numbers), 1_000_003)
            latencies.append(clock() - started)

    async with asyncio.TaskGroup() as group:
        for session in sessions:
            group.create_task(keep_calling(session))
    return latencies


def over_http(server: Server, tools: Sequence[str], connections: int = CONNECTIONS) -> Contestant:
    """Calls on protocol 2026-07-28 over Streamable HTTP."""
    return Contestant(server, lambda: ModernSession.open(server.port), tools, connections)


def over_sse(server: Server, tools: Sequence[str], connections: int = CONNECTIONS) -> Contestant:
    """Calls in the handshake era over SSE."""
    return Contestant(server, lambda: SseSession.open(server.port, server.sse_path), tools, connections)
