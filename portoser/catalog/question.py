"""A question to the user of a caller, and the answer, in the forms that MCP's elicitation allows.

A form is flat: an object whose fields are texts, numbers, booleans and choices among texts. What asks is someone
else's code, and what answers is someone else's client: neither is taken at its word.
"""

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from portoser.catalog.errors import PortoserError
from portoser.catalog.revision import KIB, JsonSchema
from portoser.catalog.schema import validator_of

LONGEST_MESSAGE: Final = 10_000
"""Characters of a question."""
LONGEST_KEY: Final = 64
MOST_FIELDS: Final = 50
MOST_CHOICES: Final = 500
LARGEST: Final = 64 * KIB
"""Bytes of a form, and of an answer, as JSON."""

NOTHING: Final[JsonSchema] = {"type": "object", "properties": {}}
"""The form of a question that is only agreed to or not."""

FORMATS: Final = ("date", "date-time", "email", "uri")

_COMMON: Final = frozenset({"type", "title", "description", "default"})
_ALLOWED: Final[Mapping[str, frozenset[str]]] = {
    "string": _COMMON | {"minLength", "maxLength", "format", "enum", "enumNames", "oneOf"},
    "number": _COMMON | {"minimum", "maximum"},
    "integer": _COMMON | {"minimum", "maximum"},
    "boolean": _COMMON,
    "array": _COMMON | {"items", "minItems", "maxItems"},
}
"""What MCP knows of each type of field; other words of JSON Schema would be lost on a client."""


class Action(StrEnum):
    """What a person did with a question, in MCP's words."""

    ACCEPT = "accept"
    DECLINE = "decline"
    CANCEL = "cancel"


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a person is asked. ``key`` names the question within its call; ``schema`` is the form to fill in."""

    key: str
    message: str
    schema: JsonSchema

    def mark(self, *, with_message: bool) -> str:
        """What tells this question from another one under the same key."""
        told = [self.message if with_message else None, self.schema]
        return hashlib.sha256(msgspec.json.encode(told, order="sorted")).hexdigest()[:16]

    def to_wire(self) -> dict[str, Any]:
        """The question as REST tells it."""
        return {"message": self.message, "schema": self.schema}


class Answer(msgspec.Struct, frozen=True):
    """What a person answered. ``content`` is the form, filled in, and None where the question was not accepted."""

    action: Action
    content: dict[str, Any] | None = None


class BadQuestion(PortoserError):
    """A question that cannot be put to a person. The message says why, and reaches the tool's code."""


def question_of(message: object, schema: object, key: str) -> Question:
    """The question that a tool's code asks.

    Raises:
        BadQuestion: its message or its form is none that MCP allows.
    """
    if not isinstance(message, str) or not message.strip():
        raise BadQuestion("ctx.elicit() needs a message: the question, as a text.")
    if len(message) > LONGEST_MESSAGE:
        raise BadQuestion(f"The question has {len(message):,} characters; it may have {LONGEST_MESSAGE:,}.")
    try:
        message.encode()
    except UnicodeEncodeError:
        raise BadQuestion("The question is not valid Unicode.") from None
    return Question(key=key, message=message, schema=checked_form(schema))


def checked_form(schema: object) -> JsonSchema:
    """A form as clients may be sent it: its type, its fields, and which of them are required.

    Raises:
        BadQuestion: it is none that MCP allows.
    """
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        raise BadQuestion("The schema of a question must describe an object: MCP's forms have named fields.")
    known = {"type", "properties", "required", "title", "description", "additionalProperties"}
    unknown = sorted(map(str, schema.keys() - known))
    if unknown:
        raise BadQuestion(f"The schema of a question holds {unknown[0]!r}, which MCP's forms do not know. {_FLAT}")
    fields = schema.get("properties", {})
    if not isinstance(fields, dict) or len(fields) > MOST_FIELDS:
        raise BadQuestion(f"The properties of a question must be an object of at most {MOST_FIELDS} fields.")
    properties = {_name(name): _checked_field(name, field) for name, field in fields.items()}
    form: JsonSchema = {"type": "object", "properties": properties}
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) and name in properties for name in required):
        raise BadQuestion("The required fields of a question must be a list of names of its properties.")
    if required:
        form["required"] = list(dict.fromkeys(required))
    try:
        size = len(msgspec.json.encode(form))
        validator_of(form)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BadQuestion(f"The schema of the question is not a JSON Schema: {str(error)[:300]}") from None
    if size > LARGEST:
        raise BadQuestion(f"The schema of the question has {size:,} bytes; it may have {LARGEST:,}.")
    return form


