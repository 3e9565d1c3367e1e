"""What has to stand still for a moment before it counts. Pure.

The first half of a YAML file is valid YAML. Where a manifest is read while it is being written, what is not there
yet (`permissions`, `redact`, `confirm`, a group's `enabled: false`, a part of the policy) would fall back to its
default and open what was closed. So a change that takes such a thing away counts only once its file was seen
unchanged for a while; meanwhile the registry's word goes on. Everything else counts at once.
"""

from collections.abc import Mapping

import msgspec

from portoser.catalog.policy import Policy
from portoser.catalog.tool import DesiredTool, RegisteredTool
from sync.planned import Desired, Registered

SECONDS = 2.0
"""How long a file that takes a protection away must have been the same."""


class Settling(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted now. ``waiting`` are the paths that wait, and ``until`` says when to look again."""

    desired: Desired
    waiting: tuple[str, ...] = ()
    until: float | None = None


def settle(desired: Desired, registered: Registered, since: Mapping[str, float], looked_at: float) -> Settling:
    """What of a source counts already.

    ``since`` says when the content of a path was first seen, for those that changed lately; ``looked_at`` is when
    it was looked at last. Both are of the monotonic clock.
    """
    fresh = {path: seen for path, seen in since.items() if looked_at - seen < SECONDS}
    if not fresh:
        return Settling(desired=desired)
    waiting: set[str] = set()
    tools = []
    for wanted in desired.tools:
        path, tool = wanted.desired.provenance.path, registered.tools.get(wanted.desired.name)
        if path in fresh and tool is not None and tool.owner == desired.owner and _opens(tool, wanted.desired):
            waiting.add(path)
        else:
            tools.append(wanted)
    groups = []
    for group in desired.groups:
        standing = registered.groups.get(group.name)
        old = standing.declared if standing is not None else None
        if old is not None and old.owner == desired.owner and group.path in fresh and group.enabled > old.enabled:
            waiting.add(group.path or "")
            group = old  # noqa: PLW2901
        groups.append(group)
    policy = desired.policy
    is_ours = registered.policy_owner == desired.owner
    if policy is not None and desired.policy_path in fresh and is_ours and _is_less(registered.policy, policy):
        waiting.add(desired.policy_path or "")
        policy = registered.policy
    if not waiting:
        return Settling(desired=desired)
    kept = {wanted.desired.name for wanted in tools}
    held = frozenset(wanted.desired.name for wanted in desired.tools if wanted.desired.name not in kept)
    return Settling(
        desired=msgspec.structs.replace(desired, tools=tuple(tools), waiting=held, groups=tuple(groups), policy=policy),
        waiting=tuple(sorted(waiting)),
        until=max(fresh[path] for path in waiting) + SECONDS,
    )


def _opens(tool: RegisteredTool, desired: DesiredTool) -> bool:
    """Whether a tool's new declaration lacks a protection that it has."""
    old, new = tool.revision, desired.revision
    return (
        (tool.permissions is not None and desired.permissions is None)
        or (old.confirm is not None and new.confirm is None)
        or not set(old.redact) <= set(new.redact)
    )


def _is_less(old: Policy, new: Policy) -> bool:
    """Whether a policy lacks what it had: a role, a client's limits, a rule of powers."""
    return not (old.roles.keys() <= new.roles.keys() and old.clients.keys() <= new.clients.keys()) or len(
        old.powers
    ) > len(new.powers)
