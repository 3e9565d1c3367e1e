"""What a run comes to: what its source's conditions say, how its scan is left, and how the source stands after it."""

from datetime import timedelta
from typing import Any

import msgspec

from sync.ledger import SHOWN_PROBLEMS
from sync.status import ENDED_WELL, RunOutcome, SourceStatus, SyncRun, phase_after
from sync.workshop import Run, Settled


def conclude(run: Run, outcome: RunOutcome, error: str | None) -> None:
    """Say whether the registry is as the source wants it, and whether something is wrong with the reconciling."""
    conditions = run.conditions
    match outcome:
        case RunOutcome.FAILED:
            conditions.set("Stalled", True, "Failed", f"{(error or 'It failed').rstrip('.')}. It is tried again.")
            conditions.set("Ready", False, "Failed", error or "The last run failed.")
        case RunOutcome.HELD if not run.is_repeated:
            conditions.set("Stalled", False, "Running", "Runs come to their end.")
            conditions.set("Ready", False, "AwaitingApproval", "A guard holds the plan back; see PruneBlocked.")
        case RunOutcome.STANDBY:
            conditions.set("Ready", None, "Standby", "Another replica reconciles this source.")
        case RunOutcome.APPLIED | RunOutcome.UNCHANGED if not run.is_repeated:
            conditions.set("Stalled", False, "Running", "Runs come to their end.")
            count = len(run.problems)
            if count:
                told = f"{count} problem{'' if count == 1 else 's'}: what is wrong is not served as it is declared."
                conditions.set("Ready", False, "Problems", told)
            else:
                conditions.set("Ready", True, "Synced", "Everything is served as it is declared.")


def settled_after(run: Run, done: SyncRun, old: Settled | None) -> Settled | None:
    """How a run left its scan: whether it needs no further look, and whether a change of the registry may matter to it.

    None where the scan must be looked at again.
    """
    if done.outcome is RunOutcome.FAILED:
        return None
    if run.scan is None or done.outcome is RunOutcome.STANDBY:
        return old
    is_open = done.outcome is RunOutcome.HELD or run.until is not None or bool(run.plan is not None and run.plan.errors)
    return Settled(
        scan=run.scan,
        generation=done.generation or 0,
        outcome=RunOutcome.UNCHANGED if done.outcome in ENDED_WELL else done.outcome,
        is_open=old.is_open if run.is_repeated and old is not None else is_open,
        until=old.until if run.is_repeated and old is not None else run.until,
    )


def status_after(run: Run, done: SyncRun, old: SourceStatus, *, failures: int, pause: timedelta) -> SourceStatus:
    """How the source stands once a run has ended. ``pause`` is when what failed is tried again."""
    changed: dict[str, Any] = {}
    if run.plan is not None:
        changed = {
            "problems": run.problems[:SHOWN_PROBLEMS],
            "problem_count": len(run.problems),
            "warnings": run.warnings[:SHOWN_PROBLEMS],
            "warning_count": len(run.warnings),
            "held_plan": done.plan_id if done.outcome is RunOutcome.HELD else None,
        }
    if run.scan is not None:
        changed["observed_commit"] = run.scan.commit
        if done.outcome in ENDED_WELL:
            changed["applied_commit"] = run.scan.commit
            changed["generation"] = done.generation
    is_news = not run.is_repeated and done.outcome not in {RunOutcome.UNCHANGED, RunOutcome.STANDBY}
    return msgspec.structs.replace(
        old,
        phase=phase_after(done.outcome),
        is_leader=done.outcome is not RunOutcome.STANDBY,
        conditions=run.conditions.all(),
        failures=failures,
        next_retry_at=done.finished_at + pause if failures else None,
        checked_at=done.finished_at,
        last_run=done if is_news else old.last_run,
        **changed,
    )
