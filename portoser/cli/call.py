"""Calling a tool."""

import json
import sys
from typing import Annotated, Any

import typer

from portoser.cli.arguments import typed_arguments
from portoser.cli.client import Server, tool_path
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
    answers: Annotated[
        list[str] | None,
        typer.Option(
            "--answer",
            help="Answer what the tool asks, by the question's key: a JSON object, the value of the only field, or "
            "decline. Whatever is not answered so is asked at the terminal.",
            metavar="KEY=VALUE",
        ),
    ] = None,
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
    answer = _answered(server, name, {"arguments": given, "confirmed": confirmed}, answers or [])
    if logs and answer["logs"] and not as_json:
        sys.stderr.write(clean(answer["logs"]).rstrip("\n") + "\n")
    if as_json:
        print_json(answer)
    else:
        print_answer(answer)
    if answer["isError"]:
        raise typer.Exit(Exit.FAILED)


def _answered(server: Server, name: str, body: dict[str, Any], options: list[str]) -> dict[str, Any]:
    """What the tool answers, once everything that it asks meanwhile is answered."""
    while True:
        try:
            answer: dict[str, Any] = server.post(tool_path(name, "/call"), body)
            return answer
        except CommandError as asked:
            if not isinstance(asked.document.get("questions"), dict):
                raise
            body = {**body, "answers": _answers(name, asked, options), "state": asked.document.get("state")}


def _answers(name: str, asked: CommandError, options: list[str]) -> dict[str, Any]:
    """The answers to what a tool asks, as options or a person at this terminal give them."""
    import msgspec

    from portoser.catalog.question import Question
    from portoser.cli.forms import answer_in, fill_in, given_answers

    given = given_answers(options)
    answers = {}
    for key, told in asked.document["questions"].items():
        question = Question(key=key, message=told["message"], schema=told["schema"])
        if key in given:
            answers[key] = msgspec.to_builtins(answer_in(given[key], question))
        elif sys.stdin.isatty():
            answers[key] = msgspec.to_builtins(fill_in(question))
        elif asked.document.get("reason") == "confirmation_required":
            raise asked
        else:
            raise CommandError(
                f"{name} asks: {question.message} Answer it with --answer {key}=…, or call it at a terminal.",
                problems=(json.dumps(question.schema, ensure_ascii=False),),
            )
    return answers


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
