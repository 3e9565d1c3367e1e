"""How the server fares, who it takes you for, and how clients connect to it."""

import asyncio
import os
from collections.abc import Collection, Iterable
from typing import Annotated, Any

import typer

from portoser.cli.check import count
from portoser.cli.client import DEFAULT_URL, Server, problem_line, tool_path
from portoser.cli.exits import CommandError, Exit
from portoser.cli.output import moment, print_fields, print_json, print_table, say, warn
from portoser.cli.target import AsJson, Target, server_of
from portoser.cli.tools import short, tools_of
from portoser.clients import Client


def status(ctx: typer.Context, as_json: AsJson = False) -> None:
    """How the server fares: its source, what is not as committed, its workers and its database."""
    server = server_of(ctx)
    state = server.get("/api/mcp/status")
    tools = tools_of(server)
    wrong = [tool for tool in tools if tool["status"] != "Synced"]
    if as_json:
        print_json({**state, "not_synced": wrong})
        return
    _print_status(server, state, dirty=_dirty_owners(tools))
    if wrong:
        say()
        print_table(
            ("TOOL", "STATUS", "PROBLEM"),
            ((tool["name"], tool["status"], tool["problem"]) for tool in wrong),
            whole=("TOOL", "STATUS"),
        )
    for warning in state["warnings"]:
        warn(warning)


