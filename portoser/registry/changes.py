"""Changes become one transaction: checked against what stands, written as sets, audited, numbered, told.

Every set of changes first locks the generation, so sets come one after the other. Each change is checked
against the rows as they are under that lock, and each write names again what it expects to find: where
fewer rows are touched than planned, everything is rolled back.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeAlias

import asyncpg
import msgspec

from portoser import faults
from portoser.audit.registry_chain import append_registry
from portoser.catalog.caller import Caller, system_caller
from portoser.catalog.change import (
    Change,
    DeleteGroup,
    DeleteTool,
    MarkTool,
    OverrideGroup,
    PutGroup,
    PutPolicy,
    PutTool,
)
from portoser.catalog.errors import Conflict, PortoserError, Unavailable
from portoser.registry.group_changes import GroupWrites, group_writes, policy_recorded, policy_write
from portoser.registry.recorded import Recorded, entries
from portoser.registry.tool_changes import ToolWrites, tool_writes
from portoser.store import generation as generations
from portoser.store import groups, policy, revisions, tools
from portoser.store.database import Connection, Database
from portoser.store.policy import StoredPolicy

Also: TypeAlias = Callable[[Connection, int], Awaitable[None]]
"""Work that belongs into the same transaction; it is given the connection and the generation that the changes make."""

_LONGEST_WAIT = "10s"
"""How long one set of changes waits for the one before it."""


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a set of changes. ``tools`` has the version of every tool that was put, changed or not."""

    generation: int
    changed: bool
    tools: dict[str, int]


class _Writes(msgspec.Struct, frozen=True):
    tools: ToolWrites
    groups: GroupWrites
    policy: StoredPolicy | None
    recorded: list[Recorded]


