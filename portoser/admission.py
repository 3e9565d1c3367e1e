"""The path of new code: import it in the runtime to learn its schemas, run its examples, remember the outcome.

Code of committed tools and of REST tools comes in here alike. Nothing is imported in this process, and examples
never reach a real power. What was admitted once, is remembered in the database by the declaration's key and by
what its schemas depend on, so that a restart or a second replica does not pay again. What was refused is not
remembered: the reason may have been the moment, such as a machine without memory.
"""

import asyncio
import os
import re
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec
import structlog

from portoser.catalog.caller import system_caller
from portoser.catalog.errors import Problem, Severity, Unavailable
from portoser.catalog.revision import Declaration, Example, Isolation, JsonSchema, Revision, SourceFile, revision_of
from portoser.catalog.schema import validator_of, wrong_with_schema
from portoser.powers.fakes import FakePowers
from portoser.runtime.environments.environments import Environments
from portoser.runtime.environments.required import Packages, RequiredPackages, unmet
from portoser.runtime.types import Call, CodeError, Description, Events, Execution, FilesLoader, PowerHost, Program
from portoser.store import admissions
from portoser.store.admissions import StoredAdmission
from portoser.store.database import Database

log = structlog.get_logger(__name__)

Progress = Callable[[int, int], None]
"""Told how many of how many declarations are done."""

Verdict: TypeAlias = Revision | tuple[Problem, ...]
"""What a declaration became, or what is wrong with it."""

FORM = 3
"""Grows when admission itself comes to answer something else for the same declaration."""

_BATCH = 64
_REMEMBERED = 500
"""How many declarations are asked for at once of what is remembered."""
_WRAPPED = "x-fastmcp-wrap-result"
_PLACE = re.compile(r'File "([^"\n]+)", line (\d+)')
_CALLER = system_caller("examples")


class Seen(NamedTuple):
    """A verdict, and what its code should be told without being refused."""

    verdict: Verdict
    warnings: tuple[str, ...] = ()
    described: Revision | None = None
    """The revision that it would be, where nothing is wrong but its examples."""


class Describer(Protocol):
    """What admission needs of the runtime."""

    async def describe(self, declaration: Declaration, *, environment: str | None = None) -> Description:
        """What the declaration's code says of itself, with the packages of an environment."""

    async def execute(
        self, program: Program, files: FilesLoader, call: Call, *, events: Events | None, powers: PowerHost | None
    ) -> Execution:
        """Run one call."""