def checked_answer(answer: Answer, schema: JsonSchema) -> Answer:
    """An answer as the tool may have it: fields that the form does not have, and empty ones, are left out.

    Raises:
        BadAnswer: it does not fit the form.
    """
    if answer.action is not Action.ACCEPT:
        return Answer(answer.action)
    fields = schema["properties"]
    given = answer.content or {}
    content = {name: value for name, value in given.items() if name in fields and value is not None}
    try:
        size = len(msgspec.json.encode(content))
        found = [_told(error) for error in validator_of(schema).iter_errors(content)]
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BadAnswer(f"it cannot be read: {str(error)[:200]}") from None
    if size > LARGEST:
        raise BadAnswer(f"it has {size:,} bytes, and may have {LARGEST:,}.")
    if found:
        raise BadAnswer(" ".join(found[:5]))
    return Answer(Action.ACCEPT, content)


class BadAnswer(PortoserError):
    """An answer that does not fit its question. The message is the end of a sentence that names the question."""


_FLAT = "A form is flat: its fields are texts, numbers, booleans, choices (enum), or lists of choices."


def _name(name: object) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_KEY:
        raise BadQuestion(f"{name!r:.80} is not the name of a field: it has 1 to {LONGEST_KEY} characters.")
    return name


def _checked_field(name: str, field: object) -> dict[str, Any]:
    if not isinstance(field, dict):
        raise BadQuestion(f"The field {name!r} of the question is no schema: {_FLAT}")
    kind = field.get("type")
    allowed = _ALLOWED.get(kind) if isinstance(kind, str) else None
    if allowed is None:
        raise BadQuestion(f"The field {name!r} has the type {kind!r:.60}, which MCP's forms do not know. {_FLAT}")
    _check_words(name, field, allowed)
    if kind == "array":
        _check_list(name, field.get("items"))
    elif "enum" in field:
        _check_choices(name, field["enum"])
        names: Any = field.get("enumNames", field["enum"])
        if not _are_texts(names) or len(names) != len(field["enum"]):
            raise BadQuestion(f"The enumNames of the field {name!r} must be a text for each choice.")
    elif "oneOf" in field:
        _check_titled(name, field["oneOf"])
    if "default" in field and not _fits(field["default"], field):
        raise BadQuestion(f"The default of the field {name!r} does not fit the field.")
    return dict(field)


def _check_words(name: str, field: dict[str, Any], allowed: frozenset[str]) -> None:
    if field.get("format") == "password":
        raise BadQuestion(
            f"The field {name!r} asks for a password: MCP does not let a server ask for secrets in a form. "
            "What a tool needs to sign in somewhere belongs into the vault."
        )
    unknown = sorted(map(str, field.keys() - allowed))
    if unknown:
        raise BadQuestion(
            f"The field {name!r} says {unknown[0]!r}, which MCP's forms do not know for the type {field['type']}: "
            f"they know {', '.join(sorted(allowed))}."
        )
    if field.get("format", "date") not in FORMATS:
        raise BadQuestion(f"The field {name!r} has the format {field['format']!r:.60}: MCP knows {', '.join(FORMATS)}.")
    for word in ("title", "description"):
        if not isinstance(field.get(word, ""), str):
            raise BadQuestion(f"The {word} of the field {name!r} must be a text.")


def _check_list(name: str, items: object) -> None:
    if isinstance(items, dict) and set(items) <= {"type", "enum"} and "enum" in items:
        _check_choices(name, items["enum"])
    elif isinstance(items, dict) and set(items) == {"anyOf"}:
        _check_titled(name, items["anyOf"])
    else:
        raise BadQuestion(f"The items of the list {name!r} must be choices (enum): MCP's forms know no other lists.")


def _check_choices(name: str, choices: object) -> None:
    if not _are_texts(choices):
        raise BadQuestion(f"The choices of the field {name!r} must be a list of 1 to {MOST_CHOICES} texts.")


def _check_titled(name: str, choices: object) -> None:
    good = isinstance(choices, list) and all(
        isinstance(each, dict) and set(each) == {"const", "title"} and _are_texts(list(each.values()))
        for each in choices
    )
    if not good:
        raise BadQuestion(f"Each choice of the field {name!r} must be written {{const: …, title: …}}, both texts.")


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) <= MOST_CHOICES and all(isinstance(each, str) for each in value)


def _fits(value: Any, field: dict[str, Any]) -> bool:
    try:
        return validator_of({**field, "default": value}).is_valid(value)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return False


def _told(error: Any) -> str:
    place = ".".join(map(str, error.instance_path))
    return f"{place}: {error.message}."[:300] if place else f"{error.message}."[:300]
