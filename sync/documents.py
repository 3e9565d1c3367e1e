"""One YAML file → its documents: tools, groups and the policy, each with what is wrong in it.

A document is read from its own text alone; what it says of other files is checked when all files are known
(`sync.linking`). So a file's documents can be kept for as long as its text stays the same.
"""

from collections.abc import Set
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeAlias

from portoser.catalog import requirement
from portoser.catalog.errors import Problem
from portoser.catalog.group import Group
from portoser.catalog.network import METHODS
from portoser.catalog.policy import Policy, PowerRule, Role
from sync import fields
from sync.located import Node, Problems, did_you_mean, one_of
from sync.tool_fields import POWERS, TOOL_KEYS, ToolFields, group_name, places_among, tool_fields
from sync.yaml_text import read_documents

KINDS = ("Tool", "Group", "Policy")
GROUP_KEYS = ("name", "enabled", "permissions", "description")
POLICY_KEYS = ("roles", "clients", "powers")
GRANTS = (*POWERS, "requires")
"""What a rule of the policy may grant."""
RULE_KEYS = (*GRANTS, "actions", "owner", "tools", "private")


@dataclass(frozen=True, slots=True)
class Entrypoint:
    """What ``entrypoint:`` says. ``function`` is None where only the file is named."""

    file: str
    function: str | None
    node: Node


@dataclass(frozen=True, slots=True)
class ToolDocument:
    """A ``kind: Tool`` document. ``fields.name`` is None where the name cannot be known."""

    path: str
    place: Node
    fields: ToolFields
    files: tuple[tuple[str, Node], ...] | None
    entrypoint: Entrypoint | None
    problems: tuple[Problem, ...]
    has_errors: bool


@dataclass(frozen=True, slots=True)
class GroupDocument:
    """A ``kind: Group`` document. ``group`` is None where it is wrong; ``name`` then tells which one, if it can."""

    path: str
    place: Node
    name: str | None
    group: Group | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    """A ``kind: Policy`` document. ``policy`` is None where it is wrong."""

    path: str
    place: Node
    policy: Policy | None
    problems: tuple[Problem, ...]


Document: TypeAlias = ToolDocument | GroupDocument | PolicyDocument


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """What a YAML file declares. ``is_whole`` is False where it may declare more than could be read."""

    path: str
    documents: tuple[Document, ...]
    problems: tuple[Problem, ...]
    is_whole: bool


def read_manifest(text: str, path: str, *, owner: str) -> ManifestFile:
    """Read every document of a YAML file. ``owner`` is whose groups it declares."""
    read = read_documents(text, path)
    loose: list[Problem] = [] if read.broken is None else [read.broken]
    documents: list[Document] = []
    is_whole = read.broken is None
    for place, found in read.documents:
        problems = Problems()
        problems.found.extend(found)
        document = _document(problems, place, path, owner)
        if document is None:
            loose.extend(problems.found)
            is_whole = False
        else:
            documents.append(document)
            is_whole = is_whole and _is_named(document)
    if not documents and not loose:
        loose.append(
            Problem(
                path=path,
                line=1,
                column=1,
                message="This file declares nothing.",
                advice="Write 'kind: Tool', or delete the file; to take a tool back, delete its file.",
            )
        )
        is_whole = False
    return ManifestFile(path, tuple(documents), tuple(loose), is_whole)


def _is_named(document: Document) -> bool:
    if isinstance(document, ToolDocument):
        return document.fields.name is not None
    return isinstance(document, PolicyDocument) or document.name is not None


def _document(problems: Problems, place: Node, path: str, owner: str) -> Document | None:
    if not isinstance(place.value, dict):
        problems.error(place, f"A document must be a mapping, not {place.kind}.", "Write for example: kind: Tool")
        return None
    kind = place.value.get("kind")
    if kind is None:
        near = [key for key in place.value if did_you_mean(key, ("kind",))]
        problems.error(
            place,
            f"The document does not say what it is{f' ({near[0]!r} is not known)' if near else ''}.",
            f"Write 'kind: {one_of(KINDS)}' first.",
        )
        return None
    if kind.value == "Tool":
        return _tool(problems, place, path)
    if kind.value == "Group":
        return _group(problems, place, path, owner)
    if kind.value == "Policy":
        return _policy(problems, place, path)
    told = repr(kind.value) if isinstance(kind.value, str) else kind.kind
    advice = did_you_mean(str(kind.value), KINDS) or f"Write {one_of(KINDS)}."
    problems.error(kind, f"The kind {told} is not supported.", advice)
    return None


def default_tool_name(path: str) -> str:
    """The name of a tool whose manifest gives none: its path without the ending, '/' turned into '.'."""
    return str(PurePosixPath(path).with_suffix("")).replace("/", ".")


def _tool(problems: Problems, place: Node, path: str) -> ToolDocument:
    pairs = fields.mapping(problems, place, "", "", ("kind", *TOOL_KEYS))
    declared = tool_fields(problems, pairs, place=place, default_name=default_tool_name(path))
    files = fields.texts(problems, pairs.get("files"), "files", "files: [money.py, refund.py]")
    if files is not None and not files and isinstance(pairs["files"].value, list) and not pairs["files"].value:
        problems.error(pairs["files"], "'files' is empty.", "Leave it out, or name the tool's Python files.")
    entrypoint = read_entrypoint(problems, pairs.get("entrypoint"))
    return ToolDocument(path, place.bare(), declared, files, entrypoint, tuple(problems.found), problems.has_errors)


