"""The `portoser` command: its options, its commands, and how it ends."""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from portoser import __version__
from portoser.catalog.errors import PortoserError
from portoser.cli import audit, authoring, call, check, connect, dev, doctor, groups, plan, sync, tokens, tools
from portoser.cli.client import DEFAULT_URL
from portoser.cli.exits import CommandError, Exit
from portoser.cli.target import Target

app = typer.Typer(
    name="portoser",
    help="A GitOps registry of MCP tools.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"portoser {__version__}")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    url: Annotated[
        str, typer.Option(envvar="PORTOSER_URL", help="The server that commands speak to.", metavar="URL")
    ] = DEFAULT_URL,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="PORTOSER_TOKEN", help="Your API token, where auth is on. Better set as a variable.", metavar="TOKEN"
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """A GitOps registry of MCP tools."""
    ctx.obj = Target(url=url, token=token or None)


@app.command(
    add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "obj": None}
)
def serve(ctx: typer.Context) -> None:
    """Run the server."""
    # Its options are the settings, which take a while to import: only who serves waits for them.
    from portoser.cli.serve import command

    command().main(args=ctx.args, prog_name="portoser serve")


app.command()(dev.dev)
app.command()(check.validate)
app.command()(plan.plan)
app.command()(sync.sync)
app.command()(sync.history)
app.command()(connect.status)
app.command()(call.call)
tools.app.command()(authoring.new)
tools.app.command()(authoring.stubs)
tools.app.command()(authoring.schema)
app.add_typer(tools.app, name="tool")
app.add_typer(groups.app, name="group")
app.add_typer(audit.app, name="audit")
app.command()(connect.config)
app.command()(connect.whoami)
app.command()(connect.explain)
app.command()(connect.bridge)
app.command()(doctor.doctor)
app.add_typer(tokens.app, name="token")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit; `arguments` default to the process's."""
    try:
        typer.main.get_command(app).main(args=None if arguments is None else list(arguments), prog_name="portoser")
    except CommandError as error:
        _complain(str(error), *error.problems)
        sys.exit(error.code)
    except PortoserError as error:
        first, *rest = str(error).splitlines() or [type(error).__name__]
        _complain(first, *rest)
        sys.exit(Exit.FAILED)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the last resort: a person gets a sentence, not a traceback
        if os.environ.get("PORTOSER_TRACEBACK"):
            traceback.print_exc()
        _complain(
            f"this should not have happened: {type(error).__name__}: {error}",
            "PORTOSER_TRACEBACK=1 shows where.",
        )
        sys.exit(Exit.FAILED)


def _complain(first: str, *rest: str) -> None:
    from portoser.cli.output import clean

    sys.stdout.flush()
    sys.stderr.write(f"portoser: {clean(first)}\n")
    for line in rest:
        sys.stderr.write(f"  {clean(line)}\n")
