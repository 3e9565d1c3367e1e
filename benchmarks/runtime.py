"""What a call through the runtime costs, against a bare asyncio echo over a Unix socket in the same run.

    python -m benchmarks.runtime [--quick] [--sandbox strict|off] [--json FILE]

b is the echo: a warm process that sends back what it gets, asked over a Unix socket from the same event loop. All
else goes through ``Runtime``, with real worker processes and every isolation layer that holds here.
"""

import argparse
import asyncio
import contextlib
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import psutil
import structlog
import uvloop
from rich.console import Console

from benchmarks import report
from benchmarks.report import Row
from portoser.catalog.caller import ANONYMOUS
from portoser.catalog.errors import PortoserError
from portoser.catalog.revision import Declaration, Isolation, Limits, SourceFile
from portoser.runtime.runtime import Runtime
from portoser.runtime.types import Call, Execution, Program

Sandbox = Literal["strict", "off"]
Once = Callable[[int], Awaitable[object]]

TOOL = '''
from portoser.tool import registry

def add(a: int, b: int = 2) -> dict[str, int]:
    """Add two numbers.

    Args:
        a: The first.
        b: The second.
    """
    return {"sum": a + b}

async def aadd(a: int, b: int = 2) -> dict[str, int]:
    """Add two numbers."""
    return {"sum": a + b}

def big(size: int) -> str:
    """A large text."""
    return "x" * size

def ask(times: int) -> int:
    """Ask the registry."""
    for _ in range(times):
        registry.services()
    return times
'''
ODD = '''
import asyncio, ctypes, os, signal, time

async def shared(seconds: float) -> int:
    """Wait."""
    await asyncio.sleep(seconds)
    return 1

def hang(how: str) -> None:
    """Never end."""
    if how == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif how == "in C, with the interpreter's lock":
        ctypes.PyDLL(None).sleep(60)
    elif how == "spinning":
        while True:
            pass
    time.sleep(60)

def tidy(times: int) -> float:
    """How much processor time a look at what a call left takes, in seconds."""
    from portoser.runtime.worker.hygiene import Hygiene
    hygiene = Hygiene()
    began = time.process_time()
    for _ in range(times):
        hygiene.is_dirty()
    return (time.process_time() - began) / times
'''
ECHO = """
import asyncio, sys
class Echo(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data): self.transport.write(data)
async def main():
    server = await asyncio.get_running_loop().create_unix_server(Echo, sys.argv[1])
    print("up", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
FILES = {"add.py": (SourceFile("add.py", TOOL),), "odd.py": (SourceFile("odd.py", ODD),)}
PLACES = {name: file for file, (source,) in FILES.items() for name in re.findall(r"def (\w+)", source.content)}
"""Which file a function stands in."""
HANGS = ("sleeping", "spinning", "in C, with the interpreter's lock", "stopped")
TIMEOUT = 0.15


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    rounds: int
    calls: int
    paced: int
    seconds: float
    starts: int


QUICK = Extent(rounds=3, calls=300, paced=20, seconds=1.0, starts=2)
USUAL = Extent(rounds=8, calls=1000, paced=60, seconds=3.0, starts=5)


class Answers:
    """A registry that has its answer at hand."""

    async def call(self, power: str, method: str, args: list[object], kwargs: dict[str, object]) -> object:
        return [{"name": "web"}]


class EchoClient(asyncio.Protocol):
    """Asks the echo."""

    def __init__(self) -> None:
        self._waiter: asyncio.Future[bytes] | None = None
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        if self._waiter is not None:
            self._waiter.set_result(data)

    async def echo(self, payload: bytes) -> bytes:
        assert self._transport is not None
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(payload)
        return await self._waiter

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()


@contextlib.asynccontextmanager
async def bare_echo(folder: Path) -> AsyncIterator[Once]:
    """What asks a warm process for an echo of 100 bytes."""
    path = str(folder / "echo.sock")
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", ECHO, path, stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    await server.stdout.readline()
    _, client = await asyncio.get_running_loop().create_unix_connection(EchoClient, path)
    try:
        yield lambda _: client.echo(b"x" * 100)
    finally:
        server.kill()
        await server.wait()
        client.close()


def files_of(asked: Program) -> Callable[[], Awaitable[tuple[SourceFile, ...]]]:
    """What fetches the files of a program."""

    async def files() -> tuple[SourceFile, ...]:
        return FILES[asked.entrypoint.partition(":")[0]]

    return files


def call(number: object, **arguments: object) -> Call:
    return Call(id=str(number), arguments=arguments, caller=ANONYMOUS, request_id="r")


def program(name: str, digest: str | None = None, *, isolation: Isolation = Isolation.REUSE, **limits: Any) -> Program:
    made = f"{digest or name} {isolation} {limits}"
    return Program(digest=made, entrypoint=f"{PLACES[name]}:{name}", isolation=isolation, limits=Limits(**limits))


def executing(runtime: Runtime, asked: Program, **arguments: object) -> Callable[[int], Awaitable[Execution]]:
    """What runs a program, and believes only in calls that go well."""

    async def once(number: int) -> Execution:
        done = await runtime.execute(asked, files_of(asked), call(number, **arguments), events=None, powers=Answers())
        if done.outcome != "ok":
            raise RuntimeError(f"{asked.entrypoint}: {done.reason}: {done.message}")
        return done

    return once


async def times(once: Once, count: int, *, every: float = 0.0) -> list[float]:
    """How long each of so many took, one after the other."""
    taken = []
    for number in range(count):
        if every:
            await asyncio.sleep(every)
        began = time.perf_counter()
        await once(number)
        taken.append(time.perf_counter() - began)
    return taken


async def p50(once: Once, count: int, *, every: float = 0.0, warm: int = 20) -> float:
    await times(once, warm)
    return statistics.median(await times(once, count, every=every))


class Measures:
    """The rows of the table. Figures that are held against b are taken by turns with it."""

    def __init__(self, runtime: Runtime, echo: Once, extent: Extent) -> None:
        self.rows: list[Row] = []
        self._runtime = runtime
        self._echo = echo
        self._extent = extent

    async def against_b(
        self, label: str, once: Once, bar: str = "", *, parts: int = 1, count: int | None = None
    ) -> None:
        """The p50 of ``once``, or of one of its ``parts``, through that of the echo."""
        count = count or self._extent.calls
        await times(once, min(count, 100))
        pairs = []
        for _ in range(self._extent.rounds):
            b = await p50(self._echo, 300)
            pairs.append((b, statistics.median(await times(once, count)) / parts))
        ratio = statistics.median(ours / b for b, ours in pairs)
        b, ours = (statistics.median(each) * 1e6 for each in zip(*pairs, strict=True))
        self.rows.append(Row(label, b, ours, "µs", ratio, bar))

    def milliseconds(self, label: str, taken: list[float], bar: str = "", *, worst: str = "") -> None:
        """The p50, and the worst where there is a bar for it."""
        self.rows.append(Row(f"{label}, p50", None, statistics.median(taken) * 1e3, "ms", bar=bar))
        if worst:
            self.rows.append(Row("  the slowest of them", None, max(taken) * 1e3, "ms", bar=worst))

    async def take(self) -> None:
        """All of them."""
        runtime, extent = self._runtime, self._extent
        await self.against_b("warm call", executing(runtime, program("add"), a=1), "≤ 2")
        self.rows.append(Row("idle worker, PSS", None, largest_idle_worker(), "MB", bar="≤ 10 MB"))
        await self.against_b("warm call, async", executing(runtime, program("aadd"), a=1), "≤ 2")
        await self.against_b("warm call, 1 MB of text", executing(runtime, program("big"), size=1_000_000), count=20)
        await self.against_b(
            "a power's answer", executing(runtime, program("ask"), times=200), "≤ 0.5", parts=200, count=5
        )
        await self._left_behind()
        self.rows.append(Row("idle worker that has handled 1 MB, PSS", None, largest_idle_worker(), "MB"))
        await self._workers()
        await self._many()
        await self._ends()
        describe = describing(runtime)
        self.milliseconds("description", await times(describe, extent.paced // 2))

    async def _left_behind(self) -> None:
        done = [await executing(self._runtime, program("tidy"), times=1000)(number) for number in range(5)]
        best = min(float(each.content[0]["text"]) for each in done)
        self.rows.append(Row("the look at what a call left", None, best * 1e6, "µs", bar="≤ 15 µs"))

    async def _workers(self) -> None:
        runtime, count = self._runtime, self._extent.paced

        def new(number: int) -> Awaitable[object]:
            return executing(runtime, program("add", f"new {time.perf_counter_ns()} {number}"), a=1)(number)

        self.milliseconds("first call of a new revision, 20/s", await times(new, count, every=0.05), "≤ 20 ms")
        self.milliseconds("  in a row", await times(new, count), "≤ 20 ms")
        fresh = executing(runtime, program("add", isolation=Isolation.FRESH), a=1)
        self.milliseconds("isolation: fresh, 20/s", await times(fresh, count, every=0.05), "≤ 2 ms")
        self.milliseconds("  in a row", await times(fresh, count))

    async def _many(self) -> None:
        add = executing(self._runtime, program("add"), a=1)
        for concurrent, bar in ((1, ""), (8, ""), (64, "≥ 5000 /s")):
            rate = await throughput(add, concurrent, self._extent.seconds)
            self.rows.append(Row(f"{concurrent} concurrent", None, rate, "calls/s", bar=bar, better="more"))
        shared = executing(self._runtime, program("shared", share=64), seconds=0.01)
        rate = await throughput(shared, 64, self._extent.seconds)
        self.rows.append(Row("64 concurrent, share: 64, each waits 10 ms", None, rate, "calls/s", better="more"))

    async def _ends(self) -> None:
        late = []
        for how in HANGS:
            hang = program("hang", timeout=TIMEOUT)
            for number in range(max(2, self._extent.paced // 10)):
                began = time.perf_counter()
                done = await self._runtime.execute(
                    hang, files_of(hang), call(f"{how} {number}", how=how), events=None, powers=None
                )
                if done.reason != "timeout":
                    raise RuntimeError(f"{how}: {done.reason}: {done.message}")
                # The clock starts when the worker has the call.
                late.append(
                    done.duration - TIMEOUT if done.duration > TIMEOUT else time.perf_counter() - began - TIMEOUT
                )
        self.milliseconds("timeout, after its limit", late, worst="≤ 20 ms")
        taken = []
        hang = program("hang", timeout=60.0)
        for number in range(self._extent.paced // 2):
            asked = call(f"cancelled {number}", how="sleeping")
            task = asyncio.create_task(self._runtime.execute(hang, files_of(hang), asked, events=None, powers=None))
            await asyncio.sleep(0.05)
            began = time.perf_counter()
            task.cancel()
            await asyncio.wait((task,))
            taken.append(time.perf_counter() - began)
        self.milliseconds("cancel", taken, worst="≤ 5 ms")


def describing(runtime: Runtime) -> Once:
    return lambda number: runtime.describe(
        Declaration(files=(SourceFile("add.py", f"{TOOL}\n# {number}\n"),), entrypoint="add.py:add")
    )


async def throughput(once: Once, concurrent: int, seconds: float) -> float:
    """How many are done each second, where so many are asked for at once."""
    done = 0
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await once(number * 10_000_000 + done)
            done += 1

    async with asyncio.TaskGroup() as group:
        for number in range(concurrent):
            group.create_task(client(number))
    return done / seconds


def largest_idle_worker() -> float:
    """Megabytes of PSS."""
    workers = [child for child in psutil.Process().children(recursive=True) if child.name() == "portoser-worker"]
    return max(worker.memory_full_info().pss for worker in workers) / 1e6


async def start(folder: Path, sandbox: Sandbox) -> Runtime:
    runtime = Runtime(workers=max(4, 2 * (os.cpu_count() or 1)), scratch=folder / "scratch", sandbox=sandbox)
    try:
        await runtime.start()
    except BaseException:
        await runtime.aclose()
        raise
    return runtime


async def starting(folder: Path, sandbox: Sandbox, times: int) -> Row:
    """How much longer it takes to be ready to run calls with the sandbox than without."""
    taken: dict[Sandbox, list[float]] = {"off": [], sandbox: []}
    for _ in range(times):
        for each, list_ in taken.items():
            began = time.perf_counter()
            runtime = await start(folder, each)
            list_.append(time.perf_counter() - began)
            await runtime.aclose()
    more = (statistics.median(taken[sandbox]) - statistics.median(taken["off"])) * 1e3
    return Row("start, what the sandbox adds", None, more, "ms", bar="≤ 300 ms")


async def measure(extent: Extent, sandbox: Sandbox) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="portoser-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        rows = [await starting(folder, sandbox, extent.starts)]
        runtime = await start(folder, sandbox)
        try:
            async with bare_echo(folder) as echo:
                measures = Measures(runtime, echo, extent)
                await measures.take()
        finally:
            await runtime.aclose()
        return [*measures.rows, *rows]


def main() -> int:
    """Read the options, measure, print. Exit code 1 where the sandbox cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runtime", description=sys.modules[__name__].__doc__)
    parser.add_argument(
        "--quick", action="store_const", const=QUICK, default=USUAL, dest="extent", help="half a minute"
    )
    parser.add_argument("--full", action="store_const", const=USUAL, dest="extent", help="what it does anyway")
    parser.add_argument("--sandbox", choices=("strict", "off"), default="strict")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table for programs, too")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    console = Console(width=None if sys.stdout.isatty() else 100)
    about = report.facts(["python", "-m", "benchmarks.runtime", *sys.argv[1:]]) | {"sandbox": options.sandbox}
    try:
        sections = {"calls": uvloop.run(measure(options.extent, options.sandbox))}
    except PortoserError as error:
        console.print(f"not measured: {error}", style="red", highlight=False, markup=False)
        return 1
    report.show(sections, about, console, title="Portoser's runtime against a bare echo", bare="echo (b)")
    if options.json:
        report.write_json(options.json, sections, about)
    return 0


if __name__ == "__main__":
    sys.exit(main())
