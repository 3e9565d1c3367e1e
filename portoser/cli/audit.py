"""`portoser audit`: who did what, from which commit, with what result."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from portoser.cli.client import Server
from portoser.cli.exits import CommandError, Exit
from portoser.cli.output import clean, moment, print_hanging, print_json, print_json_line, say
from portoser.cli.target import AsJson, server_of

app = typer.Typer(help="The audit log.", no_args_is_help=True)

LOGS = "/api/mcp/audit/logs"
POLL_SECONDS = 1.0

Tool = Annotated[str | None, typer.Option(help="Only what was done with this tool.")]
Caller = Annotated[str | None, typer.Option(help="Only what this caller did.")]
Outcome = Annotated[str | None, typer.Option(help="Only what ended like this, for example denied.")]
Event = Annotated[str | None, typer.Option(help="Only such events, for example tool.call.")]
Since = Annotated[str | None, typer.Option(help="Only from this moment on, for example 2026-03-01T12:00:00Z.")]
Until = Annotated[str | None, typer.Option(help="Only before this moment.")]


@app.command()
def tail(
    ctx: typer.Context,
    number: Annotated[int, typer.Option("--number", "-n", min=1, max=1000, help="How many entries.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens from now on.")] = False,
    tool: Tool = None,
    caller: Caller = None,
    outcome: Outcome = None,
    event: Event = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """The newest entries, oldest of them first."""
    server = server_of(ctx)
    filters = {"tool": tool, "caller": caller, "outcome": outcome, "event": event}
    show = print_json_line if as_json else _print_entry
    newest = server.get(LOGS, limit=number, **filters)["entries"]
    for entry in reversed(newest):
        show(entry)
    if not follow:
        return
    seen = {entry["id"] for entry in newest}
    while True:
        time.sleep(POLL_SECONDS)
        fresh = list(_until_seen(server, filters, seen))
        for entry in reversed(fresh):
            show(entry)
        # Only the newest have to be remembered: older ones are behind them in every page.
        seen = {entry["id"] for entry in fresh} or seen


@app.command("show")
def show_one(
    ctx: typer.Context,
    request_id: Annotated[
        str, typer.Argument(help="The request id that an answer or an entry names.", metavar="REQUEST")
    ],
    as_json: AsJson = False,
) -> None:
    """Everything that the log says of one request."""
    entries = server_of(ctx).get(LOGS, request_id=request_id, limit=1000)["entries"]
    if not entries:
        raise CommandError(f"the audit log knows no request {request_id!r}.", code=Exit.NOT_FOUND)
    if as_json:
        print_json(entries)
        return
    import json

    from portoser.cli.output import print_fields

    for entry in reversed(entries):
        print_fields(
            (name, json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value)
            for name, value in entry.items()
        )
        say()


@app.command()
def export(
    ctx: typer.Context,
    form: Annotated[str, typer.Option("--format", help="jsonl or csv.")] = "jsonl",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; else standard output.")
    ] = None,
    tool: Tool = None,
    caller: Caller = None,
    outcome: Outcome = None,
    event: Event = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Every entry, newest first, as JSON lines or CSV."""
    filters = {"tool": tool, "caller": caller, "outcome": outcome, "event": event, "since": since, "until": until}
    count = 0
    with server_of(ctx).lines("/api/mcp/audit/export", format=form, **filters) as lines:
        try:
            target = sys.stdout if output is None else output.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise CommandError(f"cannot write {output}: {error.strerror}.") from None
        try:
            for line in lines:
                target.write(line + "\n")
                count += 1
        finally:
            if output is not None:
                target.close()
    if output is not None:
        say(f"{output}: {count:,} lines.")


def _until_seen(server: Server, filters: dict[str, str | None], seen: set[str]) -> Iterator[dict[str, Any]]:
    """Entries newer than those that were seen, newest first."""
    cursor: str | None = None
    while True:
        page = server.get(LOGS, limit=200, cursor=cursor, **filters)
        for entry in page["entries"]:
            if entry["id"] in seen:
                return
            yield entry
        cursor = page["next_cursor"]
        if cursor is None or not seen:
            return


def _what(entry: dict[str, Any]) -> str:
    """The group that an entry is about and how it stands now, or what of a policy; empty for other events."""
    arguments = entry["arguments"]
    if not isinstance(arguments, dict):
        return ""
    if entry["event"] == "policy.put":
        policy = arguments.get("policy")
        return _of_policy(policy) if isinstance(policy, dict) else ""
    if not entry["event"].startswith("group.") or "group" not in arguments:
        return ""
    name = str(arguments["group"])
    if "enabled" not in arguments:
        return name
    told = {True: "on", False: "off"}.get(arguments["enabled"], "as declared")
    until = arguments.get("expires_at")
    return f"{name} {told}" + (f" until {str(until)[:19].replace('T', ' ')}" if until else "")


def _of_policy(policy: dict[str, Any]) -> str:
    """The roles and clients that a policy names, and how many powers it grants."""
    told = [f"{part} {', '.join(policy[part])}" for part in ("roles", "clients") if policy.get(part)]
    if powers := policy.get("powers"):
        told.append(f"{len(powers)} power rule{'' if len(powers) == 1 else 's'}")
    return "; ".join(told) or "empty"


def _print_entry(entry: dict[str, Any]) -> None:
    from rich.text import Text

    colour = {"ok": "green", "denied": "yellow", "invalid": "yellow", "input_required": "yellow"}
    line = Text(clean(moment(entry["at"], exact=True)), style="dim")
    line.append(f"  {clean(entry['outcome']):<8}", style=colour.get(entry["outcome"], "red"))
    line.append(f"  {clean(entry['event'])}")
    if entry["tool"]:
        line.append(f"  {clean(entry['tool'])}", style="bold")
    if what := _what(entry):
        line.append(f"  {clean(what)}", style="bold")
    line.append(f"  by {clean(entry['caller']['subject'])}")
    if entry["ip"]:
        line.append(f" from {clean(entry['ip'])}")
    if entry["duration_ms"] is not None:
        line.append(f"  {entry['duration_ms']:.1f} ms", style="dim")
    if entry["reason"]:
        line.append(f"  {clean(entry['reason'])}")
    if entry["request_id"]:
        line.append(f"  {clean(entry['request_id'])}", style="dim")
    print_hanging(line, indent=4)
