"""A tool's questions to its caller's user: Python types become forms, and filled-in forms become values again."""

from collections.abc import Callable
from typing import Any

from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticOmit, core_schema

from portoser.tool import Answer, ElicitError

_VALUE = "value"
"""The name of the only field, where a single value is asked for."""

_KNOWN = frozenset(
    (
        "anyOf", "const", "default", "description", "enum", "enumNames", "format", "items", "maxItems", "maxLength",
        "maximum", "minItems", "minLength", "minimum", "oneOf", "properties", "required", "title", "type",
    )
)  # fmt: skip
"""What of a type's schema a form may say; the type itself checks the rest of it when the answer is there."""

_FORMATS = frozenset(("date", "date-time", "email", "password", "uri"))

Read = Callable[[dict[str, Any]], Any]


class Asked(BaseException):
    """The run ends here, and the function is run again once there is an answer. Not an error of the tool's."""


class _Forms(GenerateJsonSchema):
    """Schemas as forms say them: a field that may be left out is not required, and none is null."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        made = super().default_schema(schema)
        if made.get("default") is None:
            made.pop("default", None)
        return made


def form_of(schema: Any) -> tuple[dict[str, Any], Read]:
    """The form that asks for ``schema``, and what makes the tool's value of a filled-in one.

    Raises:
        ElicitError: there is no form for it.
    """
    if schema is None:
        return {"type": "object", "properties": {}}, _as_it_is
    if isinstance(schema, dict):
        return schema, _as_it_is
    try:
        adapter = TypeAdapter[Any](schema)
        made = adapter.json_schema(schema_generator=_Forms)
    except (PydanticSchemaGenerationError, PydanticUserError, PydanticOmit, TypeError, NameError) as error:
        raise ElicitError(f"ctx.elicit() cannot ask for {schema!r:.100}: {str(error).splitlines()[0][:300]}") from None
    definitions = made.pop("$defs", {})
    shape = _flat(made, definitions)
    if shape.get("type") == "object" and isinstance(shape.get("properties"), dict):
        fields = {name: _flat(field, definitions) for name, field in shape["properties"].items()}
        return {"type": "object", "properties": fields, "required": shape.get("required", [])}, _reader(adapter)
    form = {"type": "object", "properties": {_VALUE: shape}, "required": [_VALUE]}
    read = _reader(adapter)
    return form, lambda content: read(content.get(_VALUE))


def answer_of(reply: dict[str, Any], read: Read) -> Answer:
    """The answer as the tool is given it.

    Raises:
        Asked: there will only be one in a later run.
        ElicitError: what was answered is none of the type's values.
    """
    action = reply["action"]
    if action == "later":
        raise Asked("The caller's user is being asked; the function is run again with the answer.")
    return Answer(action, read(reply.get("content") or {}) if action == "accept" else None)


def _as_it_is(content: dict[str, Any]) -> Any:
    return content


def _reader(adapter: TypeAdapter[Any]) -> Callable[[Any], Any]:
    def read(content: Any) -> Any:
        try:
            return adapter.validate_python(content)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            told = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'it'}: {each['msg']}" for each in problems[:5])
            raise ElicitError(f"What the user answered does not fit the question: {told}") from None

    return read


def _flat(field: Any, definitions: dict[str, Any], depth: int = 0) -> dict[str, Any]:
    """A field without references, and without what forms do not know."""
    if not isinstance(field, dict):
        return {}
    reference = field.get("$ref")
    if isinstance(reference, str) and depth < 10:
        named = definitions.get(reference.removeprefix("#/$defs/"), {})
        return _flat({**named, **{key: value for key, value in field.items() if key != "$ref"}}, definitions, depth + 1)
    kept = {key: value for key, value in field.items() if key in _KNOWN}
    if "const" in kept:
        kept["enum"] = [kept.pop("const")]
        kept.setdefault("type", "string")
    if kept.get("format") not in _FORMATS:
        kept.pop("format", None)
    if isinstance(kept.get("items"), dict) and depth < 10:
        items = _flat(kept["items"], definitions, depth + 1)
        kept["items"] = {key: value for key, value in items.items() if key in ("type", "enum", "anyOf")}
    return kept
