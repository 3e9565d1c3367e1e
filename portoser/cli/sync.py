"""Bring the server's source into its registry now, let a held plan through, and what earlier runs did."""

from typing import Annotated, Any

import typer

from portoser.cli.client import problem_line
from portoser.cli.exits import CommandError, Exit
from portoser.cli.output import moment, print_fields, print_json, print_table, say, warn
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
    if run is None:
        return
    if approve is not None and run["outcome"] in _GOOD and run["plan_id"] != approve:
        raise CommandError(
            f"nothing was approved: no plan {approve!r} is held back. `portoser status` names the one that is, if any.",
            code=Exit.FAILED,
        )
    if run["outcome"] in _GOOD:
        return
    [source] = [source for source in told["sources"] if source["source"] == run["source"]]
    raise CommandError(_why(run, source), code=Exit.FAILED)


def history(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=1000, help="How many runs to show at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """The runs that changed something, failed or were interrupted, and the one that goes on, newest first."""
    told = server_of(ctx).get("/api/mcp/sync/runs", limit=limit)
    if as_json:
        print_json(told)
        return
    if not told["runs"]:
        say("No run has changed anything yet.")
        return
    print_table(
        ("STARTED", "OUTCOME", "COMMIT", "GEN", "CHANGES", "PROBLEMS", "CAUSE"),
        (
            (
                moment(run["started_at"]),
                run["outcome"] or "running",
                short(run["commit"]),
                run["generation"],
                _counts(run),
                run["error"] or len(run["problems"]) or None,
                run["cause"],
            )
            for run in told["runs"]
        ),
        whole=("STARTED", "OUTCOME", "COMMIT", "GEN"),
    )
    if told["total"] > len(told["runs"]):
        say(f"… and {told['total'] - len(told['runs']):,} more: portoser history -n {min(told['total'], 1000)}")


def _counts(run: dict[str, Any]) -> str:
    return ", ".join(f"{count} {name}" for name, count in (run["summary"] or {}).items())


def _print_run(run: dict[str, Any]) -> None:
    took = (run["durations"] or {}).get("total")
    print_fields(
        (
            ("outcome", run["outcome"]),
            ("plan", run["plan_id"]),
            ("changes", _counts(run)),
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
