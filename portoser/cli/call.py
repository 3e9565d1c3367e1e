"""Calling a tool."""

import json
import sys
from typing import Annotated, Any

import typer

from portoser.cli.arguments import typed_arguments
from portoser.cli.client import tool_path
from portoser.cli.exits import CommandError, Exit
from portoser.cli.output import clean, print_json, say, warn
from portoser.cli.target import AsJson, server_of


def call(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The tool.", metavar="TOOL")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            help="Its arguments, typed by its input schema; lists as JSON or by repeating.", metavar="NAME=VALUE"
        ),
    ] = None,
    json_args: Annotated[
        str | None,
        typer.Option("--json-args", help="All arguments as one JSON object; - reads it from standard input."),
    ] = None,
    confirmed: Annotated[bool, typer.Option("--yes", "-y", help="Agree to a tool that asks before it runs.")] = False,
    logs: Annotated[bool, typer.Option("--logs", help="Show what the tool printed, on standard error.")] = False,
    as_json: AsJson = False,
) -> None:
    """Call a tool and print what it answers. Exits 1 where the tool fails."""
    server = server_of(ctx)
    if json_args is not None:
        if arguments:
            raise CommandError("give arguments as NAME=VALUE or as --json-args, not both.", code=Exit.USAGE)
        given = _json_object(sys.stdin.read() if json_args == "-" else json_args)
    elif arguments:
        given = typed_arguments(arguments, server.get(tool_path(name))["input_schema"])
    else:
        given = {}
    answer = server.post(tool_path(name, "/call"), {"arguments": given, "confirmed": confirmed})
    if logs and answer["logs"] and not as_json:
        sys.stderr.write(clean(answer["logs"]).rstrip("\n") + "\n")
    if as_json:
        print_json(answer)
    else:
        print_answer(answer)
    if answer["isError"]:
        raise typer.Exit(Exit.FAILED)


def print_answer(answer: dict[str, Any]) -> None:
    """What a tool answered, for a person: texts as they are, of the rest what it is."""
    if answer["isError"] and answer["message"]:
        warn(answer["message"])
        return
    for block in answer["content"]:
        say(_block(block))


def _block(block: dict[str, Any]) -> str:
    match block.get("type"):
        case "text":
            return str(block.get("text", ""))
        case "image" | "audio" as kind:
            size = len(str(block.get("data", ""))) * 3 // 4
            return f"[{kind}, {block.get('mimeType', 'unknown type')}, {size:,} bytes; --json prints it]"
        case "resource":
            resource = block.get("resource") or {}
            return str(resource.get("text") or f"[resource {resource.get('uri', '')}; --json prints it]")
        case kind:
            return f"[{kind}; --json prints it]"


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise CommandError(f"--json-args is not JSON: {error}.", code=Exit.USAGE) from None
    if not isinstance(value, dict):
        raise CommandError("--json-args is not a JSON object.", code=Exit.USAGE)
    return value
