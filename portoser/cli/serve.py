"""`portoser serve`: its options are the settings, each a flag."""

import gc
import inspect
import signal
import sys
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from portoser.catalog.errors import PortoserError
from portoser.cli.exits import CommandError, Exit
from portoser.settings import Settings, SettingsError, default_of, is_secret, load_settings, variable


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
    try:
        _serve(settings)
    except PortoserError as error:
        raise CommandError(str(error)) from error


def _serve(settings: Settings) -> None:
    # What importing makes is there to stay: collecting in between costs a tenth of a start and finds nothing.
    gc.disable()
    from portoser import faults, logs
    from portoser.beginning import begin, listening

    logs.configure(settings.log_level.value)
    faults.warn()
    signal.signal(signal.SIGTERM, _end)
    with listening(settings) as sock, begin(settings) as beginning:
        from portoser.app import serve

        serve(settings, sock, beginning)


def _end(number: int, _: object) -> None:
    """End a start that is told to: by an exception, as SIGINT does, so that what was begun is stopped."""
    signal.signal(number, lambda *_: None)  # once: stopping is not to be broken off
    sys.exit(128 + number)


def _parameters() -> list[inspect.Parameter]:
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_flag(name, field))
        for name, field in Settings.model_fields.items()
        if not is_secret(field)
    ]


def _flag(name: str, field: FieldInfo) -> Any:
    declaration = f"--{name.replace('_', '-')}"
    default = default_of(field)
    help_text = f"{field.description} [{variable(name)}{f'; {default}' if default else ''}]"
    if field.annotation is bool:
        return Annotated[bool | None, typer.Option(declaration, help=help_text, show_default=False)]
    # Values go to the settings as they are typed, which alone know what is right.
    metavar = name.rsplit("_", 1)[-1].upper()
    return Annotated[str | None, typer.Option(declaration, help=help_text, show_default=False, metavar=metavar)]
