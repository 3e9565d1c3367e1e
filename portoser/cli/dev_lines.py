"""What is typed at the prompt of `portoser dev`: its commands, and what may come next."""

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from portoser.cli.arguments import typed_arguments
from portoser.cli.exits import CommandError

COMMANDS: Mapping[str, str] = {
    "call": "call TOOL NAME=VALUE …   or TOOL {JSON}, or TOOL @FILE.json; 'call' may be left out",
    "tools": "tools                    what there is",
    "show": "show TOOL                what clients see of a tool, and who may call it",
    "schema": "schema TOOL              its input and output schemas",
    "examples": "examples [TOOL]          run its examples again, or everybody's",
    "check": "check                    check the folder now, and tell everything that is wrong",
    "as": "as SUBJECT [GROUP …]     who calls from now on; as anonymous ends it",
    "help": "help                     this",
    "quit": "quit                     end; so does Ctrl-D. Ctrl-C ends a call",
}
_ALIASES = {"exit": "quit", "q": "quit", "?": "help"}
_OF_A_TOOL = frozenset({"call", "show", "schema", "examples"})
_YES = frozenset({"--yes", "-y"})
_WORD = re.compile(r"\S*$")


@dataclass(frozen=True, slots=True)
class Line:
    """A line that was understood: a command, the tool or subject it speaks of, and the rest as it was typed."""

    command: str
    name: str
    rest: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A word that may stand where the cursor is. ``meaning`` is for the person who chooses."""

    text: str
    meaning: str = ""
    ends_word: bool = True


def read_line(text: str, tools: Iterable[str]) -> Line | None:
    """What a line says, None where it says nothing. A tool's name alone is a call.

    Raises:
        CommandError: it is neither a command nor a tool.
    """
    first, _, rest = text.strip().partition(" ")
    if not first or first.startswith("#"):
        return None
    known = list(tools)
    command = _ALIASES.get(first, first)
    if command not in COMMANDS:
        if first not in known:
            raise CommandError(_unknown(first, known))
        return Line("call", first, rest.strip())
    if command == "check" or (command in {"tools", "help", "quit"}):
        return Line(command, "", rest.strip())
    name, _, rest = rest.strip().partition(" ")
    if not name and command != "examples":
        raise CommandError(f"write: {COMMANDS[command].split('  ')[0]}")
    return Line(command, name, rest.strip())


def read_arguments(rest: str, schema: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The arguments of a call, and whether ``--yes`` agrees to what the tool asks before it runs.

    Raises:
        CommandError: they cannot be read.
    """
    confirmed = False
    while (head := rest.partition(" "))[0] in _YES:
        confirmed, rest = True, head[2].strip()
    if rest.startswith("{"):
        return _object(rest, "this"), confirmed
    if rest.startswith("@"):
        path = Path(rest[1:].strip()).expanduser()
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise CommandError(f"cannot read {path}: {reason}.") from None
        return _object(text, str(path)), confirmed
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise CommandError(f"{str(error).rstrip('.')}: close the quote, or put a backslash before it.") from None
    pairs = [word for word in words if word not in _YES]
    return typed_arguments(pairs, schema), confirmed or len(pairs) < len(words)


def candidates(text: str, schemas: Mapping[str, Mapping[str, Any]]) -> Iterator[Candidate]:
    """What may stand at the end of ``text``. ``schemas`` are the input schemas by tool."""
    word = _word(text)
    words = text[: len(text) - len(word)].split()
    if not words:
        yield from _starting(word, schemas, {**dict.fromkeys(schemas, "tool"), **dict.fromkeys(COMMANDS, "command")})
    elif words[0] in _OF_A_TOOL and len(words) == 1:
        yield from _starting(word, schemas, dict.fromkeys(schemas, "tool"))
    elif words[0] in schemas or words[0] == "call":
        name, given = (words[1], words[2:]) if words[0] == "call" else (words[0], words[1:])
        if name in schemas:
            yield from _arguments(word, given, schemas[name])


def hint(text: str, schemas: Mapping[str, Mapping[str, Any]]) -> str:
    """The arguments of the tool that a line calls, the required ones marked, or the line's command explained."""
    words = text.split()
    if not words:
        return ""
    name = words[1] if words[0] == "call" and len(words) > 1 else words[0]
    schema = schemas.get(name)
    if schema is None:
        return COMMANDS.get(words[0], "")
    given = {word.partition("=")[0] for word in words if "=" in word}
    required = schema.get("required") or ()
    told = [
        f"{argument}={_kind(shape)}{'*' if argument in required else ''}"
        for argument, shape in _properties(schema).items()
        if argument not in given
    ]
    missing = " (* must be given)" if any(each.endswith("*") for each in told) else ""
    return f"{name} {' '.join(told)}{missing}".rstrip()


def _word(text: str) -> str:
    found = _WORD.search(text)
    return found[0] if found else ""


def _starting(word: str, schemas: Mapping[str, Mapping[str, Any]], meanings: Mapping[str, str]) -> Iterator[Candidate]:
    for name, meaning in meanings.items():
        if name.startswith(word):
            told = str(schemas[name].get("description", "")) if name in schemas else ""
            yield Candidate(name, told or meaning)


def _arguments(word: str, given: list[str], schema: Mapping[str, Any]) -> Iterator[Candidate]:
    properties = _properties(schema)
    name, equals, value = word.partition("=")
    if equals:
        for allowed in _values(properties.get(name, {})):
            if allowed.startswith(value):
                yield Candidate(f"{name}={allowed}")
        return
    required = schema.get("required") or ()
    used = {each.partition("=")[0] for each in given}
    free = [each for each in properties if each not in used and each.startswith(word)]
    for argument in sorted(free, key=lambda each: each not in required):
        kind = _kind(properties[argument])
        meaning = f"{kind}, required" if argument in required else kind
        yield Candidate(f"{argument}=", meaning, ends_word=False)


def _values(shape: Any) -> Iterator[str]:
    if not isinstance(shape, Mapping):
        return
    for value in [*(shape.get("enum") or ()), *([shape["const"]] if "const" in shape else ())]:
        yield shlex.quote(value) if isinstance(value, str) else json.dumps(value)
    if shape.get("type") == "boolean":
        yield from ("true", "false")
    for choice in [*(shape.get("anyOf") or ()), *(shape.get("oneOf") or ())]:
        yield from _values(choice)


def _kind(shape: Any) -> str:
    if not isinstance(shape, Mapping):
        return "any"
    values = list(_values(shape))
    if values and len(values) <= 4:
        return "|".join(values)
    kinds = shape.get("type") or [kind for each in shape.get("anyOf") or () if (kind := each.get("type"))]
    return kinds if isinstance(kinds, str) else "|".join(map(str, kinds)) or "any"


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments, with the choices that they refer to written out."""
    properties = schema.get("properties")
    definitions = schema.get("$defs")
    if not isinstance(properties, Mapping):
        return {}
    if not isinstance(definitions, Mapping):
        return properties

    def resolved(shape: Any) -> Any:
        reference = shape.get("$ref", "") if isinstance(shape, Mapping) else ""
        return definitions.get(str(reference).removeprefix("#/$defs/"), shape) if reference else shape

    return {name: resolved(shape) for name, shape in properties.items()}


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise CommandError(f"{what} is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise CommandError(f"{what} is not a JSON object.")
    return value


def _unknown(word: str, tools: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, [*tools, *COMMANDS], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else " 'tools' tells what there is, 'help' what can be done."
    return f"there is no tool or command {word!r}.{hint}"
