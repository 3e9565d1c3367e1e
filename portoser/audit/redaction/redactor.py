"""Takes secrets out of arguments, results and texts."""

from collections.abc import Iterable, Mapping
from typing import Any, Self

import msgspec
import structlog

from portoser.audit.redaction.fields import DeclaredFields, Position, SchemaFields
from portoser.audit.redaction.shapes import spans_of_secrets
from portoser.audit.redaction.taint import LONGEST_FORM, PLACEHOLDER, Needles, Taint, clean
from portoser.audit.redaction.words import Sensitivity, sensitivity
from portoser.catalog.revision import JsonSchema

log = structlog.get_logger(__name__)

FAILED = "[REDACTION FAILED]"
CUT = "[CUT]"

TEXT_LIMIT = 8192
"""How many characters of one text are kept."""

_MAX_NODES = 10_000
_MAX_CHARACTERS = 65_536
_MAX_RESULT = 24_576
"""How many characters of a result are looked at: no more than this is ever kept of one."""
_MAX_DEPTH = 32
_LONGEST_JSON = 65_536
_SMALL_TEXT = 8
"""A shorter text without ``:`` and ``=`` can hold no secret that its shape would tell."""

_PAIR_NAMES = frozenset(
    {"name", "key", "field", "header", "variable", "var", "env", "property", "param", "parameter", "k"}
)
_PAIR_VALUES = frozenset({"value", "val", "v", "content", "data", "default", "secret_value"})
_PAIR_WORDS = _PAIR_NAMES | {word.title() for word in _PAIR_NAMES} | {word.upper() for word in _PAIR_NAMES}


class _Windowed(str):
    """A text too long to keep, with more than is kept: the rest is cut once its secrets are gone."""

    __slots__ = ("left_out",)
    left_out: int


class Redactor:
    """Redacts the calls of one revision. Immutable: share it between calls and keep it by digest."""

    __slots__ = ("_declared", "_schema")

    def __init__(self, declared: DeclaredFields, schema: SchemaFields | None) -> None:
        self._declared = declared
        self._schema = schema

    @classmethod
    def for_schema(cls, schema: JsonSchema | None, declared: Iterable[str] = ()) -> Self:
        """A redactor for arguments of ``schema``, with the names of the manifest's ``redact``."""
        hides = schema is not None and SchemaFields.hide_anything(schema)
        return cls(DeclaredFields(declared), SchemaFields(schema) if schema is not None and hides else None)

    def redact_arguments(self, arguments: Any, taint: Taint | None = None) -> tuple[Any, Taint]:
        """The arguments as the audit log may hold them, and the taint of what was hidden, which joins ``taint`` where
        that is given. Never raises.
        """
        taint = taint if taint is not None else Taint()
        try:
            walk = _Walk(self._declared, self._schema, taint)
            redacted = walk.value(arguments, 0, self._schema.root if self._schema else None)
            return _finish(redacted, walk, taint, TEXT_LIMIT), taint
        except Exception as error:  # noqa: BLE001 (whatever went wrong, the raw value must not be kept)
            _failed(error, taint)
            return FAILED, taint

    def redact(self, value: Any, taint: Taint) -> Any:
        """A result as the audit log may hold it; what is hidden in it joins the taint. Never raises."""
        if taint.overwhelmed:
            return PLACEHOLDER
        try:
            walk = _Walk(self._declared, None, taint, stop_at=_MAX_RESULT)
            return _finish(walk.value(value, 0), walk, taint, TEXT_LIMIT)
        except Exception as error:  # noqa: BLE001 (as above)
            _failed(error, taint)
            return FAILED

    def redact_text(self, text: str, taint: Taint, *, limit: int = TEXT_LIMIT) -> str:
        """An error's text or a log without secrets, cut to ``limit`` characters. Never raises."""
        if taint.overwhelmed:
            return PLACEHOLDER
        try:
            walk = _Walk(self._declared, None, taint, text_limit=limit)
            return str(_finish(walk.text(text, 0), walk, taint, limit))
        except Exception as error:  # noqa: BLE001 (as above)
            _failed(error, taint)
            return FAILED


def _failed(error: Exception, taint: Taint) -> None:
    taint.overwhelmed = True  # what should have been hidden is not known: so show nothing
    log.warning("audit.redaction_failed", error=type(error).__name__)


def _finish(redacted: Any, walk: "_Walk", taint: Taint, limit: int) -> Any:
    """The second pass: what was hidden in one place goes from all others; long texts get their final length."""
    needles = taint.relevant("\n".join(walk.seen)) if taint else None
    if not needles and not walk.has_windows:
        return redacted
    return _settled(redacted, needles or None, limit)


