"""Desired state against registered state → the plan that makes them equal. Pure and deterministic.

A source changes only what it owns. What cannot be taken keeps its last good revision: a tool that is invalid, or
that stands in a file which could not be read, is marked and never deleted.
"""

import hashlib
from collections.abc import Iterable

import msgspec

from portoser.catalog.change import Change, DeleteGroup, DeleteTool, MarkTool, PutGroup, PutPolicy, PutTool
from portoser.catalog.errors import Problem
from portoser.catalog.group import Group
from portoser.catalog.policy import Policy
from portoser.catalog.tool import REST, DesiredTool, RegisteredTool, ToolStatus
from sync.impact import access_impact, effective_permissions, schema_impact
from sync.planned import Desired, Op, Plan, PlannedChange, Registered, WantedTool, hidden_by

__all__ = ["Desired", "Op", "Plan", "PlannedChange", "Registered", "WantedTool", "hidden_by", "make_plan", "told"]


def make_plan(desired: Desired, registered: Registered) -> Plan:
    """Compare a source with the registry."""
    planner = _Planner(desired, registered)
    planner.plan_tools()
    planner.plan_groups()
    planner.plan_policy()
    changes = tuple(sorted(planner.with_renames(), key=_order))
    return Plan(
        plan_id=_plan_id(changes),
        owner=desired.owner,
        base=registered.commit,
        target=desired.commit,
        generation=registered.generation,
        changes=changes,
        unchanged=planner.unchanged,
        owned=sum(tool.owner == desired.owner for tool in registered.tools.values()),
        declared=len(desired.tools) + len(desired.waiting) + len(desired.invalid) + len(desired.broken_paths),
        errors=tuple(planner.errors),
    )


