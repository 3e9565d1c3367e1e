"""``python -m benchmarks [--quick | --full] [--json FILE]``: measures, and prints one table of ratios."""

import argparse
import asyncio
import contextlib
import resource
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import uvloop
from rich.console import Console

from benchmarks import measures, report, servers
from benchmarks.http import HttpError
from benchmarks.protocol import WrongAnswer
from benchmarks.report import Row
from benchmarks.servers import Memory, Server, StartFailed
from benchmarks.toolset import counted, write_tools

FEW = 10
"""The catalog that a bigger one is held against."""

SECTIONS = ("calls", "listing", "changes", "starting", "memory")


@dataclass(frozen=True)
class Extent:
    """How much is measured. ``seconds`` is one round's length; ``bare`` are the catalogs the bare server holds too."""

    sizes: tuple[int, ...]
    rounds: int
    seconds: float
    saves: int
    sessions: int
    bare: tuple[int, ...]
    deadline: float


QUICK = Extent(sizes=(FEW, 1000), rounds=2, seconds=1.0, saves=10, sessions=0, bare=(), deadline=300)
USUAL = Extent(
    sizes=(1, FEW, 1000, 10_000), rounds=3, seconds=1.5, saves=40, sessions=1000, bare=(1000, 10_000), deadline=1800
)
FULL = Extent(
    sizes=(1, FEW, 1000, 10_000), rounds=8, seconds=3.0, saves=120, sessions=1000, bare=(1000, 10_000), deadline=3600
)


class _Pace(TypedDict):
    rounds: int
    seconds: float


