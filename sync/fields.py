"""Located values → the fields of a declaration. Whatever has the wrong type is told with the right form."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from sync.located import Node, Problems, did_you_mean, kind_of, one_of, unstorable

T = TypeVar("T")

MAX_TEXT = 16 * 1024
"""Characters of any one text in a declaration."""

_MEANT_AS_FALSE = ("no", "off", "n", "false", "0")


def mapping(
    problems: Problems,
    node: Node | None,
    field: str,
    form: str,
    known: Iterable[str],
    *,
    hints: Mapping[str, str] | None = None,
) -> dict[str, Node]:
    """The pairs of a mapping that have a known key; the others are told of, with the key that was meant.

    ``hints`` holds better advice for keys that are often written and never right.
    """
    if node is None:
        return {}
    if not isinstance(node.value, dict):
        wrong_type(problems, node, field, form)
        return {}
    names = tuple(known)
    taken: dict[str, Node] = {}
    for key, value in node.items():
        if key in names:
            taken[key] = value
        else:
            place = f"{field}.{key}" if field else key
            advice = (hints or {}).get(key) or did_you_mean(key, names) or f"Known here: {', '.join(names)}."
            problems.key_error(value, f"{place!r} is not known.", advice)
    return taken


def wrong_type(problems: Problems, node: Node, field: str, form: str) -> None:
    """Tell that a field has another type than it must have, and show the form it should have."""
    shown = "" if isinstance(node.value, dict | list) or node.value is None else f" ({_shown(node.value)})"
    message = f"{field!r} has no value." if node.value is None else f"{field!r} cannot be {node.kind}{shown}."
    problems.error(node, message, f"Write for example: {form}")


def text(problems: Problems, node: Node | None, field: str, form: str, *, may_be_empty: bool = False) -> str | None:
    """A text, or None where there is none or it is wrong."""
    if node is None:
        return None
    value = node.value
    if not isinstance(value, str):
        if isinstance(value, bool | int | float):
            problems.error(
                node, f"{field!r} must be text, not {kind_of(value)}.", f'Put it in quotes: "{_shown(value)}".'
            )
        else:
            wrong_type(problems, node, field, form)
        return None
    wrong = unstorable(value)
    if wrong is not None:
        problems.error(node, f"{field!r} {wrong}.", "Take the character out.")
        return None
    if len(value) > MAX_TEXT:
        problems.error(node, f"{field!r} has {len(value)} characters; at most {MAX_TEXT} are allowed.", "Shorten it.")
        return None
    if not may_be_empty and not value.strip():
        problems.error(node, f"{field!r} is empty.", f"Leave it out, or write for example: {form}")
        return None
    return value


def flag(problems: Problems, node: Node | None, field: str) -> bool | None:
    """True or false, or None where there is neither."""
    if node is None:
        return None
    if isinstance(node.value, bool):
        return node.value
    meant = "false" if str(node.value).lower() in _MEANT_AS_FALSE else "true"
    outer, dot, key = field.rpartition(".")
    form = f"{outer}: {{{key}: {meant}}}" if dot else f"{field}: {meant}"
    problems.error(node, f"{field!r} must be true or false, not {_told(node)}.", f"Write: {form}")
    return None


def whole_number(problems: Problems, node: Node | None, field: str, form: str, *, at_most: int) -> int | None:
    """A whole number from 1 to ``at_most``."""
    if node is None:
        return None
    value = node.value
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= at_most:
        problems.error(
            node,
            f"{field!r} must be a whole number from 1 to {at_most}, not {_told(node)}.",
            f"Write for example: {form}",
        )
        return None
    return value


def texts(problems: Problems, node: Node | None, field: str, form: str) -> tuple[tuple[str, Node], ...] | None:
    """A list of texts, each with its node; None where there is no list. Wrong and repeated items are told of."""
    if node is None:
        return None
    if not isinstance(node.value, list):
        wrong_type(problems, node, field, form)
        return None
    taken: dict[str, Node] = {}
    for item in node.value:
        word = text(problems, item, field, form)
        if word is None:
            continue
        if word in taken:
            problems.error(item, f"{word!r} stands twice in {field!r}.", "Keep one of the two.")
        taken[word] = item
    return tuple(taken.items())


def words(problems: Problems, node: Node | None, field: str, form: str) -> tuple[str, ...] | None:
    """A list of texts without their nodes."""
    taken = texts(problems, node, field, form)
    return None if taken is None else tuple(word for word, _ in taken)


def choice(problems: Problems, node: Node | None, field: str, allowed: tuple[str, ...]) -> str | None:
    """One of a few words."""
    if node is None:
        return None
    if isinstance(node.value, str) and node.value in allowed:
        return node.value
    near = did_you_mean(str(node.value), allowed)
    problems.error(
        node,
        f"{field!r} cannot be {_told(node)}.",
        f"{near} Write {one_of(allowed)}.".strip(),
    )
    return None


def parsed(problems: Problems, node: Node | None, parse: Callable[[object], T]) -> T | None:
    """A duration, size or rate, read by the catalog's own parser."""
    if node is None:
        return None
    try:
        return parse(node.value if not isinstance(node.value, dict | list) else node.plain())
    except ValueError as error:
        problems.error(node, str(error))
        return None


def _told(node: Node) -> str:
    if isinstance(node.value, str):
        return repr(node.value[:60])
    if isinstance(node.value, dict | list) or node.value is None:
        return node.kind
    return _shown(node.value)


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)[:60]
