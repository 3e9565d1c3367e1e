"""What the OpenAPI document says of refusals and of bodies that we read ourselves."""

from http import HTTPStatus
from importlib import resources
from typing import Any

import msgspec

from portoser.api.models import ProblemDocument
from portoser.api.problems import MEDIA_TYPE
from portoser.identity.middleware import LOOPBACK_PATHS, OPEN_PATHS

_FOLDER = resources.files("portoser.api").joinpath("examples")

PROBLEMS: dict[str, dict[str, Any]] = msgspec.json.decode(_FOLDER.joinpath("problems.json").read_bytes())
"""By status: one refusal as it is answered."""

EXAMPLES: list[dict[str, Any]] = msgspec.json.decode(_FOLDER.joinpath("operations.json").read_bytes())
"""Requests and their answers, which follow upon each other; a test sends them in this order."""

_MEANINGS = {
    400: "The body is not JSON.",
    401: "Auth is on, and the request has no good token.",
    403: "The caller may not do this.",
    404: "There is nothing of that name, as far as the caller may know.",
    409: "The name is taken, or the registry moved on meanwhile.",
    412: "The tool is not at the version that If-Match names.",
    413: "The body is too large.",
    415: "The body is not sent as JSON.",
    422: "The request cannot be taken; `errors` says everything that is wrong.",
    429: "Too many calls: of this caller, or of this tool.",
    503: "Something that is needed is not to be had right now; Retry-After says when to try again.",
    504: "The tool did not end in time.",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that may answer with these statuses."""
    return {
        status: {
            "description": _MEANINGS.get(status, HTTPStatus(status).phrase),
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"},
                    "example": PROBLEMS[str(status)],
                }
            },
        }
        for status in sorted(statuses)
    }


def complete(document: dict[str, Any], *, auth_enabled: bool) -> dict[str, Any]:
    """Add to FastAPI's document the schemas that `refusals` refers to, the examples, and how one signs in."""
    components: dict[str, Any] = document.setdefault("components", {})
    schemas: dict[str, Any] = components.setdefault("schemas", {})
    problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs"))
    schemas[ProblemDocument.__name__] = problem
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    if auth_enabled:
        components["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer", "description": "A token of the server's token file."}
        }
        document["security"] = [{"token": []}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if auth_enabled and path in OPEN_PATHS:
                operation["security"] = []
            elif auth_enabled and path in LOOPBACK_PATHS:
                operation["security"] = [{"token": []}, {}]
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = _given(parameter["schema"])
            _add_examples(operation)
    return document


def _given(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter's schema without null, which a query or a header cannot hold: it is left out instead."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice.get("type") != "null"]
    if len(choices) != 1:
        return schema
    return {**{key: value for key, value in schema.items() if key != "anyOf"}, **choices[0]}


def _add_examples(operation: dict[str, Any]) -> None:
    """Put what `EXAMPLES` has of an operation where the document has a place for it."""
    for example in (found for found in EXAMPLES if found["operation"] == operation["operationId"]):
        name, given = example["name"], example["parameters"]
        for parameter in operation.get("parameters", ()):
            if parameter["name"] in given:
                parameter.setdefault("examples", {})[name] = {"value": given[parameter["name"]]}
        if example["body"] is not None:
            content = operation["requestBody"]["content"]["application/json"]
            content.setdefault("examples", {})[name] = {"value": example["body"]}
        for media_type, answer in example["answers"].items():
            content = operation["responses"][str(example["status"])]["content"][media_type]
            content.setdefault("examples", {})[name] = {"value": answer}


_NAME_LIST = {"type": ["array", "null"], "items": {"type": "string"}}

TOOL_BODY: dict[str, Any] = {
    "title": "ToolIn",
    "description": "A tool's declaration: the fields of a manifest, with its code in `code` or `files`.",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"},
        "description": {"type": ["string", "null"], "description": "Default: the function's docstring."},
        "code": {"type": ["string", "null"], "description": "One Python module."},
        "files": {
            "type": ["array", "null"],
            "description": "Several modules in the order of their import, instead of `code`.",
            "items": {
                "type": "object",
                "required": ["content"],
                "properties": {
                    "path": {"type": "string"},
                    "filename": {"type": "string", "description": "Another word for `path`."},
                    "content": {"type": "string"},
                },
            },
        },
        "entrypoint": {"type": ["string", "null"], "description": "`file.py:function`, where it cannot be guessed."},
        "permissions": {**_NAME_LIST, "description": "RBAC groups that may see and call it; null: its group's."},
        "group": {"type": ["string", "null"]},
        "annotations": {"type": ["object", "null"]},
        "confirm": {"type": ["string", "null"]},
        "isolation": {"enum": ["reuse", "fresh", None]},
        "limits": {"type": ["object", "null"]},
        "uses": {"type": ["object", "null"]},
        "requires": _NAME_LIST,
        "redact": _NAME_LIST,
        "examples": {"type": ["array", "null"], "items": {"type": "object"}},
        "inputSchema": {"type": ["object", "null"]},
        "outputSchema": {"type": ["object", "null"]},
        "replace_existing": {"type": "boolean", "default": False},
    },
}

PUT_BODY: dict[str, Any] = {
    **{key: value for key, value in TOOL_BODY.items() if key != "required"},
    "description": "A tool's declaration as for POST; the name is in the address, and may stand here too.",
}
