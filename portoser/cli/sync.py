"""`portoser sync`: bring the server's source into its registry now, and let a held plan through."""

from typing import Annotated, Any

import typer

from portoser.cli.client import problem_line
from portoser.cli.exits import CommandError, Exit
from portoser.cli.output import print_fields, print_json, say, warn
from portoser.cli.target import AsJson, server_of
from portoser.cli.tools import short

_GOOD = {"applied", "unchanged"}


def sync(
    ctx: typer.Context,
    approve: Annotated[
        str | None, typer.Option(help="Let this plan through, which a guard holds back.", metavar="PLAN")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the run's end.")] = True,
    as_json: AsJson = False,
) -> None:
    """Read the server's source again, and apply what changed. Exits 1 where that failed or is held back."""
    body = {"approve": approve} if approve is not None else {}
    told = server_of(ctx).post("/api/mcp/sync", body, wait=str(wait).lower())
    run = told["run"]
    if as_json:
        print_json(told)
    elif run is None:
        say("The run is asked for; `portoser status` tells what comes of it.")
    else:
        _print_run(run)
    if run is None or run["outcome"] in _GOOD:
        return
    [source] = [source for source in told["sources"] if source["source"] == run["source"]]
    raise CommandError(_why(run, source), code=Exit.FAILED)


def _print_run(run: dict[str, Any]) -> None:
    counts = ", ".join(f"{count} {name}" for name, count in (run["summary"] or {}).items())
    took = (run["durations"] or {}).get("total")
    print_fields(
        (
            ("outcome", run["outcome"]),
            ("plan", run["plan_id"]),
            ("changes", counts),
            ("commit", short(run["commit"])),
            ("generation", run["generation"]),
            ("took", f"{took:.0f} ms" if took is not None else None),
        )
    )
    for problem in run["problems"]:
        warn(problem_line(problem))


def _why(run: dict[str, Any], source: dict[str, Any]) -> str:
    if run["outcome"] == "held":
        messages = [c["message"] for c in source["conditions"] if c["name"] == "PruneBlocked" and c["status"] == "True"]
        return " ".join(["the plan is held back.", *messages])
    if run["outcome"] == "standby":
        return "another replica reconciles this source: ask that one."
    return f"the run failed: {run['error']}"
