"""The JSON Schema of manifests, for editors. Made of the reader's own tables: its keys, defaults, units and bounds.

Whatever the reader takes is valid under it. What only the reader can tell (a file that is not there, a name that is
taken, the indentation) it does not say. Draft 7, because that is what editors understand.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from portoser.catalog.allowance import Allowance
from portoser.catalog.group import Group
from portoser.catalog.names import GROUP_NAME, TOOL_NAME
from portoser.catalog.policy import PowerRule, Role
from portoser.catalog.requirement import MOST as MOST_REQUIRED
from portoser.catalog.revision import KIB, MIB, Annotations, Isolation, Limits
from portoser.catalog.units import DURATION_FORM, RATE_FORM, SIZE_FORM
from portoser.powers.fakes import HTTP_KEYS
from portoser.powers.registry import METHODS as REGISTRY_METHODS
from sync.documents import GRANTS, GROUP_KEYS, KINDS, POLICY_KEYS, RULE_KEYS
from sync.fields import MAX_TEXT
from sync.given import FAKED_POWERS, HTTP_METHODS
from sync.tool_fields import (
    ANNOTATION_KEYS,
    EXAMPLE_KEYS,
    LIMIT_KEYS,
    MAX_EXAMPLES,
    MOST_CONCURRENCY,
    MOST_FILES,
    MOST_POWERS,
    MOST_SHARE,
    POWERS,
    PRESENT_POWERS,
    TOOL_KEYS,
)

FILE = "manifest.schema.json"
TITLE = "A manifest of Portoser"

_HTTP_URL = "https://api.example.com/v1/*"

_Schema = dict[str, Any]


def manifest_schema() -> _Schema:
    """The schema of one YAML document of a manifest, whatever its kind."""
    kinds = {"Tool": _tool(), "Group": _group(), "Policy": _policy()}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": TITLE,
        "description": "A tool, a group of tools, or the policy: one YAML document of a folder of tools.",
        "oneOf": [{"$ref": f"#/definitions/{kind}"} for kind in KINDS],
        "definitions": {kind: kinds[kind] for kind in KINDS},
    }


def schema_text() -> str:
    """The schema as it is published, and as it is put beside tools."""
    return json.dumps(manifest_schema(), indent=2, ensure_ascii=False) + "\n"


def _tool() -> _Schema:
    default = Limits()
    return _document(
        "Tool",
        "A tool: a function that MCP clients can call, with what they see of it and who may call it.",
        TOOL_KEYS,
        {
            "name": _matching(
                TOOL_NAME.pattern, "What clients call it. By default its path below the folder, '/' turned into '.'."
            ),
            "description": _text("What the model reads of it. By default the function's docstring."),
            "entrypoint": {
                **_text("FILE.py:FUNCTION. By default the function named like the manifest, in the file of that name."),
                "pattern": r"^[^:]*\.py(:[^\s:.]+)?$",
                "examples": ["refund.py:refund"],
            },
            "files": {
                **_texts("Its Python modules, in the order of their import. By default the entrypoint's file alone."),
                "minItems": 1,
                "items": {**_text(""), "pattern": r"\.py$"},
                "examples": [["money.py", "refund.py"]],
            },
            "permissions": _texts("The RBAC groups that may see and call it. By default its group's."),
            "group": _matching(
                GROUP_NAME.pattern, "The group it belongs to. By default the one of the nearest group.yaml upwards."
            ),
            "annotations": _annotations(),
            "confirm": {
                **_text("What the caller's user is asked before it runs; {name} stands for an argument's value."),
                "examples": ["Refund {amount} for {order_id}?"],
            },
            "isolation": {
                "description": "Whether calls share a worker process, or each has a fresh one.",
                "enum": [str(word) for word in Isolation],
                "default": str(Isolation.REUSE),
            },
            "limits": _limits(default, Allowance()),
            "uses": _object(
                "The powers that it uses, and what of each. The registry may be read by every tool.",
                {power: _texts(_power(power)) for power in POWERS},
            ),
            "requires": {
                **_texts("Packages of the index that it needs, by name and version; the policy says which it may."),
                "maxItems": MOST_REQUIRED,
            },
            "redact": _texts("Arguments that never reach the audit log."),
            "examples": {
                "description": "Calls that must succeed before the tool is served, and that `portoser validate` runs.",
                "type": "array",
                "maxItems": MAX_EXAMPLES,
                "items": _example(),
            },
            "inputSchema": _json_schema("The JSON Schema of its arguments. By default made of the signature."),
            "outputSchema": _json_schema(
                "The JSON Schema of its structured result. By default made of the return type."
            ),
            "adopt": _flag("Take the name over from a tool that was added over REST.", default=False),
        },
    )


def _annotations() -> _Schema:
    default = Annotations()
    return _object(
        "What the tool does to the world, in MCP's words. The defaults are the cautious ones.",
        _of_keys(
            ANNOTATION_KEYS,
            {
                "title": _text("A name for people."),
                "readOnly": _flag("It changes nothing.", default=default.read_only),
                "destructive": _flag("It may destroy something, not only add to it.", default=default.destructive),
                "idempotent": _flag("Calling it twice with the same does no more.", default=default.idempotent),
                "openWorld": _flag("It reaches things outside this installation.", default=default.open_world),
            },
        ),
    )


def _limits(default: Limits, usual: Allowance) -> _Schema:
    return _object(
        "What one call may use.",
        _of_keys(
            LIMIT_KEYS,
            {
                "timeout": {
                    "description": "How long it may take: 10s, 500ms, 5m, or a number of seconds.",
                    "anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": DURATION_FORM}],
                    "default": f"{default.timeout:g}s",
                },
                "cpu": {
                    "description": "How much processor time it may use, in all its threads: 20s, 500ms.",
                    "anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": DURATION_FORM}],
                    "default": f"{usual.cpu:g}s",
                },
                "memory": _size("How much memory it may have.", f"{default.memory // MIB}MiB"),
                "scratch": _size("How much it may write into its folder.", f"{usual.scratch // MIB}MiB"),
                "result": _size("How large its result may be.", f"{default.result // MIB}MiB"),
                "logs": _size("How much of what it prints is kept.", f"{default.logs // KIB}KiB"),
                "output": _size("How much it may print, log and report; more ends it.", f"{usual.output // MIB}MiB"),
                "files": _count("How many files it may have open.", MOST_FILES, usual.files),
                "powers": _count("How often it may ask its powers.", MOST_POWERS, usual.powers),
                "concurrency": {
                    "description": "How many calls may run at once on a replica. By default as many as there are.",
                    "type": "integer",
                    "minimum": 1,
                    "maximum": MOST_CONCURRENCY,
                },
                "rate": {
                    "description": "How often each caller may call it: 60/min, 5/s, 10/30s. By default without limit.",
                    "type": "string",
                    "pattern": RATE_FORM,
                },
                "share": {
                    "description": "How many calls of one caller an async tool runs in one worker at once.",
                    "type": "integer",
                    "minimum": 1,
                    "maximum": MOST_SHARE,
                    "default": default.share,
                },
            },
        ),
    )


def _example() -> _Schema:
    return _object(
        "A call, and what it must answer.",
        _of_keys(
            EXAMPLE_KEYS,
            {
                "call": {"description": "The arguments. By default none.", "type": "object"},
                "given": _object(
                    "What its powers answer, by power and function: an example never reaches a real one.",
                    _of_keys(
                        FAKED_POWERS,
                        {
                            "registry": _object(
                                "Answers of registry, by function; those with an argument by argument.",
                                {method: {"description": f"What {method}() answers."} for method in REGISTRY_METHODS},
                            ),
                            "http": {
                                "description": "Answers of http; the first that fits a request is its answer.",
                                "type": "array",
                                "items": _http_answer(),
                            },
                            "vault": {"description": "Answers of vault, by path.", "type": "object"},
                            "cluster": {"description": "Answers of cluster, by function.", "type": "object"},
                            "ctx": _object(
                                "Answers of the caller's user.",
                                {
                                    "elicit": {
                                        "description": "Answers to ctx.elicit, in order, or by the questions' keys: "
                                        "the form, filled in, the value of its only field, decline or cancel.",
                                        "type": ["array", "object"],
                                    }
                                },
                            ),
                        },
                    ),
                ),
                "expect": {
                    "description": "What it must answer: the structured result, or the text where there is none. "
                    "Without it the call only has to succeed."
                },
            },
        ),
    )


def _http_answer() -> _Schema:
    answer = _object(
        "What a request is answered.",
        _of_keys(
            HTTP_KEYS,
            {
                "method": {
                    "description": "Of which requests, in any case. By default of all.",
                    "type": "string",
                    "pattern": f"^(?:{'|'.join(_in_any_case(method) for method in HTTP_METHODS)})$",
                },
                "url": {**_text("Which URL, with its query; * stands for any characters."), "examples": [_HTTP_URL]},
                "status": {
                    "description": "The status.",
                    "type": "integer",
                    "minimum": 100,
                    "maximum": 599,
                    "default": 200,
                },
                "headers": {
                    "description": "The headers. The content's type goes without saying.",
                    "type": "object",
                    "additionalProperties": {"type": "string"},
                },
                "json": {"description": "The content, as JSON."},
                "text": {"description": "The content, as text.", "type": "string", "maxLength": MAX_TEXT},
                "base64": _text("The content, of bytes."),
                "error": _text("Why there is no answer: the tool gets a PowerError."),
            },
        ),
    )
    return {**answer, "required": ["url"]}


def _in_any_case(word: str) -> str:
    return "".join(f"[{letter.upper()}{letter.lower()}]" for letter in word)


def _group() -> _Schema:
    default = Group(name="", owner="")
    return _document(
        "Group",
        "A set of tools that is switched on and off together, with what its tools inherit.",
        GROUP_KEYS,
        {
            "name": _matching(GROUP_NAME.pattern, "Its name. By default the folder's."),
            "enabled": _flag("Whether its tools are served before anybody switches it.", default=default.enabled),
            "permissions": _texts("The RBAC groups that may see and call its tools, unless a tool names its own."),
            "description": _text("What its tools are for."),
        },
    )


def _policy() -> _Schema:
    default = PowerRule(grants={})
    roles = {
        Role.ADMIN: "Groups that may do everything, also call tools that name no permissions.",
        Role.EDITOR: "Groups that may add, change and delete REST tools, sync, and roll back.",
        Role.AUDITOR: "Groups that may read the audit log.",
    }
    rule = _object(
        "Grants powers to tools that ask for them.",
        _of_keys(
            RULE_KEYS,
            {
                **{power: _texts(f"What of {power} is granted; patterns.") for power in GRANTS},
                "actions": _texts("What may be done with it. By default everything."),
                "owner": {**_text("Whose tools: git:SOURCE or rest:CALLER; a pattern."), "default": default.owner},
                "tools": {**_texts("Which tools: patterns of names."), "default": list(default.tools)},
                "private": _flag("The names of network may lead to private addresses.", default=default.private),
            },
        ),
    )
    rule["anyOf"] = [{"required": [power]} for power in GRANTS]
    return _document(
        "Policy",
        "Who has which role, which clients may use which groups of tools, and which powers may be granted.",
        POLICY_KEYS,
        {
            "roles": _object(
                "Who may do what to the registry itself.",
                {str(role): _texts(told) for role, told in _of_keys(tuple(Role), roles).items()},
            ),
            "clients": {
                "description": "The groups of tools that an MCP client may use at all. By default all of them.",
                "type": "object",
                "additionalProperties": _texts("Groups of tools."),
            },
            "powers": {
                "description": "What may be granted to whom. A manifest only asks.",
                "type": "array",
                "items": rule,
            },
        },
    )


# Pieces -----------------------------------------------------------------------------------------------------------


def _document(kind: str, description: str, keys: Iterable[str], fields: Mapping[str, _Schema]) -> _Schema:
    told = {"kind": {"description": description, "const": kind}, **_of_keys(keys, fields)}
    return {**_object(description, told), "required": ["kind"]}


def _of_keys(keys: Iterable[Any], fields: Mapping[Any, Any]) -> dict[Any, Any]:
    """The fields in the reader's order.

    Raises:
        ValueError: the reader knows other keys than are described here.
    """
    names = tuple(keys)
    if set(names) != fields.keys():
        raise ValueError(f"The reader knows {sorted(names)}, and described are {sorted(fields)}.")
    return {name: fields[name] for name in names}


def _object(description: str, fields: Mapping[str, _Schema]) -> _Schema:
    return {
        "description": description,
        "type": "object",
        "properties": dict(fields),
        "additionalProperties": False,
    }


def _text(description: str) -> _Schema:
    told = {"description": description} if description else {}
    return {**told, "type": "string", "pattern": r"\S", "maxLength": MAX_TEXT}


def _matching(pattern: str, description: str) -> _Schema:
    return {"description": description, "type": "string", "pattern": f"^{pattern}$"}


def _texts(description: str) -> _Schema:
    return {"description": description, "type": "array", "items": _text(""), "uniqueItems": True}


def _flag(description: str, *, default: bool) -> _Schema:
    return {"description": description, "type": "boolean", "default": default}


def _size(description: str, default: str) -> _Schema:
    return {
        "description": f"{description} 64KiB, 256MiB, 1GB, or a number of bytes.",
        "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": SIZE_FORM}],
        "default": default,
    }


def _count(description: str, most: int, default: int) -> _Schema:
    return {"description": description, "type": "integer", "minimum": 1, "maximum": most, "default": default}


def _json_schema(description: str) -> _Schema:
    return {
        "description": f"{description} JSON Schema 2020-12, served as written.",
        "type": "object",
        "properties": {"type": {"const": "object"}},
        "required": ["type"],
    }


def _power(power: str) -> str:
    there = "" if power in PRESENT_POWERS else " This server does not have it yet."
    return f"What of {power} it uses.{there}"