def whoami(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Who the server takes you for, and what you may do."""
    me = server_of(ctx).get("/api/mcp/whoami")
    if as_json:
        print_json(me)
        return
    print_fields(
        (
            ("subject", me["subject"]),
            ("name", me["name"]),
            ("kind", me["kind"]),
            ("groups", me["groups"] or "none"),
            ("roles", me["roles"] or "none"),
            ("client", me["client"]),
            ("address", me["address"]),
            ("token ends", moment(me["expires_at"])),
            ("may call", count(me["tools"], "tool")),
        )
    )


def explain(
    ctx: typer.Context,
    tool: Annotated[str, typer.Argument(help="The tool's name.", metavar="TOOL")],
    caller: Annotated[
        str | None, typer.Option(help="Ask for somebody else, by token name or subject; for editors and auditors.")
    ] = None,
    groups: Annotated[
        str | None, typer.Option(help="Ask for somebody with these RBAC groups, as a,b; for editors and auditors.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Why you, or somebody else, may or may not call a tool. Exits 1 where not."""
    told = server_of(ctx).get(tool_path(tool, "/explain"), caller=caller, as_groups=groups)
    if as_json:
        print_json(told)
    else:
        print_fields(
            (
                ("tool", told["tool"]),
                ("caller", told["caller"]),
                ("groups", told["groups"] or "none"),
                ("may call", f"{'yes' if told['allowed'] else 'no'} ({told['reason']})"),
                ("because", told["message"]),
                ("takes", told["permissions"] or None),
                ("group", told["group"]),
            )
        )
    if not told["allowed"]:
        raise typer.Exit(Exit.FAILED)


def config(
    ctx: typer.Context,
    client: Annotated[
        Client | None, typer.Option(help="claude-desktop, claude-code, cursor, vscode, continue or generic.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What to write into an MCP client's configuration."""
    found = server_of(ctx).get("/api/mcp/config", client=client.value if client is not None else None)
    if as_json:
        print_json(found)
        return
    print_fields((("SSE", found["sse_url"]), ("Streamable HTTP", found["http_url"])))
    for name, snippet in found["clients"].items():
        say()
        say(name if name != Client.GENERIC else "generic: any other", style="bold")
        if "command" in snippet:
            say(f"  {snippet['command']}")
        for file in snippet.get("files", {"": snippet["file"]} if "file" in snippet else {}).items():
            say("  " + ": ".join(filter(None, file)))
        if client is not None:
            print_json(snippet["content"])
    if client is None:
        say()
        say("portoser config --client NAME prints what belongs into the file.")


def bridge(
    ctx: typer.Context,
    url: Annotated[
        str | None,
        typer.Argument(help="The server's /mcp or /mcp/sse; PORTOSER_SSE_URL or PORTOSER_URL, unless given."),
    ] = None,
) -> None:
    """Carry MCP between standard input and output and a server, for clients that start a process."""
    from portoser.mcp.bridge import run_bridge

    target: Target = ctx.find_root().obj
    where = url or os.environ.get("PORTOSER_SSE_URL") or target.url
    if not where.startswith(("http://", "https://")):
        raise CommandError(f"{where!r} is not a server's URL: write for example {DEFAULT_URL}/mcp.", code=Exit.USAGE)
    raise typer.Exit(asyncio.run(run_bridge(_endpoint(where), token=target.token)))


def _endpoint(url: str) -> str:
    """A server's own address leads to its Streamable HTTP endpoint."""
    url = url.rstrip("/")
    return url if url.endswith(("/mcp", "/sse")) or "?" in url else f"{url}/mcp"


def _dirty_owners(tools: Iterable[dict[str, Any]]) -> set[str]:
    """The owners with a tool that is served as no commit has it."""
    return {tool["owner"] for tool in tools if (tool["provenance"]["commit"] or "").endswith("+dirty")}


def _print_status(server: Server, state: dict[str, Any], *, dirty: Collection[str]) -> None:
    tools, runtime = state["tools"], state["runtime"]
    print_fields(
        (
            ("server", f"{server.url}  Portoser {state['version']}, up {_duration(state['uptime_seconds'])}"),
            ("auth", state["auth"]),
            ("registry", f"generation {state['generation']}, read {state['read_seconds_ago']:.1f} s ago"),
            ("tools", ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in tools.items())),
            ("workers", f"{runtime['busy']} of {runtime['workers']} busy, {runtime['queued']} calls wait"),
            ("sandbox", runtime["sandbox"]),
            ("packages", _packages(state["environments"])),
            ("database", f"{state['database']['kind']}{'' if state['database']['answers'] else ', DOES NOT ANSWER'}"),
        )
    )
    for source in state["sources"]:
        say()
        _print_source(source, is_dirty=f"git:{source['source']}" in dirty)


def _packages(environments: dict[str, Any]) -> str | None:
    """The packages that tools require, on the server's disk; None where there are none."""
    count, preparing = environments["count"], environments["preparing"]
    told = [f"{count} set{'' if count == 1 else 's'}, {environments['size'] / 2**20:.0f} MiB"] if count else []
    told += [f"being prepared: {each}" for each in preparing]
    return "; ".join(told) or None


def _print_source(source: dict[str, Any], *, is_dirty: bool) -> None:
    run, held = source["last_run"], source["held_plan"]
    applied = source["applied_commit"]
    if applied and is_dirty and not applied.endswith("+dirty"):
        applied += "+dirty"
    print_fields(
        (
            ("source", f"{source['source']} ({' '.join(filter(None, (source['kind'], source['location'])))})"),
            ("phase", source["phase"]),
            ("applied", short(applied)),
            ("last run", f"{run['outcome']}, {moment(run['finished_at'])}: {run['cause']}" if run else None),
            ("held plan", held),
            ("approve by", f"portoser sync --approve {held}" if held else None),
        )
    )
    if source["conditions"]:
        print_table(
            ("CONDITION", "", "REASON", "SINCE", "MESSAGE"),
            ((c["name"], c["status"], c["reason"], moment(c["since"]), c["message"]) for c in source["conditions"]),
            whole=("CONDITION", "", "SINCE"),
        )
    for problem in source["problems"]:
        warn(problem_line(problem))
    hidden = source["problem_count"] - len(source["problems"])
    if hidden > 0:
        more = "more " if source["problems"] else ""
        warn(f"… and {hidden:,} {more}problem{'' if hidden == 1 else 's'}; `portoser validate` tells all.")


def _duration(seconds: float) -> str:
    whole = int(seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if whole >= size:
            return f"{whole // size} {unit}"
    return f"{whole} s"
