"""Which server a command speaks to, and the options that many commands share."""

from dataclasses import dataclass
from typing import Annotated

import typer

from portoser.cli.client import Server


@dataclass(frozen=True, slots=True)
class Target:
    """The server's URL and the token to show it."""

    url: str
    token: str | None


def server_of(ctx: typer.Context) -> Server:
    """The server that the command's options name."""
    target: Target = ctx.find_root().obj
    return Server(target.url, target.token)


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