class RegistryWriter:
    """The only way to change the registry.

    ``authority`` is the owner who may declare the policy; without one, it is whoever declared it first.
    """

    def __init__(self, database: Database, *, authority: str | None = None) -> None:
        self._database = database
        self._authority = authority

    async def apply(
        self,
        changes: Sequence[Change],
        *,
        caller: Caller,
        base_generation: int | None = None,
        also: Also | None = None,
    ) -> Applied:
        """Apply all of ``changes`` or none; ``also`` runs in the same transaction, even where nothing changes.

        Where everything is already as it should be, the generation stays.

        Raises:
            Conflict: the registry is not at ``base_generation``, or a change does not fit what stands: a name of
                another owner, another version than expected, a tool that is gone. The message names each.
            Unavailable: Postgres is away, or another set of changes takes very long.
            PortoserError: something is to be stored that Postgres cannot hold.
        """
        _refuse_repeated(changes)
        async with self._database.acquire() as connection:
            try:
                async with connection.transaction():
                    applied = await self._apply(connection, changes, caller, base_generation, also)
                faults.point("registry.committed")
                return applied
            except asyncpg.LockNotAvailableError as error:
                raise Unavailable(f"Another change of the registry takes longer than {_LONGEST_WAIT}.") from error
            except asyncpg.UniqueViolationError as error:
                raise Conflict(f"The registry changed while the change was made: {error.detail}") from error
            except asyncpg.DataError as error:
                raise PortoserError(f"The registry cannot hold what is to be stored: {error}.") from error

    async def end_expired_overrides(self) -> Applied | None:
        """Take back the overrides of groups that have expired; None where there are none.

        Snapshots end them by their own clocks, on time; this tidies the registry, and is the leader's to call.
        """
        async with self._database.acquire() as connection:
            base = await generations.current(connection)
            names = await groups.with_expired_override(connection)
        if not names:
            return None
        caller = system_caller("housekeeping")
        clears = [OverrideGroup(name=name, owner=caller.subject, enabled=None, reason="expired") for name in names]
        try:
            return await self.apply(clears, caller=caller, base_generation=base)
        except Conflict:  # somebody changed the registry in between, perhaps these overrides: next time
            return None

    async def _apply(
        self,
        connection: Connection,
        changes: Sequence[Change],
        caller: Caller,
        base_generation: int | None,
        also: Also | None,
    ) -> Applied:
        await connection.execute(f"SET LOCAL lock_timeout = '{_LONGEST_WAIT}'")
        base, now = await generations.lock(connection)
        faults.point("registry.locked")
        if base_generation is not None and base != base_generation:
            raise Conflict(
                f"The registry is at generation {base} by now; the changes were made for {base_generation}. "
                "Compute them again."
            )
        writes = await self._plan(connection, changes, caller=caller, generation=base + 1, now=now)
        changed = bool(writes.recorded)
        generation = base + 1 if changed else base
        faults.point("registry.checked")
        if changed:
            await _write_tools(connection, writes.tools)
            await groups.put(connection, list(writes.groups.put.values()), generation=generation)
            await groups.remove(connection, writes.groups.removed)
            faults.point("registry.groups")
            if writes.policy is not None:
                await policy.put(connection, writes.policy, generation=generation, at=now)
            faults.point("registry.policy")
            await append_registry(connection, entries(writes.recorded, caller=caller, now=now, generation=generation))
            faults.point("registry.audited")
            await generations.advance(connection, generation)
            faults.point("registry.numbered")
        if also is not None:
            await also(connection, generation)
        faults.point("registry.uncommitted")
        return Applied(generation=generation, changed=changed, tools=writes.tools.result)

    async def _plan(
        self, connection: Connection, changes: Sequence[Change], *, caller: Caller, generation: int, now: datetime
    ) -> _Writes:
        of_tools = [change for change in changes if isinstance(change, PutTool | DeleteTool | MarkTool)]
        of_groups = [change for change in changes if isinstance(change, PutGroup | DeleteGroup | OverrideGroup)]
        of_policy = [change for change in changes if isinstance(change, PutPolicy)]
        standing = await tools.named(connection, {change.name for change in of_tools}) if of_tools else []
        for_tools = tool_writes(of_tools, standing, caller=caller, generation=generation, now=now)
        for_groups = GroupWrites()
        if of_groups:
            for_groups = group_writes(of_groups, await groups.load(connection), caller=caller, now=now)
        recorded = for_tools.recorded + for_groups.recorded
        conflicts = for_tools.conflicts + for_groups.conflicts
        new_policy = None
        for change in of_policy:
            new_policy, conflict = policy_write(change, await policy.load(connection), authority=self._authority)
            conflicts += [conflict] if conflict else []
            recorded += [policy_recorded(new_policy)] if new_policy else []
        if conflicts:
            raise Conflict("\n".join(conflicts))
        return _Writes(for_tools, for_groups, new_policy, recorded)


async def _write_tools(connection: Connection, writes: ToolWrites) -> None:
    await revisions.put(connection, writes.revisions)
    faults.point("registry.revisions")
    written = await tools.update(connection, writes.buried)
    written += await tools.update(connection, writes.updated)
    written += await tools.insert(connection, writes.inserted)
    planned = len(writes.buried) + len(writes.updated) + len(writes.inserted)
    if written != planned:
        raise Conflict(
            f"The registry changed while the change was made: {planned} tools to write, {written} as expected."
        )
    faults.point("registry.tools")
    await tools.append_versions(connection, writes.versions)
    faults.point("registry.versions")


def _refuse_repeated(changes: Sequence[Change]) -> None:
    """One set of changes says one thing of each subject; only a name that changes hands is deleted and put."""
    seen = Counter(_subject(change) for change in changes)
    seen_owners = Counter(
        ("tool", change.name, change.owner) for change in changes if isinstance(change, PutTool | DeleteTool | MarkTool)
    )
    repeated = sorted({subject[1] for subject, count in (seen + seen_owners).items() if count > 1})
    if repeated:
        raise PortoserError(f"One set of changes speaks twice of: {', '.join(repeated)}.")


def _subject(change: Change) -> tuple[str, ...]:
    match change:
        case PutTool() | MarkTool():
            return "tool", change.name
        case DeleteTool():
            return "deleted tool", change.name
        case OverrideGroup():
            return "override", change.name
        case PutGroup() | DeleteGroup():
            return "group", change.name
        case PutPolicy():
            return "policy", change.name
