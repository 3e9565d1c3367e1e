"""What a source wants, what the registry holds, and the plan between them: the values. Pure."""

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from pathlib import PurePosixPath

import msgspec

from portoser.catalog.change import Change
from portoser.catalog.errors import Problem
from portoser.catalog.group import Group, RegisteredGroup
from portoser.catalog.policy import Policy
from portoser.catalog.tool import DesiredTool, RegisteredTool
from sync.impact import AccessImpact


class Op(StrEnum):
    """What a planned change does."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    RESTORE = "restore"
    """A tombstone comes back, with its id and history."""
    ADOPT = "adopt"
    """A REST tool is handed to the source, by ``adopt: true``."""
    INVALID = "invalid"
    """The newest declaration cannot be taken; the last good revision stays."""
    CONFLICT = "conflict"
    """Another owner has the name; theirs stays."""
    RECOVER = "recover"
    """It is as declared again, after having been invalid or in conflict."""


SERVING_OPS = frozenset({Op.CREATE, Op.UPDATE, Op.DELETE, Op.RESTORE, Op.ADOPT})
"""The operations that change what is served, or its provenance; the others only say how a tool stands."""


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """Why a plan is not applied without somebody's approval."""

    reason: str
    message: str
    advice: str


def hidden_by(path: str | None, broken_paths: Mapping[str, Problem]) -> Problem | None:
    """Why a path may declare more than could be read (it, or a folder above it), or None where it is known whole."""
    if path is None or not broken_paths:
        return None
    above = (path, *(str(folder) for folder in PurePosixPath(path).parents))
    return next((broken_paths[place] for place in above if place in broken_paths), None)


class WantedTool(msgspec.Struct, frozen=True, kw_only=True):
    """An admitted tool of the source, with what only the plan needs to know."""

    desired: DesiredTool
    line: int = 0
    adopt: bool = False


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """What a source wants. ``commit`` is what was read. See `sync.manifest.Reading` for the words of trouble."""

    owner: str
    commit: str | None = None
    tools: tuple[WantedTool, ...] = ()
    invalid: Mapping[str, tuple[Problem, ...]] = {}
    broken_paths: Mapping[str, Problem] = {}
    groups: tuple[Group, ...] = ()
    broken_groups: frozenset[str] = frozenset()
    policy: Policy | None = None
    policy_path: str | None = None
    policy_is_unknown: bool = False
    wrong_policies: tuple[str, ...] = ()
    """Where a policy is declared that is wrong, or not the only one."""
    commits: Mapping[str, str] = {}
    """The commits of the files in which something is wrong, by path."""
    waiting: frozenset[str] = frozenset()
    """The tools that are declared and go on as they are registered for now; see `sync.settling`.

    What a tool requires may be on its way, too.
    """


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """What the registry holds: living tools of every owner, by name. ``tombstones`` are the source's own."""

    generation: int = 0
    commit: str | None = None
    """The commit that was applied last."""
    tools: Mapping[str, RegisteredTool] = {}
    groups: Mapping[str, RegisteredGroup] = {}
    policy: Policy = Policy()
    policy_owner: str | None = None
    policy_path: str | None = None
    tombstones: frozenset[str] = frozenset()


class PlannedChange(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a plan. ``changes`` are what the registry is asked to do for it."""

    op: Op
    kind: str
    name: str
    owner: str
    path: str | None = None
    line: int = 0
    fields: tuple[str, ...] = ()
    """What differs, in the manifest's words."""
    renamed_from: str | None = None
    message: str | None = None
    schema_impact: tuple[str, ...] = ()
    access_impact: AccessImpact = AccessImpact()
    changes: tuple[Change, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The ordered changes that make the registry equal to a source.

    ``base`` and ``target`` are commits; ``owned`` counts the source's living tools and ``declared`` what it declares,
    sound or not. ``errors`` are what holds something back, conflicts included.
    """

    plan_id: str
    owner: str
    base: str | None
    target: str | None
    generation: int
    changes: tuple[PlannedChange, ...]
    unchanged: int
    owned: int
    declared: int
    errors: tuple[Problem, ...] = ()
    guards: tuple[Guard, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to apply."""
        return not self.changes

    @property
    def summary(self) -> dict[str, int]:
        """How many of each operation, by its word, and ``unchanged``."""
        counts = Counter(change.op.value for change in self.changes)
        return {**{op.value: counts[op.value] for op in Op if counts[op.value]}, "unchanged": self.unchanged}

    @property
    def pruned(self) -> tuple[str, ...]:
        """The tools that would be deleted, those aside that only get another name."""
        renamed = {change.renamed_from for change in self.changes}
        return tuple(
            change.name
            for change in self.changes
            if change.kind == "tool" and change.op is Op.DELETE and change.name not in renamed
        )

    def to_apply(self) -> list[Change]:
        """What the registry is asked to do."""
        return [change for planned in self.changes for change in planned.changes]