class _Planner:
    def __init__(self, desired: Desired, registered: Registered) -> None:
        self._desired = desired
        self._registered = registered
        self._owner = desired.owner
        self._groups = {group.name: group for group in desired.groups}
        self.changes: list[PlannedChange] = []
        self.errors: list[Problem] = []
        self.unchanged = 0

    # Tools ---------------------------------------------------------------------------------------------------

    def plan_tools(self) -> None:
        declared: set[str] = {*self._desired.invalid, *self._desired.waiting}
        self.unchanged += len(self._desired.waiting & self._registered.tools.keys())
        for wanted in self._desired.tools:
            declared.add(wanted.desired.name)
            self._plan_tool(wanted)
        for name, problems in self._desired.invalid.items():
            tool = self._registered.tools.get(name)
            if tool is not None and tool.owner == self._owner:
                self._mark(tool, ToolStatus.INVALID, Op.INVALID, self._told(problems))
        for name, tool in self._registered.tools.items():
            if tool.owner == self._owner and name not in declared:
                self._plan_gone(tool)
            elif tool.status is ToolStatus.CONFLICT and tool.owner != self._owner and name not in declared:
                self._plan_conflict_over(tool)

    def _plan_tool(self, wanted: WantedTool) -> None:
        desired = wanted.desired
        tool = self._registered.tools.get(desired.name)
        if self._waits_for_group(wanted, tool):
            return
        if tool is None:
            restore = desired.name in self._registered.tombstones
            change = PutTool(desired=desired, restore=restore)
            self._put(Op.RESTORE if restore else Op.CREATE, wanted, None, (), (change,))
        elif tool.owner != self._owner:
            self._plan_taken(wanted, tool)
        else:
            fields = differing_fields(tool, desired)
            if fields:
                put = PutTool(desired=_settled(desired, tool, fields), expected_version=tool.version)
                self._put(Op.UPDATE, wanted, tool, fields, (put,))
            elif tool.status in {ToolStatus.INVALID, ToolStatus.CONFLICT, ToolStatus.OUT_OF_SYNC}:
                self._mark(tool, ToolStatus.SYNCED, Op.RECOVER, None, line=wanted.line)
            else:
                self.unchanged += 1

    def _waits_for_group(self, wanted: WantedTool, tool: RegisteredTool | None) -> bool:
        """Whether a tool waits because its group's declaration is wrong and no older one says who may call it."""
        desired = wanted.desired
        group = desired.group
        if group is None or group not in self._desired.broken_groups:
            return False
        standing = self._registered.groups.get(group)
        if standing is not None and standing.declared is not None:
            return False
        path = desired.provenance.path or ""
        problem = Problem(
            path=path,
            line=wanted.line,
            column=1,
            message=f"The declaration of its group {group!r} is wrong, so nobody knows who may call the tool.",
            advice="Put the group right.",
            tool=desired.name,
        )
        self.errors.append(problem)
        if tool is not None and tool.owner == self._owner:
            self._mark(tool, ToolStatus.INVALID, Op.INVALID, self._told((problem,)))
        return True

    def _plan_taken(self, wanted: WantedTool, tool: RegisteredTool) -> None:
        """The name is another owner's."""
        desired = wanted.desired
        if wanted.adopt and tool.owner.startswith(REST):
            delete = DeleteTool(name=tool.name, owner=tool.owner, expected_version=tool.version)
            restore = desired.name in self._registered.tombstones
            self._put(Op.ADOPT, wanted, tool, (), (delete, PutTool(desired=desired, restore=restore)))
            return
        path = desired.provenance.path
        is_rest = tool.owner.startswith(REST)
        self.errors.append(
            Problem(
                path=path or "",
                line=wanted.line,
                column=1,
                message=f"The name {tool.name!r} belongs to {tool.owner}, which goes on serving it.",
                advice="Delete that tool, write 'adopt: true' here, or choose another name."
                if is_rest
                else "Choose another name, or take it out of the other source.",
                tool=tool.name,
            )
        )
        text = f"{self._owner} declares it too, in {path}:{wanted.line}."
        if tool.status is not ToolStatus.CONFLICT or tool.problem != text:
            self._mark(tool, ToolStatus.CONFLICT, Op.CONFLICT, text, line=wanted.line, path=path)

    def _plan_conflict_over(self, tool: RegisteredTool) -> None:
        if (tool.problem or "").startswith(f"{self._owner} declares"):
            self._mark(tool, ToolStatus.SYNCED, Op.RECOVER, None)

    def _plan_gone(self, tool: RegisteredTool) -> None:
        hidden = hidden_by(tool.provenance.path, self._desired.broken_paths)
        if hidden is not None:
            self._mark(tool, ToolStatus.INVALID, Op.INVALID, self._told((hidden,)))
            return
        self.changes.append(
            PlannedChange(
                op=Op.DELETE,
                kind="tool",
                name=tool.name,
                owner=self._owner,
                path=tool.provenance.path,
                schema_impact=("the tool is gone",),
                access_impact=access_impact(self._before(tool), ()),
                changes=(DeleteTool(name=tool.name, owner=self._owner, expected_version=tool.version),),
            )
        )

    def _put(
        self,
        op: Op,
        wanted: WantedTool,
        tool: RegisteredTool | None,
        fields: tuple[str, ...],
        changes: tuple[Change, ...],
    ) -> None:
        desired = wanted.desired
        self.changes.append(
            PlannedChange(
                op=op,
                kind="tool",
                name=desired.name,
                owner=self._owner,
                path=desired.provenance.path,
                line=wanted.line,
                fields=fields,
                schema_impact=schema_impact(tool.revision, desired.revision) if tool is not None else (),
                access_impact=access_impact(self._before(tool), self._after(desired)),
                changes=changes,
            )
        )

    def _mark(
        self,
        tool: RegisteredTool,
        status: ToolStatus,
        op: Op,
        message: str | None,
        *,
        line: int = 0,
        path: str | None = None,
    ) -> None:
        if (tool.status, tool.problem) == (status, message):
            self.unchanged += 1
            return
        self.changes.append(
            PlannedChange(
                op=op,
                kind="tool",
                name=tool.name,
                owner=tool.owner,
                path=path or tool.provenance.path,
                line=line,
                message=message,
                changes=(MarkTool(name=tool.name, owner=tool.owner, status=status, problem=message),),
            )
        )

    def _told(self, problems: tuple[Problem, ...]) -> str:
        """Problems as the text that a marked tool carries, with the commit that they are in."""
        commit = self._desired.commits.get(problems[0].path) if problems else None
        return told(problems, commit)

    def _before(self, tool: RegisteredTool | None) -> tuple[str, ...]:
        if tool is None:
            return ()
        group = self._registered.groups.get(tool.group) if tool.group is not None else None
        return effective_permissions(tool.permissions, group)

    def _after(self, desired: DesiredTool) -> tuple[str, ...]:
        name = desired.group
        group = None if name is None else self._groups.get(name) or self._registered.groups.get(name)
        return effective_permissions(desired.permissions, group)

    def with_renames(self) -> list[PlannedChange]:
        """The changes, where each new tool names the deleted one of equal revision that it takes the place of."""
        gone: dict[str, list[str]] = {}
        for change in sorted(self.changes, key=_order, reverse=True):
            if change.kind == "tool" and change.op is Op.DELETE:
                gone.setdefault(self._registered.tools[change.name].digest, []).append(change.name)
        if not gone:
            return self.changes
        named: list[PlannedChange] = []
        for change in sorted(self.changes, key=_order):
            put = change.changes[-1]
            if change.op in {Op.CREATE, Op.RESTORE} and isinstance(put, PutTool):
                same = gone.get(put.desired.revision.digest)
                if same:
                    change = msgspec.structs.replace(change, renamed_from=same.pop())  # noqa: PLW2901
            named.append(change)
        return named

    # Groups and the policy -----------------------------------------------------------------------------------

    def plan_groups(self) -> None:
        for group in self._desired.groups:
            self._plan_group(group)
        for name, standing in self._registered.groups.items():
            declared = standing.declared
            if (
                declared is None
                or declared.owner != self._owner
                or name in self._groups
                or name in self._desired.broken_groups
                or hidden_by(declared.path, self._desired.broken_paths) is not None
            ):
                continue
            self.changes.append(
                PlannedChange(
                    op=Op.DELETE,
                    kind="group",
                    name=name,
                    owner=self._owner,
                    path=declared.path,
                    access_impact=access_impact(declared.permissions, ()),
                    changes=(DeleteGroup(name=name, owner=self._owner),),
                )
            )

    def _plan_group(self, group: Group) -> None:
        standing = self._registered.groups.get(group.name)
        before = standing.declared if standing is not None else None
        if before is not None and before.owner != self._owner:
            self.errors.append(
                Problem(
                    path=group.path or "",
                    line=1,
                    column=1,
                    message=f"The group {group.name!r} belongs to {before.owner}.",
                    advice="Choose another name, or take it out of the other source.",
                )
            )
            return
        if before == group:
            return
        names = ("enabled", "permissions", "description", "path")
        fields = tuple(name for name in names if before is None or getattr(before, name) != getattr(group, name))
        self.changes.append(
            PlannedChange(
                op=Op.CREATE if before is None else Op.UPDATE,
                kind="group",
                name=group.name,
                owner=self._owner,
                path=group.path,
                fields=() if before is None else fields,
                access_impact=access_impact(before.permissions if before is not None else (), group.permissions),
                changes=(PutGroup(group=group),),
            )
        )

    def plan_policy(self) -> None:
        if self._desired.policy_is_unknown:
            return
        policy, holder = self._desired.policy, self._registered.policy_owner
        if policy is not None and holder not in {None, self._owner}:
            message = f"The policy belongs to {holder}."
            advice = "Take it out of one of the two sources."
            where = self._desired.policy_path or ""
            self.errors.append(Problem(path=where, line=1, column=1, message=message, advice=advice))
            return
        if policy is None and (holder != self._owner or self._registered.policy == Policy()):
            return
        if policy is not None and holder == self._owner and policy == self._registered.policy:
            return
        old, new = self._registered.policy, policy or Policy()
        fields = tuple(name for name in ("roles", "clients", "powers") if getattr(old, name) != getattr(new, name))
        op = Op.DELETE if policy is None else Op.CREATE if holder is None else Op.UPDATE
        path = self._desired.policy_path
        self.changes.append(
            PlannedChange(
                op=op,
                kind="policy",
                name="policy",
                owner=self._owner,
                path=path,
                fields=fields,
                changes=(PutPolicy(policy=new, owner=self._owner, path=path),),
            )
        )


