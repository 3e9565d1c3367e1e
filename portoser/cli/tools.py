"""`portoser tool`: what is registered, and the tools that git does not own."""

from pathlib import Path
from typing import Annotated, Any

import typer

from portoser.cli.client import Server, problem_line, tool_path
from portoser.cli.exits import CommandError, Exit
from portoser.cli.output import moment, print_fields, print_json, print_table, say, warn
from portoser.cli.target import AsJson, server_of

app = typer.Typer(help="Registered tools.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The tool.", metavar="TOOL")]
PAGE = 1000


@app.command("list")
def show_all(
    ctx: typer.Context,
    group: Annotated[str | None, typer.Option(help="Only tools of this group.")] = None,
    owner: Annotated[
        str | None, typer.Option(help="Only tools of this owner, for example git:main or rest:ada.")
    ] = None,
    status: Annotated[str | None, typer.Option(help="Only tools that stand like this, for example Invalid.")] = None,
    search: Annotated[
        str | None, typer.Option("--search", "-s", help="Only tools whose name or description holds this.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tools that you may call; editors see all."""
    found = tools_of(server_of(ctx), group=group, owner=owner, status=status, q=search)
    if as_json:
        print_json({"total": len(found), "tools": found})
        return
    if not found:
        say("There are no tools." if not any((group, owner, status, search)) else "No tool is like that.")
        return
    print_table(
        ("TOOL", "STATUS", "V", "GROUP", "PERMISSIONS", "OWNER", "COMMIT"),
        (
            (
                tool["name"],
                tool["status"] if tool["enabled"] else "off",
                tool["version"],
                tool["group"],
                ", ".join(tool["permissions"]),
                tool["owner"],
                short(tool["provenance"]["commit"]),
            )
            for tool in found
        ),
        whole=("TOOL", "STATUS", "V", "COMMIT"),
    )


@app.command()
def show(ctx: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """One tool: its schemas, limits, where it came from, and its code for those who may edit."""
    import json

    tool = server_of(ctx).get(tool_path(name))
    if as_json:
        print_json(tool)
        return
    provenance = tool["provenance"]
    print_fields(
        (
            ("tool", tool["name"]),
            ("description", tool["description"]),
            ("status", tool["status"] if tool["enabled"] else "off"),
            ("problem", tool["problem"]),
            ("owner", tool["owner"]),
            ("group", tool["group"]),
            ("permissions", tool["permissions"] or "none: only admins may call it"),
            ("version", f"{tool['version']} ({tool['digest'][:12]})"),
            ("from", provenance["path"]),
            ("commit", provenance["commit"]),
            ("author", provenance["author"]),
            ("uses", json.dumps(tool["uses"]) if tool["uses"] else None),
            ("requires", tool["requires"]),
            ("updated", moment(tool["updated_at"])),
            ("input", json.dumps(tool["input_schema"], ensure_ascii=False)),
            ("output", json.dumps(tool["output_schema"], ensure_ascii=False) if tool["output_schema"] else None),
        )
    )
    for file in tool["files"] or ():
        say()
        say(f"--- {file['path']}", style="bold")
        say(file["content"].rstrip("\n"))


@app.command()
def add(
    ctx: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Its Python files, in the order of their import; the last one has the function.", metavar="FILE"
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Its name; the last file's, unless given.")] = None,
    description: Annotated[
        str | None, typer.Option(help="What it does; the function's docstring, unless given.")
    ] = None,
    entrypoint: Annotated[str | None, typer.Option(help="FILE:FUNCTION, where it cannot be guessed.")] = None,
    group: Annotated[str | None, typer.Option(help="The group it belongs to.")] = None,
    permission: Annotated[
        list[str] | None, typer.Option("--permission", "-p", help="An RBAC group that may call it; may be repeated.")
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="It changes nothing.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the tool where there is one.")] = False,
    as_json: AsJson = False,
) -> None:
    """Add a tool that git does not own, or replace one."""
    body: dict[str, Any] = {
        "name": name or files[-1].stem,
        "files": [{"path": file.name, "content": _read(file)} for file in files],
        "replace_existing": replace,
    }
    given = {
        "description": description,
        "entrypoint": entrypoint,
        "group": group,
        "permissions": permission,
        "annotations": {"readOnly": True} if read_only else None,
    }
    body.update({key: value for key, value in given.items() if value is not None})
    tool = server_of(ctx).post("/api/mcp/tools", body)
    if as_json:
        print_json(tool)
        return
    say(f"{tool['name']} is version {tool['version']}, of {tool['owner']}.", style="green")
    for warning in tool["warnings"]:
        warn(problem_line(warning))
    if not tool["permissions"]:
        say("It names no permissions, so that only admins may call it where auth is on.")


@app.command()
def rm(ctx: typer.Context, name: Name) -> None:
    """Delete a tool that git does not own. Its history stays, and adding it again goes on with it."""
    server_of(ctx).delete(tool_path(name))
    say(f"{name} is deleted.")


@app.command()
def versions(ctx: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """A tool's versions, newest first."""
    page = server_of(ctx).get(tool_path(name, "/versions"), limit=PAGE)
    if as_json:
        print_json(page)
        return
    print_table(
        ("V", "", "DIGEST", "COMMIT", "AUTHOR", "AT"),
        (
            (
                version["version"],
                "current" if version["current"] else "",
                version["digest"][:12],
                short(version["commit"]),
                version["author"],
                moment(version["at"]),
            )
            for version in page["versions"]
        ),
        whole=("V", "AT"),
    )


@app.command()
def rollback(
    ctx: typer.Context,
    name: Name,
    version: Annotated[int, typer.Argument(help="The version to go back to.", min=1)],
    as_json: AsJson = False,
) -> None:
    """Make an earlier version of a tool that git does not own the current one, as a new version."""
    tool = server_of(ctx).post(tool_path(name, "/rollback"), {"version": version})
    if as_json:
        print_json(tool)
        return
    say(f"{name} is as it was in version {version}; this is version {tool['version']}.", style="green")


def tools_of(server: Server, **filters: str | None) -> list[dict[str, Any]]:
    """Every tool that the filters let through, over as many pages as it takes."""
    found: list[dict[str, Any]] = []
    while True:
        page = server.get("/api/mcp/tools", skip=len(found), limit=PAGE, **filters)
        found += page["tools"]
        if not page["tools"] or len(found) >= page["total"]:
            return found


def short(commit: str | None) -> str:
    """A commit as people write it, with its ``+dirty``."""
    if not commit:
        return ""
    name, plus, dirty = commit.partition("+")
    return name[:10] + plus + dirty


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CommandError(f"{file} is not UTF-8 text.", code=Exit.USAGE) from None
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}.", code=Exit.USAGE) from None
