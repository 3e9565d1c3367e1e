"""A folder of tools that can be called: checked and admitted as a server would, and called by the path of every call.

What a server keeps in Postgres is kept in memory: the registered tools are those of the last check, and what the audit
log would be told is told to nobody. Groups that are switched off are on here, because their tools are being made.
"""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from portoser.admission import Admission, Progress, Seen
from portoser.audit.entry import Entry
from portoser.authoring.checking import SOURCE, Checked, Checker
from portoser.catalog.caller import Caller
from portoser.catalog.errors import NotFound, Problem
from portoser.catalog.group import RegisteredGroup
from portoser.catalog.policy import Policy
from portoser.catalog.revision import Revision, SourceFile
from portoser.catalog.tool import GIT, Provenance, RegisteredTool
from portoser.invocation import CallResult, Invocation
from portoser.invocation.asks import Later
from portoser.invocation.nonces import OwnNonces
from portoser.powers import room
from portoser.powers.host import Powers
from portoser.registry.access import Access
from portoser.registry.snapshot import EMPTY, ServedTool, Snapshot
from portoser.runtime.environments.environments import Environments
from portoser.runtime.runtime import Runtime
from portoser.runtime.types import Events
from sync.manifest import DeclaredTool, Reading

NO_ANSWERS = Later()


class Workshop:
    """The tools of a folder. Without a ``runtime`` they are read only: nothing is imported, and nothing can be called.

    ``environments`` have what tools require. ``registry`` is the file that the registry power reads; ``admin_groups``
    are admins whatever the policy says.
    """

    def __init__(
        self,
        folder: Path,
        runtime: Runtime | None,
        *,
        registry: Path,
        environments: Environments | None = None,
        admin_groups: frozenset[str] = frozenset(),
    ) -> None:
        admission = Admission(None, runtime, environments=environments) if runtime is not None else None
        self._checker = Checker(folder, admission)
        self._shelf = _Shelf()
        self._access = Access(admin_groups)
        self._invocation = None
        if runtime is not None:
            powers = Powers(room.powers(registry=registry))
            self._invocation = Invocation(
                self._shelf, self._access, self._shelf, runtime, powers, _Unrecorded(), OwnNonces()
            )
        self.checked: Checked | None = None

    @property
    def snapshot(self) -> Snapshot:
        """The tools that can be called, as the last check found them."""
        return self._shelf.snapshot

    def watch(self) -> AsyncIterator[None]:
        """Yields whenever the folder may have changed."""
        return self._checker.watch()

    async def check(self, *, progress: Progress | None = None) -> Checked:
        """Read the folder and admit what is new in it; from now on that is called.

        Raises:
            SourceUnreadable: the folder is missing or cannot be read.
            Unavailable: the runtime is away.
        """
        self.checked = await self._checker.check(progress=progress)
        self._shelf.put(self.checked.reading, self.checked.described)
        return self.checked

    def declared(self, name: str) -> DeclaredTool | None:
        """The declaration of a tool whose text is sound, or None."""
        tools = self.checked.reading.tools if self.checked is not None else ()
        return next((tool for tool in tools if tool.name == name), None)

    def may(self, name: str, caller: Caller) -> bool:
        """Whether a server would let somebody call a tool, where auth is on."""
        return self._access.decide(self.snapshot, name, caller).allowed

    def problems_of(self, name: str) -> list[Problem]:
        """What keeps a tool from being called, or from being served."""
        if self.checked is None:
            return []
        return [*self.checked.reading.invalid.get(name, ()), *self.checked.refused.get(name, ())]

    async def run_again(self, tool: DeclaredTool) -> tuple[Seen, tuple[Problem, ...]]:
        """Import a tool and run its examples now, whatever is remembered of it; what is wrong with it."""
        return await self._checker.run_again(tool)

    async def call(
        self,
        name: str,
        arguments: dict[str, Any],
        caller: Caller,
        *,
        events: Events | None = None,
        confirmed: bool = False,
        answers: Later = NO_ANSWERS,
    ) -> CallResult | None:
        """Call a tool as a server would; None where nothing can be called here.

        ``answers`` answer what an earlier call asked.
        """
        if self._invocation is None:
            return None
        return await self._invocation.invoke(name, arguments, caller, events=events, confirmed=confirmed, asks=answers)


class _Shelf:
    """What is registered, and its code, in memory."""

    def __init__(self) -> None:
        self.snapshot: Snapshot = EMPTY
        self._files: Mapping[str, tuple[SourceFile, ...]] = {}

    def put(self, reading: Reading, revisions: Mapping[str, Revision]) -> None:
        now = datetime.now(UTC)
        groups = {group.name: RegisteredGroup(name=group.name, declared=group) for group in reading.groups}
        tools = {
            tool.name: _served(tool, revisions[tool.name], groups, now)
            for tool in reading.tools
            if tool.name in revisions
        }
        # Calls that run keep the code that they began with.
        self._files = {**self._files, **{revision.digest: revision.files for revision in revisions.values()}}
        self.snapshot = Snapshot(
            generation=self.snapshot.generation + 1,
            tools=MappingProxyType(tools),
            groups=MappingProxyType(groups),
            policy=reading.policy or Policy(),
        )

    async def files(self, digest: str) -> tuple[SourceFile, ...]:
        try:
            return self._files[digest]
        except KeyError:
            raise NotFound(f"No revision has the digest {digest}.") from None


class _Unrecorded:
    """Where no audit log is kept."""

    async def begin(self, entry: Entry) -> None:
        """Nothing is recorded."""

    async def finish(self, entry: Entry, *, had_intent: bool) -> None:
        """Nothing is recorded."""

    def note(self, entry: Entry, *, had_intent: bool = False) -> None:
        """Nothing is recorded."""


def _served(tool: DeclaredTool, revision: Revision, groups: Mapping[str, RegisteredGroup], now: datetime) -> ServedTool:
    permissions = tool.permissions
    if permissions is None:
        group = groups.get(tool.group or "")
        permissions = group.declared.permissions if group is not None and group.declared is not None else ()
    registered = RegisteredTool(
        id=tool.name,
        name=tool.name,
        owner=f"{GIT}{SOURCE}",
        revision=revision,
        version=1,
        group=tool.group,
        permissions=tool.permissions,
        provenance=Provenance(source=SOURCE, path=tool.path),
        generation=0,
        created_at=now,
        updated_at=now,
    )
    return ServedTool(
        registered=registered, permissions=permissions, enabled=True, listing_digest=revision.listing_digest()
    )
