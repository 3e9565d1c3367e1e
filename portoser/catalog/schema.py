"""Which JSON Schemas a tool may have. Schemas come from manifests and from tool code: neither is to be trusted.

A schema is read by everything that lists or calls the tool, so one that is too deep, too large, no JSON or no
schema must be refused before it is registered, not met later by every client.
"""

from typing import Any

import jsonschema_rs
import msgspec

from portoser.catalog.revision import KIB, JsonSchema

DEEPEST = 64
"""Levels of lists and objects. Schemas of nested models refer to ``$defs``, and stay far below."""

LARGEST = 256 * KIB
"""Bytes of a schema as JSON."""

_BACKTRACKS = 100_000
"""How hard a pattern may try: beyond that, a text counts as one that does not match."""

_REFERENCES = ("$ref", "$dynamicRef")


def validator_of(schema: JsonSchema) -> jsonschema_rs.Validator:
    """A validator that never fetches anything and never tries a pattern for long.

    Raises:
        ValueError: the schema is none, or refers to what it does not hold; the message says which.
    """
    try:
        return jsonschema_rs.validator_for(
            schema, offline=True, pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACKS)
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        raise ValueError(getattr(error, "message", None) or str(error)) from None


def wrong_with_schema(schema: object) -> str | None:
    """What is wrong with a tool's input or output schema, to follow its name in a sentence; None where nothing is."""
    if not isinstance(schema, dict):
        return "is not a JSON Schema: it must be an object."
    wrong = _wrong_with_form(schema)
    if wrong is not None:
        return wrong
    if schema.get("type", "object") != "object":
        return "must describe an object: MCP passes arguments and structured results as objects."
    try:
        if len(msgspec.json.encode(schema)) > LARGEST:
            return f"has more than {LARGEST // KIB} KiB."
        jsonschema_rs.meta.validate(schema)
        validator_of(schema)
    except jsonschema_rs.ValidationError as error:
        return f"is not a JSON Schema: {error.message[:300]}."
    except (ValueError, OverflowError, TypeError, msgspec.MsgspecError) as error:
        return f"is not a JSON Schema: {str(error)[:300]}."
    return None


def _wrong_with_form(schema: dict[Any, Any]) -> str | None:
    """Walks the schema without recursion, because how deep it goes is what is in question."""
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEEPEST:
            return f"is nested more than {DEEPEST} levels deep."
        if isinstance(value, dict):
            for key, item in value.items():
                if not isinstance(key, str):
                    return f"is not JSON: the key {key!r:.50} is not a text."
                if key in _REFERENCES and isinstance(item, str) and not item.startswith("#"):
                    return f"refers to another document: {item[:200]!r}; refer to '#/$defs/…'."
                waiting.append((item, depth + 1))
        elif isinstance(value, list):
            waiting.extend((item, depth + 1) for item in value)
        elif not (value is None or isinstance(value, str | int | float)):
            return f"is not JSON: it holds a {type(value).__name__}."
    return None
