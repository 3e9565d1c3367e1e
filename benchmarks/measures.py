"""What is measured, each as a function of running servers that gives rows for the table."""

import asyncio
import itertools
import random
import statistics
import time
from functools import partial
from pathlib import Path

from benchmarks.load import CONNECTIONS, Contestant, alternate, over_http, over_sse, paired_ratio, quantile
from benchmarks.protocol import ModernSession, Session, SseSession
from benchmarks.report import Row
from benchmarks.servers import Memory, Server
from benchmarks.toolset import READ_ONLY, READ_WRITE, counted, python_file, source_of, tool_name

TRANSPORTS = {"2026-07-28": over_http, "SSE": over_sse}
SPREAD = 64
"""How many tools the spread load calls by turns."""

CROWD_SAVES = 5
"""How often a change is told to a thousand sessions."""


async def calls(bare: Server, ours: Server, tools: int, *, rounds: int, seconds: float) -> list[Row]:
    """tools/call of one readOnly tool among ``tools``, against the bare server with its one tool."""
    rows: list[Row] = []
    pairs = {name: (over(bare, [READ_ONLY]), over(ours, [READ_ONLY])) for name, over in TRANSPORTS.items()}
    await alternate(list(itertools.chain(*pairs.values())), rounds=rounds, seconds=seconds)
    for transport, (theirs, mine) in pairs.items():
        bar = "≥ 0.8" if tools >= 1000 or transport == "SSE" else ""
        rows += call_rows(f"tools/call {transport}, {counted(tools)}", theirs, mine, bar)
    return rows


async def other_loads(bare: Server, ours: Server, tools: int, *, rounds: int, seconds: float) -> list[Row]:
    """The same with a tool whose intent is recorded, and with calls that go around many tools."""
    rows: list[Row] = []
    many = [tool_name(number) for number in range(min(SPREAD, tools))]
    for transport, over in TRANSPORTS.items():
        theirs, intent, spread = over(bare, [READ_ONLY]), over(ours, [READ_WRITE]), over(ours, many)
        await alternate([theirs, intent, spread], rounds=rounds, seconds=seconds)
        rows += call_rows(f"tools/call {transport}, not readOnly", theirs, intent, "≥ 0.8")  # writes an intent besides
        rows += call_rows(f"tools/call {transport}, {len(many)} tools by turns", theirs, spread)
    return rows


async def independence(few: Server, many: Server, counts: tuple[int, int], *, rounds: int, seconds: float) -> list[Row]:
    """The ratio that decides the architecture: our calls a second with many tools through ours with few."""
    rows: list[Row] = []
    for transport, over in TRANSPORTS.items():
        a, b = over(few, [READ_ONLY]), over(many, [READ_ONLY])
        await alternate([a, b], rounds=rounds, seconds=seconds)
        label = f"ours, {transport}, with {counted(counts[0])}"
        rows.append(Row(label, None, a.rate, "calls/s", better="more"))
        label = f"  with {counted(counts[1])}, by turns with that"
        rows.append(Row(label, None, b.rate, "calls/s", paired_ratio(b, a), "≥ 0.9", "more", _rounds(a, b)))
        rows.append(Row("  CPU a call, likewise", None, b.cpu_ms, "ms", b.cpu_ms / a.cpu_ms))
    return rows


def call_rows(label: str, theirs: Contestant, ours: Contestant, bar: str = "") -> list[Row]:
    """The rows that one pair of contestants gives."""
    return [
        Row(label, theirs.rate, ours.rate, "calls/s", paired_ratio(ours, theirs), bar, "more", _rounds(theirs, ours)),
        Row("  p50", theirs.latency_ms(0.5), ours.latency_ms(0.5), "ms"),
        Row("  p99", theirs.latency_ms(0.99), ours.latency_ms(0.99), "ms"),
        Row("  CPU a call, all processes", theirs.cpu_ms, ours.cpu_ms, "ms"),
    ]


def _rounds(against: Contestant, ours: Contestant) -> dict[str, list[dict[str, float]]]:
    return {
        name: [{"rate": each.rate, "cpu_ms": each.cpu_ms, "others": each.others} for each in contestant.rounds]
        for name, contestant in (("against", against), ("ours", ours))
    }


