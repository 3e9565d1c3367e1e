"""``python -m benchmarks.soak``: half an hour at half load, and whether anything grows.

Starts Portoser with its embedded Postgres, measures how many requests of a realistic mix it answers, and then offers
a share of that at a constant rate, while tools are edited, added and deleted and clients come and go. Every few seconds
it looks at what the server's processes hold. At the end it says what grows. Exit code 1 where something does, or where
an answer was not the expected one. Ctrl-C ends it early, with a verdict on what there is.
"""

import argparse
import asyncio
import contextlib
import functools
import itertools
import json
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks import measures, report, servers
from benchmarks.actors import Actors
from benchmarks.census import Holding, holdings, size_on_disk
from benchmarks.crowd import Crowd, Tally
from benchmarks.http import Connection, get
from benchmarks.load import quantile
from benchmarks.mix import HOT, Caller, Mix, callers, write_special
from benchmarks.record import Record, Sample
from benchmarks.servers import Server, StartFailed
from benchmarks.toolset import counted, write_tools
from benchmarks.trend import Verdict

SAMPLE_EVERY = 5.0
SATURATE = 15.0
WARM_UP = 5.0
SESSIONS = 16
"""On each transport."""

PEOPLE = 4


class Soak:
    """One run. ``record`` is complete at any moment, so that whatever ends the run, there is something to show."""

    def __init__(self, options: argparse.Namespace, folder: Path, console: Console) -> None:
        self.record = Record()
        self._options = options
        self._folder = folder
        self._console = console
        self._stop = asyncio.Event()
        self._tally = Tally()
        self._began = 0.0

    async def run(self) -> None:
        """Everything, until the time is over or somebody asks to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._asked_to_stop, asyncio.current_task())
        tools = self._options.tools
        people, admin = callers(PEOPLE), Caller("operator", ("admins", "staff"))
        root, tokens = self._folder / "tools.d", self._folder / "tokens.yml"
        data = self._folder / "data"
        data.mkdir()
        tokens.write_text("".join(each.entry for each in (*people, admin)))
        tokens.chmod(0o600)
        special = write_special(root)
        write_tools(root, tools)
        self._say(f"starting with {counted(tools)}")
        deadline = 60 + tools * 0.06
        async with servers.portoser(
            root, data, tools + special + 1, deadline=deadline, tokens=tokens, token=admin.token
        ) as server:
            mix = Mix(server.port, tools, admin)
            crowd = Crowd(server, mix, people, self._tally, each=SESSIONS)
            actors = Actors(server, root, tools, people, admin, self._tally)
            try:
                await measures.settling(server, tools)
                await crowd.arrive()
                await self._find_rate(crowd)
                await self._soak(server, crowd, actors)
            finally:
                crowd.leave()
                self.record.kinds = dict(self._tally.kinds.most_common())
                self.record.wrong = dict(self._tally.wrong.most_common(50))
            await self._account(server, mix)

    def _asked_to_stop(self, task: "asyncio.Task[Any] | None") -> None:
        if self._stop.is_set() and task is not None:  # for the second time
            task.cancel()
        self._stop.set()

    async def _find_rate(self, crowd: Crowd) -> None:
        self._say("calling each tool once, as what is kept of each fills; measuring how much it answers")
        await crowd.call_each(self._options.tools)
        await crowd.saturate(WARM_UP)
        if not self._stop.is_set():
            self.record.saturated = await crowd.saturate(SATURATE)
        self.record.offered = self._options.load * self.record.saturated
        self._say(f"{self.record.saturated:.0f} answers/s; offering {self.record.offered:.0f}")

    async def _soak(self, server: Server, crowd: Crowd, actors: Actors) -> None:
        if self._stop.is_set() or not self.record.offered:
            return
        self._began = time.perf_counter()
        self._tally.cut()
        try:
            async with asyncio.TaskGroup() as tasks:
                playing = tasks.create_task(actors.run())
                offering = tasks.create_task(crowd.offer(self.record.offered, self._stop))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(60 * self._options.minutes):
                        await self._watch(server, crowd, actors)
                self._stop.set()
                playing.cancel()
                await offering
        finally:
            self.record.edits = [at - self._began for at in actors.edits]

    async def _watch(self, server: Server, crowd: Crowd, actors: Actors) -> None:
        cpu, own, at = server.cpu_seconds(), time.process_time(), time.perf_counter()
        for number in itertools.count(1):
            due = self._began + number * SAMPLE_EVERY
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), max(0.0, due - time.perf_counter()))
            if self._stop.is_set():
                return
            interval = self._tally.cut()
            told, actors.told = actors.told, []
            lags, actors.lags = actors.lags, []
            now, cpu_now, own_now = time.perf_counter(), server.cpu_seconds(), time.process_time()
            held = await asyncio.to_thread(holdings, server)
            disk = await asyncio.to_thread(size_on_disk, self._folder / "data")
            latencies = sorted(interval.latencies)
            sample = Sample(
                at=now - self._began,
                **_of_processes(held),
                p50=1000 * quantile(latencies, 0.5) if latencies else None,
                p99=1000 * quantile(latencies, 0.99) if latencies else None,
                loop_lag=1000 * quantile(sorted(lags), 0.5) if lags else None,
                told=1000 * max(told) if told else None,
                rate=interval.answered / (now - at),
                wrong=interval.wrong,
                sessions=sum(member.session is not None for member in crowd.members),
                disk=disk,
                recorded=sum((await recorded(server)).values()),
                server_cpu=100 * (cpu_now - cpu) / (now - at),
                harness_cpu=100 * (own_now - own) / (now - at),
            )
            cpu, own, at = cpu_now, own_now, now
            self.record.samples.append(sample)
            if number % max(1, round(self._options.every / SAMPLE_EVERY)) == 0:
                self._progress(sample)

    async def _account(self, server: Server, mix: Mix) -> None:
        """Calls that were taken back must have ended; what was recorded is told."""
        if server.exit_code() is not None:
            self.record.wrong[f"the server ended with code {server.exit_code()}"] = 1
            return
        async with asyncio.timeout(30):
            while (calls := await recorded(server)).get("cancelled", 0) < mix.cancelled:  # noqa: ASYNC110 - it is no event
                await asyncio.sleep(0.2)
        told = ", ".join(f"{outcome} {count:,}" for outcome, count in calls.items() if count)
        self._say(f"recorded by the server: {told}; taken back by clients: {mix.cancelled:,}")

    def _progress(self, sample: Sample) -> None:
        latency = (
            f"p50 {sample.p50:.1f} p99 {sample.p99:.0f} ms" if sample.p50 is not None and sample.p99 else "no calls"
        )
        told = f", saved → told {sample.told:.0f} ms" if sample.told is not None else ""
        self._console.print(
            f"{_clock(sample.at)}  {sample.rate:.0f}/s, {latency}{told}; MiB: server {sample.server:.0f}, "
            f"tools {sample.tools:.0f}, Postgres {sample.postgres:.0f}; {sample.processes} processes, "
            f"{sample.descriptors:,} descriptors; CPU {sample.server_cpu:.0f} % (harness {sample.harness_cpu:.0f} %); "
            f"wrong {sum(self._tally.wrong.values())}",
            highlight=False,
            soft_wrap=True,
        )

    def _say(self, what: str) -> None:
        self._console.print(f"[dim]{what}[/dim]", highlight=False, soft_wrap=True)


def _of_processes(held: dict[str, Holding]) -> dict[str, Any]:
    return {
        "server": held["server"].private + held["server"].shared,
        "zygotes": held["zygotes"].private,
        "workers": held["workers"].private,
        "postgres": held["postgres"].private,
        "postgres_cache": held["postgres"].shared,
        "server_resident": held["server"].resident,
        "server_descriptors": held["server"].descriptors,
        "descriptors": sum(each.descriptors for each in held.values()),
        "processes": sum(each.processes for each in held.values()),
        "server_threads": held["server"].threads,
    }


async def recorded(server: Server) -> dict[str, int]:
    """How many calls the server recorded, by outcome; each is a row of the audit log."""
    connection = await Connection.open(server.port)
    try:
        response = await connection.request(get(server.port, "/metrics"))
    finally:
        connection.close()
    found = {}
    for line in response.body.decode().splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith("portoser_tool_calls_total{"):
            found[name.split('"')[1]] = int(float(value))
    return found


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes:2}:{seconds:02}"


def _percent(share: float) -> str:
    return f"{share:+.1%}" if abs(share) < 1 else f"{share:+,.0%}"


def show(record: Record, console: Console) -> None:
    """Print the verdict."""
    lasted = record.samples[-1].at if record.samples else 0.0
    table = Table(
        title=f"{lasted / 60:.1f} minutes at {record.offered:.0f} of {record.saturated:.0f} requests/s",
        title_justify="left",
        header_style="bold",
    )
    for column in ("what", "", "level", "growth an hour, 95 % sure", "tolerated", "verdict"):
        table.add_column(column, no_wrap=True, justify="right" if column in {"level", "tolerated"} else "left")
    last = ""
    for finding in record.findings():
        judged, seen = finding.judged, finding.trend
        colour = {Verdict.STEADY: "green", Verdict.GROWS: "red"}.get(finding.verdict, "yellow")
        table.add_row(
            judged.subject if judged.subject != last else "",
            judged.label,
            f"{seen.level:,.4g} {judged.unit}".strip() if seen else "",
            f"{_percent(seen.hourly)} ({_percent(seen.low)} … {_percent(seen.high)})" if seen else "",
            f"{judged.tolerance:.0%}",
            f"[{colour}]{finding.verdict.value}[/{colour}]",
        )
        last = judged.subject
    console.print(table)
    if record.samples:
        first, end = record.samples[0], record.samples[-1]
        console.print(
            f"grew, as it must: data directory {first.disk:,.0f} → {end.disk:,.0f} MiB, "
            f"recorded calls {first.recorded:,} → {end.recorded:,}; {len(record.edits)} edits",
            highlight=False,
            soft_wrap=True,
        )
    answered = ", ".join(f"{kind} {count:,}" for kind, count in record.kinds.items())
    console.print(f"answered as expected: {answered or 'nothing'}", highlight=False, soft_wrap=True)
    for wrong, count in record.wrong.items():
        console.print(f"wrong, {count} times: {wrong}", style="red", highlight=False, markup=False, soft_wrap=True)
    for name, value in record.about.items():
        console.print(f"[dim]{name:>8}[/dim]  {value}", highlight=False, soft_wrap=True)


def write(record: Record, options: argparse.Namespace) -> None:
    """Write the files that were asked for."""
    if options.json:
        options.json.write_text(json.dumps(record.told(), indent=1, ensure_ascii=False) + "\n")
    if options.data:
        options.data.write_text(record.as_csv())
    if options.plot and record.samples:
        from benchmarks.plot import draw

        draw(record, options.plot)


def main() -> int:
    """Read the options, soak, judge. Exit code 1 where something grows or an answer was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long the load lasts; 30 unless told")
    parser.add_argument("--load", type=float, default=0.5, help="which share of what it can answer; 0.5 unless told")
    parser.add_argument("--tools", type=int, default=1000, help="how many tools it serves; 1000 unless told")
    parser.add_argument("--every", type=float, default=30.0, metavar="SECONDS", help="how often to tell how it goes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything for programs")
    parser.add_argument("--data", type=Path, metavar="FILE", help="write the samples as CSV")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it, as SVG")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in DIR and leave log and data there")
    parser.add_argument("--again", type=Path, metavar="FILE", help="judge and draw what --json wrote; run nothing")
    options = parser.parse_args()
    if options.minutes <= 0 or options.load <= 0 or options.tools < PEOPLE * HOT:
        parser.error(f"--minutes and --load are more than 0, --tools at least {PEOPLE * HOT}")
    if options.keep is not None and options.keep.exists():
        parser.error(f"--keep: {options.keep} is there already; name a folder that is not")
    console = Console(width=None if sys.stdout.isatty() else 120)
    if options.again:
        options.json = None
        record = Record.read(json.loads(options.again.read_text()))
    else:
        record = run(options)
    show(record, console)
    write(record, options)
    return 0 if record.passed and record.samples else 1


def run(options: argparse.Namespace) -> Record:
    """Soak in a folder that is removed afterwards, unless one is named."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    about = report.facts(["python", "-m", "benchmarks.soak", *sys.argv[1:]])
    with contextlib.ExitStack() as stack:
        if options.keep is None:
            make = functools.partial(tempfile.TemporaryDirectory, prefix="portoser-soak-", ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(make()))
        else:
            folder = options.keep.resolve()
            folder.mkdir(parents=True)
        soak = Soak(options, folder, Console(stderr=True))
        try:
            with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
                uvloop.run(soak.run())
        except* (StartFailed, OSError, TimeoutError) as errors:
            for error in errors.exceptions:
                soak.record.wrong[f"{type(error).__name__}: {error}"] = 1
        soak.record.about = about
        return soak.record


if __name__ == "__main__":
    sys.exit(main())
