"""What changes of groups and of the policy write: pure functions of the changes and of what stands."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import msgspec

from portoser.audit.entry import Event
from portoser.catalog.caller import Caller
from portoser.catalog.change import DeleteGroup, OverrideGroup, PutGroup, PutPolicy
from portoser.catalog.group import GroupOverride, RegisteredGroup
from portoser.registry.recorded import Recorded
from portoser.store.policy import StoredPolicy

GroupChange: TypeAlias = PutGroup | DeleteGroup | OverrideGroup


class GroupWrites(msgspec.Struct, kw_only=True):
    """What is to be written of groups."""

    put: dict[str, RegisteredGroup] = msgspec.field(default_factory=dict)
    removed: list[str] = msgspec.field(default_factory=list)
    recorded: list[Recorded] = msgspec.field(default_factory=list)
    conflicts: list[str] = msgspec.field(default_factory=list)


def group_writes(
    changes: Sequence[GroupChange], standing: Mapping[str, RegisteredGroup], *, caller: Caller, now: datetime
) -> GroupWrites:
    """What ``changes`` write over the groups that stand; nothing where a group is already as it should be."""
    writes = GroupWrites()
    state = dict(standing)
    for change in changes:
        before = state.get(change.name, RegisteredGroup(name=change.name))
        after, conflict = _after(change, before, caller=caller, now=now)
        if conflict is not None:
            writes.conflicts.append(conflict)
        elif after != before:
            state[change.name] = after
            writes.recorded.append(_recorded(change, after))
    for name, group in state.items():
        if group == standing.get(name):
            continue
        if group.declared is None and group.override is None:
            writes.removed.append(name)
        else:
            writes.put[name] = group
    return writes


def policy_write(
    change: PutPolicy, standing: StoredPolicy | None, *, authority: str | None
) -> tuple[StoredPolicy | None, str | None]:
    """The policy to write (None where it stands already) and the conflict, where there is one.

    Only ``authority`` may declare the policy; where none is named, whoever declared it first.
    """
    holder = authority or (standing.owner if standing else change.owner)
    if change.owner != holder:
        return None, f"The policy belongs to {holder}; {change.owner} cannot change it."
    wanted = StoredPolicy(policy=change.policy, owner=change.owner, path=change.path)
    return (None if wanted == standing else wanted), None


def policy_recorded(written: StoredPolicy) -> Recorded:
    """What the audit log is told of a new policy."""
    return Recorded(
        event=Event.POLICY_PUT,
        owner=written.owner,
        path=written.path,
        arguments={"policy": msgspec.to_builtins(written.policy)},
    )


def _after(
    change: GroupChange, before: RegisteredGroup, *, caller: Caller, now: datetime
) -> tuple[RegisteredGroup, str | None]:
    if isinstance(change, OverrideGroup):
        override = None
        if change.enabled is not None:
            override = GroupOverride(
                enabled=change.enabled, reason=change.reason, by=caller.subject, at=now, expires_at=change.expires_at
            )
        return msgspec.structs.replace(before, override=override), None
    declared = before.declared
    if declared is not None and declared.owner != change.owner:
        place = f" ({declared.path})" if declared.path else ""
        return before, f"The group {change.name!r} belongs to {declared.owner}{place}; {change.owner} cannot change it."
    if isinstance(change, PutGroup):
        return msgspec.structs.replace(before, declared=change.group), None
    if declared is None:
        return before, f"There is no group {change.name!r} of {change.owner} to delete (any more)."
    return msgspec.structs.replace(before, declared=None), None


def _recorded(change: GroupChange, after: RegisteredGroup) -> Recorded:
    arguments: dict[str, Any] = {"group": change.name}
    match change:
        case PutGroup(group=group):
            arguments |= {"enabled": group.enabled, "permissions": list(group.permissions)}
            return Recorded(event=Event.GROUP_PUT, owner=change.owner, path=group.path, arguments=arguments)
        case DeleteGroup():
            return Recorded(event=Event.GROUP_DELETED, owner=change.owner, arguments=arguments)
        case OverrideGroup():
            until = after.override.expires_at if after.override else None
            arguments |= {"enabled": change.enabled, "expires_at": until.isoformat() if until else None}
            return Recorded(event=Event.GROUP_OVERRIDE, owner=change.owner, arguments=arguments, reason=change.reason)
