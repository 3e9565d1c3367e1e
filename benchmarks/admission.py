"""What new code costs: declarations that are described for the first time, and those that are known already.

    python -m benchmarks.admission [--quick] [--tools N] [--sandbox strict|off] [--json FILE]

Each declaration has code of its own, is imported in a worker of its own, with every isolation layer that holds here,
and is remembered in a real Postgres. Then the same ones are asked for again, as after a restart.
"""

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import structlog
import uvloop
from rich.console import Console

from benchmarks import report
from benchmarks.report import Row
from benchmarks.runtime import Sandbox, start
from benchmarks.toolset import counted, source_of, tool_name
from portoser.admission import Admission
from portoser.catalog.errors import PortoserError
from portoser.catalog.revision import Declaration, Example, Revision, SourceFile
from portoser.runtime.runtime import Runtime
from portoser.store.database import Database
from portoser.store.embedded import SERVER_ROLE, EmbeddedPostgres
from portoser.store.migrate import migrate

QUICK, USUAL = 1000, 10_000
WITH_EXAMPLES = 200
NEW_SECONDS, KNOWN_SECONDS = 120.0, 1.0
"""For 10,000 declarations, on two processors."""


@dataclass
class Spent:
    """What a stretch of work took: seconds by the clock, processor seconds of this process, and of all it started."""

    wall: float = 0.0
    own: float = 0.0
    theirs: float = 0.0
    busy: float = 0.0
    """Processor seconds of the whole machine, whoever had them."""
    _began: float = field(default_factory=time.perf_counter)


@contextlib.contextmanager
def spent() -> Iterator[Spent]:
    """Measure what is done in it."""
    before = _processor()
    told = Spent()
    yield told
    told.wall = time.perf_counter() - told._began
    told.own, told.theirs, told.busy = (now - then for now, then in zip(_processor(), before, strict=True))


def _processor() -> tuple[float, float, float]:
    me = psutil.Process().cpu_times()
    children = 0.0
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = child.cpu_times()
            children += times.user + times.system + times.children_user + times.children_system
    whole = psutil.cpu_times()
    return me.user + me.system, children, whole.user + whole.system + whole.nice


def declarations(count: int, *, examples: bool = False) -> list[tuple[str, Declaration]]:
    """So many declarations of tools that add, each with code of its own."""
    expecting = (Example(call={"a": 1, "b": 2}, expect=3),) if examples else ()
    made = []
    for number in range(count):
        name = tool_name(number)
        files = (SourceFile(f"{name}.py", source_of(name, edition=int(examples))),)
        made.append((name, Declaration(files=files, entrypoint=f"{name}.py:{name}", examples=expecting)))
    return made


@contextlib.asynccontextmanager
async def registry() -> AsyncIterator[Database]:
    """A database in a Postgres of its own."""
    # Not below a folder that is closed to the user whom Postgres runs as.
    folder = Path(tempfile.mkdtemp(prefix="portoser-bench-"))
    try:
        embedded = await EmbeddedPostgres.start(folder, settings={})
        try:
            await migrate(embedded.owner_dsn, server_role=SERVER_ROLE)
            database = await Database.connect(embedded.server_dsn)
            yield database
            await database.close()
        finally:
            await embedded.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def admitted(
    database: Database,
    runtime: Runtime,
    tools: list[tuple[str, Declaration]],
    served: Mapping[str, Revision] | None = None,
) -> tuple[Spent, dict[str, Revision]]:
    """What it took, and the revisions by digest. ``served`` are those that a server has in memory by then."""
    with spent() as told:
        verdicts = await Admission(database, runtime).admit(tools, served=served)
    wrong = [verdict for verdict in verdicts if not isinstance(verdict, Revision)]
    if wrong:
        raise RuntimeError(f"{len(wrong)} declarations were refused, the first for: {wrong[0]}")
    return told, {verdict.digest: verdict for verdict in verdicts if isinstance(verdict, Revision)}


async def measure(tools: int, sandbox: Sandbox) -> list[Row]:
    """The rows of the table."""
    share = tools / USUAL
    with tempfile.TemporaryDirectory(prefix="portoser-bench-", ignore_cleanup_errors=True) as name:
        async with registry() as database:
            runtime = await start(Path(name), sandbox)
            try:
                await runtime.warm_up()
                new, revisions = await admitted(database, runtime, declarations(tools))
                known, _ = await admitted(database, runtime, declarations(tools), served=revisions)
                few = declarations(min(WITH_EXAMPLES, tools), examples=True)
                with_examples, _ = await admitted(database, runtime, few)
            finally:
                await runtime.aclose()
    each = 1000 / tools
    return [
        Row(f"{counted(tools)}, new", None, new.wall, "s", bar=f"≤ {NEW_SECONDS * share:g} s"),
        Row("  each: by the clock", None, new.wall * each, "ms"),
        Row("  each: processor, in the server", None, new.own * each, "ms"),
        Row("  each: processor, in zygotes, workers and Postgres", None, new.theirs * each, "ms"),
        Row("  of the machine's processors that were busy, this had", None, _part(new), "%"),
        Row(f"{counted(tools)}, known", None, known.wall, "s", bar=f"≤ {KNOWN_SECONDS * share:g} s"),
        Row("  processor, in the server", None, known.own, "s"),
        Row("one with an example, new", None, with_examples.wall * 1000 / len(few), "ms"),
    ]


def _part(told: Spent) -> float:
    return 100 * (told.own + told.theirs) / told.busy if told.busy else 100.0


def main() -> int:
    """Read the options, measure, print. Exit code 1 where the sandbox cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.admission", description=sys.modules[__name__].__doc__)
    parser.add_argument("--quick", action="store_const", const=QUICK, dest="tools", help=f"{QUICK} declarations")
    parser.add_argument("--tools", type=int, default=USUAL, metavar="N", help=f"how many declarations; {USUAL}")
    parser.add_argument("--sandbox", choices=("strict", "off"), default="strict")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table for programs, too")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    console = Console(width=None if sys.stdout.isatty() else 100)
    about = report.facts(["python", "-m", "benchmarks.admission", *sys.argv[1:]]) | {"sandbox": options.sandbox}
    try:
        sections = {"admission": uvloop.run(measure(options.tools or USUAL, options.sandbox))}
    except PortoserError as error:
        console.print(f"not measured: {error}", style="red", highlight=False, markup=False)
        return 1
    report.show(sections, about, console, title="Admitting code", bare="")
    if options.json:
        report.write_json(options.json, sections, about)
    return 0


if __name__ == "__main__":
    sys.exit(main())
