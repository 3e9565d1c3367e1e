"""How a source stands, in words that a tired person understands."""

from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from portoser.catalog.errors import Problem


class Phase(StrEnum):
    """What the reconciler does with a source."""

    IDLE = "Idle"
    FETCHING = "Fetching"
    PLANNING = "Planning"
    AWAITING_APPROVAL = "AwaitingApproval"
    APPLYING = "Applying"
    SUSPENDED = "Suspended"
    STALLED = "Stalled"


def phase_after(outcome: "RunOutcome") -> Phase:
    """The phase that a run leaves a source in."""
    if outcome is RunOutcome.FAILED:
        return Phase.STALLED
    return Phase.AWAITING_APPROVAL if outcome is RunOutcome.HELD else Phase.IDLE


class RunOutcome(StrEnum):
    """How a run ended."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    HELD = "held"
    """A guard wants somebody's approval; nothing was applied."""
    FAILED = "failed"
    STANDBY = "standby"
    """Another replica leads."""
    INTERRUPTED = "interrupted"
    """Its server ended before it did; nothing of it was applied."""


ENDED_WELL = frozenset({RunOutcome.APPLIED, RunOutcome.UNCHANGED})
"""After these the registry is as the source wants it."""


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that holds of a source or does not. ``status`` is ``True``, ``False`` or ``Unknown``."""

    name: str
    status: str
    reason: str
    message: str
    since: datetime
    """When ``status`` last changed."""


class SyncRun(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to bring a source into the registry. ``durations`` has milliseconds by step."""

    id: str
    source: str
    cause: str
    started_at: datetime
    finished_at: datetime
    outcome: RunOutcome
    plan_id: str | None = None
    base_generation: int | None = None
    generation: int | None = None
    commit: str | None = None
    author: str | None = None
    summary: dict[str, int] = {}
    problems: tuple[Problem, ...] = ()
    error: str | None = None
    durations: dict[str, float] = {}


class SourceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a source stands.

    ``problems`` hold something back; ``warnings`` hold nothing back. Both are cut to the first hundreds, with the
    whole numbers in ``problem_count`` and ``warning_count``. ``held_plan`` is the id of the plan that waits for
    approval.
    """

    source: str
    kind: str
    location: str
    phase: Phase = Phase.IDLE
    is_leader: bool = False
    conditions: tuple[Condition, ...] = ()
    observed_commit: str | None = None
    applied_commit: str | None = None
    generation: int | None = None
    failures: int = 0
    next_retry_at: datetime | None = None
    checked_at: datetime | None = None
    """When the source was last compared with the registry."""
    problems: tuple[Problem, ...] = ()
    problem_count: int = 0
    warnings: tuple[Problem, ...] = ()
    warning_count: int = 0
    held_plan: str | None = None
    last_run: SyncRun | None = None

    def condition(self, name: str) -> Condition | None:
        """The condition of a name, None where nothing was said of it yet."""
        return next((condition for condition in self.conditions if condition.name == name), None)

    def holds(self, name: str) -> bool:
        """Whether a condition is True."""
        condition = self.condition(name)
        return condition is not None and condition.status == "True"


_ORDER = ("Ready", "Fetched", "Verified", "Applied", "PruneBlocked", "Stalled")


class Conditions:
    """The conditions while a run sets them."""

    def __init__(self, conditions: tuple[Condition, ...]) -> None:
        self._conditions = {condition.name: condition for condition in conditions}

    def set(self, name: str, status: bool | None, reason: str, message: str) -> None:
        """Say that a condition holds, does not, or (None) is not known."""
        word = "Unknown" if status is None else str(status)
        old = self._conditions.get(name)
        since = old.since if old is not None and old.status == word else datetime.now(UTC)
        self._conditions[name] = Condition(name=name, status=word, reason=reason, message=message, since=since)

    def holds(self, name: str) -> bool:
        """Whether a condition is True."""
        condition = self._conditions.get(name)
        return condition is not None and condition.status == "True"

    def all(self) -> tuple[Condition, ...]:
        """All of them, in the order in which people ask."""
        return tuple(self._conditions[name] for name in _ORDER if name in self._conditions)
