"""The reasons not to apply a plan without somebody's approval. Pure."""

from sync.planned import Guard, Plan

PRUNE_AT_LEAST = 5
PRUNE_SHARE = 0.10


WINDOW = 120.0
"""Seconds: a folder that is emptied slowly is emptied all the same, so deletes count together for this long."""


def check(plan: Plan, *, recent: int = 0) -> tuple[Guard, ...]:
    """Every reason to hold the plan back; none means that it may be applied.

    ``recent`` is how many tools the source deleted within `WINDOW`, those aside that somebody approved.
    """
    return (*_nothing_declared(plan), *_many_deletes(plan, recent))


def _nothing_declared(plan: Plan) -> tuple[Guard, ...]:
    """A folder that is empty was more likely lost than emptied."""
    if plan.declared or not plan.owned:
        return ()
    return (
        Guard(
            reason="NothingDeclared",
            message=f"The folder declares no tool at all; all {_tools(plan.owned)} of {plan.owner} would be deleted.",
            advice=_advice(plan),
        ),
    )


def _many_deletes(plan: Plan, recent: int) -> tuple[Guard, ...]:
    pruned = plan.pruned
    owned = plan.owned + recent
    allowed = max(PRUNE_AT_LEAST, int(owned * PRUNE_SHARE))
    if not pruned or len(pruned) + recent <= allowed:
        return ()
    shown = ", ".join(pruned[:5]) + (", …" if len(pruned) > 5 else "")
    before = f" after {_tools(recent)} within the last {WINDOW / 60:g} minutes" if recent else ""
    return (
        Guard(
            reason="TooManyDeletes",
            message=f"{_tools(len(pruned))} of {owned} would be deleted ({shown}){before}; "
            f"at most {allowed} at once may.",
            advice=_advice(plan),
        ),
    )


def _advice(plan: Plan) -> str:
    return f"Nothing was applied. Bring the files back, or approve it: {approval(plan.plan_id)}"


def approval(plan_id: str) -> str:
    """The command that lets a plan through."""
    return f"portoser sync --approve {plan_id}"


def _tools(count: int) -> str:
    return f"{count} tool{'' if count == 1 else 's'}"
