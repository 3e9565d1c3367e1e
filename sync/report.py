"""A plan as text, as JSON, and as Markdown for a pull request. Pure."""

from collections.abc import Iterable
from typing import Any

import msgspec

from sync.planned import Op, Plan, PlannedChange

_SIGNS = {
    Op.CREATE: "+",
    Op.RESTORE: "+",
    Op.ADOPT: "+",
    Op.UPDATE: "~",
    Op.RECOVER: "~",
    Op.DELETE: "-",
    Op.INVALID: "!",
    Op.CONFLICT: "!",
}
_WORDS = {
    Op.CREATE: "created",
    Op.RESTORE: "restored",
    Op.ADOPT: "adopted",
    Op.UPDATE: "updated",
    Op.RECOVER: "well again",
    Op.DELETE: "deleted",
    Op.INVALID: "invalid",
    Op.CONFLICT: "in conflict",
}
MARKDOWN_LIMIT = 60_000
"""Characters of a comment; forges refuse more than 65,536."""


def as_text(plan: Plan) -> str:
    """The plan for a terminal: ``+`` comes, ``~`` changes, ``-`` goes, ``!`` is wrong, ``=`` stays."""
    lines = [f"Plan {plan.plan_id} for {plan.owner}: {_way(plan)}"]
    for change in plan.changes:
        lines.append(_line(change))
        lines.extend(f"    {detail}" for detail in _details(change))
    if plan.unchanged:
        lines.append(f"= {plan.unchanged} unchanged")
    lines.extend(f"! {problem}" for problem in plan.errors)
    for guard in plan.guards:
        lines.append(f"! held back: {guard.message}")
        lines.append(f"    {guard.advice}")
    lines.append(headline(plan))
    return "\n".join(lines) + "\n"


def headline(plan: Plan) -> str:
    """The plan in one line."""
    counts = plan.summary
    parts = [f"{counts[op.value]} {word}" for op, word in _WORDS.items() if counts.get(op.value)]
    parts.append(f"{plan.unchanged} unchanged")
    if plan.errors:
        parts.append(f"{len(plan.errors)} error{'' if len(plan.errors) == 1 else 's'}")
    return ", ".join(parts) + "."


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain data. Code and schemas are left out; the digests name them."""
    return {
        "plan_id": plan.plan_id,
        "owner": plan.owner,
        "base": plan.base,
        "target": plan.target,
        "generation": plan.generation,
        "summary": plan.summary,
        "changes": [_change(change) for change in plan.changes],
        "guards": [msgspec.to_builtins(guard) for guard in plan.guards],
        "errors": [msgspec.to_builtins(problem) for problem in plan.errors],
    }


def as_markdown(plan: Plan) -> str:
    """The plan as a comment; shortened where a forge would refuse it."""
    head = [f"### Plan `{plan.plan_id}`", "", f"{_way(plan)} {headline(plan)}", ""]
    if plan.guards:
        head += [*(f"> **Held back:** {guard.message} {guard.advice}" for guard in plan.guards), ""]
    if plan.errors:
        head += [*(f"- :x: `{_escaped(str(problem))}`" for problem in plan.errors[:50]), ""]
        if len(plan.errors) > 50:
            head += [f"… and {len(plan.errors) - 50} more errors.", ""]
    rows = [_row(change) for change in plan.changes]
    table = ["| | | what | where |", "|---|---|---|---|"] if rows else []
    room = MARKDOWN_LIMIT - sum(len(line) + 1 for line in (*head, *table)) - 100
    shown: list[str] = []
    for row in rows:
        room -= len(row) + 1
        if room < 0:
            break
        shown.append(row)
    tail = [f"… and {len(rows) - len(shown)} more changes."] if len(shown) < len(rows) else []
    return "\n".join([*head, *table, *shown, *tail]) + "\n"


def _way(plan: Plan) -> str:
    base, target = _short(plan.base), _short(plan.target)
    return f"{base or 'nothing applied yet'} → {target}." if target else f"at generation {plan.generation}."


def _short(commit: str | None) -> str:
    return "" if commit is None else commit[:12]


def _line(change: PlannedChange) -> str:
    kind = "" if change.kind == "tool" else f"{change.kind} "
    what = f"{_SIGNS[change.op]} {kind}{change.name}"
    if change.renamed_from:
        what += f" (renamed from {change.renamed_from})"
    elif change.op not in {Op.CREATE, Op.UPDATE, Op.DELETE}:
        what += f" ({_WORDS[change.op]})"
    if change.fields:
        what += f": {', '.join(change.fields)}"
    return f"{what}  {_place(change)}".rstrip()


def _place(change: PlannedChange) -> str:
    if change.path is None:
        return ""
    return f"{change.path}:{change.line}" if change.line else change.path


def _details(change: PlannedChange) -> Iterable[str]:
    if change.message:
        yield from change.message.splitlines()
    if change.op is not Op.DELETE:
        yield from (f"breaks callers: {broken}" for broken in change.schema_impact)
    if change.access_impact.gains:
        yield f"may call it from now on: {', '.join(change.access_impact.gains)}"
    if change.access_impact.loses:
        yield f"may no longer call it: {', '.join(change.access_impact.loses)}"


def _change(change: PlannedChange) -> dict[str, Any]:
    access = change.access_impact
    return {
        "op": change.op.value,
        "kind": change.kind,
        "name": change.name,
        "path": change.path,
        "line": change.line,
        "owner": change.owner,
        "fields": list(change.fields),
        "renamed_from": change.renamed_from,
        "message": change.message,
        "schema_impact": list(change.schema_impact),
        "access_impact": {"gains": list(access.gains), "loses": list(access.loses)},
    }


def _row(change: PlannedChange) -> str:
    details = "; ".join([*([", ".join(change.fields)] if change.fields else []), *_details(change)])
    if change.renamed_from:
        details = f"renamed from `{change.renamed_from}`" + (f"; {details}" if details else "")
    kind = "" if change.kind == "tool" else f"{change.kind} "
    what = _escaped(details) or _WORDS[change.op]
    return f"| `{_SIGNS[change.op]}` | {kind}`{change.name}` | {what} | `{_place(change)}` |"


def _escaped(text: str) -> str:
    """Text of others, made harmless: a table stays a table, and nobody is mentioned by it."""
    return text.replace("`", "'").replace("|", "\\|").replace("\n", " ").replace("@", "@\u200b").replace("<", "&lt;")
