"""What the OpenAPI document says of refusals and of bodies that we read ourselves."""

from http import HTTPStatus
from typing import Any

from portoser.api.models import ProblemDocument
from portoser.api.problems import MEDIA_TYPE

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
            "content": {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"}}},
        }
        for status in sorted(statuses)
    }


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Add the schemas that `refusals` refers to, and take away those of FastAPI that nothing refers to."""
    schemas: dict[str, Any] = document.setdefault("components", {}).setdefault("schemas", {})
    if ProblemDocument.__name__ not in schemas:
        problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs"))
        schemas[ProblemDocument.__name__] = problem
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
    return document


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

TOOL_EXAMPLES: dict[str, Any] = {
    "one module": {
        "value": {
            "name": "list_services",
            "description": "List all services in the registry",
            "code": "def list_services():\n return registry.services()\n",
            "permissions": ["operator"],
        }
    },
    "several modules": {
        "value": {
            "name": "vat",
            "files": [
                {"path": "rates.py", "content": "RATE = 0.2\n"},
                {
                    "path": "vat.py",
                    "content": "from rates import RATE\n\ndef vat(net: float) -> float:\n    return net * (1 + RATE)\n",
                },
            ],
        }
    },
}
