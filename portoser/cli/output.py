"""What commands print: tables and words for people, JSON for programs."""

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

WIDE = 240
"""Columns where nobody looks: output into a pipe is not cut to a terminal's width."""

_LEAST = 8
"""Columns that are left to a cell of a table that gives way to others."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def console(*, stderr: bool = False) -> "Console":
    """Where to print. Colours only at a terminal; a pipe gets long lines."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else WIDE
    return Console(file=stream, width=width, highlight=False, soft_wrap=not stream.isatty())


def clean(text: object) -> str:
    """Text from elsewhere without what would steer a terminal."""
    return _CONTROL.sub("�", str(text))


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_json_line(value: Any) -> None:
    """One line of JSON Lines."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def say(text: str = "", *, style: str = "") -> None:
    """A line for a person, on standard output."""
    from rich.text import Text

    console().print(Text(clean(text), style=style), soft_wrap=True)


def print_hanging(line: "Text", *, indent: int) -> None:
    """A line that goes on below its beginning where the terminal is too narrow for it; a pipe gets it as one."""
    out = console()
    if not out.is_terminal:
        out.print(line, soft_wrap=True)
        return
    first, *others = line.wrap(out, max(out.width - indent, _LEAST))
    out.print(first)
    for other in others:
        other.pad_left(indent)
        out.print(other)


def warn(text: str) -> None:
    """A line for a person, on standard error."""
    from rich.text import Text

    console(stderr=True).print(Text(clean(text), style="yellow"), soft_wrap=True)


def moment(at: str | None, *, exact: bool = False) -> str:
    """A time of the server's, told by this machine's clock, to the second, or to the millisecond."""
    if not at:
        return ""
    try:
        told = datetime.fromisoformat(at).astimezone()
        return f"{told:%Y-%m-%d %H:%M:%S}" + (f".{told.microsecond // 1000:03}" if exact else "")
    except (ValueError, OverflowError):
        return at


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, whole: Iterable[str] = ()) -> None:
    """A table; cells that are None are empty, and cells that are a known word have its colour.

    Columns in ``whole`` are never broken or narrowed: where the terminal is narrow, the others give way.
    """
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    kept = frozenset(whole)
    told = [["" if cell is None else clean(cell) for cell in row] for row in rows]
    needed = 0
    for place, column in enumerate(columns):
        longest = max(map(cell_len, (column, *(row[place] for row in told))))
        least = longest if column in kept else min(longest, max(_LEAST, cell_len(column)))
        needed += least + 2
        table.add_column(column, overflow="fold", no_wrap=column in kept, min_width=least)
    for row in told:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    out = console()
    if needed > out.width:  # the terminal breaks the lines, and nothing is lost
        table.width = needed
    out.print(table, crop=False)


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Names and values, one pair a line; values that are None or empty are left out."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in fields:
        if value is None or value in ("", []):
            continue
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        table.add_row(name, Text(clean(text), style=_STYLES.get(text, "")))
    console().print(table)


_STYLES = {
    "Synced": "green",
    "ok": "green",
    "on": "green",
    "Idle": "green",
    "Invalid": "red",
    "Stalled": "red",
    "error": "red",
    "denied": "red",
    "timeout": "red",
    "off": "yellow",
    "Conflict": "yellow",
    "OutOfSync": "yellow",
    "AwaitingApproval": "yellow",
}