async def settling(server: Server, tools: int, *, at_most: float = 30) -> Row:
    """How long a server that is ready goes on working by itself; the other measures wait for its end."""
    started, quiet_since = time.monotonic(), time.monotonic()
    while time.monotonic() - started < at_most:
        before = server.cpu_seconds()
        await asyncio.sleep(0.5)
        if server.cpu_seconds() - before > 0.1:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since >= 2:
            break
    return Row(f"  busy after it was ready, {counted(tools)}", None, quiet_since - started, "s")


async def crowded_anchor(bare: Server, tools: int, *, seconds: float) -> list[Row]:
    """tools/call of the bare server when it holds many tools itself: what its cost grows to. Two connections."""
    rows: list[Row] = []
    for transport, over in TRANSPORTS.items():
        contestant = over(bare, [READ_ONLY], 2)
        await alternate([contestant], rounds=1, seconds=seconds)
        label = f"bare, {transport}, with {counted(tools)}"
        rows.append(Row(label, contestant.rate, None, "calls/s", better="more"))
        rows.append(Row("  CPU a call", contestant.cpu_ms, None, "ms"))
    return rows


async def listing(bare: Server | None, ours: Server, tools: int, *, times: int) -> list[Row]:
    """tools/list of everything, page by page, by a caller who sees it all; and its first page."""
    mine = await _list_many(ours, times, tools)
    theirs = await _list_many(bare, times, tools) if bare is not None else (None, None, None)
    bars = ("≤ 0.5", "") if tools <= 1000 else ("", "≤ 30 ms")
    return [
        Row(f"tools/list of {tools:,}: CPU", theirs[1], mine[1], "ms", bar=bars[0]),
        Row("  end to end, all pages", theirs[0], mine[0], "ms"),
        Row("  end to end, first page", theirs[2], mine[2], "ms", bar=bars[1]),
    ]


async def _list_many(server: Server, times: int, tools: int) -> tuple[float, float, float]:
    """Median time and mean CPU of a whole listing, median time of its first page, in milliseconds."""
    session = await ModernSession.open(server.port)
    whole, first = [], []
    async with asyncio.timeout(60 + 10 * times):
        await list_tools(session)
        cpu = server.cpu_seconds()
        for _ in range(times):
            started = time.perf_counter()
            names, seconds = await list_tools(session)
            whole.append(1000 * (time.perf_counter() - started))
            first.append(1000 * seconds)
            if sum(name.startswith("tool_") for name in names) != tools:
                raise AssertionError(f"tools/list gave {len(names)} tools instead of {tools}")
        cpu = server.cpu_seconds() - cpu
    session.close()
    return statistics.median(whole), 1000 * cpu / times, statistics.median(first)


async def list_tools(session: Session) -> tuple[dict[str, str], float]:
    """Descriptions of all tools by name, following the pages; and the seconds that the first page took."""
    found: dict[str, str] = {}
    params: dict[str, str] = {}
    started, first = time.perf_counter(), 0.0
    while True:
        result = await session.request("tools/list", params)
        first = first or time.perf_counter() - started
        found |= {tool["name"]: tool.get("description") or "" for tool in result["tools"]}
        if not result.get("nextCursor"):
            return found, first
        params = {"cursor": result["nextCursor"]}


async def save_to_notice(ours: Server, root: Path, tools: int, *, saves: int) -> list[Row]:
    """From the end of a write to the notification at an SSE client that is connected and idle.

    Each save gives another tool another description. A notification counts only if the tools that the client lists
    next have it, so an early one, or one that belongs to the save before, does not.
    """
    told: asyncio.Queue[float] = asyncio.Queue()

    def on_notification(method: str) -> None:
        if method == "notifications/tools/list_changed":
            told.put_nowait(time.perf_counter())

    listener = await SseSession.open(ours.port, ours.sse_path, on_notification)
    random_source = random.Random(7)
    delays: list[float] = []
    for edition in range(1, saves + 1):
        number = random_source.randrange(tools)
        python_file(root, number).write_text(source_of(tool_name(number), edition))
        saved = time.perf_counter()
        async with asyncio.timeout(30):
            while True:
                at = await told.get()
                asker = await ModernSession.open(ours.port)
                names, _ = await list_tools(asker)
                asker.close()
                if f"edition {edition}." in names[tool_name(number)]:
                    break
        delays.append(1000 * (at - saved))
        await asyncio.sleep(random_source.uniform(0.1, 0.4))  # out of step with whatever ticks in the server
    listener.close()
    first, *rest = delays  # the first may start processes that the others find running
    rest.sort()
    bars = ("≤ 100 ms", "≤ 400 ms") if tools >= 1000 else ("", "")
    return [
        Row(f"save → list_changed, {counted(tools)}: p50", None, quantile(rest, 0.5), "ms", bar=bars[0]),
        Row("  p99", None, quantile(rest, 0.99), "ms", bar=bars[1]),
        Row("  the first save after the start", None, first, "ms"),
    ]