def _settled(value: Any, needles: Needles | None, limit: int) -> Any:
    if isinstance(value, str):
        text = needles.hide(value) if needles else str(value)
        return _cut(text, value.left_out, limit) if isinstance(value, _Windowed) else text
    if isinstance(value, dict):
        settled: dict[str, Any] = {}
        for key, item in value.items():
            settled[_free_key(settled, needles.hide(key) if needles else key)] = _settled(item, needles, limit)
        return settled
    if isinstance(value, list):
        return [_settled(item, needles, limit) for item in value]
    if needles and isinstance(value, int | float) and not isinstance(value, bool):
        return value if needles.hide(str(value)) == str(value) else PLACEHOLDER
    return value


def _cut(text: str, left_out: int, limit: int) -> str:
    # The end of the window may hold the beginning of a secret that was not recognized without its end.
    kept = text[: max(0, min(limit, len(text) - LONGEST_FORM))]
    return f"{kept}…[{left_out + len(text) - len(kept)} more characters]"


def _free_key(taken: Mapping[str, Any], key: str) -> str:
    """The key, numbered where another one was redacted to the same text."""
    if key not in taken:
        return key
    number = 2
    while f"{key} {number}" in taken:
        number += 1
    return f"{key} {number}"


class _Walk:
    """One pass over one value: hides what can be known from where it stands, and gathers the taint."""

    __slots__ = (
        "_characters",
        "_declared",
        "_inside_json",
        "_nodes",
        "_schema",
        "_stop_at",
        "_taint",
        "_text_limit",
        "_way",
        "has_windows",
        "seen",
    )

    def __init__(
        self,
        declared: DeclaredFields,
        schema: SchemaFields | None,
        taint: Taint,
        *,
        text_limit: int = TEXT_LIMIT,
        stop_at: int | None = None,
    ) -> None:
        self._declared = declared
        self._schema = schema
        self._taint = taint
        self._text_limit = text_limit
        self._stop_at = stop_at
        self._way: list[str] = []
        self._nodes = 0
        self._inside_json = False
        self._characters = 0
        self.has_windows = False
        self.seen: list[str] = []
        """Every text that was kept: where the taint is looked for."""

    def value(self, value: Any, depth: int, position: Position | None = None) -> Any:
        self._nodes += 1
        if self._is_full(depth):
            return CUT
        if position and SchemaFields.hidden(position):
            return self._hide(value)
        kind = type(value)
        if kind is str:
            return self.text(value, depth)
        if value is None or kind is bool:
            return value
        if kind is int or kind is float:
            return self._number(value)
        if isinstance(value, dict):
            return self._mapping(value, depth, position)
        if isinstance(value, list | tuple):
            return self._list(value, depth, position)
        return self.text(str(value), depth) if isinstance(value, str) else f"[{kind.__name__}]"

    def _is_full(self, depth: int) -> bool:
        """Whether nothing more is looked at. What was not looked at in arguments may hold any secret."""
        if self._nodes > _MAX_NODES or depth > _MAX_DEPTH:
            self._taint.overwhelmed = True
            return True
        return self._stop_at is not None and self._characters > self._stop_at

    def text(self, text: str, depth: int) -> str:
        if len(text) < _SMALL_TEXT and "=" not in text and ":" not in text:
            return self._see(clean(text))
        if self._characters >= _MAX_CHARACTERS + self._text_limit:
            return CUT
        inner = self._json_inside(text, depth)
        if inner is not None:
            return inner
        keep_whole = len(text) <= self._text_limit or self._inside_json
        window = text if keep_whole else text[: self._text_limit + LONGEST_FORM]
        self._characters += len(window)  # what was looked at counts, however little of it is kept
        redacted = self._see(self._without_secrets(clean(window)))
        return redacted if window is text else self._windowed(redacted, len(text) - len(window))

    def _see(self, text: str) -> str:
        self.seen.append(text)
        self._characters += len(text)
        return text

    def _windowed(self, text: str, left_out: int) -> str:
        windowed = _Windowed(text)
        windowed.left_out = left_out
        self.has_windows = True
        return windowed

    def _without_secrets(self, text: str) -> str:
        spans = spans_of_secrets(text, self._sensitivity)
        if not spans:
            return text
        parts: list[str] = []
        done = 0
        for start, end in spans:
            self._taint.add(text[start:end])
            parts.append(text[done:start] + PLACEHOLDER)
            done = end
        return "".join(parts) + text[done:]

    def _json_inside(self, text: str, depth: int) -> str | None:
        """A text that is a JSON document, redacted as the structure it is; None where it is no such text."""
        if len(text) > _LONGEST_JSON or text.lstrip()[:1] not in {"{", "["} or text.rstrip()[-1:] not in {"}", "]"}:
            return None
        try:
            document = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
            return None
        # Written anew even where nothing was hidden: of two equal keys, only one was looked at.
        outermost = not self._inside_json
        self._inside_json = True
        redacted = self.value(document, depth + 1)
        if not outermost:
            return self._see(msgspec.json.encode(redacted).decode())
        self._inside_json = False
        return self._written(redacted)

    def _written(self, document: Any) -> str:
        text = self._see(msgspec.json.encode(document).decode())
        if len(text) <= self._text_limit:
            return text
        window = text[: self._text_limit + LONGEST_FORM]
        return self._windowed(window, len(text) - len(window))

    def _number(self, number: float) -> Any:
        if isinstance(number, int) and number.bit_length() > 63:
            try:
                text = str(number)
            except ValueError:  # more digits than Python is willing to print
                return CUT
            return self.text(text, 0)
        self._see(str(number))
        return number

    def _mapping(self, mapping: dict[Any, Any], depth: int, position: Position | None) -> dict[str, Any]:
        redacted: dict[str, Any] = {}
        pair_values = _PAIR_VALUES if not _PAIR_WORDS.isdisjoint(mapping) and self._is_secret_pair(mapping) else None
        for key, item in mapping.items():
            if self._is_full(depth):
                redacted[CUT] = CUT
                break
            name = key if isinstance(key, str) else str(key)
            hidden = self._is_hidden(name, item) or (pair_values is not None and name.lower() in pair_values)
            below = self._schema.child(position, name) if position and self._schema else None
            kept_name = self._key(name)
            if kept_name in redacted:
                kept_name = _free_key(redacted, kept_name)
            if self._declared.are_nested:
                self._way.append(name)
                redacted[kept_name] = self._hide(item) if hidden else self.value(item, depth + 1, below)
                self._way.pop()
            else:
                redacted[kept_name] = self._hide(item) if hidden else self.value(item, depth + 1, below)
        return redacted

    def _key(self, key: str) -> str:
        key = clean(key[: self._text_limit])
        if len(key) >= 15 or "=" in key or ":" in key:
            key = self._without_secrets(key)
        return self._see(key)

    def _list(self, items: list[Any] | tuple[Any, ...], depth: int, position: Position | None) -> list[Any]:
        below = self._schema.child(position, None) if position and self._schema else None
        redacted: list[Any] = []
        pairs = _are_pairs(items)
        hide_next = False
        for item in items:
            if self._is_full(depth):
                redacted.append(CUT)
                break
            if hide_next and isinstance(item, str | int | float):
                redacted.append(self._hide(item))
                hide_next = False
                continue
            hide_next = isinstance(item, str) and item[:1] == "-" and "=" not in item and self._is_secret(item)
            if pairs and self._is_hidden(item[0], item[1]):
                redacted.append([item[0], self._hide(item[1])])
            else:
                redacted.append(self.value(item, depth + 1, below))
        return redacted

    def _is_hidden(self, name: str, item: Any) -> bool:
        if self._declared and (
            self._declared.names(name) or (self._declared.are_nested and self._declared.ends([*self._way, name]))
        ):
            return True
        by_word = sensitivity(name)
        if not by_word or item is None or isinstance(item, bool):
            return False
        return by_word is Sensitivity.SECRET or _holds_text(item)

    def _is_secret_pair(self, mapping: dict[Any, Any]) -> bool:
        return any(
            isinstance(name, str) and self._is_secret(name)
            for key, name in mapping.items()
            if isinstance(key, str) and key.lower() in _PAIR_NAMES
        )

    def _sensitivity(self, name: str) -> Sensitivity:
        if self._declared and self._declared.names(name):
            return Sensitivity.SECRET
        return sensitivity(name)

    def _is_secret(self, name: str) -> bool:
        return self._sensitivity(name) is not Sensitivity.NONE

    def _hide(self, value: Any) -> Any:
        if value is None or value == PLACEHOLDER:
            return value
        self._taint.add(value)
        return PLACEHOLDER


def _are_pairs(items: list[Any] | tuple[Any, ...]) -> bool:
    """Whether a list is made of (name, value) pairs, as headers often are."""
    return bool(items) and all(
        isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], str) for item in items
    )


def _holds_text(item: Any) -> bool:
    """Whether a plural such as ``tokens`` holds secrets, and not counts."""
    if isinstance(item, dict):
        return any(_is_open_text(value) for value in item.values())
    if isinstance(item, list | tuple):
        return any(_is_open_text(value) for value in item)
    return _is_open_text(item) and not item.replace(".", "").isdigit()


def _is_open_text(item: Any) -> bool:
    return isinstance(item, str) and item != PLACEHOLDER
