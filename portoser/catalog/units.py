"""Durations, sizes and rates as people write them: ``10s``, ``256MiB``, ``60/min``."""

import re
from collections.abc import Iterable

import msgspec

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_UNITS = {
    "": 1,
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}
_RATE_PERIODS = {
    "s": 1.0,
    "sec": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
}
_NUMBER_WITH_UNIT = re.compile(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*([A-Za-z]{0,4})\s*", re.ASCII)


def _one_of(units: Iterable[str]) -> str:
    return "|".join(sorted(filter(None, units), key=len, reverse=True))


DURATION_FORM = rf"^(?=.*[1-9])\s*\d{{1,12}}(\.\d{{1,6}})?\s*({_one_of(_DURATION_UNITS)})?\s*$"
SIZE_FORM = rf"^(?=.*[1-9])\s*\d{{1,12}}(\.\d{{1,6}})?\s*({_one_of(_SIZE_UNITS)})?\s*$"
RATE_FORM = rf"^(?=0*[1-9\s])\s*\d{{1,9}}\s*/\s*\d{{0,6}}\s*({_one_of(_RATE_PERIODS)})\s*$"
"""What the texts look like that are understood, as patterns that JSON Schema knows."""

_RATE = re.compile(r"\s*(\d{1,9})\s*/\s*(\d{0,6})\s*([a-z]{1,4})\s*", re.ASCII)


class Rate(msgspec.Struct, frozen=True):
    """At most ``calls`` in any window of ``seconds``."""

    calls: int
    seconds: float

    def __str__(self) -> str:
        names = {1.0: "s", 60.0: "min", 3600.0: "h", 86400.0: "d"}
        return f"{self.calls}/{names.get(self.seconds, f'{self.seconds:g}s')}"


def parse_duration(text: object) -> float:
    """Seconds from ``10s``, ``500ms``, ``5m``, ``1h``, or a plain number of seconds.

    Raises:
        ValueError: with a message that shows the forms that are understood.
    """
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise ValueError(f"{text!r} is not a duration: write for example 10s, 500ms or 5m.")
    if isinstance(text, int | float):
        seconds = float(text)
    else:
        match = _NUMBER_WITH_UNIT.fullmatch(text)
        unit = _DURATION_UNITS.get(match[2] or "s") if match else None
        if match is None or unit is None:
            raise ValueError(f"{text!r} is not a duration: write for example 10s, 500ms or 5m.")
        seconds = float(match[1]) * unit
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{text!r} is not a duration: it must be more than 0.")
    return seconds


def parse_size(text: object) -> int:
    """Bytes from ``256MiB``, ``1GB``, ``64KiB``, or a plain number of bytes.

    Raises:
        ValueError: with a message that shows the forms that are understood.
    """
    message = f"{text!r} is not a size: write for example 64KiB, 256MiB or 1GB."
    if isinstance(text, bool) or not isinstance(text, str | int):
        raise ValueError(message)
    if isinstance(text, int):
        size = text
    else:
        match = _NUMBER_WITH_UNIT.fullmatch(text)
        unit = _SIZE_UNITS.get(match[2]) if match else None
        if match is None or unit is None:
            raise ValueError(message)
        size = int(float(match[1]) * unit)
    if size <= 0:
        raise ValueError(message)
    return size


def parse_rate(text: object) -> Rate:
    """A rate from ``60/min``, ``5/s``, ``1000/h``, ``10/30s``.

    Raises:
        ValueError: with a message that shows the forms that are understood.
    """
    match = _RATE.fullmatch(text) if isinstance(text, str) else None
    period = _RATE_PERIODS.get(match[3]) if match else None
    if match is None or period is None or int(match[1]) < 1 or match[2] == "0":
        raise ValueError(f"{text!r} is not a rate: write for example 60/min or 5/s.")
    return Rate(calls=int(match[1]), seconds=period * int(match[2] or 1))