async def sessions(bare: Server, ours: Server, root: Path, tools: int, *, count: int) -> list[Row]:
    """What idle SSE sessions weigh; and how long after a save all of them have been told."""
    theirs, _ = await _idle_sessions(bare, count, None)
    mine, told = await _idle_sessions(ours, count, root)
    label = f"memory of {count:,} idle SSE sessions"
    halves, lasts, cpus = zip(*told, strict=True)
    half, last, busy = statistics.median(halves), max(lasts), statistics.median(cpus)
    return [
        Row(label, theirs, mine, "MiB", bar="≤ 1.5"),
        Row("  save → half of them are told", None, half, "ms"),
        Row("  save → the last of them is told, at worst", None, last, "ms", bar="≤ 1000 ms"),
        Row("  CPU of the clients meanwhile", None, busy, "ms"),  # near the line above, they would be what is slow
    ]


async def _idle_sessions(
    server: Server, count: int, root: Path | None
) -> tuple[float, list[tuple[float, float, float]]]:
    """MiB that ``count`` sessions add; and for each of some saves below ``root``, if given, in milliseconds: when
    half of them were told, when all were, and the CPU that this process used meanwhile.
    """
    at: dict[int, float] = {}  # the first notification of each session
    all_told = asyncio.Event()

    def told_to(number: int, _: str) -> None:
        at.setdefault(number, time.perf_counter())
        if len(at) == count:
            all_told.set()

    before = server.memory().total
    opened: list[SseSession] = []
    told: list[tuple[float, float, float]] = []
    try:
        async with asyncio.timeout(180):
            for first in range(0, count, CONNECTIONS):
                batch = range(first, min(first + CONNECTIONS, count))
                opening = (SseSession.open(server.port, server.sse_path, partial(told_to, number)) for number in batch)
                opened += await asyncio.gather(*opening)
            weight = server.memory().total - before
            for edition in range(-CROWD_SAVES if root is not None else 0, 0):
                assert root is not None
                at.clear()
                all_told.clear()
                python_file(root, 0).write_text(source_of(READ_ONLY, edition))
                saved, cpu = time.perf_counter(), time.process_time()
                await all_told.wait()
                cpu = time.process_time() - cpu
                moments = sorted(at.values())
                told.append((1000 * (moments[count // 2] - saved), 1000 * (moments[-1] - saved), 1000 * cpu))
                await asyncio.sleep(1)
            return weight, told
    finally:
        for session in opened:
            session.close()


async def idle(server: Server, tools: int, *, seconds: float) -> Row:
    """What the server's processes use while nobody asks for anything."""
    before = server.cpu_seconds()
    await asyncio.sleep(seconds)
    used = 100 * (server.cpu_seconds() - before) / seconds
    return Row(f"CPU while idle, {counted(tools)}", None, used, "% CPU")


def memory(bare: Memory | None, ours: Memory, tools: int) -> list[Row]:
    """What the processes weigh after the same load, as proportional set size."""
    theirs, bar = bare.total if bare is not None else None, "≤ 1.5" if tools >= 10_000 else ""
    return [
        Row(f"memory (PSS), {counted(tools)}: server process", theirs, ours.server, "MiB", bar=bar),
        Row("  all processes", theirs, ours.total, "MiB", bar=bar),
        Row("  zygotes and workers", None, ours.workers, "MiB"),
        Row("  Postgres", None, ours.postgres, "MiB"),
    ]
