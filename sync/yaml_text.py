"""YAML text → located values.

Built on the events of libyaml, not on PyYAML's composer: the C composer is recursive and a file of 100,000
brackets overflows its stack, which kills the process. Here nesting, aliases and duplicate keys are bounded and
reported. Plain scalars are read by the YAML 1.2 core schema: ``no`` is text, ``12:30`` is text, a date is text.
"""

import re
from typing import Any, NamedTuple

import yaml
from yaml._yaml import CParser
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from yaml.reader import ReaderError

from portoser.catalog.errors import Problem
from sync.located import MAX_DEPTH, Node, Problems, unstorable

MAX_ALIASES = 20
MAX_ALIASED_SIZE = 10_000

_CONSTANTS: dict[str, bool | None] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_WHOLE = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_DECIMAL = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_NUMBER_START = frozenset("+-.0123456789")
_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS = frozenset({f"{_TAG}{name}" for name in ("int", "float", "bool", "null")})
_TEXT_TAGS = frozenset({"!", f"{_TAG}str"})

_ADVICE = {
    "mapping values are not allowed": "Put text that holds ': ' in quotes, and check the indentation.",
    "could not find expected ':'": "Each line of a mapping is 'key: value'.",
    "did not find expected key": "Check the indentation of this line and the quotes above it.",
    "did not find expected '-' indicator": "Give all items of a list the same indentation.",
    "found unexpected end of stream": "Close the quote.",
    "did not find expected ',' or ']'": "Close the list with ']', and part its items by ','.",
    "did not find expected ',' or '}'": "Close the mapping with '}', and part its pairs by ','.",
    "found undefined alias": "Text that begins with '*' needs quotes.",
    "found unknown escape character": "In double quotes write a backslash as '\\\\', or use single quotes.",
    "found unexpected ':'": "Put text that holds ':' in quotes.",
}


class Documents(NamedTuple):
    """What a text holds.

    ``documents`` are the ones that hold something, each with what is wrong in its text. ``broken`` is why the
    rest of the text could not be read, None where all of it was.
    """

    documents: tuple[tuple[Node, tuple[Problem, ...]], ...]
    broken: Problem | None


class _Refused(Exception):
    def __init__(self, problem: Problem) -> None:
        self.problem = problem


