"""What is wrong with a folder of tools, told again and again as it changes. `portoser validate` asks once.

The reader and the admission are those of the server, so the messages are the same here, in a pull request, and there.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from portoser.admission import Admission, Progress, Seen, warnings_of
from portoser.catalog.errors import Problem
from portoser.catalog.policy import Policy
from portoser.catalog.revision import Revision
from portoser.catalog.tool import GIT
from portoser.runtime.environments.required import ungranted_packages
from sync.manifest import DeclaredTool, Reader, Reading, placed
from sync.sources.base import Scan
from sync.sources.worktree import Worktree

SOURCE = "main"

_POLL = 2.0
"""Seconds between looks at everything: somebody waits for what no event told of."""


@dataclass(frozen=True, slots=True)
class Examples:
    """How many examples hold, and how many do not. Those of code that cannot be imported are in neither number."""

    passed: int
    failed: int


@dataclass(frozen=True, slots=True)
class Checked:
    """A folder that was read, and whose tools were admitted where that was asked for.

    ``problems`` are all of them, in the order of their places. ``revisions`` are of the tools that are sound,
    ``refused`` is what admission has against the others, and ``described`` are the revisions of all that can be called,
    also those whose examples fail. ``seconds`` is how long it took.
    """

    scan: Scan
    reading: Reading
    revisions: Mapping[str, Revision]
    described: Mapping[str, Revision]
    refused: Mapping[str, Sequence[Problem]]
    problems: Sequence[Problem]
    examples: Examples
    seconds: float

    @property
    def errors(self) -> list[Problem]:
        """The problems that hold something back."""
        return [problem for problem in self.problems if problem.is_error]


class Checker:
    """Checks a folder. What did not change since the last time is not imported again.

    Without an ``admission`` it only reads: no code is imported and no example is run.
    """

    def __init__(self, folder: Path, admission: Admission | None = None) -> None:
        self.admission = admission
        self._source = Worktree(folder, name=SOURCE, poll=_POLL)
        self._reader = Reader(SOURCE)
        self._seen: dict[tuple[str, tuple[int, ...]], Seen] = {}
        self._checking = asyncio.Lock()

    def watch(self) -> AsyncIterator[None]:
        """Yields whenever the folder may have changed."""
        return self._source.watch()

    async def check(self, *, progress: Progress | None = None) -> Checked:
        """Read the folder, and admit what is new in it.

        Raises:
            SourceUnreadable: the folder is missing or cannot be read.
            Unavailable: the runtime is away.
        """
        async with self._checking:
            began = time.perf_counter()
            scan = await self._source.scan(thorough=True)  # a save is seen before its event comes
            reading = self._reader.read(scan.files, scan.refused)
            refused = _ungranted(reading)
            sound = [tool for tool in reading.tools if tool.name not in refused]
            seen = refused | await self._look(sound, progress)
            return _checked(scan, reading, seen, time.perf_counter() - began)

    async def run_again(self, tool: DeclaredTool) -> tuple[Seen, tuple[Problem, ...]]:
        """Import a tool and run its examples now, whatever is remembered of it; what is wrong with it."""
        if self.admission is None:
            return Seen(()), ()
        seen = await self.admission.look_at(tool.name, tool.declaration)
        problems = () if isinstance(seen.verdict, Revision) else tuple(placed(found, tool) for found in seen.verdict)
        return seen, problems

    async def _look(
        self, tools: Sequence[DeclaredTool], progress: Progress | None
    ) -> dict[str, tuple[DeclaredTool, Seen]]:
        if self.admission is None:
            return {}
        keys = {tool.name: _key(tool) for tool in tools}
        new = [tool for tool in tools if keys[tool.name] not in self._seen]
        told = await self.admission.look([(tool.name, tool.declaration) for tool in new], progress=progress)
        known = {**self._seen, **{keys[tool.name]: seen for tool, seen in zip(new, told, strict=True)}}
        self._seen = {key: known[key] for key in keys.values()}
        return {tool.name: (tool, self._seen[keys[tool.name]]) for tool in tools}


def _ungranted(reading: Reading) -> dict[str, tuple[DeclaredTool, Seen]]:
    """The tools that require what the folder's policy does not let them, and what it has against them."""
    policy = reading.policy or Policy()
    return {
        tool.name: (tool, Seen(found))
        for tool in reading.tools
        if (found := ungranted_packages(policy, tool.name, tool.declaration, owner=f"{GIT}{SOURCE}"))
    }


def _key(tool: DeclaredTool) -> tuple[str, tuple[int, ...]]:
    """What a verdict depends on: the declaration, and where its examples stand, since problems name their lines.

    The name is part of it too, because problems name the tool.
    """
    return f"{tool.name} {tool.declaration.key()}", tuple(example.line for example in tool.declaration.examples)


def _checked(scan: Scan, reading: Reading, seen: Mapping[str, tuple[DeclaredTool, Seen]], seconds: float) -> Checked:
    revisions: dict[str, Revision] = {}
    described: dict[str, Revision] = {}
    refused: dict[str, Sequence[Problem]] = {}
    warnings: set[Problem] = set()
    passed = failed = 0
    for name, (tool, told) in seen.items():
        warnings.update(placed(warning, tool) for warning in warnings_of(name, tool.declaration, told))
        if isinstance(told.verdict, Revision):
            revisions[name] = told.verdict
        else:
            refused[name] = [placed(problem, tool) for problem in told.verdict]
        if told.described is not None:
            described[name] = told.described
            wrong = len(refused.get(name, ()))
            failed += wrong
            passed += len(tool.declaration.examples) - wrong
    problems = sorted({*reading.problems, *warnings, *(problem for found in refused.values() for problem in found)})
    return Checked(scan, reading, revisions, described, refused, problems, Examples(passed, failed), seconds)
