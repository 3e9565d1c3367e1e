"""`portoser group`: what is switched on and off together."""

from typing import Annotated
from urllib.parse import quote

import typer

from portoser.cli.output import print_json, print_table, say
from portoser.cli.target import AsJson, server_of

app = typer.Typer(help="Groups of tools.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The group.", metavar="GROUP")]
Reason = Annotated[str, typer.Option(help="Why; everybody can read it.")]
Ttl = Annotated[
    str | None, typer.Option(help="For how long, for example 2h; without it, until somebody says otherwise.")
]


@app.command("list")
def show_all(ctx: typer.Context, as_json: AsJson = False) -> None:
    """All groups, and whether they are on."""
    page = server_of(ctx).get("/api/mcp/groups")
    if as_json:
        print_json(page)
        return
    if not page["groups"]:
        say("There are no groups.")
        return
    print_table(
        ("GROUP", "STATE", "TOOLS", "PERMISSIONS", "OWNER", "OVERRIDE"),
        (
            (
                group["name"],
                "on" if group["enabled"] else "off",
                group["tools"],
                ", ".join(group["permissions"] or ()),
                group["owner"],
                _override(group["override"]),
            )
            for group in page["groups"]
        ),
        whole=("GROUP", "STATE"),
    )


@app.command()
def enable(ctx: typer.Context, name: Name, reason: Reason, ttl: Ttl = None, as_json: AsJson = False) -> None:
    """Switch a group on, whatever its declaration says."""
    _switch(ctx, name, True, reason, ttl, as_json)


@app.command()
def disable(ctx: typer.Context, name: Name, reason: Reason, ttl: Ttl = None, as_json: AsJson = False) -> None:
    """Switch a group off, whatever its declaration says: its tools are not served."""
    _switch(ctx, name, False, reason, ttl, as_json)


@app.command()
def reset(ctx: typer.Context, name: Name, reason: Reason, as_json: AsJson = False) -> None:
    """Take an override back, so that the declaration counts again."""
    _switch(ctx, name, None, reason, None, as_json)


def _switch(ctx: typer.Context, name: str, enabled: bool | None, reason: str, ttl: str | None, as_json: bool) -> None:
    body = {"enabled": enabled, "reason": reason, "ttl": ttl}
    group = server_of(ctx).put(f"/api/mcp/groups/{quote(name, safe='')}", body)
    if as_json:
        print_json(group)
        return
    say(f"{group['name']} is {'on' if group['enabled'] else 'off'}; {group['tools']} tools.")


def _override(override: dict[str, object] | None) -> str:
    if override is None:
        return ""
    until = f" until {override['expires_at']}" if override["expires_at"] else ""
    return f"{override['reason']} ({override['by']}{until})"
