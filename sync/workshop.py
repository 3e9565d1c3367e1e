"""A sync run as its steps fill it, and the workshop: what outlives a run."""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from portoser.admission import Admission, Verdict
from portoser.catalog.errors import Problem
from portoser.catalog.revision import Revision
from portoser.registry.changes import Applied, RegistryWriter
from portoser.registry.follower import Follower
from portoser.store.database import Database
from sync.manifest import DeclaredTool, Reader, Reading
from sync.planned import Plan, WantedTool
from sync.sources.base import Scan, Source
from sync.status import Conditions, Phase, RunOutcome


class Settled(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """How the last finished run left a scan. ``is_open`` says that a change of the registry may matter to it."""

    scan: Scan
    generation: int
    outcome: RunOutcome
    is_open: bool
    until: float | None = None
    """When, by the monotonic clock, to look again at what has to stand still for a moment."""

    @property
    def is_due(self) -> bool:
        """Whether that time has come."""
        return self.until is not None and time.monotonic() >= self.until


class Wanted(NamedTuple):
    """A wanted tool with what it was made of."""

    tool: DeclaredTool
    revision: Revision
    wanted: WantedTool


class Workshop:
    """What outlives a run: the parts it works with, and what was read and admitted so far."""

    def __init__(
        self,
        source: Source,
        admission: Admission,
        writer: RegistryWriter,
        follower: Follower,
        database: Database,
        *,
        is_authority: bool,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self.source = source
        self.admission = admission
        self.writer = writer
        self.follower = follower
        self.database = database
        self.on_progress = on_progress
        self.reader = Reader(source.name, is_authority=is_authority)
        self.owner = self.reader.owner
        self.verdicts: dict[str, tuple[DeclaredTool, Verdict]] = {}
        """What admission said of each tool, for as long as its declaration is the same."""
        self.code_warnings: dict[str, list[Problem]] = {}
        """What it told of each tool's code, beside its verdict."""
        self.wanted: dict[str, Wanted] = {}
        """What came of each tool in the last run."""
        self.wanted_of: Scan | None = None
        """The scan that ``wanted`` is of."""
        self.settled: Settled | None = None
        self.applied_commit: str | None = None
        self.approved: frozenset[str] = frozenset()
        """The ids of plans that somebody lets through in this run."""


class Run:
    """One run as its steps fill it."""

    def __init__(self, workshop: Workshop, conditions: Conditions, *, is_thorough: bool) -> None:
        self.workshop = workshop
        self.conditions = conditions
        self.is_thorough = is_thorough
        self.phase = Phase.FETCHING
        self.step = ""
        self.is_repeated = False
        """Whether the source is as the last run left it, so that there is nothing new to tell."""
        self.durations: dict[str, float] = {}
        self.begun: asyncio.Task[None] | None = None
        """Writes down that the run has begun, while it goes on."""
        self.scan: Scan | None = None
        self.looked_at = 0.0
        """When the source was looked at, by the monotonic clock."""
        self.is_due = False
        """Whether the time has come of what had to stand still for a moment."""
        self.until: float | None = None
        self.reading: Reading | None = None
        self.ungranted: dict[str, tuple[Problem, ...]] = {}
        """What the policy has against the tools that require packages which no rule grants."""
        self.packages_until: float | None = None
        """When to look again for packages that are on their way."""
        self.invalid: dict[str, tuple[Problem, ...]] = {}
        self.tools: tuple[WantedTool, ...] = ()
        self.plan: Plan | None = None
        self.applied: Applied | None = None
        self.problems: tuple[Problem, ...] = ()
        self.warnings: tuple[Problem, ...] = ()

    def note(self, step: str, began: float) -> None:
        """Add what a step took since ``began``, in milliseconds."""
        took = (time.perf_counter() - began) * 1000
        self.durations[step] = round(self.durations.get(step, 0.0) + took, 2)
