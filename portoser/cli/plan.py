"""`portoser plan`: what would change on a server, told before it does."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from portoser.cli.check import check, is_of_name, settings_of
from portoser.cli.client import Server, tool_path
from portoser.cli.exits import CommandError, Exit
from portoser.cli.output import print_json, say, warn
from portoser.cli.target import AsJson, server_of
from portoser.cli.tools import tools_of

if TYPE_CHECKING:
    from portoser.authoring.checking import Checked
    from portoser.catalog.group import RegisteredGroup
    from portoser.catalog.revision import Revision
    from portoser.catalog.tool import RegisteredTool
    from sync.planned import Desired, Plan, Registered


def plan(
    ctx: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="A folder of tools to compare with the server; without it, the server's own.", metavar="DIR"
        ),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown for a pull request's comment; with DIR.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """What would change on the server. Exits 0 where nothing would, 2 where something would, 1 on errors.

    Of DIR's policy nothing is said: the server shows its own to nobody.
    """
    server = server_of(ctx)
    if folder is None:
        if markdown:
            raise CommandError("--markdown needs DIR.", code=Exit.USAGE)
        told = server.get("/api/mcp/sync/plan")
        print_json(told) if as_json else say(told["text"].rstrip("\n"))
    else:
        told = _of_folder(server, folder, as_json=as_json, markdown=markdown)
    if told["errors"]:
        raise typer.Exit(Exit.FAILED)
    if told["changes"]:
        raise typer.Exit(Exit.USAGE)


def _of_folder(server: Server, folder: Path, *, as_json: bool, markdown: bool) -> dict[str, Any]:
    from sync import report

    checked, not_run = asyncio.run(check(settings_of(folder, "plan"), run=True))
    if not_run is not None:
        raise CommandError(not_run)
    made = _made(server, checked)
    told = report.as_json(made)
    if as_json:
        print_json(told)
    else:
        say((report.as_markdown(made) if markdown else report.as_text(made)).rstrip("\n"))
        for problem in checked.problems:
            if not problem.is_error and not is_of_name(problem):  # on standard error: it is no part of a comment
                warn(f"warning: {problem}")
    return told


def _made(server: Server, checked: "Checked") -> "Plan":
    """The plan between a folder and a server, with the problems of the folder among its errors."""
    import msgspec

    from sync import guards
    from sync.plan import make_plan

    source = server.get("/api/mcp/sync")["sources"][0]
    registered = _registered(server, source, checked)
    plan = make_plan(_desired(f"git:{source['source']}", checked, registered), registered)
    errors = [problem for problem in checked.problems if problem.is_error]
    return msgspec.structs.replace(plan, guards=guards.check(plan), errors=(*errors, *plan.errors))


def _desired(owner: str, checked: "Checked", registered: "Registered") -> "Desired":
    import msgspec

    from portoser.catalog.tool import DesiredTool, Provenance
    from sync.planned import Desired, WantedTool

    reading = checked.reading
    wanted = []
    for tool in reading.tools:
        if tool.name not in checked.revisions:
            continue
        there = registered.tools.get(tool.name)
        # Commits differ between a checkout and a server; that alone is no change worth telling of.
        provenance = there.provenance if there is not None else Provenance(source="")
        desired = DesiredTool(
            name=tool.name,
            owner=owner,
            revision=checked.revisions[tool.name],
            group=tool.group,
            permissions=tool.permissions,
            provenance=msgspec.structs.replace(provenance, path=tool.path),
        )
        wanted.append(WantedTool(desired=desired, line=tool.line, adopt=tool.adopt))
    return Desired(
        owner=owner,
        commit=checked.scan.commit,
        tools=tuple(wanted),
        invalid={**reading.invalid, **{name: tuple(found) for name, found in checked.refused.items()}},
        broken_paths=reading.broken_paths,
        groups=tuple(msgspec.structs.replace(group, owner=owner) for group in reading.groups),
        broken_groups=reading.broken_groups,
        policy_is_unknown=True,
    )


def _registered(server: Server, source: dict[str, Any], checked: "Checked") -> "Registered":
    from sync.planned import Registered

    tools = {
        tool["name"]: _tool(server, tool, checked.revisions.get(tool["name"])) for tool in tools_of(server, all="true")
    }
    groups = {group["name"]: _group(group) for group in server.get("/api/mcp/groups", limit=1000)["groups"]}
    return Registered(
        generation=server.get("/api/mcp/status")["generation"],
        commit=source["applied_commit"],
        tools=tools,
        groups=groups,
    )


def _tool(server: Server, tool: dict[str, Any], wanted: "Revision | None") -> "RegisteredTool":
    """The registered tool. Only of those that differ from what is wanted more is asked than the list tells."""
    import msgspec

    from portoser.catalog.revision import Revision
    from portoser.catalog.tool import RegisteredTool

    if wanted is None:
        revision = Revision(
            digest=tool["digest"], files=(), entrypoint="", description=tool["description"], input_schema={}
        )
    elif wanted.digest == tool["digest"]:
        revision = wanted
    else:
        revision = _shown_revision(server.get(tool_path(tool["name"])), wanted)
    fields = {**tool, "revision": revision, "id": tool["name"], "permissions": tool["own_permissions"]}
    return msgspec.convert({name: fields[name] for name in RegisteredTool.__struct_fields__}, RegisteredTool)


def _shown_revision(shown: dict[str, Any], wanted: "Revision") -> "Revision":
    """The revision that the server shows; of its examples it tells nothing, so they count as the same."""
    import msgspec

    from portoser.catalog.revision import Limits, Revision
    from portoser.catalog.units import parse_rate

    limits = {**shown["limits"], "rate": None}
    rate = parse_rate(shown["limits"]["rate"]) if shown["limits"]["rate"] else None
    told = {name: shown[name] for name in Revision.__struct_fields__ if name in shown}
    revision = msgspec.convert({**told, "limits": limits, "files": ()}, Revision)
    return msgspec.structs.replace(
        revision,
        limits=msgspec.structs.replace(msgspec.convert(limits, Limits), rate=rate),
        examples=wanted.examples,
    )


def _group(group: dict[str, Any]) -> "RegisteredGroup":
    from portoser.catalog.group import Group, RegisteredGroup

    if group["declared_enabled"] is None:
        return RegisteredGroup(name=group["name"])
    declared = Group(
        name=group["name"],
        owner=group["owner"],
        enabled=group["declared_enabled"],
        permissions=tuple(group["permissions"] or ()),
        description=group["description"],
        path=group["path"],
    )
    return RegisteredGroup(name=group["name"], declared=declared)
