"""Which fields an author hides: by ``redact:`` in the manifest, and by the words of JSON Schema."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from portoser.catalog.revision import JsonSchema

Path: TypeAlias = tuple[str, ...]
Position: TypeAlias = tuple[Any, ...]
"""The subschemas that speak of one place in a value, with every reference followed."""

_MAX_SUBSCHEMAS = 64
_BRANCHES = ("allOf", "anyOf", "oneOf")
_SINGLE_BRANCHES = ("if", "then", "else", "not")
_OTHER_PROPERTIES = ("additionalProperties", "unevaluatedProperties")
_ITEMS = ("items", "additionalItems", "unevaluatedItems", "contains")


class DeclaredFields:
    """The names of ``redact:``.

    A plain name hides each field of that name, however deep it stands; ``payment.card`` hides a ``card``
    right below a ``payment``, also in lists; ``*`` stands for any one name. Upper and lower case are equal.
    """

    __slots__ = ("_paths", "_plain")

    def __init__(self, declared: Iterable[str]) -> None:
        names = [name.replace("[]", "").strip(".").casefold() for name in declared]
        self._plain = frozenset(name for name in names if name)
        self._paths = tuple(tuple(name.split(".")) for name in self._plain if "." in name)

    def __bool__(self) -> bool:
        return bool(self._plain)

    @property
    def are_nested(self) -> bool:
        """Whether the way to a field matters, not its name alone."""
        return bool(self._paths)

    def names(self, key: str) -> bool:
        """Whether a field is hidden for its name."""
        return key.casefold() in self._plain

    def ends(self, way: Sequence[str]) -> bool:
        """Whether the way to a field ends as one that is declared."""
        return any(
            len(path) <= len(way)
            and all(part in {"*", name.casefold()} for part, name in zip(path, way[-len(path) :], strict=True))
            for path in self._paths
        )


class SchemaFields:
    """What a schema hides: ``format: password`` and ``writeOnly``, through references, branches and items.

    References that leave the document are not followed; admission refuses them.
    """

    __slots__ = ("_anchors", "_children", "_document", "root")

    def __init__(self, schema: JsonSchema) -> None:
        self._document = schema
        self._anchors: dict[str, Any] = {}
        self._children: dict[tuple[tuple[int, ...], str | None], Position] = {}
        _collect_anchors(schema, self._anchors)
        self.root: Position = self._expand([schema])

    @staticmethod
    def hide_anything(schema: JsonSchema) -> bool:
        """Whether there is a hiding word anywhere in the schema; most have none, and need no walk."""
        waiting: list[Any] = [schema]
        while waiting:
            node = waiting.pop()
            if isinstance(node, dict):
                if _hides(node):
                    return True
                waiting.extend(node.values())
            elif isinstance(node, list):
                waiting.extend(node)
        return False

    @staticmethod
    def hidden(position: Position) -> bool:
        """Whether the value at a position is to be hidden."""
        return any(_hides(node) for node in position)

    def child(self, position: Position, key: str | None) -> Position:
        """The position of a property, or of any item where ``key`` is None."""
        at = (tuple(map(id, position)), key)  # the document outlives us, so its nodes keep their ids
        found = self._children.get(at)
        if found is None:
            found = self._expand(_below(position, key))
            known = key is None or any(key in _mapping(node.get("properties")) for node in position)
            if known:  # only what the schema names is kept: callers choose the other keys
                self._children[at] = found
        return found

    def _expand(self, nodes: Iterable[Any]) -> Position:
        expanded: list[Any] = []
        seen: set[int] = set()
        waiting = [node for node in nodes if isinstance(node, dict)]
        while waiting and len(expanded) < _MAX_SUBSCHEMAS:
            node = waiting.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            expanded.append(node)
            following = [self._resolved(node[word]) for word in ("$ref", "$dynamicRef") if word in node]
            for word in _BRANCHES:
                branches = node.get(word)
                following.extend(branches if isinstance(branches, list) else [])
            following.extend(node.get(word) for word in _SINGLE_BRANCHES)
            following.extend(_mapping(node.get("dependentSchemas")).values())
            waiting.extend(item for item in following if isinstance(item, dict))
        return tuple(expanded)

    def _resolved(self, reference: Any) -> Any:
        if not isinstance(reference, str) or not reference.startswith("#"):
            return None
        if reference[1:] in self._anchors:
            return self._anchors[reference[1:]]
        node: Any = self._document
        for part in reference[1:].split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, dict):
                node = node.get(name)
            elif isinstance(node, list) and name.isdigit() and int(name) < len(node):
                node = node[int(name)]
            else:
                return None
        return node


def _hides(node: dict[str, Any]) -> bool:
    return node.get("writeOnly") is True or node.get("format") == "password"


def _below(position: Position, key: str | None) -> list[Any]:
    below: list[Any] = []
    for node in position:
        if key is None:
            below.extend(node.get(word) for word in _ITEMS)
            tuples = node.get("prefixItems") or node.get("items")
            below.extend(tuples if isinstance(tuples, list) else [])
            continue
        properties = _mapping(node.get("properties"))
        if key in properties:
            below.append(properties[key])
        else:
            below.extend(node.get(word) for word in _OTHER_PROPERTIES)
        # Whether a pattern matches is not asked: an author's pattern may cost any amount of time.
        below.extend(_mapping(node.get("patternProperties")).values())
    return below


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _collect_anchors(schema: Any, anchors: dict[str, Any]) -> None:
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            for word in ("$anchor", "$dynamicAnchor"):
                if isinstance(node.get(word), str):
                    anchors[node[word]] = node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