class Benchmark:
    """One run: starts the servers, takes the measures, keeps the rows. A measure that fails spoils no other."""

    def __init__(self, extent: Extent, folder: Path, console: Console, *, null: bool) -> None:
        self.sections: dict[str, list[Row]] = {name: [] for name in SECTIONS}
        self.failures: list[str] = []
        self._extent = extent
        self._folder = folder
        self._console = console
        self._null = null
        self._bare_memory: dict[int, Memory] = {}
        self._started = time.monotonic()

    async def run(self) -> None:
        """Everything, one catalog after the other."""
        async with AsyncExitStack() as stack:
            bare = await stack.enter_async_context(servers.anchor(1, self._folder))
            few: Server | None = None
            for tools in self._extent.sizes:
                self._say(f"{counted(tools)}: starting")
                try:
                    ours = await self._start_both_ways(tools)
                except StartFailed as error:
                    self.failures.append(str(error))
                    continue
                async with AsyncExitStack() as inner:
                    # the small one stays: the biggest is measured beside it
                    server = await (stack if tools == FEW else inner).enter_async_context(ours)
                    few = server if tools == FEW else few
                    await self._measure(bare, server, tools)
                    if few is not None and tools == max(self._extent.sizes):
                        await self._compare_catalogs(few, server, tools)

    async def _start_both_ways(self, tools: int) -> AbstractAsyncContextManager[Server]:
        """Start cold and warm, each timed; the measures are taken on the warm one, which is returned unstarted."""
        if self._null:
            return servers.anchor(tools, self._folder)
        root, data = self._folder / f"tools-{tools}" / "tools.d", self._folder / f"data-{tools}"
        data.mkdir()
        root.mkdir(parents=True)
        write_tools(root, tools)
        if tools < 1000:
            return self._timed(root, data, tools, None)
        bars = {1000: ("≤ 20 s", "≤ 3 s"), 10_000: ("≤ 180 s", "≤ 6 s")}.get(tools, ("", ""))
        async with self._timed(root, data, tools, Row(f"start, {counted(tools)}: cold", None, None, "s", bar=bars[0])):
            pass
        return self._timed(root, data, tools, Row(f"start, {counted(tools)}: warm", None, None, "s", bar=bars[1]))

    @asynccontextmanager
    async def _timed(self, root: Path, data: Path, tools: int, row: Row | None) -> AsyncIterator[Server]:
        started = time.monotonic()
        deadline = 60 + tools * 0.06
        async with servers.portoser(root, data, tools + 1, deadline=deadline) as server:
            if row is not None:
                self._add("starting", [replace(row, ours=time.monotonic() - started)])
            yield server

    async def _measure(self, bare: Server, ours: Server, tools: int) -> None:
        extent = self._extent
        pace: _Pace = {"rounds": extent.rounds, "seconds": extent.seconds}
        if tools >= 1000:
            await self._take("starting", f"{counted(tools)}: settling", _rows(measures.settling(ours, tools)))
        await self._take("calls", f"{counted(tools)}: calls", measures.calls(bare, ours, tools, **pace))
        if not self._null and tools == max(extent.sizes):
            await self._take("calls", f"{counted(tools)}: other calls", measures.other_loads(bare, ours, tools, **pace))
        if tools >= 1000:
            await self._take("memory", f"{counted(tools)}: idle", _rows(measures.idle(ours, tools, seconds=4)))
            await self._listing(ours, tools)
        if not self._null and FEW <= tools <= 1000:
            root = self._folder / f"tools-{tools}" / "tools.d"
            saving = measures.save_to_notice(ours, root, tools, saves=extent.saves)
            await self._take("changes", f"{counted(tools)}: saves", saving)
            if tools == 1000 and extent.sessions:
                crowd = measures.sessions(bare, ours, root, tools, count=extent.sessions)
                await self._take("changes", f"{counted(tools)}: idle sessions", crowd)
        self._add(
            "memory", measures.memory(self._bare_memory.get(tools) or _when_one(bare, tools), ours.memory(), tools)
        )

    async def _listing(self, ours: Server, tools: int) -> None:
        times = 10 if tools <= 1000 else 3
        if tools not in self._extent.bare:
            await self._take("listing", f"{counted(tools)}: listing", measures.listing(None, ours, tools, times=times))
            return
        self._say(f"{counted(tools)}: starting the bare server with as many")
        async with servers.anchor(tools, self._folder) as crowded:
            await self._take(
                "listing", f"{counted(tools)}: listing", measures.listing(crowded, ours, tools, times=times)
            )
            await self._take(
                "calls", f"{counted(tools)}: calls of that", measures.crowded_anchor(crowded, tools, seconds=2)
            )
            self._bare_memory[tools] = crowded.memory()

    async def _compare_catalogs(self, few: Server, many: Server, tools: int) -> None:
        pace: _Pace = {"rounds": 2 * self._extent.rounds, "seconds": self._extent.seconds}
        comparing = measures.independence(few, many, (FEW, tools), **pace)
        await self._take("calls", f"{counted(tools)} beside {FEW}", comparing)

    async def _take(self, section: str, what: str, measuring: Awaitable[list[Row]]) -> None:
        self._say(what)
        try:
            self._add(section, await measuring)
        except* (TimeoutError, OSError, HttpError, WrongAnswer, AssertionError) as errors:
            reasons = "; ".join(sorted({f"{type(error).__name__}: {error}" for error in _leaves(errors)}))
            self.failures.append(f"{what}: {reasons}")

    def _add(self, section: str, rows: list[Row]) -> None:
        self.sections[section].extend(rows)

    def _say(self, what: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        self._console.print(f"[dim]{minutes:2}:{seconds:02}  {what}[/dim]", highlight=False)


async def _rows(row: Awaitable[Row]) -> list[Row]:
    return [await row]


def _when_one(bare: Server, tools: int) -> Memory | None:
    return bare.memory() if tools == 1 else None


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


async def measure(benchmark: Benchmark, deadline: float) -> None:
    """Run to the end, the deadline or a signal; whichever it is, the servers are stopped."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a thousand sessions, in the client and in each server
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        async with asyncio.timeout(deadline):
            await benchmark.run()
    except TimeoutError:
        benchmark.failures.append(f"The run was cut off after {deadline:.0f} s.")


def main() -> int:
    """Read the options, measure, print. Exit code 1 where something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=sys.modules["benchmarks"].__doc__)
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument(
        "--quick", action="store_const", const=QUICK, dest="extent", help="two minutes, without the 10,000 tools"
    )
    extent.add_argument(
        "--full", action="store_const", const=FULL, dest="extent", help="about 25 minutes, instead of 10"
    )
    parser.add_argument("--sizes", help="catalogs to measure, for example 10,1000")
    parser.add_argument("--null", action="store_true", help="hold the bare server against itself: shows the noise")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table for programs, too")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in DIR and leave logs and data there")
    options = parser.parse_args()
    chosen: Extent = options.extent or USUAL
    if options.sizes:
        chosen = replace(chosen, sizes=tuple(sorted(int(size) for size in options.sizes.split(","))))
    about = report.facts(["python", "-m", "benchmarks", *sys.argv[1:]])
    progress = Console(stderr=True)
    with _folder(options.keep) as folder:
        benchmark = Benchmark(chosen, folder, progress, null=options.null)
        try:
            uvloop.run(measure(benchmark, chosen.deadline))
        except (asyncio.CancelledError, KeyboardInterrupt):
            benchmark.failures.append("The run was interrupted.")
        finally:  # what was measured by then is shown, whatever happened
            about |= report.company(benchmark.sections)
            report.show(benchmark.sections, about, Console(width=None if sys.stdout.isatty() else 100))
    for failure in benchmark.failures:
        progress.print(f"not measured: {failure}", style="red", highlight=False, markup=False, soft_wrap=True)
    if options.json:
        report.write_json(options.json, benchmark.sections, about)
    return 1 if benchmark.failures else 0


@contextlib.contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="portoser-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


if __name__ == "__main__":
    sys.exit(main())
