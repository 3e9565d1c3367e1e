"""What a call is allowed: what its tool asks for, within what the operator gives."""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

import msgspec

from portoser.catalog.revision import GIB, KIB, MIB, Limits
from portoser.catalog.units import parse_duration, parse_size


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """What one call may use, in the words of ``limits``. Times in seconds, sizes in bytes.

    The defaults are what a tool has that asks for nothing.
    """

    timeout: float = 30.0
    cpu: float = 20.0
    """Processor time, of all its threads together."""
    memory: int = 256 * MIB
    scratch: int = 64 * MIB
    """What it may write into its folder."""
    result: int = 8 * MIB
    logs: int = 64 * KIB
    """How much of what it prints is kept."""
    output: int = 4 * MIB
    """What it prints, logs and reports together; more ends it."""
    files: int = 64
    """How many files it may have open."""
    powers: int = 1000
    """How often it may ask a power."""
    share: int = 1
    """How many calls its worker runs at once."""


CEILINGS = Allowance(
    timeout=3600.0,
    cpu=3600.0,
    memory=2 * GIB,
    scratch=2 * GIB,
    result=32 * MIB,
    logs=MIB,
    output=64 * MIB,
    files=1024,
    powers=100_000,
    share=1000,
)
"""The most that a tool may have, where the operator says nothing."""

_USUAL = Allowance()
USUAL_SCRATCH = _USUAL.scratch
_TIMES = frozenset(("timeout", "cpu"))
_COUNTS = frozenset(("files", "powers", "share"))


def ceilings_of(told: Mapping[str, object] | str) -> Allowance:
    """The ceilings that an operator names, as ``memory=1GiB, timeout=5m`` or as a table; the others are the usual ones.

    Raises:
        ValueError: with a message that says what can be named, and how.
    """
    named: dict[str, float] = {}
    for name, value in _pairs(told):
        if name not in Allowance.__struct_fields__:
            known = ", ".join(Allowance.__struct_fields__)
            raise ValueError(f"{name!r} is not a limit: the limits that can be named are {known}.")
        named[name] = _read(name, value)
    return msgspec.structs.replace(CEILINGS, **named)


def _pairs(told: Mapping[str, object] | str) -> Iterator[tuple[str, object]]:
    if not isinstance(told, str):
        yield from told.items()
        return
    for part in filter(None, re.split(r"[,\s]+", told)):
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"{part!r} is not a limit: write for example memory=1GiB, timeout=5m.")
        yield name, value


def _read(name: str, value: object) -> float:
    if name in _TIMES:
        return parse_duration(value)
    if name not in _COUNTS:
        return parse_size(value)
    text = str(value)
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{value!r} is not a number for {name}: write for example {name}=64.")
    return int(text)


def _asked(limits: Limits) -> Iterator[tuple[str, float, float | None]]:
    """What each limit is in force, without a ceiling: its name, what the tool has, what it asked for."""
    for name in Allowance.__struct_fields__:
        asked = getattr(limits, name)
        yield name, getattr(_USUAL, name) if asked is None else asked, asked


@lru_cache(maxsize=1024)
def allowance_of(limits: Limits, ceilings: Allowance) -> Allowance:
    """What a call of a tool with these limits is allowed."""
    return Allowance(**{name: min(has, getattr(ceilings, name)) for name, has, _ in _asked(limits)})


def beyond(limits: Limits, ceilings: Allowance) -> list[str]:
    """Each limit that is higher than the operator allows, in a sentence."""
    return [
        f"'limits.{name}' is {_shown(name, has)}; this server allows {_shown(name, getattr(ceilings, name))}."
        for name, has, asked in _asked(limits)
        if asked is not None and asked != getattr(_USUAL, name) and has > getattr(ceilings, name)
    ]


def _shown(name: str, value: float) -> str:
    if name in _TIMES:
        return f"{value:g} s"
    if name in _COUNTS:
        return f"{value:g}"
    for unit, size in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if value >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value:g} B"


def told_ceilings(ceilings: Allowance) -> str:
    """Ceilings in words."""
    shown = ((name, _shown(name, getattr(ceilings, name))) for name in Allowance.__struct_fields__)
    return ", ".join(f"{name} {value}" for name, value in shown)
