"""`portoser validate`: what is wrong with a folder of tools, told like a compiler would, without a server."""

import asyncio
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from portoser.cli.exits import CommandError, Exit
from portoser.cli.output import print_json, say, warn
from portoser.cli.target import AsJson

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from portoser.admission import Verdict
    from portoser.catalog.errors import Problem
    from portoser.catalog.revision import Revision
    from portoser.settings import Settings
    from sync.manifest import DeclaredTool, Reading
    from sync.sources.base import Scan

Folder = Annotated[
    Path | None, typer.Argument(help="The folder of tools; PORTOSER_TOOLS, unless given.", metavar="DIR")
]
NoRun = Annotated[
    bool, typer.Option("--no-run", help="Only read: import no code and run no example, so that no sandbox is needed.")
]


@dataclass(frozen=True, slots=True)
class Checked:
    """A folder that was read, and whose tools were admitted where that was asked for.

    ``problems`` are all of them, in the order of their places; ``revisions`` are of the tools that are sound.
    ``not_run`` says why no code was imported although it was asked for: this machine cannot isolate it.
    """

    scan: "Scan"
    reading: "Reading"
    revisions: "Mapping[str, Revision]"
    refused: "Mapping[str, Sequence[Problem]]"
    problems: "Sequence[Problem]"
    not_run: str | None


def validate(folder: Folder = None, no_run: NoRun = False, as_json: AsJson = False) -> None:
    """Read every manifest, import every tool and run its examples, in a sandbox. Exits 1 where something is wrong."""
    settings = settings_of(folder)
    checked = asyncio.run(check(settings, run=not no_run))
    errors = [problem for problem in checked.problems if problem.is_error]
    if as_json:
        import msgspec

        print_json(
            {
                "folder": str(settings.tools),
                "tools": [tool.name for tool in checked.reading.tools],
                "imported": not no_run and checked.not_run is None,
                "problems": msgspec.to_builtins(checked.problems),
            }
        )
    else:
        for problem in checked.problems:
            _print(problem, folder or Path(settings.tools.name))
        tools, groups = len(checked.reading.tools), len(checked.reading.groups)
        summary = f"{_count(tools, 'tool')}, {_count(groups, 'group')}: {_count(len(errors), 'error')}"
        warnings = len(checked.problems) - len(errors)
        say(f"{summary}, {_count(warnings, 'warning')}.", style="red" if errors else "green")
        if no_run:
            warn("Nothing was imported and no example was run.")
    if checked.not_run is not None:
        raise CommandError(checked.not_run, problems=("--no-run checks what can be told without running code.",))
    if errors:
        raise typer.Exit(Exit.FAILED)


def settings_of(folder: Path | None) -> "Settings":
    """The settings, with the folder that the command names.

    Raises:
        SettingsError: what is wrong with them; what is wrong with the folder is told of the argument.
    """
    from portoser.settings import SettingsError, load_settings

    try:
        return load_settings(tools=folder, insecure=True)
    except SettingsError as error:
        # Here the folder is no flag.
        raise SettingsError(re.sub(r"^--tools:", "DIR:", problem) for problem in error.problems) from None


async def check(settings: "Settings", *, run: bool) -> Checked:
    """Read the folder, and admit its tools where ``run`` says so.

    Raises:
        CommandError: the folder cannot be read.
    """
    from portoser.catalog.errors import PortoserError
    from portoser.catalog.revision import Revision
    from sync.manifest import Reader, placed
    from sync.sources.base import SourceUnreadable
    from sync.sources.worktree import Worktree

    try:
        scan = await Worktree(settings.tools).scan()
    except SourceUnreadable as error:
        raise CommandError(str(error)) from None
    reading = Reader("main").read(scan.files, scan.refused)
    revisions: dict[str, Revision] = {}
    refused: dict[str, Sequence[Problem]] = {}
    told: list[Problem] = []
    not_run = None
    if run and reading.tools:
        try:
            verdicts = await _admitted(settings, reading.tools, told)
        except PortoserError as error:
            verdicts, not_run = [], str(error)
        for tool, verdict in zip(reading.tools, verdicts, strict=False):
            if isinstance(verdict, Revision):
                revisions[tool.name] = verdict
            else:
                refused[tool.name] = [placed(problem, tool) for problem in verdict]
    by_name = {tool.name: tool for tool in reading.tools}
    warnings = (placed(warning, by_name[warning.tool or ""]) for warning in told)
    problems = sorted({*reading.problems, *warnings, *(problem for found in refused.values() for problem in found)})
    return Checked(scan, reading, revisions, refused, problems, not_run)


async def _admitted(
    settings: "Settings", tools: "Sequence[DeclaredTool]", warnings: "list[Problem]"
) -> "list[Verdict]":
    from portoser import logs
    from portoser.admission import Admission
    from portoser.progress import AdmissionProgress
    from portoser.runtime.runtime import Runtime

    logs.configure("error")  # what the server would log, is told as problems here
    with tempfile.TemporaryDirectory(prefix="portoser-validate-") as scratch, AdmissionProgress() as progress:
        runtime = Runtime(workers=settings.workers, scratch=Path(scratch), sandbox=settings.sandbox.value)
        await runtime.start()
        try:
            admission = Admission(None, runtime)
            return await admission.admit(
                [(tool.name, tool.declaration) for tool in tools], progress=progress, on_warning=warnings.append
            )
        finally:
            await runtime.aclose()


def _print(problem: "Problem", folder: Path) -> None:
    from rich.text import Text

    from portoser.cli.output import clean, console

    place = str(folder / problem.path) if problem.path else str(folder)
    if problem.line:
        place += f":{problem.line}" + (f":{problem.column}" if problem.column else "")
    line = Text(f"{clean(place)}: ", style="bold")
    line.append(problem.severity.value, style="red" if problem.is_error else "yellow")
    line.append(f": {clean(problem.message)}")
    if problem.advice:
        line.append(f" {clean(problem.advice)}", style="dim")
    console().print(line)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
