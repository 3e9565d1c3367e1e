"""Lines at a narrow terminal, and in a pipe."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from portoser.cli import output


def shown(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> list[str]:
    out = io.StringIO()
    made = Console(file=out, width=40, force_terminal=terminal, color_system=None)
    monkeypatch.setattr(output, "console", lambda: made)
    output.print_hanging(Text("settings they are right; auth is off, so everybody may do everything"), indent=9)
    return out.getvalue().splitlines()


def test_a_line_goes_on_below_its_beginning_at_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, terminal=True)
    assert len(lines) > 1
    assert lines[0].startswith("settings they")
    assert all(line.startswith(" " * 9) and len(line) <= 40 for line in lines[1:])


def test_a_pipe_gets_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(shown(monkeypatch, terminal=False)) == 1


def test_a_moment_is_told_by_this_machines_clock_and_nonsense_as_it_is() -> None:
    assert len(output.moment("2026-03-01T12:00:00.123456+00:00", exact=True)) == len("2026-03-01 12:00:00.123")
    assert output.moment("soon") == "soon"
    assert output.moment(None) == ""
