"""Values that know where they stand, and the problems found in them.

YAML text and the body of a REST request both become trees of `Node`, so that both are checked by the same
code: a node of a file knows its line and column, a node of a request the path of its field.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Any, TypeAlias

from portoser.catalog.errors import Problem, Severity

Value: TypeAlias = "str | int | float | bool | list[Node] | dict[str, Node] | None"

_MOST_COMPARED = 100

MAX_DEPTH = 64
"""How deep lists and mappings may nest. Far beyond any schema, far below what a stack can bear."""


@dataclass(slots=True)
class Node:
    """A value with its place. ``line`` and ``column`` count from 1 and are 0 in a request's body.

    ``key_line`` and ``key_column`` are the place of the key whose value this is, 0 where there is none.
    ``size`` is the number of nodes in it, itself included, with every alias written out.
    """

    value: Value
    path: str
    line: int = 0
    column: int = 0
    key_line: int = 0
    key_column: int = 0
    size: int = 1

    @property
    def kind(self) -> str:
        """What the value is, in the words of a message."""
        return kind_of(self.value)

    def bare(self) -> "Node":
        """The place alone: what is kept of a document must not keep all of it."""
        return Node(None, self.path, self.line, self.column, self.key_line, self.key_column)

    def items(self) -> Iterator[tuple[str, "Node"]]:
        """The pairs of a mapping, in their order; nothing where it is none."""
        return iter(self.value.items()) if isinstance(self.value, dict) else iter(())

    def plain(self) -> Any:
        """The value as plain JSON-like data."""
        value = self.value
        if isinstance(value, dict):
            return {key: node.plain() for key, node in value.items()}
        if isinstance(value, list):
            return [node.plain() for node in value]
        return value


def kind_of(value: object) -> str:
    """What a value is, in the words of a message."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a mapping" if isinstance(value, dict) else "a list"


class Problems:
    """Collects what is wrong, so that everything is told at once."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def error(self, node: Node, message: str, advice: str = "") -> None:
        """Something that holds the tool back, at the value."""
        self.found.append(Problem(path=node.path, line=node.line, column=node.column, message=message, advice=advice))

    def key_error(self, node: Node, message: str, advice: str = "") -> None:
        """Something that holds the tool back, at the value's key."""
        self.found.append(
            Problem(
                path=node.path,
                line=node.key_line or node.line,
                column=node.key_column or node.column,
                message=message,
                advice=advice,
            )
        )

    def warning(self, node: Node, message: str, advice: str = "") -> None:
        """Something to tell of, that holds nothing back."""
        self.found.append(
            Problem(
                path=node.path,
                line=node.line,
                column=node.column,
                message=message,
                advice=advice,
                severity=Severity.WARNING,
            )
        )

    @property
    def has_errors(self) -> bool:
        """Whether anything found holds the tool back."""
        return any(problem.is_error for problem in self.found)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was most likely meant, or None where none is near; of very many, only some are compared."""
    by_lower = {str(name).lower(): str(name) for name in islice(known, _MOST_COMPARED)}
    near = get_close_matches(word.lower()[:100], by_lower, n=1, cutoff=0.6)
    return by_lower[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``Did you mean 'x'?`` for the known word that is nearest, or the empty string where none is near."""
    near = nearest(word, known)
    return f"Did you mean {near!r}?" if near is not None else ""


def one_of(words: Sequence[str]) -> str:
    """``a, b or c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def from_json(value: Any, path: str = "", *, depth: int = 0) -> Node:
    """The tree of a request's body. Each node's path is that of its field, as ``limits.timeout`` or ``examples[0]``.

    Raises:
        ValueError: the body nests too deeply, or holds something that is not JSON.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"{path} nests more than {MAX_DEPTH} levels deep.")
    if isinstance(value, dict):
        mapping = {
            key: from_json(item, f"{path}.{key}" if path else key, depth=depth + 1) for key, item in value.items()
        }
        return Node(mapping, path)
    if isinstance(value, list | tuple):
        return Node([from_json(item, f"{path}[{at}]", depth=depth + 1) for at, item in enumerate(value)], path)
    if value is None or isinstance(value, str | int | float | bool):
        return Node(value, path)
    raise ValueError(f"{path} holds a {type(value).__name__}, which JSON does not know.")


def unstorable(text: str) -> str | None:
    """What is wrong with text that no database and no client can hold, or None."""
    if text.isascii():
        return "holds a NUL character" if "\0" in text else None
    if "\0" in text:
        return "holds a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds half of a surrogate pair"
    return None
