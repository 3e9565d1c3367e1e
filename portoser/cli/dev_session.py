"""One sitting of `portoser dev`: checks the folder when it changes, and does what is typed."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from portoser.authoring.workshop import NO_ANSWERS, Workshop
from portoser.catalog.caller import ANONYMOUS, Caller, CallerKind
from portoser.catalog.errors import PortoserError
from portoser.catalog.question import Answer, Question
from portoser.cli.check import count
from portoser.cli.dev_lines import COMMANDS, Line, read_arguments, read_line
from portoser.cli.dev_told import Changes, Ran, Teller, some
from portoser.cli.exits import CommandError
from portoser.invocation import CallResult
from portoser.invocation.asks import Later

if TYPE_CHECKING:
    from portoser.admission import Progress
    from portoser.authoring.checking import Checked

_AGAIN = 1.0
"""Seconds until a folder is watched again, where watching it failed."""

Ask = Callable[[Question], Awaitable[Answer]]


class Session:
    """Does lines, one after the other. ``ask`` is how a person is asked what a tool asks, if one sits there.

    ``failed`` says whether any line could not be done, or any call failed.
    """

    def __init__(self, workshop: Workshop, teller: Teller, *, runs: bool, ask: Ask | None = None) -> None:
        self.caller = ANONYMOUS
        self.failed = False
        self._workshop = workshop
        self._teller = teller
        self._runs = runs
        self._ask = ask
        self._doing: asyncio.Task[bool] | None = None
        self._unreadable: str | None = None
        self._telling = asyncio.Lock()

    # Checking ------------------------------------------------------------------------------------------------

    async def check(self, *, always: bool = False, progress: "Progress | None" = None) -> "Checked | None":
        """Check the folder and tell of it where anything is new; None where the folder cannot be checked."""
        async with self._telling:
            before = self._workshop.checked
            try:
                checked = await self._workshop.check(progress=progress)
            except PortoserError as error:
                if str(error) != self._unreadable:
                    self._unreadable = str(error)
                    self._teller.unreadable(str(error))
                return None
            is_back, self._unreadable = self._unreadable is not None, None
            if always or is_back or before is None or before.scan.tree != checked.scan.tree:
                self._teller.checked(checked, _changes(before, checked), ran=self._runs, whole=always)
            return checked

    async def watch(self) -> None:
        """Check the folder whenever it may have changed, until cancelled. What goes wrong is told, and watched on."""
        told = ""
        while True:
            try:
                async for _ in self._workshop.watch():
                    await self.check()
            except Exception as error:  # noqa: BLE001 - whatever it is, saves must go on being seen
                if repr(error) != told:
                    told = repr(error)
                    self._teller.error(f"Watching the folder failed: {told}. It is watched again.")
            await asyncio.sleep(_AGAIN)

    @property
    def schemas(self) -> Mapping[str, Mapping[str, Any]]:
        """The input schemas of the tools that can be called, each with the tool's description."""
        served = self._workshop.snapshot.tools.values()
        return {
            tool.name: {
                **tool.registered.revision.input_schema,
                "description": tool.registered.revision.description.partition("\n")[0],
            }
            for tool in served
        }

    # Lines ---------------------------------------------------------------------------------------------------

    async def do(self, text: str) -> bool:
        """Do what a line says; False where it ends the session."""
        self._doing = asyncio.create_task(self._do(text))
        try:
            return await self._doing
        except PortoserError as error:
            self._fail(str(error))
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                self._doing.cancel()
                await asyncio.gather(self._doing, return_exceptions=True)
                raise
            self._fail(f"cancelled: {text.strip()}")
        finally:
            self._doing = None
        return True

    def cancel(self) -> None:
        """End what the current line does, if one is being done."""
        if self._doing is not None:
            self._doing.cancel()

    async def _do(self, text: str) -> bool:
        await self.check()  # what was saved a moment ago is what is called
        line = read_line(text, self._names())
        if line is None:
            return True
        if line.command == "quit":
            return False
        await self._done(line)
        return True

    async def _done(self, line: Line) -> None:
        match line.command:
            case "call":
                await self._call(line)
            case "tools":
                self._teller.tools([self._row(name) for name in self._names()])
            case "show" | "schema":
                self._tell_of(line)
            case "examples":
                await self._examples(line.name)
            case "check":
                await self.check(always=True)
            case "as":
                self._become(line)
            case _:
                self._teller.note("\n".join(COMMANDS.values()))

    async def _call(self, line: Line) -> None:
        if not self._runs:
            raise CommandError("nothing can be called: --no-run only reads.")
        tool = self._workshop.snapshot.tools.get(line.name)
        if tool is None:
            problems = self._workshop.problems_of(line.name)
            if not problems:
                raise CommandError(f"there is no tool {line.name!r}.")
            raise CommandError(f"{line.name} cannot be called: {problems[0]}")
        arguments, confirmed = read_arguments(line.rest, tool.registered.revision.input_schema)
        name = line.name
        self._teller.began(name)
        answers = NO_ANSWERS
        while True:
            result = await self._workshop.call(
                name, arguments, self.caller, events=self._teller, confirmed=confirmed, answers=answers
            )
            if result is None or result.questions is None:
                break
            answers = Later(state=result.state, answers=await self._answers(name, result))
        if result is not None and result.reason == "declined":
            self._teller.note("Nothing was done.")
        elif result is not None:
            self.failed = self.failed or result.is_error
            self._teller.result(result)

    async def _answers(self, name: str, asked: CallResult) -> dict[str, Answer]:
        """What the person says to the questions of a tool."""
        if self._ask is None and asked.reason == "confirmation_required":
            raise CommandError(f"{asked.message} Agree to it with --yes: {name} --yes …")
        if self._ask is None:
            raise CommandError(f"{name} asks: {asked.message} It is answered at a terminal alone.")
        return {key: await self._ask(question) for key, question in (asked.questions or {}).items()}

    async def _examples(self, name: str) -> None:
        checked = self._workshop.checked
        if not self._runs or checked is None:
            raise CommandError("no example can be run: --no-run only reads.")
        tools = [tool for tool in checked.reading.tools if name in {"", tool.name}]
        if name and not tools:
            self._require(name)
            raise CommandError(f"its text is wrong: {self._workshop.problems_of(name)[0]}")
        for tool in tools:
            began = time.perf_counter()
            _, problems = await self._workshop.run_again(tool)
            self.failed = self.failed or bool(problems)
            ran = Ran(tool.name, len(tool.declaration.examples), problems, time.perf_counter() - began)
            self._teller.examples(ran)

    def _tell_of(self, line: Line) -> None:
        self._require(line.name)
        tool = self._workshop.snapshot.tools.get(line.name)
        problems = [str(problem) for problem in self._workshop.problems_of(line.name)]
        declared = self._workshop.declared(line.name)
        files = list(declared.paths) if declared is not None else []
        if tool is None:
            self._teller.fields(
                line.command,
                {"tool": line.name, "status": self._status(line.name), "problems": problems, "files": files},
            )
            return
        revision = tool.registered.revision
        if line.command == "schema":
            self._teller.fields("schema", {"input": revision.input_schema, "output": revision.output_schema})
            return
        self._teller.fields(
            "show",
            {
                "tool": tool.name,
                "status": self._status(tool.name),
                "description": revision.description,
                "problems": problems,
                "from": tool.registered.provenance.path,
                "files": files,
                "group": tool.registered.group,
                "permissions": list(tool.permissions) or "none: only admins may call it",
                "confirm": revision.confirm,
                "examples": len(revision.examples),
                "input": revision.input_schema,
                "output": revision.output_schema,
            },
        )

    def _become(self, line: Line) -> None:
        groups = frozenset(line.rest.replace(",", " ").split())
        if line.name == ANONYMOUS.subject and not groups:
            self.caller = ANONYMOUS
            self._teller.note("You are anonymous: auth is off, and everything is open.")
            return
        self.caller = Caller(subject=line.name, name=line.name, groups=groups, client=line.name, kind=CallerKind.TOKEN)
        of = f"of {', '.join(sorted(groups))}" if groups else "of no group"
        may = [
            name for name, tool in self._workshop.snapshot.tools.items() if self._workshop.may(tool.name, self.caller)
        ]
        self._teller.note(f"You are {line.name}, {of}, and may call {count(len(may), 'tool')}: {some(may) or '-'}")

    def _require(self, name: str) -> None:
        if name not in self._names():
            raise CommandError(f"there is no tool {name!r}. 'tools' tells what there is.")

    def _names(self) -> list[str]:
        checked = self._workshop.checked
        if checked is None:
            return []
        return sorted({*(tool.name for tool in checked.reading.tools), *checked.reading.invalid})

    def _row(self, name: str) -> dict[str, Any]:
        tool = self._workshop.snapshot.tools.get(name)
        declared = self._workshop.declared(name)
        problems = self._workshop.problems_of(name)
        total = len(declared.declaration.examples) if declared is not None else 0
        failed = len(problems) if tool is not None else 0
        return {
            "name": name,
            "status": self._status(name),
            "examples": f"{total - failed}/{total}" if tool is not None else "",
            "description": tool.registered.revision.description if tool is not None else "",
        }

    def _status(self, name: str) -> str:
        """``ok``, ``Invalid``, or ``read`` where nothing is known but its text."""
        if self._workshop.problems_of(name):
            return "Invalid"
        return "ok" if name in self._workshop.snapshot.tools else "read"

    def _fail(self, message: str) -> None:
        self.failed = True
        self._teller.error(message)


def _changes(before: "Checked | None", after: "Checked") -> Changes:
    old, new = _parts(before), _parts(after)
    return Changes(
        [name for name in new if name not in old],
        [name for name in new if name in old and new[name] != old[name]],
        [name for name in old if name not in new],
    )


def _parts(checked: "Checked | None") -> dict[str, object]:
    """What a folder declares, by name, as what can be compared."""
    if checked is None:
        return {}
    reading = checked.reading
    parts: dict[str, object] = {}
    for tool in reading.tools:
        parts[tool.name] = (tool.declaration, tool.group, tool.permissions)
    for name, problems in reading.invalid.items():
        parts[name] = tuple((problem.path, problem.message) for problem in problems)
    parts.update({f"group {group.name}": group for group in reading.groups})
    if reading.policy is not None:
        parts["policy"] = reading.policy
    return dict(sorted(parts.items()))
