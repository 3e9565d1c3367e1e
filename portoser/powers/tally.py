"""What one call used of its powers, counted for the audit log."""

from typing import Any

import msgspec

MOST_ROWS = 20
"""How many different uses of a call are told apart."""
_LONGEST_TARGET = 200
_LONGEST_WORD = 64


class Used(msgspec.Struct):
    """Equal uses: of one power, one function, one target. ``refused`` and ``failed`` are some of the ``count``."""

    power: str
    method: str
    target: str
    count: int = 0
    refused: int = 0
    failed: int = 0
    ms: float = 0.0


class Tally:
    """The uses of one call, in the order in which they first came. What is too much to tell apart is one row."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, str], Used] = {}

    def add(
        self, power: str, method: str, target: str, *, refused: bool = False, failed: bool = False, seconds: float = 0.0
    ) -> None:
        """Count a use. The texts come from the tool's code."""
        key = (power[:_LONGEST_WORD], method[:_LONGEST_WORD], target[:_LONGEST_TARGET])
        row = self._rows.get(key)
        if row is None:
            if len(self._rows) >= MOST_ROWS - 1:
                key = ("…", "…", "…")
            row = self._rows.setdefault(key, Used(*key))
        row.count += 1
        row.refused += refused
        row.failed += failed
        row.ms = round(row.ms + seconds * 1000, 3)

    def told(self) -> list[dict[str, Any]] | None:
        """The rows as the audit log holds them; None where nothing was used."""
        return [msgspec.to_builtins(row) for row in self._rows.values()] or None
