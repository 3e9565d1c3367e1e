"""What has to stand still for a moment before it counts. Pure.

The first half of a YAML file is valid YAML. Where a manifest is read while it is being written, what is not there
yet (`permissions`, `redact`, `confirm`, a group's `enabled: false`, a part of the policy) would fall back to its
default and open what was closed. A source takes no file that somebody has open for writing, but some programs write
a file in several goes, and not every system tells. So a change that takes such a thing away counts only once its
file was seen unchanged for a while; meanwhile the registry's word goes on. Where the system does not tell, a new
tool waits for a moment too. Everything else counts at once.
"""

from collections.abc import Collection, Mapping

import msgspec

from portoser.catalog.policy import Policy
from portoser.catalog.tool import DesiredTool, RegisteredTool
from sync.planned import Desired, Registered, WantedTool

SECONDS = 2.0
"""How long a file that takes a protection away must have been the same."""

SECONDS_WHERE_NEW = 0.5
"""The same for the manifest of a new tool, where the system does not tell whether somebody is still writing it."""


class Settling(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted now. ``waiting`` are the paths that wait, and ``until`` says when to look again."""

    desired: Desired
    waiting: tuple[str, ...] = ()
    until: float | None = None


def settle(
    desired: Desired,
    registered: Registered,
    since: Mapping[str, float],
    looked_at: float,
    unsure: Collection[str] = (),
) -> Settling:
    """What of a source counts already.

    ``since`` says when the content of a path was first seen, for those that changed lately; ``looked_at`` is when
    it was looked at last. Both are of the monotonic clock. Of ``unsure`` paths nobody can tell whether somebody is
    still writing them.
    """
    fresh = {path: seen for path, seen in since.items() if looked_at - seen < SECONDS}
    if not fresh:
        return Settling(desired=desired)
    young = {path for path, seen in fresh.items() if path in unsure and looked_at - seen < SECONDS_WHERE_NEW}
    waiting: set[str] = set()
    new: set[str] = set()
    held: set[str] = set()
    tools = []
    for wanted in desired.tools:
        path, tool = wanted.desired.provenance.path, registered.tools.get(wanted.desired.name)
        if path in fresh and tool is not None and tool.owner == desired.owner and opens(tool, wanted.desired):
            waiting.add(path)
            held.add(wanted.desired.name)
        elif tool is None and (untold := _untold(wanted, desired, registered, young)):
            new.update(untold)
            held.add(wanted.desired.name)
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
    if not waiting and not new:
        return Settling(desired=desired)
    until = [fresh[path] + SECONDS for path in waiting] + [fresh[path] + SECONDS_WHERE_NEW for path in new]
    return Settling(
        desired=msgspec.structs.replace(
            desired,
            tools=tuple(tools),
            waiting=desired.waiting | held,
            groups=tuple(groups),
            policy=policy,
        ),
        waiting=tuple(sorted(waiting)),
        until=max(until),
    )


def _untold(wanted: WantedTool, desired: Desired, registered: Registered, young: Collection[str]) -> set[str]:
    """What a new tool's protection stands in and nobody can tell whether it is whole: its manifest, a new group."""
    paths = {wanted.desired.provenance.path}
    if wanted.desired.group is not None and wanted.desired.group not in registered.groups:
        paths |= {group.path for group in desired.groups if group.name == wanted.desired.group}
    return {path for path in paths if path is not None and path in young}


def opens(tool: RegisteredTool, desired: DesiredTool, *, with_permissions: bool = True) -> bool:
    """Whether a tool's new declaration lacks a protection that it has."""
    old, new = tool.revision, desired.revision
    return (
        (with_permissions and tool.permissions is not None and desired.permissions is None)
        or (old.confirm is not None and new.confirm is None)
        or not set(old.redact) <= set(new.redact)
    )


def _is_less(old: Policy, new: Policy) -> bool:
    """Whether a policy lacks what it had: a role, a client's limits, a rule of powers."""
    return not (old.roles.keys() <= new.roles.keys() and old.clients.keys() <= new.clients.keys()) or len(
        old.powers
    ) > len(new.powers)