class Admission:
    """Turns declarations into revisions. ``parallel`` declarations are looked at at once: one for each processor, and
    one while another waits for its process.

    Without a ``database``, as on an author's laptop, nothing is remembered. Without ``environments`` nothing can be
    required.
    """

    def __init__(
        self,
        database: Database | None,
        runtime: Describer,
        *,
        environments: Environments | None = None,
        parallel: int | None = None,
    ) -> None:
        self._database = database
        self._runtime = runtime
        self._required = RequiredPackages(environments)
        self._parallel = parallel or (os.cpu_count() or 1) + 1
        self._suffix = "|".join(
            [
                f"form {FORM}",
                f"python {sys.implementation.cache_tag}",
                *(f"{package} {version(package)}" for package in ("fastmcp", "pydantic", "docstring-parser")),
            ]
        )

    async def admit(
        self,
        declarations: Sequence[tuple[str, Declaration]],
        *,
        served: Mapping[str, Revision] | None = None,
        progress: Progress | None = None,
        on_warning: Callable[[Problem], None] | None = None,
        patience: float | None = None,
    ) -> list[Verdict]:
        """The revision of each named declaration, or what is wrong with it, in the order given.

        ``on_warning`` is told what holds nothing back, such as a function without a docstring. For ``served`` and
        ``patience`` see `look`.

        Raises:
            Unavailable: the database or the runtime is away; what was admitted by then is remembered.
        """
        told = await self.look(declarations, served=served, progress=progress, patience=patience)
        if on_warning is not None:
            for (name, declaration), seen in zip(declarations, told, strict=True):
                for warning in warnings_of(name, declaration, seen):
                    on_warning(warning)
        return [seen.verdict for seen in told]

    async def look(
        self,
        declarations: Sequence[tuple[str, Declaration]],
        *,
        served: Mapping[str, Revision] | None = None,
        progress: Progress | None = None,
        patience: float | None = None,
    ) -> list[Seen]:
        """What there is to say of each named declaration, in the order given.

        A problem's path is the Python file's as declared, ``requires`` where packages are to blame, and empty where an
        example is; its line is then the example's. ``served`` are revisions that are in memory already, by digest:
        what is equal to one shares its schemas. ``patience`` is how many seconds to wait for packages; a declaration
        whose packages take longer is `Waiting`, while they go on to be made ready.

        Raises:
            Unavailable: the database or the runtime is away; what was admitted by then is remembered.
        """
        packages = await self._required.resolve([declaration for _, declaration in declarations], patience=patience)
        keys = [
            self._key(declaration, packages.lock_of(declaration)) if declaration.requires else self._key(declaration)
            for _, declaration in declarations
        ]
        seen: list[Seen | None] = []
        for start in range(0, len(keys), _REMEMBERED):  # not all at once: each comes with schemas of its own
            known = await self._known(keys[start : start + _REMEMBERED])
            for key, (_, declaration) in zip(keys[start:], declarations[start : start + _REMEMBERED], strict=False):
                if key in known:
                    lock = packages.lock_of(declaration)
                    seen.append(_remembered(declaration, known[key], served or {}, lock))
                else:
                    seen.append(None)
        await packages.install(
            declaration for (_, declaration), told in zip(declarations, seen, strict=True) if not told
        )
        for at, (name, declaration) in enumerate(declarations):
            error = packages.error_of(declaration)
            if seen[at] is None and error is not None:
                seen[at] = Seen(unmet(name, error))
        round_ = _Round(self, declarations, keys, packages, seen, progress)
        await round_.run(self._parallel)
        return [told for told in seen if told is not None]

    async def look_at(self, name: str, declaration: Declaration) -> Seen:
        """Import a declaration and run its examples now, whatever is remembered of it."""
        packages = await self._required.resolve([declaration])
        await packages.install([declaration])
        error = packages.error_of(declaration)
        if error is not None:
            return Seen(unmet(name, error))
        return await self.look_in(packages.lock_of(declaration), name, declaration)

    async def look_in(self, lock: str | None, name: str, declaration: Declaration) -> Seen:
        """Import a declaration and run its examples now, in the environment of a lock."""
        try:
            told = await self._runtime.describe(declaration, environment=lock)
        except CodeError as error:
            problem = Problem(
                path=error.path,
                line=error.line,
                column=error.column,
                message=error.message,
                advice=error.advice,
                tool=name,
            )
            return Seen((problem,))
        faults = [
            f"{what} that its code gives {fault}"
            for what, schema in (("The input schema", told.input_schema), ("The output schema", told.output_schema))
            if schema is not None and (fault := wrong_with_schema(schema)) is not None
        ]
        if faults:
            path = declaration.entrypoint.partition(":")[0]
            return Seen(tuple(Problem(path=path, message=message, tool=name) for message in faults))
        revision = revision_of(
            declaration,
            description=told.description,
            input_schema=told.input_schema,
            output_schema=told.output_schema,
            lock=lock,
        )
        problems = [
            Problem(line=example.line, message=f"Example {number} {wrong}", tool=name)
            for number, example in enumerate(revision.examples, 1)
            if (wrong := await self._wrong_with(example, revision)) is not None
        ]
        return Seen(tuple(problems) or revision, told.warnings, revision)

    async def remember(self, admitted: Sequence[tuple[str, Revision, tuple[str, ...]]]) -> None:
        """Keep revisions by the keys of their declarations, for all replicas."""
        if self._database is None:
            return
        stored = [
            StoredAdmission(
                key=key,
                outcome={
                    "description": revision.description,
                    "input_schema": revision.input_schema,
                    "output_schema": revision.output_schema,
                    "warnings": warnings,
                },
                digest=revision.digest,
            )
            for key, revision, warnings in admitted
        ]
        async with self._database.acquire() as connection:
            await admissions.put_many(connection, stored)

    async def _known(self, keys: Sequence[str]) -> dict[str, StoredAdmission]:
        if not keys or self._database is None:
            return {}
        async with self._database.acquire() as connection:
            return await admissions.get_many(connection, keys)

    def _key(self, declaration: Declaration, lock: str | None = None) -> str:
        return f"{declaration.key()}|{self._suffix}{f'|lock {lock}' if lock else ''}"

    async def _wrong_with(self, example: Example, revision: Revision) -> str | None:
        """What is wrong with an example, to follow its number in a message; None where it holds."""
        validator = validator_of(revision.input_schema)
        for error in validator.iter_errors(example.call):
            place = ".".join(map(str, error.instance_path))
            return f"calls the tool with wrong arguments: {f'{place}: ' if place else ''}{error.message}."
        program = Program(
            digest=revision.digest,
            entrypoint=revision.entrypoint,
            limits=revision.limits,
            isolation=Isolation.FRESH,
            output_schema=revision.output_schema,
            environment=revision.lock,
        )
        call_id = uuid.uuid4().hex
        call = Call(id=call_id, arguments=example.call, caller=_CALLER, request_id=f"example-{call_id}")

        async def files() -> tuple[SourceFile, ...]:
            return revision.files

        powers = FakePowers(example.given, uses=revision.uses)
        execution = await self._runtime.execute(program, files, call, events=None, powers=powers)
        if execution.outcome != "ok":
            told = execution.message or execution.reason or ""
            return f"fails: {told}{_place(execution.traceback, told)}"
        if example.expect is msgspec.UNSET or _answers(execution, revision.output_schema, example.expect):
            return None
        answer = _answer(execution, revision.output_schema)
        return f"expects {_shown(example.expect)}, and the tool answers {_shown(answer)}."