_FIELDS = {
    "entrypoint": "entrypoint",
    "description": "description",
    "input_schema": "inputSchema",
    "output_schema": "outputSchema",
    "annotations": "annotations",
    "limits": "limits",
    "isolation": "isolation",
    "confirm": "confirm",
    "uses": "uses",
    "requires": "requires",
    "lock": "packages",
    "redact": "redact",
    "examples": "examples",
}


def differing_fields(tool: RegisteredTool, desired: DesiredTool) -> tuple[str, ...]:
    """What of a tool differs from what is wanted, in the manifest's words; empty where nothing does."""
    fields: list[str] = []
    if tool.revision.digest != desired.revision.digest:
        # A snapshot holds no code, so code is what differs where nothing else does.
        fields = [
            word for name, word in _FIELDS.items() if getattr(tool.revision, name) != getattr(desired.revision, name)
        ] or ["code"]
    if tool.group != desired.group:
        fields.append("group")
    if tool.permissions != desired.permissions:
        fields.append("permissions")
    old, new = tool.provenance, desired.provenance
    if (old.source, old.path, old.commit, old.author) != (new.source, new.path, new.commit, new.author):
        fields.append("provenance")
    return tuple(fields)


def _settled(desired: DesiredTool, tool: RegisteredTool, fields: tuple[str, ...]) -> DesiredTool:
    """The tool to put. Where only its provenance is refreshed, it was brought in by an earlier run."""
    if fields != ("provenance",):
        return desired
    provenance = msgspec.structs.replace(desired.provenance, applied_commit=tool.provenance.applied_commit)
    return msgspec.structs.replace(desired, provenance=provenance)


def told(problems: Iterable[Problem], commit: str | None = None) -> str:
    """Problems as the text that a marked tool carries; ``commit`` is the one that they are in."""
    text = "\n".join(str(problem) for problem in problems)[:4000]
    if commit is None:
        return text
    sha, dirty, _ = commit.partition("+dirty")
    return f"{text}\nIn commit {sha[:12]}{', with changes that are not committed' if dirty else ''}."


_KINDS = {"group": 0, "policy": 1, "tool": 2}


def _order(change: PlannedChange) -> tuple[int, str, str]:
    return (_KINDS[change.kind], change.name, change.op.value)


def _plan_id(changes: tuple[PlannedChange, ...]) -> str:
    """Equal plans have equal ids, so that an approval holds for what was read and for nothing else."""
    digest = hashlib.sha256()
    for planned in changes:
        for change in planned.changes:
            told: tuple[object, ...]
            if isinstance(change, PutTool):
                desired = change.desired
                told = (desired.revision.digest, desired.group, desired.permissions, change.expected_version)
            else:
                told = (msgspec.json.encode(change, order="sorted").decode(),)
            digest.update(repr((planned.op.value, planned.kind, planned.name, planned.owner, *told)).encode())
    return digest.hexdigest()[:16]
