"""How `portoser dev` tells what happens: words for people, or one JSON object a line for programs."""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from portoser.cli.call import print_answer
from portoser.cli.check import count, is_of_name, print_problem, print_problems, summary
from portoser.cli.output import clean, print_fields, print_json_line, print_table, say, warn

if TYPE_CHECKING:
    from portoser.authoring.checking import Checked
    from portoser.catalog.errors import Problem
    from portoser.invocation import CallResult

_PROGRESS_EVERY = 0.1
"""Seconds between lines of progress, so that a tool that reports often does not fill the screen."""

_MOST_NAMES = 10
_FIRST_NAMES = 3
"""Of more names than fit a line only the first ones are told, and how many there are."""

_GROUP = "group "


class Changes(NamedTuple):
    """The tools that came, changed and went since the last check; others are told as ``group x`` and ``policy``."""

    added: Sequence[str] = ()
    changed: Sequence[str] = ()
    removed: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


class Ran(NamedTuple):
    """The examples of one tool, run again: how many there are, what is wrong, and how long it took in seconds."""

    tool: str
    examples: int
    problems: "Sequence[Problem]"
    seconds: float


class Teller(Protocol):
    """Told what happens."""

    def checked(self, checked: "Checked", changes: Changes, *, ran: bool, whole: bool) -> None:
        """The folder was checked. ``ran`` says whether code was imported, ``whole`` that all warnings are asked for."""

    def unreadable(self, message: str) -> None:
        """The folder could not be checked."""

    def began(self, tool: str) -> None:
        """A call begins; its log messages and progress come next."""

    def log(self, level: str, message: str, data: dict[str, Any] | None) -> None:
        """The running call logged something."""

    def progress(self, done: float, total: float | None, message: str | None) -> None:
        """The running call reported progress."""

    def result(self, result: "CallResult") -> None:
        """A call ended."""

    def examples(self, ran: Ran) -> None:
        """A tool's examples were run again."""

    def tools(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """What tools there are."""

    def fields(self, command: str, fields: Mapping[str, Any]) -> None:
        """What a command found out."""

    def note(self, text: str) -> None:
        """Something that is good to know."""

    def error(self, message: str) -> None:
        """A line could not be done."""


def teller_of(folder: Path, *, as_json: bool) -> Teller:
    """Who tells what happens. ``folder`` is how the person calls it."""
    return _Lines(folder) if as_json else _Spoken(folder)


class _Spoken:
    """Tells a person."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._warned: frozenset[Problem] = frozenset()
        self._progress_at = 0.0

    def checked(self, checked: "Checked", changes: Changes, *, ran: bool, whole: bool) -> None:
        marks = [mark for sign, names in zip("+~-", changes, strict=True) for mark in _marks(sign, names)]
        if marks:
            say(f"{datetime.now().astimezone():%H:%M:%S}  " + "  ".join(marks))
        warned_of_names = any(map(is_of_name, self._warned))
        print_problems(
            (
                problem
                for problem in checked.problems
                if whole
                or problem.is_error
                or (problem not in self._warned and not (warned_of_names and is_of_name(problem)))
            ),
            self._folder,
        )
        self._warned = frozenset(problem for problem in checked.problems if not problem.is_error)
        passed, failed = checked.examples.passed, checked.examples.failed
        told = (
            f"{count(passed, 'example')} passed{f', {failed} failed' if failed else ''}" if ran else "nothing was run"
        )
        say(f"{summary(checked)}; {told}; {checked.seconds:.2f} s.", style="red" if checked.errors else "green")

    def unreadable(self, message: str) -> None:
        warn(message)

    def began(self, tool: str) -> None:
        self._progress_at = 0.0

    def log(self, level: str, message: str, data: dict[str, Any] | None) -> None:
        more = " " + json.dumps(data, ensure_ascii=False, default=str) if data else ""
        say(f"  {level}: {message}{more}", style="dim")

    def progress(self, done: float, total: float | None, message: str | None) -> None:
        now = time.monotonic()
        if now - self._progress_at < _PROGRESS_EVERY and done != total:
            return
        self._progress_at = now
        of = f" of {total:g}" if total is not None else ""
        say(f"  {done:g}{of}{f': {message}' if message else ''}", style="dim")

    def result(self, result: "CallResult") -> None:
        if result.logs:
            for line in clean(result.logs).rstrip("\n").split("\n"):
                say(f"  | {line}", style="dim")
        print_answer(result.to_wire())
        outcome = "" if result.outcome.value == "ok" else f"{result.outcome.value}, {result.reason}; "
        say(f"({outcome}{result.duration_ms:.1f} ms)", style="dim")

    def examples(self, ran: Ran) -> None:
        for problem in ran.problems:
            print_problem(problem, self._folder)
        good = not ran.problems
        told = f"{count(ran.examples, 'example')} passed" if good else "see above"
        say(f"{ran.tool}: {told if ran.examples or not good else 'no examples'}; {ran.seconds:.2f} s.")

    def tools(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if not rows:
            say("There are no tools. `portoser tool new NAME` writes one.")
            return
        print_table(
            ("TOOL", "STATUS", "EXAMPLES", "DESCRIPTION"),
            ((row["name"], row["status"], row["examples"], row["description"].partition("\n")[0]) for row in rows),
            whole=("TOOL", "STATUS", "EXAMPLES"),
        )

    def fields(self, command: str, fields: Mapping[str, Any]) -> None:
        if command == "schema":
            for name, value in fields.items():
                if value is not None:
                    say(f"{name}: {json.dumps(value, indent=2, ensure_ascii=False)}")
            return
        print_fields(
            (name, json.dumps(v, ensure_ascii=False) if isinstance(v, dict) else v) for name, v in fields.items()
        )

    def note(self, text: str) -> None:
        say(text)

    def error(self, message: str) -> None:
        warn(message)


class _Lines:
    """Tells a program: each event is one line of JSON."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tool = ""

    def checked(self, checked: "Checked", changes: Changes, *, ran: bool, whole: bool) -> None:
        import msgspec

        print_json_line(
            {
                "event": "checked",
                "folder": str(self._folder),
                "added": list(changes.added),
                "changed": list(changes.changed),
                "removed": list(changes.removed),
                "tools": [tool.name for tool in checked.reading.tools],
                "imported": ran,
                "examples": {"passed": checked.examples.passed, "failed": checked.examples.failed},
                "problems": msgspec.to_builtins(checked.problems),
                "seconds": round(checked.seconds, 3),
            }
        )

    def unreadable(self, message: str) -> None:
        print_json_line({"event": "unreadable", "message": message})

    def began(self, tool: str) -> None:
        self._tool = tool

    def log(self, level: str, message: str, data: dict[str, Any] | None) -> None:
        print_json_line({"event": "log", "tool": self._tool, "level": level, "message": message, "data": data})

    def progress(self, done: float, total: float | None, message: str | None) -> None:
        print_json_line({"event": "progress", "tool": self._tool, "done": done, "total": total, "message": message})

    def result(self, result: "CallResult") -> None:
        print_json_line({"event": "result", **result.to_wire()})

    def examples(self, ran: Ran) -> None:
        import msgspec

        told = {"tool": ran.tool, "examples": ran.examples, "problems": msgspec.to_builtins(ran.problems)}
        print_json_line({"event": "examples", **told, "seconds": round(ran.seconds, 3)})

    def tools(self, rows: Sequence[Mapping[str, Any]]) -> None:
        print_json_line({"event": "tools", "tools": [dict(row) for row in rows]})

    def fields(self, command: str, fields: Mapping[str, Any]) -> None:
        print_json_line({"event": command, **fields})

    def note(self, text: str) -> None:
        print_json_line({"event": "note", "message": text})

    def error(self, message: str) -> None:
        print_json_line({"event": "error", "message": message})


def some(names: Sequence[str]) -> str:
    """The names, or of very many the first ones."""
    return ", ".join(names) if len(names) <= _MOST_NAMES else f"{', '.join(names[:_FIRST_NAMES])}, …"


def _marks(sign: str, names: Sequence[str]) -> list[str]:
    """``+ a``, ``+ b``; of very many one mark says how many there are."""
    groups = [name.removeprefix(_GROUP) for name in names if name.startswith(_GROUP)]
    tools = [name for name in names if not name.startswith(_GROUP)]
    marks: list[str] = []
    for noun, before, found in (("group", _GROUP, groups), ("tool", "", tools)):
        if len(found) > _MOST_NAMES:
            marks.append(f"{sign} {count(len(found), noun)} ({some(found)})")
        else:
            marks += [f"{sign} {before}{name}" for name in found]
    return marks
