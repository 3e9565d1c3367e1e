"""`portoser serve`: its options are the settings, each a flag."""

import inspect
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from portoser.catalog.errors import PortoserError
from portoser.cli.exits import CommandError, Exit
from portoser.settings import Settings, SettingsError, is_secret, load_settings, variable

if TYPE_CHECKING:
    from typer.core import TyperGroup  # noqa: F401


def command() -> Any:
    """The command, with a flag for each setting but secrets, which a process list would show."""

    def serve(**flags: Any) -> None:
        run(**flags)

    serve.__signature__ = inspect.Signature(_parameters())  # type: ignore[attr-defined]
    serve.__doc__ = (
        "Run the server until it is told to stop.\n\n"
        "Each flag beats its environment variable, which beats portoser.toml in this directory."
    )
    serve.__annotations__ = {}
    program = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    program.command(context_settings={"help_option_names": ["-h", "--help"]})(serve)
    return typer.main.get_command(program)


def run(**flags: Any) -> None:
    """Read the settings and serve; wrong settings are told all at once."""
    try:
        settings = load_settings(**flags)
    except SettingsError as error:
        count = len(error.problems)
        raise CommandError(
            f"the settings are wrong in {count} {'place' if count == 1 else 'places'}:",
            code=Exit.USAGE,
            problems=error.problems,
        ) from None
    from portoser.app import serve

    try:
        serve(settings)
    except PortoserError as error:
        raise CommandError(str(error)) from error


def _parameters() -> list[inspect.Parameter]:
    parameters = []
    for name, field in Settings.model_fields.items():
        if is_secret(field):
            continue
        flag = f"--{name.replace('_', '-')}"
        default = field.get_default(call_default_factory=True, validated_data={})
        help_text = f"{field.description} [{variable(name)}{_shown(default)}]"
        option = typer.Option(
            *((flag,) if isinstance(default, bool) else (flag,)), help=help_text, show_default=False
        )
        annotation = Annotated[bool | None, option] if isinstance(default, bool) else Annotated[str | None, option]
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        )
    return parameters


def _shown(default: object) -> str:
    if default in (None, (), False):
        return ""
    return f"; {default.value if isinstance(default, Enum) else default}"