class _Open:
    """A list or a mapping that is still being read."""

    __slots__ = ("anchor", "items", "key", "node", "pairs")

    def __init__(self, node: Node, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: Node | None = None
        value = node.value
        self.items = value if isinstance(value, list) else None
        self.pairs = value if isinstance(value, dict) else None


def read_documents(text: str, path: str) -> Documents:
    """Every document of a text, with every problem that does not hide the rest. Empty documents are left out."""
    composer = _Composer(path)
    broken = None
    try:
        composer.read(text)
    except _Refused as refused:
        broken = refused.problem
    except yaml.MarkedYAMLError as error:
        broken = _syntax_problem(error, text, path)
    except ReaderError:
        broken = _character_problem(text, path)
    return Documents(tuple(composer.documents), broken)


class _Composer:
    def __init__(self, path: str) -> None:
        self.path = path
        self.documents: list[tuple[Node, tuple[Problem, ...]]] = []
        self.problems = Problems()
        self._anchors: dict[str, Node] = {}
        self._aliases = 0
        self._aliased_size = 0

    def read(self, text: str) -> None:
        parser = CParser(text)
        stack: list[_Open] = []
        while True:
            event: Any = parser.get_event()  # its type says which attributes it has, and it has marks
            kind = type(event)
            if kind is ScalarEvent:
                self._place(self._scalar(event), stack, event.anchor)
            elif kind is MappingStartEvent or kind is SequenceStartEvent:
                stack.append(self._opened(event, len(stack)))
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                opened = stack.pop()
                self._place(opened.node, stack, opened.anchor)
            elif kind is AliasEvent:
                self._place(self._alias(event), stack, None)
            elif kind is DocumentStartEvent:
                self._anchors.clear()
            elif kind is StreamEndEvent:
                return

    def _opened(self, event: Any, depth: int) -> _Open:
        mark = event.start_mark
        node = Node({} if type(event) is MappingStartEvent else [], self.path, mark.line + 1, mark.column + 1)
        if depth >= MAX_DEPTH:
            raise self._refused(node, f"This nests more than {MAX_DEPTH} levels deep.", "Make it flatter.")
        tag = event.tag
        if tag is not None and tag not in {f"{_TAG}map", f"{_TAG}seq"}:
            self.problems.error(node, f"The tag {tag!r} is not supported.", "Leave the tag out.")
        return _Open(node, event.anchor)

    def _scalar(self, event: Any) -> Node:
        mark = event.start_mark
        text = event.value
        node = Node(text, self.path, mark.line + 1, mark.column + 1)
        tag = event.tag
        if (event.implicit[0] and tag is None) or tag in _SCALAR_TAGS:
            if text in _CONSTANTS:
                node.value = _CONSTANTS[text]
            elif text[0] in _NUMBER_START:
                self._read_number(node, text)
        elif tag is not None and tag not in _TEXT_TAGS:
            self.problems.error(node, f"The tag {tag!r} is not supported.", "Leave the tag out.")
        wrong = unstorable(text)
        if wrong is not None:
            self.problems.error(node, f"This text {wrong}.", "Take the character out.")
            node.value = ""
        return node

    def _read_number(self, node: Node, text: str) -> None:
        if _WHOLE.fullmatch(text):
            base = {"0o": 8, "0x": 16}.get(text[:2], 10)
            if len(text) > 66 or not -(2**63) <= (number := int(text, base)) < 2**64:
                self.problems.error(node, "This number has more than 64 bits.", "Put it in quotes to make it text.")
                return
            node.value = number
        elif _DECIMAL.fullmatch(text):
            decimal = float(text)
            if decimal in (float("inf"), float("-inf")):
                self.problems.error(node, "This number is too large.", "Put it in quotes to make it text.")
                return
            node.value = decimal

    def _alias(self, event: Any) -> Node:
        mark = event.start_mark
        name = event.anchor
        here = Node(None, self.path, mark.line + 1, mark.column + 1)
        target = self._anchors.get(name)
        if target is None:
            raise self._refused(
                here,
                f"There is no anchor '&{name}' before this alias, or the alias stands inside of it.",
                "Text that begins with '*' needs quotes.",
            )
        self._aliases += 1
        self._aliased_size += target.size
        if self._aliases > MAX_ALIASES or self._aliased_size > MAX_ALIASED_SIZE:
            raise self._refused(
                here,
                f"More than {MAX_ALIASES} aliases, or aliases that stand for more than {MAX_ALIASED_SIZE} values.",
                "Write the values out.",
            )
        here.value = target.value
        here.size = target.size
        return here

    def _place(self, node: Node, stack: list[_Open], anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if not stack:
            found = tuple(self.problems.found)
            if node.value is not None or found:
                self.documents.append((node, found))
            self.problems.found.clear()
            return
        top = stack[-1]
        if top.items is not None:
            top.items.append(node)
            top.node.size += node.size
        elif top.key is None:
            top.key = node
        else:
            self._pair(top, top.key, node)
            top.key = None

    def _pair(self, top: _Open, key_node: Node, node: Node) -> None:
        pairs = top.pairs
        assert pairs is not None  # noqa: S101 - an open mapping
        key = key_node.value
        if isinstance(key, dict | list):
            self.problems.error(
                key_node, f"A key must be text, not {key_node.kind}.", "Write for example 'name: value'."
            )
            return
        if not isinstance(key, str):
            key = "null" if key is None else str(key).lower() if isinstance(key, bool) else str(key)
        if key == "<<":
            self.problems.error(key_node, "Merge keys ('<<') are not supported.", "Write the keys out.")
            return
        first = pairs.get(key)
        if first is not None:
            self.problems.error(
                key_node,
                f"The key {key!r} stands here a second time; the first is in line {first.key_line}.",
                "Keep one of the two.",
            )
            return
        node.key_line = key_node.line
        node.key_column = key_node.column
        pairs[key] = node
        top.node.size += node.size

    @staticmethod
    def _refused(node: Node, message: str, advice: str) -> _Refused:
        return _Refused(
            Problem(path=node.path, line=node.line, column=node.column, message=message, advice=advice),
        )


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, path: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 0
    column = mark.column + 1 if mark else 0
    what = error.problem or "it cannot be read"
    context = error.context
    if context and error.context_mark and error.context_mark.line + 1 != line:
        context = f" {context} that begins in line {error.context_mark.line + 1}"
    else:
        context = ""
    lines = text.splitlines()
    here = lines[line - 1] if 0 < line <= len(lines) else ""
    indent = here[: len(here) - len(here.lstrip())]
    if "\t" in indent or "\t" in here[max(column - 2, 0) : column]:
        advice = "Indent with spaces: YAML does not allow tabs there."
    elif what == "found character that cannot start any token" and column:
        advice = f"Put text that begins with {here[column - 1 : column]!r} in quotes."
    else:
        advice = next((advice for start, advice in _ADVICE.items() if what.startswith(start)), "")
    return Problem(path=path, line=line, column=column, message=f"Not valid YAML: {what}{context}.", advice=advice)


def _character_problem(text: str, path: str) -> Problem:
    bad = next((at for at, character in enumerate(text) if not _is_printable(character)), 0)
    line, column = place_of(text, bad)
    return Problem(
        path=path,
        line=line,
        column=column,
        message=f"Not valid YAML: the character {text[bad : bad + 1]!r} is not allowed.",
        advice="Take it out.",
    )


def _is_printable(character: str) -> bool:
    code = ord(character)
    return code in {0x9, 0xA, 0xD, 0x85} or 0x20 <= code <= 0x7E or (code >= 0xA0 and code not in {0xFFFE, 0xFFFF})


def place_of(text: str, at: int) -> tuple[int, int]:
    """Line and column, both from 1, of a position in a text."""
    before = text[:at]
    return before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1
