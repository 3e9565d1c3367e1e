"""`portoser token`: API tokens for the file that PORTOSER_TOKENS names."""

from datetime import date
from typing import Annotated

import typer

from portoser.cli.exits import CommandError, Exit
from portoser.cli.output import print_json, say
from portoser.cli.target import AsJson

app = typer.Typer(help="API tokens.", no_args_is_help=True)


@app.callback()
def family() -> None:
    """API tokens."""


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The token's name, which the policy's clients speak of.")],
    group: Annotated[
        list[str] | None, typer.Option("--group", "-g", help="An RBAC group of its holder; may be repeated.")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="Who holds it, where that is not its name.")] = None,
    expires: Annotated[str | None, typer.Option(help="The last day it is good, for example 2027-01-31.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a token: it is shown once, and its entry for the token file holds only a hash."""
    import yaml

    from portoser.identity.tokens import new_token

    if expires is not None:
        try:
            date.fromisoformat(expires)
        except ValueError:
            raise CommandError(f"{expires!r} is not a date: write for example 2027-01-31.", code=Exit.USAGE) from None
    token, digest = new_token()
    entry: dict[str, object] = {"name": name, "hash": digest, "groups": list(group or [])}
    if subject is not None:
        entry["subject"] = subject
    if expires is not None:
        entry["expires"] = expires
    if as_json:
        print_json({"token": token, "entry": entry})
        return
    say("The token; it is not kept anywhere, so copy it now:")
    say()
    say(f"  {token}", style="bold")
    say()
    say("Add this to the file that PORTOSER_TOKENS names; the server sees it at once:")
    say()
    typer.echo(yaml.safe_dump([entry], sort_keys=False, allow_unicode=True).rstrip())
