"""Which names tools, groups and sources may have."""

import re

TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
"""The names the MCP specification allows, cut to 64 characters."""

STRICT_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
"""The names that every known client allows."""

GROUP_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)


def name_problem(name: str) -> str | None:
    """What is wrong with a tool's name, or None where it may be used."""
    if TOOL_NAME.fullmatch(name):
        return None
    if not name:
        return "A tool needs a name."
    if len(name) > 64:
        return f"The name {name[:70]!r} has {len(name)} characters; at most 64 are allowed."
    return f"The name {name!r} may hold only letters, digits, '_', '.' and '-'."


def name_warning(name: str) -> str | None:
    """What some clients will not like about a name that is allowed, or None."""
    if STRICT_NAME.fullmatch(name):
        return None
    return f"The name {name!r} holds a dot; some clients allow only letters, digits, '_' and '-'."


def strict_name(name: str) -> str:
    """The name that comes nearest to an allowed one and that every known client allows."""
    return name.replace(".", "_")
