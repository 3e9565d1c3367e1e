"""The question that ``confirm:`` asks before a tool runs."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from portoser.audit.redaction import PLACEHOLDER

_FIELD = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]{0,63})\}")
_LONGEST_VALUE = 200


def question(template: str, arguments: Mapping[str, Any], shown: Any, defaults: Mapping[str, Any]) -> str:
    """The template with each ``{name}`` replaced by the argument's value, and ``{{`` by ``{``.

    Only names are understood: no attributes, no indices, no formats, so that a template reaches nothing but
    the arguments. What redaction hides in ``shown`` is hidden here too, and a value cannot pass for a part of the
    question: it has one line, no direction marks, and an end.
    """

    def value_of(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return match[0][0]
        if isinstance(shown, Mapping) and shown.get(name) == PLACEHOLDER:
            return "(hidden)"
        if name in arguments:
            return _plain(arguments[name])
        return _plain(defaults[name]) if name in defaults else "(not given)"

    return _FIELD.sub(value_of, template)


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    cut = text[:_LONGEST_VALUE]
    plain = "".join(character if character.isprintable() else " " for character in cut)
    return plain + "…" if len(text) > len(cut) else plain
