"""Writes the generated pages of `docs/` from the code: ``python -m portoser.cli.docs``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from portoser.authoring import schema
from portoser.cli.exits import Exit
from portoser.cli.program import app
from portoser.cli.serve import command as serve_command
from portoser.settings import FILE, Settings, default_of, is_secret, variable

DOCS = Path(__file__).parents[2] / "docs"

_MADE = "<!-- Made by `make docs` from the code; a test fails where it is stale. -->"


def pages() -> dict[str, str]:
    """The generated pages by file name."""
    return {"cli.md": cli_page(), "settings.md": settings_page(), schema.FILE: schema.schema_text()}


def settings_page() -> str:
    """Every setting: its variable, its name in the file, its default and what it does."""
    lines = [
        "# Settings",
        "",
        _MADE,
        "",
        "A flag of `portoser serve` beats an environment variable, which beats its `_FILE` variant, which beats",
        f"`{FILE}` in the directory where the server starts. Lists are separated by commas in flags and variables.",
        "Wrong settings stop the start, all told at once.",
        "",
        f"| variable | in `{FILE}` | default | meaning |",
        "|---|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        names = f"`{variable(name)}`"
        if is_secret(field):
            names += f", or `{variable(name)}_FILE` with a file that holds it"
        default = default_of(field)
        lines.append(f"| {names} | `{name}` | {f'`{default}`' if default else ''} | {field.description} |")
    lines += ["", f'```toml\n# {FILE}\ntools = "tools.d"\nport = 8000\ngroups = ["orders"]\n```', ""]
    return "\n".join(lines)


def cli_page() -> str:
    """Every command with its arguments and options, and the exit codes."""
    root = typer.main.get_command(app)
    lines = [
        "# Commands",
        "",
        _MADE,
        "",
        "`portoser [--url URL] [--token TOKEN] COMMAND`. Commands speak to the server that `PORTOSER_URL` names, with",
        "the token in `PORTOSER_TOKEN`; `serve`, `dev`, `validate`, `doctor`, `token new`, `tool new`, `tool stubs`",
        "and `tool schema` need neither. `--json` prints JSON for programs.",
        "",
        "| exit code | meaning |",
        "|---|---|",
        *(f"| {code.value} | {code.meaning} |" for code in Exit),
    ]
    for path, command in _commands(root, "portoser"):
        shown = serve_command() if path == "portoser serve" else command
        lines += ["", f"## {path}", "", _help(shown), "", f"`{_usage(path, shown)}`"]
        rows = [row for row in map(_row, shown.params) if row]
        if rows:
            lines += ["", "| | |", "|---|---|", *rows]
    return "\n".join([*lines, ""])


def main() -> None:
    """Write the pages anew."""
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")
        typer.echo(f"{DOCS / name}")


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, child in command.commands.items():
        if hasattr(child, "commands"):
            yield from _commands(child, f"{path} {name}")
        else:
            yield f"{path} {name}", child


def _usage(path: str, command: Any) -> str:
    pieces = [path]
    if any(parameter.param_type_name == "option" for parameter in command.params):
        pieces.append("[OPTIONS]")
    pieces.extend(_argument(parameter) for parameter in command.params if parameter.param_type_name == "argument")
    return " ".join(pieces)


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    name = f"{name}..." if parameter.nargs == -1 else name
    return name if parameter.required else f"[{name}]"


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"| `{_argument(parameter)}` | {_cell(parameter.help)} |"
    if "--help" in parameter.opts:
        return ""
    names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    required = " Required." if parameter.required else ""
    return f"| {names} | {_cell(parameter.help)}{required} |"


def _help(command: Any) -> str:
    return " ".join((command.help or "").split())


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
