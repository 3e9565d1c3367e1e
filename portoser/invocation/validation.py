"""Arguments against a tool's input schema, with messages that name the argument."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import jsonschema_rs

from portoser.catalog.errors import PortoserError
from portoser.catalog.revision import JsonSchema
from portoser.catalog.schema import validator_of

_MOST_PROBLEMS = 5
_LONGEST_MESSAGE = 300


class BadSchema(PortoserError):
    """A tool's input schema cannot be used."""


class ArgumentsValidator:
    """Validates the arguments of one revision. References that leave the schema are never fetched.

    Raises:
        BadSchema: the schema is not one.
    """

    def __init__(self, schema: JsonSchema) -> None:
        properties = schema.get("properties")
        self._known = tuple(properties) if isinstance(properties, dict) else ()
        try:
            self._validator = validator_of(schema)
        except ValueError as error:
            raise BadSchema(f"Its input schema cannot be used: {_cut(str(error))}") from None

    def problems(self, arguments: Any) -> Sequence[str]:
        """What is wrong with the arguments, a sentence each; empty where nothing is."""
        if not isinstance(arguments, dict):
            return ["The arguments must be an object."]
        try:
            if self._validator.is_valid(arguments):
                return ()
            found = list(islice(self._validator.iter_errors(arguments), _MOST_PROBLEMS + 1))
        except UnicodeEncodeError:
            return ["A text among the arguments is not valid Unicode."]
        except (ValueError, RecursionError) as error:
            return [f"The arguments cannot be read: {_cut(str(error))}"]
        told = [self._sentence(error) for error in found[:_MOST_PROBLEMS]]
        return told if len(found) <= _MOST_PROBLEMS else [*told, "There is more that is wrong."]

    def _sentence(self, error: jsonschema_rs.ValidationError) -> str:
        name = _name(error.instance_path)
        teller = _TELLERS.get(error.kind.name)
        if teller is not None:
            return _cut(teller(name, error, self._known if not error.instance_path else ()))
        return _cut(f"{name or 'The arguments'}: {error.message}.")


def _missing(name: str, error: Any, known: Sequence[str]) -> str:
    return f"{_joined(name, error.kind.property)} is missing."


def _unknown(name: str, error: Any, known: Sequence[str]) -> str:
    sentences = []
    for unexpected in error.kind.unexpected[:_MOST_PROBLEMS]:
        near = difflib.get_close_matches(unexpected[:100], known, n=1)
        if near:
            hint = f" Did you mean {near[0]}?"
        elif not name:
            hint = f" The tool takes: {', '.join(known)}." if known else " The tool takes no arguments."
        else:
            hint = ""
        sentences.append(f"There is no argument {_joined(name, unexpected[:100])}.{hint}")
    return " ".join(sentences)


def _wrong_type(name: str, error: Any, known: Sequence[str]) -> str:
    return f"{name or 'The value'} must be {_types(error.kind.types)}, not {_type_of(error.instance)}."


def _no_alternative(name: str, error: Any, known: Sequence[str]) -> str:
    inner = [each for branch in error.kind.context for each in branch]
    types = [kind for each in inner if each.kind.name == "type" for kind in each.kind.types]
    if inner and all(each.kind.name == "type" for each in inner):
        return f"{name or 'The value'} must be {_types(types)}, not {_type_of(error.instance)}."
    ways = "; or ".join(dict.fromkeys(each.message for each in inner[:4]))
    return f"{name or 'The value'} fits none of the ways it may be written: {ways}."


_TELLERS: dict[str, Callable[[str, Any, Sequence[str]], str]] = {
    "required": _missing,
    "additionalProperties": _unknown,
    "unevaluatedProperties": _unknown,
    "type": _wrong_type,
    "anyOf": _no_alternative,
}


def _name(path: Iterable[str | int]) -> str:
    name = ""
    for part in path:
        name = f"{name}[{part}]" if isinstance(part, int) else _joined(name, part[:100])
    return name


def _joined(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part


def _types(types: Sequence[str]) -> str:
    with_articles = [f"an {kind}" if kind[:1] in "aeiou" else kind if kind == "null" else f"a {kind}" for kind in types]
    return " or ".join(dict.fromkeys(with_articles))


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return f"the string {_shown(value)}"
    if isinstance(value, int | float):
        return f"the number {value}"
    return "a list" if isinstance(value, list | tuple) else "an object"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_MESSAGE else text[:_LONGEST_MESSAGE] + "…"
