"""What changes of tools write: a pure function of the changes and of the rows that stand."""

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from portoser.audit.entry import Event
from portoser.catalog.caller import Caller
from portoser.catalog.change import DeleteTool, MarkTool, PutTool
from portoser.catalog.revision import Revision
from portoser.catalog.tool import DesiredTool, ToolStatus
from portoser.registry.recorded import Recorded
from portoser.store.tools import ToolRow, VersionRow

_SHOWN = ("group_name", "permissions", "digest", "status", "path", "commit")
"""The fields whose change the audit log tells."""


class ToolWrites(msgspec.Struct, kw_only=True):
    """What is to be written. ``buried`` comes before ``updated``, that before ``inserted``: a name may change hands."""

    buried: list[tuple[ToolRow, ToolRow]] = msgspec.field(default_factory=list)
    updated: list[tuple[ToolRow, ToolRow]] = msgspec.field(default_factory=list)
    inserted: list[ToolRow] = msgspec.field(default_factory=list)
    versions: list[VersionRow] = msgspec.field(default_factory=list)
    revisions: list[Revision] = msgspec.field(default_factory=list)
    recorded: list[Recorded] = msgspec.field(default_factory=list)
    result: dict[str, int] = msgspec.field(default_factory=dict)
    """The version of every tool that was put, changed or not."""
    conflicts: list[str] = msgspec.field(default_factory=list)


def tool_writes(
    changes: Sequence[PutTool | DeleteTool | MarkTool],
    standing: Iterable[ToolRow],
    *,
    caller: Caller,
    generation: int,
    now: datetime,
) -> ToolWrites:
    """What ``changes`` write over the rows that stand; nothing where a tool is already as it should be.

    Where a change does not fit what stands, ``conflicts`` says so, and nothing may be written.
    """
    rows = list(standing)
    state = _State(
        living={row.name: row for row in rows if row.is_living},
        tombstones={(row.name, row.owner): row for row in rows if not row.is_living},
        caller=caller,
        generation=generation,
        now=now,
    )
    for change in changes:
        if isinstance(change, DeleteTool):
            state.delete(change)
    for change in changes:
        if isinstance(change, PutTool):
            state.put(change)
        elif isinstance(change, MarkTool):
            state.mark(change)
    return state.writes


