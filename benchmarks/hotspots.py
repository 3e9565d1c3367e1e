"""``python -m benchmarks.hotspots``: where the server's time goes in a call, by py-spy, as one table.

The server's process is sampled while it answers calls; each sample counts for the room of ours, or the package, of its
innermost Python frame. Only samples that hold the interpreter's lock count, so what waits does not.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.load import one_round
from benchmarks.measures import TRANSPORTS
from benchmarks.servers import portoser
from benchmarks.toolset import READ_ONLY, write_tools

_PER_SECOND = 250
_ROOMS = ("mcp", "invocation", "audit", "registry", "runtime", "identity", "api", "store", "powers")
_PACKAGES = {
    "mcp": "the MCP SDK",
    "mcp_types": "the MCP SDK",
    "fastmcp": "FastMCP",
    "fastapi": "FastAPI and Starlette",
    "starlette": "FastAPI and Starlette",
    "uvicorn": "uvicorn",
    "anyio": "anyio",
    "pydantic": "pydantic",
    "asyncpg": "asyncpg",
    "asyncio": "asyncio and uvloop",
    "jsonschema_rs": "jsonschema-rs",
    "opentelemetry": "OpenTelemetry",
    "sse_starlette": "FastAPI and Starlette",
}


def subject_of(frame: str) -> str:
    """Whose a frame is: ``function (path:line)`` as py-spy writes it, the path without its entry of sys.path."""
    path = frame.rpartition("(")[2].rpartition(":")[0]
    first, _, rest = path.partition("/")
    if first == "portoser":
        room = rest.partition("/")[0].removesuffix(".py")
        return f"portoser.{room}" if room in _ROOMS else "portoser, the rest"
    return _PACKAGES.get(first, "the standard library and others")


def counted(raw: Iterable[str]) -> Counter[str]:
    """Samples by whose they are, of py-spy's raw format: frames outermost first, ``;`` between, a count at the end."""
    counts: Counter[str] = Counter()
    for line in raw:
        stack, _, count = line.rstrip().rpartition(" ")
        if stack:
            counts[subject_of(stack.rpartition(";")[2])] += int(count)
    return counts


async def sampled(transport: str, seconds: float, folder: Path) -> tuple[Counter[str], float]:
    """Samples of the server while it answers calls over ``transport``, and the calls a second meanwhile.

    Raises:
        RuntimeError: py-spy could not look into the process.
    """
    root, data, raw = folder / "tools.d", folder / "data", folder / "raw"
    root.mkdir()
    data.mkdir()
    write_tools(root, 10)
    async with portoser(root, data, 11, deadline=120) as server:
        contestant = TRANSPORTS[transport](server, [READ_ONLY])
        await one_round(contestant, 2)
        pid = server.processes()[0][0].pid
        options = ["--gil", "--format", "raw", "--rate", str(_PER_SECOND), "--duration", f"{seconds:.0f}"]
        spy = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("py-spy")), "record", "--pid", str(pid), *options, "--output", str(raw),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        calls = await one_round(contestant, seconds + 1)
        _, said = await spy.communicate()
        if spy.returncode:
            raise RuntimeError(f"py-spy could not look into the server: {said.decode(errors='replace').strip()}")
    return counted(raw.read_text().splitlines()), calls.rate


def table_of(by_transport: dict[str, tuple[Counter[str], float]]) -> Table:
    """The shares, the largest first, with a column for each transport."""
    table = Table(title="Where the server process spends a call")
    table.add_column("whose")
    for transport, (_, rate) in by_transport.items():
        table.add_column(f"{transport}\n{rate:.0f} calls/s", justify="right")
    shares = {
        name: {whose: n / counts.total() for whose, n in counts.items()} for name, (counts, _) in by_transport.items()
    }
    every = {whose for share in shares.values() for whose in share}
    for whose in sorted(every, key=lambda name: -sum(share.get(name, 0) for share in shares.values())):
        table.add_row(whose, *(f"{share.get(whose, 0):.1%}" for share in shares.values()))
    return table


async def measure(seconds: float) -> dict[str, tuple[Counter[str], float]]:
    """Each transport in turn, each on a server of its own."""
    found = {}
    for transport in TRANSPORTS:
        with tempfile.TemporaryDirectory(prefix="portoser-hotspots-", ignore_cleanup_errors=True) as folder:
            found[transport] = await sampled(transport, seconds, Path(folder))
    return found


def main() -> int:
    """Sample, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hotspots", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each transport is sampled")
    options = parser.parse_args()
    try:
        found = uvloop.run(measure(options.seconds))
    except RuntimeError as error:
        Console(stderr=True).print(str(error), style="red", markup=False)
        return 1
    Console(width=None if sys.stdout.isatty() else 100).print(table_of(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
