"""YAML and Python text → declared tools, groups and the policy, or every problem with file, line and advice.

Pure: it reads no file and runs no code. A `Reader` remembers what each text said, so that after a change only
the changed files, and the tools made of them, are looked at again.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TypeVar

import msgspec

from portoser.catalog.errors import Problem, Severity
from portoser.catalog.group import Group
from portoser.catalog.policy import Policy
from portoser.catalog.tool import GIT
from sync.documents import Document, GroupDocument, ManifestFile, PolicyDocument, ToolDocument, read_manifest
from sync.grants import ungranted
from sync.linking import DeclaredTool, Folder, Linked, link_tool, placed
from sync.located import did_you_mean
from sync.rest import from_rest
from sync.texts import CodeFile, read_code, read_text

__all__ = ["DeclaredTool", "Reader", "Reading", "from_rest", "is_read", "placed", "read"]

_Single = TypeVar("_Single", GroupDocument, PolicyDocument)

READER_FORM = 3
"""Grows when the same text comes to mean something else, so that what was applied is read again."""

_MANIFESTS = (".yaml", ".yml")
_GROUP_FILES = ("group.yaml", "group.yml")
_POLICY_FILES = ("policy.yaml", "policy.yml")
_SHOWN_PLACES = 3


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What a source declares, and everything that is wrong with it.

    ``tools`` are whole and sorted by name. ``invalid`` are the tools whose names are known but that cannot be
    taken. One of ``broken_paths`` may declare more than could be read: what is registered from it, or below it, stays.
    ``broken_groups`` are names of groups whose declaration is wrong. ``policy`` is None where none is declared, and
    also where ``policy_is_unknown``: it is wrong, or may stand in a file that could not be read. ``wrong_policies``
    are the paths of those that are wrong, or one too many.
    """

    tools: tuple[DeclaredTool, ...] = ()
    groups: tuple[Group, ...] = ()
    policy: Policy | None = None
    policy_path: str | None = None
    policy_is_unknown: bool = False
    wrong_policies: tuple[str, ...] = ()
    invalid: Mapping[str, tuple[Problem, ...]] = {}
    broken_paths: Mapping[str, Problem] = {}
    broken_groups: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that hold something back."""
        return tuple(problem for problem in self.problems if problem.is_error)


def is_read(path: str) -> bool:
    """Whether a file of this name can be part of a declaration."""
    return path.endswith((".py", *_MANIFESTS))


def read(
    files: Mapping[str, bytes],
    *,
    source: str = "main",
    is_authority: bool = True,
    refused: Mapping[str, Problem] | None = None,
) -> Reading:
    """Read a whole source at once; see `Reader.read`."""
    return Reader(source, is_authority=is_authority).read(files, refused)


class Reader:
    """Reads a source again and again. ``is_authority`` says whether it may declare the policy.

    Not for several threads at once.
    """

    def __init__(self, source: str, *, is_authority: bool = True) -> None:
        self.owner = GIT + source
        self._is_authority = is_authority
        self._files: Mapping[str, bytes] = {}
        self._refused: Mapping[str, Problem] = {}
        self._manifests: dict[str, ManifestFile] = {}
        self._order: list[str] | None = None
        self._code: dict[str, CodeFile] = {}
        self._links: dict[tuple[str, int], Linked] = {}
        self._dependents: defaultdict[str, set[tuple[str, int]]] = defaultdict(set)
        self._group_of: dict[str, str | Problem] = {}
        self._beside: defaultdict[str, list[str]] | None = None
        self._last: Reading | None = None

    def read(self, files: Mapping[str, bytes], refused: Mapping[str, Problem] | None = None) -> Reading:
        """Everything that the files declare.

        ``files`` maps paths relative to the source's folder, with '/', to contents; ``refused`` maps paths of
        what is there but cannot be read (a symlink that leaves the folder, a submodule, …) to the reason, a
        folder's path standing for all that is in it.
        """
        refused = refused or {}
        changed = self._changed(files, refused)
        if self._last is not None and not changed:
            return self._last
        self._forget(changed)
        self._files, self._refused, self._beside = files, refused, None
        for path, content in files.items():
            if path not in self._manifests and path.endswith(_MANIFESTS):
                self._manifests[path] = self._read_manifest(path, content)
                self._order = None
        if self._order is None:
            self._order = sorted(self._manifests)
        self._regroup()
        self._last = self._assembled()
        return self._last

    def _changed(self, files: Mapping[str, bytes], refused: Mapping[str, Problem]) -> set[str]:
        old = self._files
        changed = {path for path, content in files.items() if old.get(path) is not content and old.get(path) != content}
        if len(files) - len(changed) < len(old):
            changed.update(old.keys() - files.keys())
        changed.update(path for path in refused.keys() | self._refused if refused.get(path) != self._refused.get(path))
        return changed

    def _forget(self, paths: Iterable[str]) -> None:
        for path in paths:
            self._code.pop(path, None)
            manifest = self._manifests.pop(path, None)
            if manifest is not None:
                self._order = None
                for at in range(len(manifest.documents)):
                    self._links.pop((path, at), None)
            for key in self._dependents.pop(path, ()):
                self._links.pop(key, None)

    def _read_manifest(self, path: str, content: bytes) -> ManifestFile:
        text = read_text(content, path)
        if isinstance(text, Problem):
            return ManifestFile(path, (), (text,), is_whole=False)
        return read_manifest(text, path, owner=self.owner)

    def _code_at(self, path: str) -> CodeFile | None:
        known = self._code.get(path)
        if known is None and path in self._files:
            known = self._code[path] = read_code(self._files[path], path)
        return known

    def _names_beside(self, path: str) -> list[str]:
        if self._beside is None:
            self._beside = defaultdict(list)
            for name in self._files:
                if name.endswith(".py"):
                    folder, _, stem = name.rpartition("/")
                    self._beside[folder].append(stem)
        return self._beside.get(path.rpartition("/")[0], [])

    def _regroup(self) -> None:
        group_of: dict[str, str | Problem] = {}
        for path in self._order or ():
            if path.endswith(_GROUP_FILES) and PurePosixPath(path).name in _GROUP_FILES:
                group = _folder_group(self._manifests[path])
                if group is not None:
                    group_of[str(PurePosixPath(path).parent)] = group
        for path, problem in self._refused.items():
            if PurePosixPath(path).name in _GROUP_FILES:
                group_of[str(PurePosixPath(path).parent)] = problem
        if group_of != self._group_of:
            self._group_of = group_of
            self._links.clear()
            self._dependents.clear()

    def _nearest_group(self, path: str) -> str | Problem | None:
        if not self._group_of:
            return None
        return next(
            (group for folder in PurePosixPath(path).parents if (group := self._group_of.get(str(folder))) is not None),
            None,
        )

    def _link(self, path: str, at: int, document: ToolDocument, folder: Folder) -> Linked:
        linked = self._links[path, at] = link_tool(document, folder, self._nearest_group(path))
        for needed in linked.needs:
            self._dependents[needed].add((path, at))
        return linked

    def _assembled(self) -> Reading:
        folder = Folder(self._code_at, self._refused, self._names_beside)
        problems: list[Problem] = list(self._refused.values())
        broken: dict[str, Problem] = dict(self._refused)
        tools: dict[str, Linked] = {}
        places: dict[str, list[ToolDocument]] = {}
        groups: list[GroupDocument] = []
        policies: list[PolicyDocument] = []
        for path in self._order or ():
            manifest = self._manifests[path]
            problems.extend(manifest.problems)
            for at, document in enumerate(manifest.documents):
                if isinstance(document, ToolDocument):
                    linked = self._links.get((path, at)) or self._link(path, at, document, folder)
                    problems.extend(linked.problems)
                    name = document.fields.name
                    if name is not None:
                        if name in tools:
                            places.setdefault(name, [tools[name].document]).append(document)
                        tools[name] = linked
                elif isinstance(document, GroupDocument):
                    groups.append(document)
                else:
                    policies.append(document)
            if not manifest.is_whole:
                broken[path] = _first_error(manifest)
        taken, invalid = _tools(tools, places, problems)
        declared_groups, broken_groups = _groups(groups, problems)
        if not broken:
            problems.extend(_undeclared_groups(tools, {document.name for document in groups}))
        policy = self._policy(policies, problems)
        in_force = policy.policy if policy is not None else Policy() if not policies and not broken else None
        if self._is_authority and in_force is not None:
            problems.extend(ungranted(tools, in_force, owner=self.owner))
        return Reading(
            tools=tuple(taken[name] for name in sorted(taken)),
            groups=declared_groups,
            policy=policy.policy if policy is not None else None,
            policy_path=policy.path if policy is not None else None,
            wrong_policies=self._wrong_policies(policies, policy, broken),
            policy_is_unknown=(policy is None or policy.policy is None) and bool(policies or broken),
            invalid=invalid,
            broken_paths=broken,
            broken_groups=broken_groups,
            problems=tuple(sorted(problems, key=_by_place)),
        )

    def _policy(self, documents: list[PolicyDocument], problems: list[Problem]) -> PolicyDocument | None:
        for document in documents:
            problems.extend(document.problems)
        if not self._is_authority:
            problems.extend(
                _at(document, "This source may not declare the policy.", "Declare it in the source with 'authority'.")
                for document in documents
            )
            return None
        return _only(documents, "policy", problems)

    def _wrong_policies(
        self, documents: list[PolicyDocument], policy: PolicyDocument | None, broken: Mapping[str, Problem]
    ) -> tuple[str, ...]:
        if not self._is_authority or (policy is not None and policy.policy is not None):
            return ()
        named = (path for path in broken if PurePosixPath(path).name in _POLICY_FILES)
        return tuple(sorted({*(document.path for document in documents), *named}))


def _folder_group(manifest: ManifestFile) -> str | Problem | None:
    for document in manifest.documents:
        if isinstance(document, GroupDocument):
            return document.name if document.name is not None else document.problems[0]
    if not manifest.is_whole:
        return manifest.problems[0]
    return None


def _first_error(manifest: ManifestFile) -> Problem:
    if manifest.problems:
        return manifest.problems[0]
    return next(
        problem
        for document in manifest.documents
        if not isinstance(document, PolicyDocument)
        for problem in document.problems
        if problem.is_error
    )


def _tools(
    tools: Mapping[str, Linked], places: Mapping[str, list[ToolDocument]], problems: list[Problem]
) -> tuple[dict[str, DeclaredTool], dict[str, tuple[Problem, ...]]]:
    """The tools that are sound, and the others with their errors. ``places`` are those of names in use twice."""
    taken: dict[str, DeclaredTool] = {}
    invalid: dict[str, tuple[Problem, ...]] = {}
    for name, linked in tools.items():
        if name in places:
            twice = _declared_twice(places[name], f"The name {name!r}", name)
            problems.extend(twice)
            invalid[name] = twice
        elif linked.tool is not None:
            taken[name] = linked.tool
        else:
            invalid[name] = tuple(problem for problem in linked.problems if problem.is_error)
    return taken, invalid


def _groups(documents: list[GroupDocument], problems: list[Problem]) -> tuple[tuple[Group, ...], frozenset[str]]:
    by_name: dict[str, list[GroupDocument]] = {}
    for document in documents:
        problems.extend(document.problems)
        if document.name is not None:
            by_name.setdefault(document.name, []).append(document)
    taken: list[Group] = []
    broken: set[str] = set()
    for name, same in sorted(by_name.items()):
        only = _only(same, f"group {name!r}", problems)
        if only is not None and only.group is not None:
            taken.append(only.group)
        else:
            broken.add(name)
    return tuple(taken), frozenset(broken)


def _undeclared_groups(tools: Mapping[str, Linked], groups: Collection[str | None]) -> Iterator[Problem]:
    """A warning at each ``group:`` that names none of the groups."""
    for name, linked in tools.items():
        group, node = linked.document.fields.group, linked.document.fields.group_place
        if group is not None and node is not None and group not in groups:
            yield Problem(
                path=node.path,
                line=node.line,
                column=node.column,
                message=f"No group.yaml declares the group {group!r}, so it is on and gives no permissions.",
                advice=did_you_mean(group, (known for known in groups if known is not None)),
                tool=name,
                severity=Severity.WARNING,
            )


def _only(documents: list[_Single], what: str, problems: list[Problem]) -> _Single | None:
    """The one document there may be; None where there is none or, told at each, more than one."""
    if len(documents) == 1:
        return documents[0]
    problems.extend(_declared_twice(documents, f"The {what}"))
    return None


def _declared_twice(places: Sequence[Document], what: str, tool: str | None = None) -> tuple[Problem, ...]:
    told: list[Problem] = []
    for document in places:
        others = [other for other in places[: _SHOWN_PLACES + 1] if other is not document][:_SHOWN_PLACES]
        shown = ", ".join(f"{other.path}:{other.place.line}" for other in others)
        more = len(places) - 1 - len(others)
        where = f"{shown} and {more} other places" if more else shown
        message = f"{what} is declared more than once; also in {where}."
        told.append(_at(document, message, "Keep one of them.", tool))
    return tuple(told)


def _at(document: Document, message: str, advice: str, tool: str | None = None) -> Problem:
    place = document.place
    return Problem(path=document.path, line=place.line, column=place.column, message=message, advice=advice, tool=tool)


def _by_place(problem: Problem) -> tuple[str, int, int, str]:
    return (problem.path, problem.line, problem.column, problem.message)
