"""Whether a schema that an author wrote is JSON Schema 2020-12, and one that a tool may have."""

from typing import Any

import jsonschema_rs

from portoser.catalog.revision import JsonSchema
from sync.located import Node, Problems

_REFERENCES = ("$ref", "$dynamicRef")


def schema(problems: Problems, node: Node | None, field: str) -> JsonSchema | None:
    """The schema, or None where there is none or it is wrong; what is wrong is told at its own place."""
    if node is None:
        return None
    form = f"{field}: {{type: object, properties: {{name: {{type: string}}}}}}"
    if not isinstance(node.value, dict):
        problems.error(node, f"{field!r} must be a JSON Schema, not {node.kind}.", f"Write for example: {form}")
        return None
    plain: JsonSchema = node.plain()
    before = len(problems.found)
    if plain.get("type") != "object":
        problems.error(
            node.value.get("type", node),
            f"{field!r} must describe an object: MCP passes arguments and structured results as objects.",
            f"Write for example: {form}",
        )
    dialect = node.value.get("$schema")
    if dialect is not None and str(dialect.value).rstrip("#") != "https://json-schema.org/draft/2020-12/schema":
        problems.error(dialect, "Only JSON Schema 2020-12 is understood.", "Leave '$schema' out.")
    _check_references(problems, node, field)
    if len(problems.found) == before:
        _check_meta(problems, node, field, plain)
    return plain if len(problems.found) == before else None


def _check_references(problems: Problems, node: Node, field: str) -> None:
    # A reference to another document would be fetched from the network at each call's validation.
    if isinstance(node.value, list):
        for item in node.value:
            _check_references(problems, item, field)
    for key, item in node.items():
        if key in _REFERENCES and isinstance(item.value, str):
            if not item.value.startswith("#"):
                problems.error(item, f"{field!r} refers to another document: {item.value!r}.", "Refer to '#/$defs/…'.")
        else:
            _check_references(problems, item, field)


def _check_meta(problems: Problems, node: Node, field: str, plain: dict[str, Any]) -> None:
    try:
        jsonschema_rs.meta.validate(plain)
        jsonschema_rs.Draft202012Validator(plain)
    except jsonschema_rs.ValidationError as error:
        problems.error(_at(node, error.instance_path), f"{field!r} is not a JSON Schema: {error.message}.")
    except (jsonschema_rs.ReferencingError, ValueError) as error:
        problems.error(node, f"{field!r} is not a JSON Schema: {error}.")


def _at(node: Node, path: list[str | int]) -> Node:
    """The node that a path of the schema leads to, or the last one on the way that is there."""
    for step in path:
        value: Any = node.value
        try:
            node = value[step]
        except (TypeError, LookupError):
            break
    return node
