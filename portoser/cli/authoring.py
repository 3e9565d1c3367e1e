"""What authors write with: new tools from templates, type stubs, the manifests' schema. No server is asked."""

import asyncio
import os
import shlex
import tomllib
from pathlib import Path
from typing import Annotated

import typer

from portoser.authoring.forms import SCHEMA_FILE, Form
from portoser.cli.exits import CommandError, Exit
from portoser.cli.output import print_json, print_table, say, warn
from portoser.cli.target import AsJson

Folder = Annotated[
    Path | None, typer.Option("--folder", help="The folder of tools; PORTOSER_TOOLS, unless given.", metavar="DIR")
]


def new(
    name: Annotated[
        str | None, typer.Argument(help="The tool's name: orders.refund is orders/refund.yaml; or the group's.")
    ] = None,
    form: Annotated[Form, typer.Option(help="What to begin with; --forms tells what each shows.")] = Form.FUNCTION,
    folder: Folder = None,
    group: Annotated[str | None, typer.Option(help="The group it belongs to; the folder's, unless given.")] = None,
    stubs: Annotated[bool, typer.Option("--stubs", help="Write the type stubs too, for editors.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there already.")] = False,
    forms: Annotated[bool, typer.Option("--forms", help="Tell what each form shows, and write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a new tool, group or policy that passes `validate`. Where anything is wrong, nothing is written."""
    if forms:
        _tell_forms(as_json=as_json)
        return
    if name is None and form is not Form.POLICY:
        raise CommandError("name the tool: portoser tool new orders.refund", code=Exit.USAGE)

    from portoser.authoring.new import write_new
    from portoser.catalog.errors import Invalid

    root = folder or _tools_folder()
    following = [f"{_accepting()}portoser {command} {shlex.quote(str(root))}" for command in ("validate", "dev")]
    try:
        written = asyncio.run(write_new(root, form, name or "policy", group=group, replace=force))
    except Invalid as error:
        first, *rest = [str(root / p.path) + f": {p.message} {p.advice}" if p.path else str(p) for p in error.problems]
        raise CommandError(f"nothing is written: {first}".rstrip(), problems=tuple(rest)) from None
    paths = [str(root / path) for path in written.paths]
    if stubs:
        paths += _write_stubs(Path("typings"))
    if as_json:
        import msgspec

        print_json({"written": paths, "warnings": msgspec.to_builtins(written.warnings), "next": following})
        return
    for path in paths:
        say(path, style="green")
    for warning in written.warnings:
        warn(f"warning: {warning.message} {warning.advice}".rstrip())
    say(f"Next: `{following[0]}` runs its examples, `{following[1]}` runs them at each save and calls it at a prompt.")


def stubs(
    folder: Annotated[
        Path, typer.Argument(help="Where editors look for stubs; typings is pyright's and VS Code's.", metavar="DIR")
    ] = Path("typings"),
    as_json: AsJson = False,
) -> None:
    """Write type stubs of `portoser.tool`, so that an editor knows `ctx` and `registry` without Portoser installed."""
    paths = _write_stubs(folder)
    if as_json:
        print_json({"written": paths})
        return
    for path in paths:
        say(path, style="green")
    if folder.name == "typings":
        say("Pyright and VS Code find them in the folder that is opened; mypy with `mypy_path = typings`.")
    else:
        say(f'Tell pyright and VS Code `stubPath = "{folder}"`, and mypy `mypy_path = {folder}`.')


def schema(
    folder: Folder = None,
    show: Annotated[bool, typer.Option("--print", help="Print it, and write nothing.")] = False,
) -> None:
    """Write the JSON Schema of manifests into the folder of tools, for editors; or print it."""
    from portoser.authoring.new import write_schema
    from portoser.authoring.schema import schema_text

    if show:
        import sys

        sys.stdout.write(schema_text())
        return
    root = folder or _tools_folder()
    if not root.is_dir():
        raise CommandError(f"there is no directory {str(root)!r}: name another one with --folder.")
    is_new = write_schema(root)
    say(f"{root / SCHEMA_FILE}{'' if is_new else ' is as it should be.'}", style="green")


def _tell_forms(*, as_json: bool) -> None:
    if as_json:
        print_json({"forms": {str(form): form.summary for form in Form}})
    else:
        print_table(("FORM", "WHAT IT SHOWS"), ((form, form.summary) for form in Form), whole=("FORM",))


def _tools_folder() -> Path:
    """The folder that the settings name, whether it is there already or not; nothing else of them is asked."""
    return Path(_setting("tools", "PORTOSER_TOOLS") or "tools.d")


def _accepting() -> str:
    """What has to stand before a command that runs tools, so that it works on this machine."""
    from portoser.runtime.isolation.layers import probe

    asked = _setting("sandbox", "PORTOSER_SANDBOX") or "strict"
    if asked.strip().lower() == "off":
        return ""
    return "" if probe().refusal is None else "PORTOSER_SANDBOX=off "


def _setting(name: str, variable: str) -> str | None:
    """What the environment or `portoser.toml` says of one setting, whatever they say of others.

    Raises:
        CommandError: `portoser.toml` is there and cannot be read.
    """
    from portoser.settings import FILE

    if told := os.environ.get(variable):
        return told
    try:
        told = tomllib.loads(Path(FILE).read_text(encoding="utf-8")).get(name)
    except FileNotFoundError:
        return None
    except tomllib.TOMLDecodeError as error:
        raise CommandError(f"{FILE}: this is not TOML: {error}.") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise CommandError(f"{FILE}: it cannot be read: {reason}.") from None
    return told if isinstance(told, str) else None


def _write_stubs(folder: Path) -> list[str]:
    from portoser import __version__
    from portoser.authoring.new import write_all
    from portoser.authoring.stubs import stub_files
    from portoser.catalog.errors import Invalid
    from portoser.runtime.worker.loader import INJECTED

    files = stub_files(__version__, tuple(INJECTED))
    try:
        write_all(folder, files, replace=True)
    except Invalid as error:
        raise CommandError(str(folder / error.problems[0].path) + f": {error.problems[0].message}") from None
    return [str(folder / path) for path in files]
