"""A replica's immutable picture of one generation, loaded by what changed since the one before."""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType

import msgspec

from portoser.catalog.group import RegisteredGroup
from portoser.catalog.policy import Policy
from portoser.catalog.tool import RegisteredTool
from portoser.store import generation as generations
from portoser.store import groups as group_rows
from portoser.store import policy as policy_rows
from portoser.store import revisions, tools
from portoser.store.database import Connection
from portoser.store.revisions import StoredRevision
from portoser.store.tools import ToolRow

_BREATH = 500
"""After so many tools the loader lets the event loop serve others."""


class ServedTool(msgspec.Struct, frozen=True, kw_only=True):
    """A living tool with what follows from its group: who may call it, and whether it is served."""

    registered: RegisteredTool
    permissions: tuple[str, ...]
    """Its own, else its group's, else none: then only an admin may call it."""
    enabled: bool
    """Whether its group is switched on; a tool without a group always is."""
    listing_digest: str
    """Equal digests look equal in ``tools/list``."""

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.registered.name


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, eq=False, weakref=True):
    """The registry at one generation. Compared by identity: two loads of one generation may differ by the clock."""

    generation: int
    tools: Mapping[str, ServedTool]
    """Every living tool by name, in the order of names; those of disabled groups too."""
    groups: Mapping[str, RegisteredGroup]
    policy: Policy
    policy_owner: str | None = None
    policy_path: str | None = None
    disabled_groups: frozenset[str] = frozenset()
    """The groups that are switched off now."""
    next_expiry: datetime | None = None
    """When the first of the overrides ends, and the snapshot with it."""

    def same_content(self, other: "Snapshot") -> bool:
        """Whether both say the same, apart from the generation."""
        return (
            (self.policy, self.policy_owner, self.disabled_groups)
            == (other.policy, other.policy_owner, other.disabled_groups)
            and self.groups == other.groups
            and self.tools == other.tools
        )


EMPTY = Snapshot(generation=0, tools=MappingProxyType({}), groups=MappingProxyType({}), policy=Policy())
"""What a registry holds before anything has been applied."""


async def load(
    connection: Connection,
    *,
    previous: Snapshot | None,
    enabled_groups: frozenset[str],
    now: datetime | None = None,
) -> Snapshot:
    """The registry as it is, read in one REPEATABLE READ transaction.

    With ``previous``, only what changed since is read, and what did not change is shared with it.
    ``enabled_groups`` are switched on whatever their declaration says; an operator's override beats both.
    ``now`` (aware) decides which overrides still hold; the current time by default.
    """
    now = now or datetime.now(UTC)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        generation = await generations.current(connection)
        if previous is None or previous.generation > generation:  # a restored database goes back
            previous = EMPTY
            rows = await tools.living(connection)
        else:
            rows = await tools.changed_since(connection, previous.generation)
        known = _known(previous, rows)
        missing = {row.digest for row in rows if row.is_living} - known.keys()
        for stored in await revisions.without_files(connection, missing):
            known[stored.revision.digest] = stored
        groups = await group_rows.load(connection)
        stored_policy = await policy_rows.load(connection)

    disabled = frozenset(name for name, group in groups.items() if not _is_enabled(group, enabled_groups, now))
    served = dict(previous.tools)
    handed_over = {row.name for row in rows if row.is_living}  # a name may have a tombstone and a new owner
    for row in rows:
        if not row.is_living and row.name not in handed_over:
            served.pop(row.name, None)
    for count, row in enumerate(rows):
        if row.is_living:
            stored = known[row.digest]
            served[row.name] = _serve(_registered(row, stored), stored.listing_digest, groups, disabled)
        if count % _BREATH == _BREATH - 1:
            await asyncio.sleep(0)
    if not served.keys() <= previous.tools.keys():  # what only changed or went keeps its place
        served = dict(sorted(served.items()))
    if groups != previous.groups or disabled != previous.disabled_groups:
        served = {name: _serve_again(tool, groups, disabled) for name, tool in served.items()}
    return Snapshot(
        generation=generation,
        tools=MappingProxyType(served),
        groups=MappingProxyType(groups),
        policy=stored_policy.policy if stored_policy else Policy(),
        policy_owner=stored_policy.owner if stored_policy else None,
        policy_path=stored_policy.path if stored_policy else None,
        disabled_groups=disabled,
        next_expiry=_next_expiry(groups.values(), now),
    )


def _known(snapshot: Snapshot, rows: Iterable[ToolRow]) -> dict[str, StoredRevision]:
    """The revisions that tools of these names have in the snapshot: where only provenance changed, none is read."""
    tools_before = (snapshot.tools[row.name] for row in rows if row.name in snapshot.tools)
    return {
        tool.registered.digest: StoredRevision(tool.registered.revision, tool.listing_digest) for tool in tools_before
    }


def _is_enabled(group: RegisteredGroup, enabled_groups: frozenset[str], now: datetime) -> bool:
    if group.name in enabled_groups:
        group = msgspec.structs.replace(group, declared=None)  # as if nobody had declared it off
    return group.is_enabled(now)


def _registered(row: ToolRow, stored: StoredRevision) -> RegisteredTool:
    return RegisteredTool(
        id=row.id,
        name=row.name,
        owner=row.owner,
        revision=stored.revision,
        version=row.version,
        group=row.group_name,
        permissions=row.permissions,
        status=row.status,
        problem=row.problem,
        provenance=row.provenance,
        generation=row.generation,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _serve(
    tool: RegisteredTool, listing_digest: str, groups: Mapping[str, RegisteredGroup], disabled: frozenset[str]
) -> ServedTool:
    permissions = tool.permissions
    if permissions is None:
        group = groups.get(tool.group) if tool.group is not None else None
        permissions = group.declared.permissions if group is not None and group.declared is not None else ()
    return ServedTool(
        registered=tool,
        permissions=permissions,
        enabled=tool.group not in disabled,
        listing_digest=listing_digest,
    )


def _serve_again(tool: ServedTool, groups: Mapping[str, RegisteredGroup], disabled: frozenset[str]) -> ServedTool:
    """The tool under other groups; the same object where nothing is different for it."""
    again = _serve(tool.registered, tool.listing_digest, groups, disabled)
    return tool if (again.permissions, again.enabled) == (tool.permissions, tool.enabled) else again


def _next_expiry(groups: Iterable[RegisteredGroup], now: datetime) -> datetime | None:
    ends = [group.override.expires_at for group in groups if group.override and group.override.expires_at]
    return min((end for end in ends if end > now), default=None)
