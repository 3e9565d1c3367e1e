"""How things stand: the models of the sources, their runs and plans, and of the server."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from portoser.api.models import Model, ProblemItem


class ConditionOut(Model):
    """One thing that holds of a source or does not: `True`, `False` or `Unknown`, why, and since when."""

    name: str
    status: str
    reason: str
    message: str
    since: datetime


class SyncRunOut(Model):
    """One attempt to bring a source into the registry. `durations` has milliseconds by step."""

    id: str
    source: str
    cause: str
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None
    plan_id: str | None = None
    base_generation: int | None
    generation: int | None
    commit: str | None
    author: str | None
    summary: dict[str, int] | None
    problems: list[ProblemItem]
    error: str | None
    durations: dict[str, float] | None


class SyncRunDetail(SyncRunOut):
    """A run with the plan that it made."""

    plan: dict[str, Any] | None


class SyncRunPage(Model):
    """Runs that did something, newest first."""

    total: int
    skip: int
    limit: int
    runs: list[SyncRunOut]


class SourceOut(Model):
    """How a source stands: its phase, its conditions, and what is not served as it is declared."""

    source: str
    kind: str
    location: str
    phase: str
    is_leader: bool
    conditions: list[ConditionOut]
    observed_commit: str | None
    applied_commit: str | None
    generation: int | None
    failures: int
    next_retry_at: datetime | None
    checked_at: datetime | None
    problems: list[ProblemItem]
    problem_count: int
    warnings: list[ProblemItem]
    warning_count: int
    held_plan: str | None = Field(description="The plan that waits for somebody's approval.")
    last_run: SyncRunOut | None


class SyncOut(Model):
    """How the registry stands to its sources."""

    sources: list[SourceOut]


class SyncNowOut(SyncOut):
    """What came of the run that was asked for; null where nobody waited for it."""

    run: SyncRunOut | None


class PlanOut(Model):
    """What a sync run would change. `text` is the same for people."""

    plan_id: str
    owner: str
    base: str | None
    target: str | None
    generation: int
    summary: dict[str, int]
    changes: list[dict[str, Any]]
    guards: list[dict[str, str]]
    errors: list[ProblemItem]
    text: str


class StatusOut(Model):
    """A moment of the server, for a person."""

    version: str
    started_at: datetime
    uptime_seconds: float
    auth: Literal["off", "tokens"]
    generation: int
    read_seconds_ago: float = Field(description="How old the picture of the registry is at most.")
    database: dict[str, Any]
    tools: dict[str, int]
    groups: dict[str, int]
    runtime: dict[str, Any]
    environments: dict[str, Any] = Field(
        description="The packages that tools require, on this server's disk: how many sets, their bytes, and what is "
        "being resolved or installed."
    )
    sources: list[SourceOut]
    warnings: list[str]
