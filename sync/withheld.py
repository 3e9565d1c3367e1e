"""What waits while the policy cannot be known: whatever would give more access than there is. Pure.

A policy that is wrong may have been written to take something away, so nobody gets more until it is put right. What
takes access away applies at once, and so does whatever leaves access alone, like new code of a tool.
"""

from collections.abc import Mapping

import msgspec

from portoser.catalog.errors import Problem, Severity
from portoser.catalog.group import Group
from portoser.catalog.policy import Policy
from portoser.catalog.tool import RegisteredTool
from sync.impact import effective_permissions
from sync.planned import Desired, Registered, WantedTool, hidden_by
from sync.settling import opens


class Withheld(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted, without what waits; ``warnings`` tell of each thing that does."""

    desired: Desired
    warnings: tuple[Problem, ...] = ()


def withhold(desired: Desired, registered: Registered) -> Withheld:
    """What of a source may be applied: all of it where its policy is known, else only what widens no access."""
    culprit = _broken_policy(desired, registered)
    if culprit is None:
        return Withheld(desired=desired)
    advice = f"Put the policy in {culprit} right."
    warnings: list[Problem] = []

    def tell(path: str | None, line: int, what: str, tool: str | None = None) -> None:
        message = f"{what} would have more access than before, and waits while the policy is wrong."
        where = Problem(
            path=path or "", line=line, message=message, advice=advice, tool=tool, severity=Severity.WARNING
        )
        warnings.append(where)

    groups: list[Group] = []
    for group in desired.groups:
        narrowed = _narrowed_group(group, _declared(registered, group.name))
        if narrowed != group:
            tell(group.path, 1, f"Who uses the group {group.name!r}")
        groups.append(narrowed)
    names = {group.name for group in groups} | desired.broken_groups
    for name in sorted(registered.groups.keys() - names):
        old = _declared(registered, name)
        if old is not None and old.owner == desired.owner and not old.enabled:
            tell(old.path, 1, f"The group {name!r} is gone: who uses its tools")
            groups.append(old)

    after = {group.name: group for group in groups}
    tools: list[WantedTool] = []
    for wanted in desired.tools:
        narrowed_tool = _narrowed_tool(wanted, registered, after)
        if narrowed_tool is not wanted:
            tell(wanted.desired.provenance.path, wanted.line, f"The tool {wanted.desired.name!r}", wanted.desired.name)
        if narrowed_tool is not None:
            tools.append(narrowed_tool)
    kept = {wanted.desired.name for wanted in tools}
    waiting = desired.waiting | {wanted.desired.name for wanted in desired.tools} - kept
    return Withheld(
        desired=msgspec.structs.replace(desired, tools=tuple(tools), groups=tuple(groups), waiting=waiting),
        warnings=tuple(warnings),
    )


def _broken_policy(desired: Desired, registered: Registered) -> str | None:
    """Where the policy stands that is wrong; None where none is."""
    if not desired.policy_is_unknown:
        return None
    if desired.wrong_policies:
        return desired.wrong_policies[0]
    if registered.policy_owner == desired.owner and hidden_by(registered.policy_path, desired.broken_paths) is not None:
        return registered.policy_path
    return None


def _declared(registered: Registered, name: str) -> Group | None:
    standing = registered.groups.get(name)
    return standing.declared if standing is not None else None


def _narrowed_group(group: Group, old: Group | None) -> Group:
    known = old.permissions if old is not None else ()
    return msgspec.structs.replace(
        group,
        enabled=group.enabled and (old is None or old.enabled),
        permissions=tuple(name for name in group.permissions if name in known),
    )


def _narrowed_tool(wanted: WantedTool, registered: Registered, groups: Mapping[str, Group]) -> WantedTool | None:
    """The tool with no more access than it has; None where it has to go on as it is, or is new."""
    desired, tool = wanted.desired, registered.tools.get(wanted.desired.name)
    if tool is None or tool.owner != desired.owner:
        return None
    old, new = _group_of(tool, registered), groups.get(desired.group or "")
    was_off = old is not None and not old.enabled
    if (was_off and (new is None or new.enabled)) or opens(tool, desired, with_permissions=False):
        return None
    if _is_for_more_clients(tool.group, desired.group, registered.policy):
        return None
    before = effective_permissions(tool.permissions, old)
    after = effective_permissions(desired.permissions, new)
    if set(after) <= set(before):
        return wanted
    permissions = tuple(name for name in after if name in before)
    return msgspec.structs.replace(wanted, desired=msgspec.structs.replace(desired, permissions=permissions))


def _is_for_more_clients(old: str | None, new: str | None, policy: Policy) -> bool:
    """Whether a client that is held to some groups may use the new one and not the old one."""
    return old != new and any(new in groups and old not in groups for groups in policy.clients.values())


def _group_of(tool: RegisteredTool, registered: Registered) -> Group | None:
    return _declared(registered, tool.group) if tool.group is not None else None
