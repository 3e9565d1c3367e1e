"""May this caller see and call this tool? One function, for lists and for calls."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple
from weakref import WeakKeyDictionary

import msgspec

from portoser.catalog.caller import Caller, CallerKind
from portoser.catalog.policy import Role
from portoser.registry.snapshot import ServedTool, Snapshot

_LONGEST_MEMORY = 512
"""How many different sights of a snapshot are kept; callers choose their narrowing, so there may be many."""


class Decision(msgspec.Struct, frozen=True):
    """Whether a caller may call a tool.

    ``reason`` is one of ``allowed``, ``unknown_tool``, ``forbidden``, ``client_not_allowed``, ``narrowed`` and
    ``group_disabled``; ``message`` is for the caller, and empty where the call is allowed.
    """

    allowed: bool
    reason: str
    message: str = ""


ALLOWED = Decision(True, "allowed")


class _Scope(NamedTuple):
    """What of a caller counts. Each part is None where it restricts nothing."""

    rbac: frozenset[str] | None
    """The caller's RBAC groups; None for who may call everything."""
    client: frozenset[str] | None
    """The groups of tools that the policy leaves to the caller's client."""
    narrowed: frozenset[str] | None
    """The groups of tools that the connection chose."""


class _Sights:
    """What has been worked out about one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        served = snapshot.tools.values()
        self.rbac = frozenset(plain_group(group) for tool in served for group in tool.permissions)
        self.groups = frozenset(tool.registered.group for tool in served)
        self.visible: OrderedDict[Hashable, tuple[ServedTool, ...]] = OrderedDict()


class Access:
    """Decides by the snapshot that it is given. ``admin_groups`` are admins whatever the policy says."""

    def __init__(self, admin_groups: frozenset[str] = frozenset()) -> None:
        self._admin_groups = frozenset(map(plain_group, admin_groups))
        self._sights: WeakKeyDictionary[Snapshot, _Sights] = WeakKeyDictionary()

    def decide(self, snapshot: Snapshot, name: str, caller: Caller) -> Decision:
        """Whether ``caller`` may call the tool ``name``, and if not, why, as far as the caller may know."""
        tool = snapshot.tools.get(name)
        if tool is None:
            return Decision(False, "unknown_tool", f"There is no tool {name!r}.")
        scope = self._scope(snapshot, caller)
        reason = _refusal(tool, scope)
        return ALLOWED if reason is None else Decision(False, reason, _message(reason, tool, caller, scope))

    def visible(self, snapshot: Snapshot, caller: Caller) -> tuple[ServedTool, ...]:
        """The tools that ``caller`` may call, in the order of their names."""
        scope = self._scope(snapshot, caller)
        sights = self._sights_of(snapshot)
        key = _key(sights, scope)
        found = sights.visible.get(key)
        if found is None:
            found = tuple(tool for tool in snapshot.tools.values() if _refusal(tool, scope) is None)
            sights.visible[key] = found
            if len(sights.visible) > _LONGEST_MEMORY:
                sights.visible.popitem(last=False)
        else:
            sights.visible.move_to_end(key)
        return found

    def visibility_key(self, snapshot: Snapshot, caller: Caller) -> Hashable:
        """What decides which tools a caller sees: callers with equal keys see the same of one generation.

        The groups that are off are part of it, because an override may end within a generation.
        """
        return snapshot.disabled_groups, _key(self._sights_of(snapshot), self._scope(snapshot, caller))

    def has_role(self, snapshot: Snapshot, caller: Caller, role: Role) -> bool:
        """Whether ``caller`` has a role. An admin has each; so has everybody while auth is off, and Portoser itself."""
        if caller.kind in {CallerKind.ANONYMOUS, CallerKind.SYSTEM}:
            return True
        groups = frozenset(map(plain_group, caller.groups))
        holders = {*snapshot.policy.groups_with(role), *snapshot.policy.groups_with(Role.ADMIN)}
        return not groups.isdisjoint(self._admin_groups) or not groups.isdisjoint(map(plain_group, holders))

    def _scope(self, snapshot: Snapshot, caller: Caller) -> _Scope:
        is_free = self.has_role(snapshot, caller, Role.ADMIN)
        client = snapshot.policy.clients.get(caller.client) if caller.client is not None else None
        return _Scope(
            rbac=None if is_free else frozenset(map(plain_group, caller.groups)),
            client=None if client is None else frozenset(client),
            narrowed=caller.only_groups,
        )

    def _sights_of(self, snapshot: Snapshot) -> _Sights:
        sights = self._sights.get(snapshot)
        if sights is None:
            sights = self._sights[snapshot] = _Sights(snapshot)
        return sights


def plain_group(group: str) -> str:
    """An RBAC group without its leading '/': ``/operators`` is ``operators``, and ``/a/operators`` is not."""
    return group.removeprefix("/")


def _refusal(tool: ServedTool, scope: _Scope) -> str | None:
    """Why a tool may not be called, or None. What a caller may not call anyway is told no more about."""
    group = tool.registered.group
    if scope.rbac is not None and scope.rbac.isdisjoint(map(plain_group, tool.permissions)):
        return "forbidden"
    if scope.client is not None and group not in scope.client:
        return "client_not_allowed"
    if scope.narrowed is not None and group not in scope.narrowed:
        return "narrowed"
    if not tool.enabled:
        return "group_disabled"
    return None


def _key(sights: _Sights, scope: _Scope) -> Hashable:
    """The scope, cut to what can make a difference in this snapshot, so that many callers share one key."""
    return (
        None if scope.rbac is None else scope.rbac & sights.rbac,
        None if scope.client is None else scope.client & sights.groups,
        None if scope.narrowed is None else scope.narrowed & sights.groups,
    )


def _message(reason: str, tool: ServedTool, caller: Caller, scope: _Scope) -> str:
    group = tool.registered.group
    in_group = f"the group {group!r}" if group is not None else "no group"
    match reason:
        case "forbidden" if tool.permissions:
            needed = ", ".join(tool.permissions)
            return (
                f"You may not call {tool.name!r}: it asks for one of the groups {needed}, and you ({caller.subject}) "
                "have none of them."
            )
        case "forbidden":
            return f"You may not call {tool.name!r}: it names no permissions, so only an admin may."
        case "client_not_allowed":
            return (
                f"The client {caller.client!r} may not use {tool.name!r}, which is in {in_group}: the policy leaves "
                f"it {_list(scope.client)}."
            )
        case "narrowed":
            return f"This connection is narrowed to {_list(scope.narrowed)}; {tool.name!r} is in {in_group}."
        case _:
            return f"The tool {tool.name!r} is switched off, with its group {group!r}."


def _list(groups: frozenset[str] | None) -> str:
    return "the groups " + ", ".join(sorted(groups)) if groups else "no group"
