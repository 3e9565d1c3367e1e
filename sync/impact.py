"""What a change means to callers: whose calls break, and who gains or loses a tool. Pure."""

from collections.abc import Mapping
from typing import Any

import msgspec

from portoser.catalog.group import Group, RegisteredGroup
from portoser.catalog.revision import JsonSchema, Revision


class AccessImpact(msgspec.Struct, frozen=True, kw_only=True):
    """RBAC groups that gain or lose a tool. A tool without permissions is the admins' alone."""

    gains: tuple[str, ...] = ()
    loses: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.gains or self.loses)


def schema_impact(old: Revision, new: Revision) -> tuple[str, ...]:
    """What breaks for a caller who calls the tool as of today; empty where nothing does."""
    if old.digest == new.digest:
        return ()
    found = [*_input_breaks(old.input_schema, new.input_schema)]
    if old.output_schema is not None and old.output_schema != new.output_schema:
        found.extend(_output_breaks(old.output_schema, new.output_schema))
    return tuple(found)


def _input_breaks(old: JsonSchema, new: JsonSchema) -> list[str]:
    old_properties, new_properties = _properties(old), _properties(new)
    old_required, new_required = _required(old), _required(new)
    found = [f"the argument {name!r} is gone" for name in sorted(old_properties.keys() - new_properties.keys())]
    found.extend(
        f"the argument {name!r} is required now" if name in old_properties else f"a new argument {name!r} is required"
        for name in sorted(new_required - old_required)
    )
    for name in sorted(old_properties.keys() & new_properties.keys()):
        before, after = _types(old_properties[name]), _types(new_properties[name])
        if before is not None and after is not None and not before <= after:
            lost = ", ".join(sorted(before - after))
            found.append(f"the argument {name!r} may no longer be {lost}")
        gone = _missing_choices(old_properties[name], new_properties[name])
        if gone:
            found.append(f"the argument {name!r} may no longer be {', '.join(gone)}")
    return found


def _output_breaks(old: JsonSchema, new: JsonSchema | None) -> list[str]:
    if new is None:
        return ["the result is no longer structured"]
    gone = sorted(_properties(old).keys() - _properties(new).keys())
    return [f"the result has no {name!r} any more" for name in gone]


def _properties(schema: JsonSchema) -> Mapping[str, Any]:
    found = schema.get("properties")
    return found if isinstance(found, dict) else {}


def _required(schema: JsonSchema) -> set[str]:
    found = schema.get("required")
    return {name for name in found if isinstance(name, str)} if isinstance(found, list) else set()


def _types(schema: Any) -> set[str] | None:
    """The JSON types that a schema names, None where it does not say plainly."""
    if not isinstance(schema, dict):
        return None
    named = schema.get("type")
    if isinstance(named, str):
        types = {named}
    elif isinstance(named, list):
        types = {item for item in named if isinstance(item, str)}
    elif isinstance(schema.get("anyOf"), list):
        parts = [_types(part) for part in schema["anyOf"]]
        if any(part is None for part in parts):
            return None
        types = {item for part in parts if part is not None for item in part}
    else:
        return None
    return types | {"integer"} if "number" in types else types


def _missing_choices(old: Any, new: Any) -> list[str]:
    before = old.get("enum") if isinstance(old, dict) else None
    after = new.get("enum") if isinstance(new, dict) else None
    if not isinstance(before, list) or not isinstance(after, list):
        return []
    return [repr(choice) for choice in before if choice not in after]


def effective_permissions(own: tuple[str, ...] | None, group: Group | RegisteredGroup | None) -> tuple[str, ...]:
    """Who may call a tool: its own permissions, else its group's, else none."""
    if own is not None:
        return own
    if isinstance(group, RegisteredGroup):
        group = group.declared
    return group.permissions if group is not None else ()


def access_impact(before: tuple[str, ...], after: tuple[str, ...]) -> AccessImpact:
    """Which RBAC groups gain or lose."""
    old, new = set(before), set(after)
    return AccessImpact(gains=tuple(sorted(new - old)), loses=tuple(sorted(old - new)))
