"""`portoser validate`: what is wrong with a folder of tools, told like a compiler would, without a server."""

import asyncio
import re
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from portoser.cli.exits import CommandError, Exit
from portoser.cli.output import print_json, say, warn
from portoser.cli.target import AsJson

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from portoser.authoring.checking import Checked
    from portoser.catalog.errors import Problem
    from portoser.runtime.environments.environments import Environments
    from portoser.runtime.runtime import Runtime
    from portoser.settings import Settings

Folder = Annotated[
    Path | None, typer.Argument(help="The folder of tools; PORTOSER_TOOLS, unless given.", metavar="DIR")
]
NoRun = Annotated[
    bool, typer.Option("--no-run", help="Only read: import no code and run no example, so that no sandbox is needed.")
]
_NO_FOLDER = re.compile(r"^PORTOSER_TOOLS: there is no directory '(.*)'.*$")
WITHOUT_RUNNING = "--no-run checks what can be told without running code."


def validate(folder: Folder = None, no_run: NoRun = False, as_json: AsJson = False) -> None:
    """Read every manifest, import every tool and run its examples, in a sandbox. Exits 1 where something is wrong."""
    settings = settings_of(folder, "validate")
    checked, not_run = asyncio.run(check(settings, run=not no_run))
    errors = checked.errors
    if as_json:
        import msgspec

        print_json(
            {
                "folder": str(settings.tools),
                "tools": [tool.name for tool in checked.reading.tools],
                "imported": not no_run and not_run is None,
                "problems": msgspec.to_builtins(checked.problems),
            }
        )
    else:
        print_problems(checked.problems, folder or shown(settings.tools))
        say(f"{summary(checked)}.", style="red" if errors else "green")
        if no_run:
            warn("Nothing was imported and no example was run.")
    if not_run is not None:
        raise CommandError(not_run, problems=(WITHOUT_RUNNING,))
    if errors:
        raise typer.Exit(Exit.FAILED)


def settings_of(folder: Path | None, command: str) -> "Settings":
    """The settings, with the folder that the command names.

    Raises:
        SettingsError: what is wrong with them; what is wrong with the folder is told of the argument.
    """
    from portoser.settings import SettingsError, load_settings

    try:
        return load_settings(tools=folder, insecure=True)
    except SettingsError as error:
        begin = (
            rf"There is no folder \1 here. `portoser tool new NAME` begins one; or name one: `portoser {command} DIR`."
        )
        told = [re.sub(r"^--tools:", "DIR:", problem) for problem in error.problems]
        raise SettingsError(re.sub(_NO_FOLDER, begin, problem) for problem in told) from None


async def check(settings: "Settings", *, run: bool) -> "tuple[Checked, str | None]":
    """Read the folder, and admit its tools where ``run`` says so.

    The second part says why no code was imported although it was asked for: this machine cannot isolate it.

    Raises:
        CommandError: the folder cannot be read.
    """
    from portoser import logs
    from portoser.admission import Admission
    from portoser.authoring.checking import Checker
    from portoser.catalog.errors import PortoserError
    from portoser.progress import AdmissionProgress
    from sync.sources.base import SourceUnreadable

    logs.configure("error")  # what the server would log, is told as problems here
    checker = Checker(settings.tools)
    try:
        checked = await checker.check()
    except SourceUnreadable as error:
        raise CommandError(str(error)) from None
    if not run or not checked.reading.tools:
        return checked, None
    try:
        async with running(settings, "validate") as (runtime, environments):
            checker.admission = Admission(None, runtime, environments=environments)
            with AdmissionProgress() as progress:
                return await checker.check(progress=progress), None
    except PortoserError as error:
        return checked, str(error)


@asynccontextmanager
async def running(settings: "Settings", purpose: str) -> "AsyncIterator[tuple[Runtime, Environments]]":
    """The runtime as the settings want it, with a folder of its own that ends with it; and what tools require.

    Packages stay in the data directory, for the next time.

    Raises:
        PortoserError: this machine cannot isolate tools, and the settings do not accept that.
    """
    from portoser.runtime.environments.environments import Environments
    from portoser.runtime.environments.files import LockFiles
    from portoser.runtime.environments.folders import Folders
    from portoser.runtime.environments.uv import Uv
    from portoser.runtime.runtime import Runtime

    folders = Folders(settings.data_path / "environments")
    environments = Environments(folders, LockFiles(folders.root / "sets"), Uv(folders.root / "cache"))
    with tempfile.TemporaryDirectory(prefix=f"portoser-{purpose}-") as scratch:
        runtime = Runtime(
            workers=settings.workers,
            scratch=Path(scratch),
            sandbox=settings.sandbox.value,
            folders=folders,
            ceilings=settings.ceilings,
        )
        await runtime.start()
        try:
            yield runtime, environments
        finally:
            await environments.aclose()
            await runtime.aclose()


def summary(checked: "Checked") -> str:
    """How many tools and groups there are, and how much is wrong with them."""
    tools, groups, errors = len(checked.reading.tools), len(checked.reading.groups), len(checked.errors)
    warnings = len(checked.problems) - errors
    there = f"{count(tools, 'tool')}, {count(groups, 'group')}"
    return f"{there}: {count(errors, 'error')}, {count(warnings, 'warning')}"


def is_of_name(problem: "Problem") -> bool:
    """Whether a problem is the warning that some clients do not take a name. Most tools of a folder may have it."""
    from portoser.catalog.names import name_warning

    return not problem.is_error and problem.tool is not None and problem.message == name_warning(problem.tool)


def print_problems(problems: "Iterable[Problem]", folder: Path) -> None:
    """Problems as a compiler would tell them. That names hold a dot is told once, at the first."""
    import msgspec

    told = list(problems)
    of_names = sum(map(is_of_name, told))
    are_told = False
    for problem in told:
        if of_names > 1 and is_of_name(problem):
            if are_told:
                continue
            are_told = True
            advice = f"{problem.advice} The same goes for {count(of_names - 1, 'more tool')}."
            print_problem(msgspec.structs.replace(problem, advice=advice), folder)
        else:
            print_problem(problem, folder)


def print_problem(problem: "Problem", folder: Path) -> None:
    """A problem as a compiler would tell it, with its path below the folder."""
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


def shown(path: Path) -> Path:
    """A path as a person calls it: below the working directory, where it is there."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def count(number: int, noun: str) -> str:
    """``1 tool``, ``2 tools``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
