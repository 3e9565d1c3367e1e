"""Values that were hidden once, and must not turn up again anywhere else."""

import base64
import binascii
import html
import json
import math
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec

PLACEHOLDER = "[REDACTED]"

PIECE = 512
"""Longer secrets are looked for in pieces of so many characters, so that a part of one is found too."""

LONGEST_FORM = PIECE * 12
"""The most characters that one piece can take in any of its forms."""

_MAX_PIECES = 256
_MAX_LEAVES = 2000
_ANYWHERE = 6
"""From this length on a value is replaced inside of words too; shorter ones only where they stand alone."""
_ALONE = 3
"""Shorter values are replaced only where they are the whole of a value."""
_MIN_LINE = 12

_HIDDEN = "\x00"
"""Stands for the placeholder while values are replaced, so that no value is found inside of it."""


class Taint:
    """The values that one call must not show, and their copies.

    A value is found as it is, in JSON's, Python's, HTML's and URLs' escapes, in base64 at each alignment and
    in hexadecimal. What is too much to look for makes the taint ``overwhelmed``; then everything is hidden.
    """

    __slots__ = ("_alone", "_anywhere", "_exact", "_forms", "_pieces", "overwhelmed")

    def __init__(self) -> None:
        self._exact: set[str] = set()
        self._alone: set[str] = set()
        self._anywhere: set[str] = set()
        self._forms: list[str] | None = None
        self._pieces = 0
        self.overwhelmed = False

    def __bool__(self) -> bool:
        return bool(self._exact) or self.overwhelmed

    def add(self, value: Any) -> None:
        """Hide a value from now on, or each value in a structure. None and booleans tell nothing and are not kept."""
        waiting = [value]
        leaves = 0
        while waiting:
            item = waiting.pop()
            leaves += 1
            if leaves > _MAX_LEAVES:
                self.overwhelmed = True
                return
            if isinstance(item, str):
                self._add_text(item)
            elif isinstance(item, int | float):
                if not isinstance(item, bool):
                    self._add_number(item)
            elif isinstance(item, dict):
                waiting.extend(item.values())
            elif isinstance(item, list | tuple | set | frozenset):
                waiting.extend(item)
            elif isinstance(item, bytes | bytearray):
                self._add_text(bytes(item).decode("utf-8", "replace"))

    def hides(self, text: str) -> bool:
        """Whether a text is, as a whole, a value to hide."""
        return self.overwhelmed or text in self._exact

    def relevant(self, haystack: str) -> "Needles":
        """What of this taint occurs in a text at all: nearly always nothing."""
        if self._forms is None:
            self._forms = sorted({form for value in self._anywhere for form in _forms(value)}, key=len, reverse=True)
        return Needles(
            taint=self,
            anywhere=tuple(form for form in self._forms if form in haystack),
            alone=tuple(sorted((value for value in self._alone if value in haystack), key=len, reverse=True)),
            exact=any(value in haystack for value in self._exact),
        )

    def _add_number(self, number: float) -> None:
        try:
            self._add_text(str(number))
            if math.isfinite(number) and int(number) == number:
                self._add_text(str(int(number)))
        except (ValueError, OverflowError):  # more digits than Python is willing to print
            self.overwhelmed = True

    def _add_text(self, text: str) -> None:
        text = clean(text)
        if not text.replace(PLACEHOLDER, "").strip() or text in self._exact:
            return
        self._forms = None
        for part in _parts_worth_hiding(text):
            self._add_part(part)

    def _add_part(self, part: str) -> None:
        pieces = [part[start : start + PIECE] for start in range(0, len(part), PIECE)]
        self._pieces += len(pieces)
        if self._pieces > _MAX_PIECES:
            self.overwhelmed = True
            return
        self._exact.add(part)
        if len(pieces) == 1:
            self._exact.add(part.strip())
        for piece in pieces:
            bare = piece.strip()
            if len(bare) >= _ANYWHERE:
                self._anywhere.add(bare)
            elif len(bare) >= _ALONE:
                self._alone.add(bare)


class Needles(msgspec.Struct, frozen=True):
    """The forms of a taint that are to be replaced in one value, longest first."""

    taint: Taint
    anywhere: tuple[str, ...]
    alone: tuple[str, ...]
    exact: bool

    def __bool__(self) -> bool:
        return bool(self.anywhere or self.alone) or self.exact or self.taint.overwhelmed

    def hide(self, text: str) -> str:
        """The text with the placeholder wherever a hidden value stood."""
        if self.taint.hides(text) or (self.exact and self.taint.hides(text.strip())):
            return PLACEHOLDER
        hidden = text.replace(PLACEHOLDER, _HIDDEN)
        for form in self.anywhere:
            if form in hidden:
                hidden = hidden.replace(form, _HIDDEN)
        for word in self.alone:
            hidden = _replace_alone(hidden, word)
        return hidden.replace(_HIDDEN, PLACEHOLDER)


def clean(text: str) -> str:
    """The text without what neither JSON in Postgres nor our own marks can carry: NUL and lone surrogates."""
    if _HIDDEN in text:
        text = text.replace(_HIDDEN, "\N{REPLACEMENT CHARACTER}")
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _parts_worth_hiding(text: str) -> Iterable[str]:
    """The value itself, and what it is made of: lines, a credential behind its scheme, what its base64 holds."""
    yield text
    if "\n" in text:
        yield from (line for line in map(str.strip, text.splitlines()) if len(line) >= _MIN_LINE)
    scheme, _, credential = text.strip().partition(" ")
    if credential and scheme.lower() in {"bearer", "basic", "negotiate", "token", "digest"}:
        yield credential
        text = credential
    decoded = _decoded(text)
    if decoded is not None:
        yield decoded
        user, _, password = decoded.partition(":")
        if len(password) >= _ANYWHERE and len(user) <= 128:
            yield password


def _decoded(text: str) -> str | None:
    if not 8 <= len(text) <= 8192:
        return None
    try:
        padded = text.rstrip("=").replace("-", "+").replace("_", "/")
        decoded = base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    return decoded if len(decoded) >= _ANYWHERE and decoded.isprintable() else None


def _forms(value: str) -> Iterable[str]:
    yield value
    raw = value.encode("utf-8", "replace")
    if not value.isalnum() or not value.isascii():
        yield json.dumps(value)[1:-1]
        yield json.dumps(value, ensure_ascii=False)[1:-1]
        yield repr(value)[1:-1]
        yield html.escape(value)
        yield quote(value, safe="")
        yield quote(value)
        yield quote_plus(value)
    yield raw.hex()
    yield raw.hex().upper()
    for alignment in range(3):
        encoded = base64.b64encode(b"\0" * alignment + raw).decode()
        core = encoded[(0, 2, 3)[alignment] : (alignment + len(raw)) * 8 // 6]
        if len(core) >= _ANYWHERE:
            yield core
            yield core.replace("+", "-").replace("/", "_")


def _replace_alone(text: str, word: str) -> str:
    """Replace a short value where it does not touch a letter or a digit."""
    place = text.find(word)
    if place == -1:
        return text
    parts: list[str] = []
    done = 0
    while place != -1:
        end = place + len(word)
        if not (place and text[place - 1].isalnum()) and not text[end : end + 1].isalnum():
            parts.append(text[done:place] + _HIDDEN)
            done = end
            place = text.find(word, end)
        else:
            place = text.find(word, place + 1)
    return "".join(parts) + text[done:]
