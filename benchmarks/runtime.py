"""What a call through the runtime costs, against a bare asyncio echo over a Unix socket in the same run.

    python benchmarks/runtime.py

b is the echo: a warm process that sends back what it gets, asked over a Unix socket by asyncio. Everything else is
measured through ``Runtime.execute`` and ``Runtime.describe``, with real worker processes.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import structlog
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from portoser.catalog.caller import ANONYMOUS
from portoser.catalog.revision import Declaration, Isolation, SourceFile
from portoser.runtime.runtime import Runtime
from portoser.runtime.types import Call, Program

TOOL = """
from portoser.tool import registry

def add(a: int, b: int = 2) -> dict[str, int]:
    '''Add two numbers.

    Args:
        a: The first.
        b: The second.
    '''
    return {"sum": a + b}

async def aadd(a: int, b: int = 2) -> dict[str, int]:
    '''Add two numbers.'''
    return {"sum": a + b}

def big(size: int) -> str:
    '''A large text.'''
    return "x" * size

def ask(times: int) -> int:
    '''Ask the registry.'''
    for _ in range(times):
        registry.services()
    return times
"""
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
FILES = (SourceFile("add.py", TOOL),)


class Answers:
    async def call(self, power: str, method: str, args: list[object], kwargs: dict[str, object]) -> object:
        return [{"name": "web"}]


async def files() -> tuple[SourceFile, ...]:
    return FILES


async def p50(once: Callable[[int], Awaitable[object]], times: int, warm: int = 100) -> float:
    for number in range(warm):
        await once(-1 - number)
    taken = []
    for number in range(times):
        began = time.perf_counter()
        await once(number)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


class EchoClient(asyncio.Protocol):
    def __init__(self) -> None:
        self.waiter: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.waiter is not None:
            self.waiter.set_result(data)

    async def echo(self, payload: bytes) -> bytes:
        self.waiter = asyncio.get_running_loop().create_future()
        self.transport.write(payload)  # type: ignore[attr-defined]
        return await self.waiter


async def bare_echo(folder: Path) -> float:
    path = str(folder / "echo.sock")
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", ECHO, path, stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    await server.stdout.readline()
    _, client = await asyncio.get_running_loop().create_unix_connection(EchoClient, path)
    try:
        return await p50(lambda _: client.echo(b"x" * 100), 3000)
    finally:
        server.kill()
        await server.wait()
        client.transport.close()


def call(number: object, **arguments: object) -> Call:
    return Call(id=str(number), arguments=arguments, caller=ANONYMOUS, request_id="r")


def program(name: str, digest: str | None = None, isolation: Isolation = Isolation.REUSE) -> Program:
    return Program(digest=digest or name, entrypoint=f"add.py:{name}", isolation=isolation)


async def throughput(runtime: Runtime, concurrent: int, seconds: float) -> float:
    add = program("add")
    done = 0
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await runtime.execute(add, files, call(f"{number}-{done}", a=1), events=None, powers=None)
            done += 1

    async with asyncio.TaskGroup() as group:
        for number in range(concurrent):
            group.create_task(client(number))
    return done / seconds


class Table:
    """Rows of label, figure, and ratio to the echo."""

    def __init__(self, b: float) -> None:
        self.b = b
        self.rows = [("bare asyncio echo, 100 B (b)", f"{b * 1e6:.0f} µs", "1.0 b")]

    def time(self, label: str, seconds: float) -> None:
        shown = f"{seconds * 1e6:.0f} µs" if seconds < 0.002 else f"{seconds * 1e3:.1f} ms"
        self.rows.append((label, shown, f"{seconds / self.b:.1f} b"))

    def figure(self, label: str, shown: str) -> None:
        self.rows.append((label, shown, ""))


def executing(runtime: Runtime, name: str, **arguments: object) -> Callable[[int], Awaitable[object]]:
    asked = program(name)
    return lambda number: runtime.execute(asked, files, call(number, **arguments), events=None, powers=Answers())


def first_calls(runtime: Runtime) -> Callable[[int], Awaitable[object]]:
    return lambda number: runtime.execute(
        program("add", f"new{number}"), files, call(number, a=1), events=None, powers=None
    )


def describing(runtime: Runtime) -> Callable[[int], Awaitable[object]]:
    return lambda number: runtime.describe(
        Declaration(files=(SourceFile("add.py", f"{TOOL}\n# {number}\n"),), entrypoint="add.py:add")
    )


async def paced(once: Callable[[int], Awaitable[object]], times: int, every: float) -> float:
    taken = []
    for number in range(times):
        await asyncio.sleep(every)
        began = time.perf_counter()
        await once(number)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def largest_idle_worker() -> float:
    """MiB of PSS."""
    workers = [child for child in psutil.Process().children(recursive=True) if child.ppid() != os.getpid()]
    return max(worker.memory_full_info().pss for worker in workers) / 1024 / 1024


async def measure() -> list[tuple[str, str, str]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = Table(await bare_echo(folder))
        began = time.perf_counter()
        runtime = Runtime(workers=4, scratch=folder / "scratch", sandbox="off")
        await runtime.start()
        table.time("start", time.perf_counter() - began)
        try:
            await fill(table, runtime)
        finally:
            await runtime.aclose()
    return table.rows


async def fill(table: Table, runtime: Runtime) -> None:
    fresh = program("add", isolation=Isolation.FRESH)
    table.time("warm call, sync, p50", await p50(executing(runtime, "add", a=1), 3000))
    table.time("warm call, async, p50", await p50(executing(runtime, "aadd", a=1), 2000))
    table.time("warm call, 1 MB of text, p50", await p50(executing(runtime, "big", size=1_000_000), 50, warm=5))
    table.time("a power's answer, p50", await p50(executing(runtime, "ask", times=100), 30, warm=3) / 100)
    table.figure("largest idle worker, PSS", f"{largest_idle_worker():.1f} MiB")
    table.time("first call of a new revision, 20/s, p50", await paced(first_calls(runtime), 40, 0.05))
    table.time("first call of a new revision, in a row, p50", await p50(first_calls(runtime), 60, warm=5))

    async def one(number: int) -> object:
        return await runtime.execute(fresh, files, call(number, a=1), events=None, powers=None)

    table.time("isolation: fresh, 20/s, p50", await paced(one, 40, 0.05))
    for concurrent in (1, 8, 64):
        table.figure(f"{concurrent} concurrent", f"{await throughput(runtime, concurrent, 2.0):.0f} calls/s")
    describe = describing(runtime)
    await describe(-1)
    table.time("describe, one after the other, p50", await p50(describe, 30, warm=2))
    began = time.perf_counter()
    await asyncio.gather(*(describe(number) for number in range(100)))
    table.figure("describe, 100 at once", f"{100 / (time.perf_counter() - began):.0f} /s")
    with tempfile.TemporaryDirectory() as name:
        table.time("bare echo again: how steady the machine is", await bare_echo(Path(name)))


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    for loop in ("uvloop", "asyncio"):
        runner = uvloop.run if loop == "uvloop" else asyncio.run
        print(f"\n{loop}, {os.cpu_count()} cores")
        for label, value, ratio in runner(measure()):
            print(f"  {label:<46}{value:>16}{ratio:>10}")


if __name__ == "__main__":
    main()
