"""What is told of a run: the values that its ends become in status, table and audit log."""

import uuid
from datetime import UTC, datetime

import msgspec

from portoser.audit.entry import Entry, Event, Outcome
from portoser.catalog.caller import Caller
from portoser.catalog.errors import Problem
from portoser.store.sources import SourceRow
from portoser.store.sync_runs import RunRow
from sync import report
from sync.planned import Plan
from sync.status import Condition, RunOutcome, SourceStatus, SyncRun
from sync.steps import Run

SHOWN_PROBLEMS = 200
_STORED_CHANGES = 1_000


def sync_run(
    run: Run,
    *,
    run_id: str,
    cause: str,
    started_at: datetime,
    outcome: RunOutcome,
    error: Exception | None,
    generation: int,
) -> SyncRun:
    """The run as it is told of."""
    plan, scan = run.plan, run.scan
    return SyncRun(
        id=run_id,
        source=run.workshop.source.name,
        cause=cause,
        started_at=started_at,
        finished_at=datetime.now(UTC),
        outcome=outcome,
        plan_id=plan.plan_id if plan is not None else None,
        base_generation=plan.generation if plan is not None else None,
        generation=generation,
        commit=scan.commit if scan is not None else None,
        author=scan.author if scan is not None else None,
        summary=plan.summary if plan is not None else {},
        problems=run.problems[:SHOWN_PROBLEMS],
        error=str(error) or type(error).__name__ if error is not None else None,
        durations=dict(run.durations),
    )


def entry_of(done: SyncRun, *, caller: Caller, owner: str) -> Entry:
    """The run's line in the audit log."""
    outcomes = {RunOutcome.HELD: Outcome.DENIED, RunOutcome.FAILED: Outcome.ERROR}
    return Entry(
        id=str(uuid.uuid4()),
        at=done.finished_at,
        event=Event.SYNC_RUN,
        caller=caller,
        outcome=outcomes.get(done.outcome, Outcome.OK),
        commit=done.commit,
        owner=owner,
        arguments={"run": done.id, "cause": done.cause, "plan": done.plan_id},
        result={"outcome": done.outcome.value, "generation": done.generation, "summary": done.summary},
        reason="held" if done.outcome is RunOutcome.HELD else None,
        error=done.error,
    )


def source_row(status: SourceStatus, *, applied_tree: str | None) -> SourceRow:
    """The status as it is stored."""
    return SourceRow(
        name=status.source,
        kind=status.kind,
        path=status.location,
        phase=status.phase.value,
        conditions=[msgspec.to_builtins(condition) for condition in status.conditions],
        problems=[msgspec.to_builtins(problem) for problem in status.problems],
        observed_commit=status.observed_commit,
        applied_commit=status.applied_commit,
        applied_tree=applied_tree,
        generation=status.generation,
        failures=status.failures,
        next_retry_at=status.next_retry_at,
    )


def remembered(status: SourceStatus, row: SourceRow) -> SourceStatus:
    """The status with what was stored of it, perhaps by another replica."""
    return msgspec.structs.replace(
        status,
        conditions=tuple(msgspec.convert(told, Condition) for told in row.conditions),
        problems=tuple(msgspec.convert(told, Problem) for told in row.problems),
        problem_count=len(row.problems),
        observed_commit=row.observed_commit,
        applied_commit=row.applied_commit,
        generation=row.generation,
    )


def run_row(done: SyncRun, plan: Plan | None) -> RunRow:
    """The run as it is stored, with its plan."""
    told = None
    if plan is not None:
        told = report.as_json(plan)
        left_out = len(told["changes"]) - _STORED_CHANGES
        if left_out > 0:
            told["changes"], told["changes_left_out"] = told["changes"][:_STORED_CHANGES], left_out
        told["errors"] = told["errors"][:SHOWN_PROBLEMS]
    return RunRow(
        id=done.id,
        source=done.source,
        cause=done.cause,
        started_at=done.started_at,
        finished_at=done.finished_at,
        base_generation=done.base_generation,
        generation=done.generation,
        commit=done.commit,
        author=done.author,
        outcome=done.outcome.value,
        summary=done.summary,
        problems=[msgspec.to_builtins(problem) for problem in done.problems],
        error=done.error,
        durations=done.durations,
        plan=told,
    )