def read_entrypoint(problems: Problems, node: Node | None) -> Entrypoint | None:
    """``file.py:function`` or ``file.py``; None where there is none or it is wrong."""
    form = "entrypoint: refund.py:refund"
    text = fields.text(problems, node, "entrypoint", form)
    if text is None or node is None:
        return None
    file, colon, function = text.partition(":")
    if not file.endswith(".py") or (colon and not function.isidentifier()):
        problems.error(
            node, f"'entrypoint' is {text[:80]!r}, not '<file>.py:<function>'.", f"Write for example: {form}"
        )
        return None
    return Entrypoint(file, function or None, node)


def _group(problems: Problems, place: Node, path: str, owner: str) -> GroupDocument:
    pairs = fields.mapping(problems, place, "", "", ("kind", *GROUP_KEYS))
    folder = PurePosixPath(path).parent.name
    name = group_name(problems, pairs.get("name"), "name", "name: orders")
    if pairs.get("name") is None:
        name = folder or None
        named = Node(name, place.path, place.line, place.column)
        if name is None:
            problems.error(place, "A group at the top needs a name.", "Write for example: name: orders")
        else:
            name = group_name(problems, named, "name", "name: orders")
    enabled = fields.flag(problems, pairs.get("enabled"), "enabled")
    permissions = fields.words(problems, pairs.get("permissions"), "permissions", "permissions: [operator]")
    description = fields.text(problems, pairs.get("description"), "description", "description: What its tools are for.")
    group = None
    if name is not None and not problems.has_errors:
        group = Group(
            name=name,
            owner=owner,
            enabled=enabled is not False,
            permissions=permissions or (),
            description=(description or "").strip(),
            path=path,
        )
    return GroupDocument(path, place.bare(), name, group, tuple(problems.found))


def _policy(problems: Problems, place: Node, path: str) -> PolicyDocument:
    pairs = fields.mapping(problems, place, "", "", ("kind", *POLICY_KEYS))
    form = "roles: {admin: [platform-admins], editor: [tool-authors]}"
    roles: dict[Role, tuple[str, ...]] = {}
    for role, node in fields.mapping(problems, pairs.get("roles"), "roles", form, tuple(Role)).items():
        roles[Role(role)] = fields.words(problems, node, f"roles.{role}", f"{role}: [platform-admins]") or ()
    clients: dict[str, tuple[str, ...]] = {}
    listed = pairs.get("clients")
    names = tuple(client for client, _ in listed.items()) if listed is not None else ()
    for client, node in fields.mapping(problems, listed, "clients", "clients: {cursor: [examples]}", names).items():
        clients[client] = fields.words(problems, node, f"clients.{client}", f"{client}: [examples, orders]") or ()
    powers = _power_rules(problems, pairs.get("powers"))
    policy = None if problems.has_errors else Policy(roles=roles, clients=clients, powers=powers)
    return PolicyDocument(path, place.bare(), policy, tuple(problems.found))


def _power_rules(problems: Problems, node: Node | None) -> tuple[PowerRule, ...]:
    form = 'powers: [{vault: ["orders/*"], owner: "git:main", tools: ["orders.*"]}]'
    if node is None:
        return ()
    if not isinstance(node.value, list):
        fields.wrong_type(problems, node, "powers", form)
        return ()
    return tuple(_power_rule(problems, item, form) for item in node.value)


def _actions(problems: Problems, node: Node | None, grants: Set[str]) -> tuple[str, ...] | None:
    form = "actions: [get, head]"
    found = fields.texts(problems, node, "powers.actions", form)
    if node is not None and node.value == []:
        problems.error(node, "'powers.actions' is empty.", f"Leave it out to grant every action, or write: {form}")
    if "network" in grants and grants <= {"network"}:
        for action, item in found or ():
            if action not in METHODS:
                advice = f"{did_you_mean(action.lower(), METHODS)} Known here: {', '.join(METHODS)}.".strip()
                problems.error(item, f"'powers.actions' of 'network' cannot have {action[:60]!r}.", advice)
    return None if found is None else tuple(action for action, _ in found)


def _power_rule(problems: Problems, node: Node, form: str) -> PowerRule:
    pairs = fields.mapping(problems, node, "powers", form, RULE_KEYS)
    grants = {
        power: list(fields.words(problems, pairs[power], f"powers.{power}", f'{power}: ["…"]') or ())
        for power in GRANTS
        if power in pairs
    }
    if "network" in pairs:
        places_among(problems, fields.texts(Problems(), pairs["network"], "", "") or ())
    for pattern in grants.get(requirement.POWER, ()):
        if not requirement.PATTERN.fullmatch(pattern):
            problems.error(
                pairs[requirement.POWER],
                f"A rule grants packages by name, not {pattern[:80]!r}.",
                'Write names alone, as requires: ["httpx", "types-*"]; which versions, the manifest says.',
            )
    if not grants and isinstance(node.value, dict):
        problems.error(node, "This rule grants no power.", f"Name {one_of(GRANTS)}, for example: {form}")
    actions = _actions(problems, pairs.get("actions"), grants.keys())
    owner = fields.text(problems, pairs.get("owner"), "powers.owner", 'owner: "git:main"')
    tools = fields.words(problems, pairs.get("tools"), "powers.tools", 'tools: ["orders.*"]')
    private = fields.flag(problems, pairs.get("private"), "powers.private")
    if private and "network" not in grants:
        problems.key_error(
            pairs["private"],
            "'private' says that names of 'network' may lead to private addresses, and this rule has no 'network'.",
            'Take it out, or write for example: {network: ["db.internal:8080"], private: true}',
        )
    return PowerRule(
        grants=grants,
        actions=actions or (),
        owner=owner or "*",
        tools=tools if tools is not None else ("*",),
        private=private is True,
    )