class _Round:
    """The declarations of one call of `Admission.admit` that have to be looked at."""

    def __init__(
        self,
        admission: Admission,
        declarations: Sequence[tuple[str, Declaration]],
        keys: Sequence[str],
        packages: Packages,
        seen: list[Seen | None],
        progress: Progress | None,
    ) -> None:
        self._admission = admission
        self._declarations = declarations
        self._keys = keys
        self._packages = packages
        self._seen = seen
        self._progress = progress
        self._waiting = [at for at, told in enumerate(seen) if told is None]
        self._done = len(seen) - len(self._waiting)
        self._unsaved: list[tuple[str, Revision, tuple[str, ...]]] = []

    async def run(self, parallel: int) -> None:
        self._tell()
        waiting = iter(self._waiting)
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(parallel, len(self._waiting))):
                    tasks.create_task(self._take(waiting))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group
        finally:
            await asyncio.shield(self._save())

    async def _take(self, waiting: Iterator[int]) -> None:
        for at in waiting:
            name, declaration = self._declarations[at]
            self._seen[at] = told = await self._look_at(name, declaration)
            if isinstance(told.verdict, Revision):
                self._unsaved.append((self._keys[at], told.verdict, told.warnings))
                if len(self._unsaved) >= _BATCH:
                    await self._save()
            self._done += 1
            self._tell()

    async def _look_at(self, name: str, declaration: Declaration) -> Seen:
        """What admission says of one declaration. Whatever one tool does, the others are looked at all the same."""
        try:
            return await self._admission.look_in(self._packages.lock_of(declaration), name, declaration)
        except Unavailable:
            raise
        except Exception as error:
            log.exception("admission.failed", tool=name)
            message = f"It cannot be admitted: {type(error).__name__}: {str(error)[:300]}"
            advice = "The server's log has more; this is a fault of Portoser, or of the tool's doing."
            path = declaration.entrypoint.partition(":")[0]
            return Seen((Problem(path=path, message=message, advice=advice, tool=name),))

    async def _save(self) -> None:
        unsaved, self._unsaved = self._unsaved, []
        if unsaved:
            await self._admission.remember(unsaved)

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self._done, len(self._seen))


def _remembered(
    declaration: Declaration, stored: StoredAdmission, served: Mapping[str, Revision], lock: str | None
) -> Seen:
    outcome = stored.outcome
    same = served.get(stored.digest or "")
    if same is not None:
        revision = msgspec.structs.replace(same, files=declaration.files, examples=declaration.examples)
    else:
        revision = revision_of(
            declaration,
            description=outcome["description"],
            input_schema=outcome["input_schema"],
            output_schema=outcome["output_schema"],
            lock=lock,
        )
    return Seen(revision, tuple(outcome["warnings"]), revision)


def warnings_of(name: str, declaration: Declaration, seen: Seen) -> list[Problem]:
    """What a declaration's code should be told without being refused, as problems."""
    path = declaration.entrypoint.partition(":")[0]
    return [Problem(path=path, message=told, tool=name, severity=Severity.WARNING) for told in seen.warnings]


def _answer(execution: Execution, output_schema: JsonSchema | None) -> Any:
    """What a tool answered, as its author thinks of it: the wrapping that MCP asks for taken off."""
    if execution.structured is not None:
        is_wrapped = output_schema is not None and output_schema.get(_WRAPPED) is True
        return execution.structured.get("result") if is_wrapped else execution.structured
    return "\n".join(block["text"] for block in execution.content if block.get("type") == "text")


def _answers(execution: Execution, output_schema: JsonSchema | None, expected: Any) -> bool:
    answer = _answer(execution, output_schema)
    if expected in (answer, execution.structured):
        return True
    if execution.structured is None and not isinstance(expected, str):
        try:
            return bool(msgspec.json.decode(answer) == expected)
        except msgspec.DecodeError:
            return False
    return False


def _place(traceback: str | None, told: str) -> str:
    """Where in the tool's own files it went wrong, unless that is told already."""
    places = _PLACE.findall(traceback or "")
    if not places or f"({places[-1][0]}, line {places[-1][1]}, in " in told:
        return ""
    return f" ({places[-1][0]}, line {places[-1][1]})"


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 300 else f"{text[:300]}…"
