"""The reasons not to apply a plan without somebody's approval. Pure."""

from sync.planned import Guard, Plan

PRUNE_AT_LEAST = 5
PRUNE_SHARE = 0.10


def check(plan: Plan) -> tuple[Guard, ...]:
    """Every reason to hold the plan back; none means that it may be applied."""
    return (*_nothing_declared(plan), *_many_deletes(plan))


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


def _many_deletes(plan: Plan) -> tuple[Guard, ...]:
    pruned = plan.pruned
    allowed = max(PRUNE_AT_LEAST, int(plan.owned * PRUNE_SHARE))
    if len(pruned) <= allowed:
        return ()
    shown = ", ".join(pruned[:5]) + (", …" if len(pruned) > 5 else "")
    return (
        Guard(
            reason="TooManyDeletes",
            message=f"{_tools(len(pruned))} of {plan.owned} would be deleted ({shown}); at most {allowed} at once may.",
            advice=_advice(plan),
        ),
    )


def _advice(plan: Plan) -> str:
    return f"Bring the files back, delete fewer at a time, or approve the plan {plan.plan_id}. Nothing was applied."


def _tools(count: int) -> str:
    return f"{count} tool{'' if count == 1 else 's'}"
