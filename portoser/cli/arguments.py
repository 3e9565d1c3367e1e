"""Arguments of a tool as people type them: ``name=value``, made into what its input schema asks for."""

import json
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from portoser.cli.exits import CommandError, Exit

_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}

MAX_DEPTH = 32
"""How many references a schema may lead through before we give up and take text as text."""


def typed_arguments(pairs: Iterable[str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that ``name=value`` pairs stand for.

    Numbers, booleans, null, lists and objects are recognized by the schema; a list may be given as JSON, as
    ``a,b,c`` where its items are no text, or by naming it several times.

    Raises:
        CommandError: a pair that is none, a name that the tool does not have, or a value of another type.
    """
    arguments: dict[str, Any] = {}
    properties = schema.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise CommandError(f"{pair!r} is not an argument: write name=value.", code=Exit.USAGE)
        if name not in properties and properties and schema.get("additionalProperties") in (None, False):
            near = get_close_matches(name, list(properties), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" It takes {', '.join(map(str, properties))}."
            raise CommandError(f"the tool has no argument {name!r}.{hint}", code=Exit.USAGE)
        shape = _resolved(properties.get(name, {}), schema)
        try:
            value = _value(text, shape, schema)
        except ValueError as error:
            raise CommandError(f"{name}: {error}", code=Exit.USAGE) from None
        if name in arguments:
            if "array" not in _types(shape):
                raise CommandError(f"{name} is given twice.", code=Exit.USAGE)
            arguments[name] = [*arguments[name], *(value if isinstance(value, list) else [value])]
        else:
            arguments[name] = value
    return arguments


def _value(text: str, shape: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    if "enum" in shape or "const" in shape:
        return _one_of(text, shape.get("enum") or [shape.get("const")])
    choices = [*(shape.get("anyOf") or ()), *(shape.get("oneOf") or ())]
    if choices:
        return _first_fit(text, [_resolved(choice, root) for choice in choices], root)
    kinds = _types(shape)
    if not kinds:
        return _json_or_text(text)
    # Text fits everything, so it comes last.
    for kind in sorted(kinds, key=lambda kind: kind == "string"):
        try:
            return _of_type(text, kind, shape, root)
        except ValueError:
            if len(kinds) == 1:
                raise
    raise ValueError(f"{text!r} is none of {', '.join(kinds)}.")


def _first_fit(text: str, choices: list[Mapping[str, Any]], root: Mapping[str, Any]) -> Any:
    problems = []
    for choice in sorted(choices, key=lambda choice: "string" in _types(choice)):
        try:
            return _value(text, choice, root)
        except ValueError as error:
            problems.append(str(error))
    raise ValueError(" ".join(problems))


def _of_type(text: str, kind: str, shape: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    if kind == "array":
        return _list(text, shape, root)
    if kind not in _READERS:
        raise ValueError(f"the tool's schema names a type {kind!r} that there is none of.")
    return _READERS[kind](text)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number.") from None


def _number(text: str) -> int | float:
    number = _parsed(text)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(f"{text!r} is not a number.")
    return number


def _boolean(text: str) -> bool:
    if text.lower() not in _TRUE | _FALSE:
        raise ValueError(f"{text!r} is neither true nor false.")
    return text.lower() in _TRUE


def _null(text: str) -> None:
    if text.lower() not in {"null", "none", ""}:
        raise ValueError(f"{text!r} is not null.")


def _object(text: str) -> dict[str, Any]:
    value = _parsed(text)
    if not isinstance(value, dict):
        raise ValueError(f"{text!r} is not a JSON object.")
    return value


_READERS: Mapping[str, Callable[[str], Any]] = {
    "string": str,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "null": _null,
    "object": _object,
}


def _list(text: str, shape: Mapping[str, Any], root: Mapping[str, Any]) -> list[Any]:
    if text.lstrip().startswith("["):
        value = _parsed(text)
        if isinstance(value, list):
            return value
        raise ValueError(f"{text!r} is not a JSON list.")
    items = shape.get("items")
    items = _resolved(items, root) if isinstance(items, Mapping) else {}
    parts = text.split(",") if _types(items) and not set(_types(items)) & {"string", "object", "array"} else [text]
    return [_value(part.strip() if len(parts) > 1 else part, items, root) for part in parts]


def _one_of(text: str, allowed: Iterable[Any]) -> Any:
    for value in allowed:
        if text == value or (not isinstance(value, str) and text == json.dumps(value)):
            return value
    raise ValueError(f"{text!r} is not one of {', '.join(map(str, allowed))}.")


def _json_or_text(text: str) -> Any:
    try:
        return _parsed(text)
    except ValueError:
        return text


def _parsed(text: str) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON.")

    try:
        return json.loads(text, parse_constant=refuse)
    except (json.JSONDecodeError, RecursionError):
        raise ValueError(f"{text!r} is not JSON.") from None


def _types(shape: Mapping[str, Any]) -> list[str]:
    kinds = shape.get("type")
    if isinstance(kinds, str):
        return [kinds]
    return [str(kind) for kind in kinds] if isinstance(kinds, list) else []


def _resolved(shape: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema that a local reference leads to."""
    for _ in range(MAX_DEPTH):
        reference = shape.get("$ref") if isinstance(shape, Mapping) else None
        if not isinstance(reference, str) or not reference.startswith("#/"):
            break
        target: Any = root
        for step in reference[2:].split("/"):
            target = target.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(target, Mapping) else None
        shape = target
    return shape if isinstance(shape, Mapping) else {}
