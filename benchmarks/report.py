"""The table, the same as JSON, and what it was measured on."""

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One line of the table: a measure of the bare server, of ours, and how they stand to each other.

    ``bar`` is what we want: ``≥ 0.8`` and ``≤ 0.5`` speak of the ratio, ``≤ 100 ms`` of our figure.
    """

    label: str
    bare: float | None
    ours: float | None
    unit: str
    ratio: float | None = None
    bar: str = ""
    better: str = "less"
    rounds: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    """Each round behind the figures, by column, for the JSON: rate, CPU a call, CPUs that others used."""

    @property
    def shown_ratio(self) -> float | None:
        """Ours through theirs, where there are both."""
        if self.ratio is not None or not self.bare or self.ours is None:
            return self.ratio
        return self.ours / self.bare

    @property
    def passed(self) -> bool | None:
        """Whether the bar is reached; None where there is none, or nothing to hold against it."""
        if not self.bar:
            return None
        sign, *rest = self.bar.split()
        figure = self.ours if len(rest) > 1 else self.shown_ratio
        if figure is None:
            return None
        bar = float(rest[0])
        return figure >= bar if sign == "≥" else figure <= bar


_MET = {True: "[green]yes[/green]", False: "[red]no[/red]", None: ""}


def facts(command: Sequence[str]) -> dict[str, str]:
    """The machine, the versions and the commit."""
    packages = ("fastmcp", "mcp", "uvicorn", "uvloop", "pydantic", "msgspec", "asyncpg")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "machine": f"{os.cpu_count()} × {_processor()}, {memory:.0f} GiB, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in packages),
        "commit": _commit(),
        "command": " ".join(command),
        "load": "1, 5, 15 min load averages at the start: " + ", ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def company(sections: Mapping[str, Sequence[Row]]) -> dict[str, str]:
    """What the machine did besides, while calls were measured: where it is much, the ratios are not to be quoted."""
    shares = [
        each["others"] for rows in sections.values() for row in rows for one in row.rounds.values() for each in one
    ]
    if not shares:
        return {}
    told = f"others used {statistics.median(shares):.0%} of a CPU while calls were measured, {max(shares):.0%} at worst"
    return {"company": told + ("; NOT QUIET ENOUGH TO QUOTE" if statistics.median(shares) > 0.1 else "")}


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "../portoser", "../sync", ".")
    return (git("rev-parse", "--short", "HEAD") or "not in git") + (" with changes" if changed else "")


def show(
    sections: Mapping[str, Sequence[Row]],
    about: Mapping[str, str],
    console: Console,
    *,
    title: str = "Portoser against bare FastMCP",
    bare: str = "bare FastMCP",
) -> None:
    """Print the one table."""
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("what", no_wrap=True)
    for column in (bare, "Portoser"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for column in ("ratio", "bar", "met"):
        table.add_column(column, justify="right", no_wrap=True)
    for section, rows in sections.items():
        if not rows:
            continue
        table.add_section()
        table.add_row(f"[bold]{section}[/bold]")
        for row in rows:
            ratio = "" if row.shown_ratio is None else f"{row.shown_ratio:.2f}"
            table.add_row(row.label, _number(row.bare), _number(row.ours), row.unit, ratio, row.bar, _MET[row.passed])
    console.print(table)
    held = [row.passed for rows in sections.values() for row in rows if row.passed is not None]
    if held:
        console.print(f"{sum(held)} of {len(held)} bars are met", highlight=False)
    for name, value in about.items():
        console.print(f"[dim]{name:>8}[/dim]  {value}", highlight=False, soft_wrap=True)


def write_json(path: Path, sections: Mapping[str, Sequence[Row]], about: Mapping[str, str]) -> None:
    """The table for programs."""
    told = {
        title: [asdict(row) | {"ratio": row.shown_ratio, "passed": row.passed} for row in rows]
        for title, rows in sections.items()
    }
    path.write_text(json.dumps({"about": dict(about), "sections": told}, indent=2, ensure_ascii=False) + "\n")


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