class _State:
    def __init__(
        self,
        *,
        living: dict[str, ToolRow],
        tombstones: dict[tuple[str, str], ToolRow],
        caller: Caller,
        generation: int,
        now: datetime,
    ) -> None:
        self.writes = ToolWrites()
        self._living = living
        self._tombstones = tombstones
        self._caller = caller
        self._generation = generation
        self._now = now

    def delete(self, change: DeleteTool) -> None:
        row = self._expected(change.name, change.owner, change.expected_version, change.expected_generation)
        if row is None:
            return
        after = msgspec.structs.replace(
            row,
            status=ToolStatus.TOMBSTONED,
            problem=None,
            deleted_at=self._now,
            updated_at=self._now,
            generation=self._generation,
        )
        self.writes.buried.append((row, after))
        del self._living[change.name]
        self._record(Event.TOOL_DELETED, after)

    def mark(self, change: MarkTool) -> None:
        row = self._expected(change.name, change.owner, None, any_version=True)
        if row is None or (row.status, row.problem) == (change.status, change.problem):
            return
        after = msgspec.structs.replace(row, status=change.status, problem=change.problem, generation=self._generation)
        self.writes.updated.append((row, after))
        self._record(Event.TOOL_MARKED, after, changed=_difference(row, after), error=change.problem)

    def put(self, change: PutTool) -> None:
        if change.expected_version is not None:
            row = self._expected(change.name, change.owner, change.expected_version, change.expected_generation)
            if row is not None:
                self._update(row, change.desired, Event.TOOL_UPDATED)
            return
        incumbent = self._living.get(change.name)
        if incumbent is not None:
            self._conflict(_taken(incumbent, change.owner))
            return
        tombstone = self._tombstones.get((change.name, change.owner))
        if tombstone is not None:
            self._update(tombstone, change.desired, Event.TOOL_RESTORED)
        elif change.restore:
            self._conflict(f"There is no deleted tool {change.name!r} of {change.owner} to bring back.")
        else:
            self._insert(change.desired)

    def _expected(
        self, name: str, owner: str, version: int | None, generation: int | None = None, *, any_version: bool = False
    ) -> ToolRow | None:
        """The living row that a change speaks of; None, with a conflict noted, where it is not as expected."""
        row = self._living.get(name)
        if row is None:
            self._conflict(f"There is no tool {name!r} (any more).")
        elif row.owner != owner:
            self._conflict(_taken(row, owner))
        elif not any_version and row.version != version:
            self._conflict(
                f"The tool {name!r} is at version {row.version} by now; the change was made for version {version}. "
                "Read it again."
            )
        elif generation is not None and row.generation != generation:
            self._conflict(
                f"The tool {name!r} was changed in generation {row.generation}; the change was made for what "
                f"generation {generation} left. Read it again."
            )
        else:
            return row
        return None

    def _insert(self, desired: DesiredTool) -> None:
        row = ToolRow(
            id=str(uuid.uuid4()),
            name=desired.name,
            owner=desired.owner,
            version=1,
            generation=self._generation,
            created_at=self._now,
            updated_at=self._now,
            **_wanted(desired),
        )
        self.writes.inserted.append(row)
        self._new_version(row, desired)
        self._record(
            Event.TOOL_CREATED,
            row,
            changed={"group_name": [None, row.group_name], "permissions": [None, row.permissions]},
        )

    def _update(self, row: ToolRow, desired: DesiredTool, event: Event) -> None:
        version = row.version + (row.digest != desired.revision.digest)
        wanted = msgspec.structs.replace(row, **_wanted(desired), version=version, deleted_at=None)
        if wanted == row:
            self.writes.result[row.name] = row.version
            return
        after = msgspec.structs.replace(wanted, generation=self._generation, updated_at=self._now)
        self.writes.updated.append((row, after))
        if version != row.version:
            self._new_version(after, desired)
        self.writes.result[row.name] = version
        self._record(event, after, changed=_difference(row, after))

    def _new_version(self, row: ToolRow, desired: DesiredTool) -> None:
        self.writes.revisions.append(desired.revision)
        self.writes.result[row.name] = row.version
        author = row.author or self._caller.subject
        self.writes.versions.append(
            VersionRow(
                tool_id=row.id, version=row.version, digest=row.digest, commit=row.commit, author=author, at=self._now
            )
        )

    def _conflict(self, message: str) -> None:
        self.writes.conflicts.append(message)

    def _record(
        self, event: Event, row: ToolRow, *, changed: dict[str, Any] | None = None, error: str | None = None
    ) -> None:
        self.writes.recorded.append(
            Recorded(
                event=event,
                tool=row.name,
                digest=row.digest,
                version=row.version,
                commit=row.commit,
                path=row.path,
                owner=row.owner,
                arguments={"changed": changed} if changed else None,
                error=error,
            )
        )


def _wanted(desired: DesiredTool) -> dict[str, Any]:
    """The fields of a row that a desired tool sets."""
    return {
        "group_name": desired.group,
        "permissions": desired.permissions,
        "digest": desired.revision.digest,
        "status": ToolStatus.SYNCED,
        "problem": None,
        **msgspec.structs.asdict(desired.provenance),
    }


def _difference(before: ToolRow, after: ToolRow) -> dict[str, Any]:
    """What changed of the fields that people ask about, as [from, to]."""
    pairs = ((field, getattr(before, field), getattr(after, field)) for field in _SHOWN)
    return {field: [old, new] for field, old, new in pairs if old != new}


def _taken(row: ToolRow, owner: str) -> str:
    """Why ``owner`` may not change a tool, with where it is declared, so that one knows where to change it."""
    if row.owner == owner:
        return f"There is a tool {row.name!r} already, at version {row.version}."
    place = f", declared in {row.path}" if row.path else ""
    commit = f" at commit {row.commit}" if row.commit else ""
    return f"The tool {row.name!r} belongs to {row.owner}{place}{commit}; {owner} cannot change it."
