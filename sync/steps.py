"""The steps of a sync run: each does one thing to the run and sets its own condition.

A step that finds that nothing is left to do, or that nothing may be done, says how the run ends; a step that
fails raises. What a step needs of others it finds in the run, and what outlives the run in the workshop.
"""

import time
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from portoser import __version__, faults
from portoser.admission import Verdict
from portoser.catalog.errors import Problem, Severity
from portoser.catalog.revision import Revision
from portoser.catalog.tool import DesiredTool, Provenance, RegisteredTool
from portoser.runtime.environments.required import Waiting, ungranted_packages
from portoser.store import sync_runs, tools
from sync import guards
from sync.blocking import in_thread
from sync.manifest import READER_FORM, DeclaredTool, Reading, placed
from sync.plan import make_plan
from sync.planned import Desired, Plan, Registered, WantedTool
from sync.settling import settle
from sync.sources.base import Scan, SourceUnreadable
from sync.status import Phase, RunOutcome
from sync.withheld import withhold
from sync.workshop import Run, Wanted, Workshop

SECONDS_TO_FOLLOW = 10.0
"""How long a run waits for this replica to serve what it applied."""

SECONDS_FOR_PACKAGES = 3.0
"""How long a run waits for what new tools require, before it goes on without these tools."""

_SETTLING = "This takes a protection away, and counts once the file has been the same for 2 seconds."


Step = Callable[[Run], Awaitable[RunOutcome | None]]


async def fetch(run: Run) -> RunOutcome | None:
    """Read the source."""
    run.phase = Phase.FETCHING
    settled = run.workshop.settled
    run.looked_at, run.is_due = time.monotonic(), settled is not None and settled.is_due
    try:
        run.scan = await run.workshop.source.scan(thorough=run.is_thorough or run.is_due)
    except SourceUnreadable as error:
        run.conditions.set("Fetched", False, "Unreadable", str(error))
        raise
    commit = f" at {run.scan.commit[:12]}" if run.scan.commit else ""
    run.conditions.set("Fetched", True, "Read", f"{len(run.scan.files)} files{commit} are read.")
    return None


async def compare(run: Run) -> RunOutcome | None:
    """End where the source is what the last run left, and the registry has not moved on beside an open question."""
    settled = run.workshop.settled
    if run.is_thorough or run.is_due or settled is None or settled.scan is not run.scan:
        return None
    if settled.is_open and settled.generation != run.workshop.follower.snapshot.generation:
        return None
    run.is_repeated = True
    return settled.outcome


async def read(run: Run) -> RunOutcome | None:
    """Parse and validate what changed."""
    run.phase = Phase.PLANNING
    scan = _scan(run)
    run.reading = await in_thread(run.workshop.reader.read, scan.files, scan.refused)
    return None


async def admit(run: Run) -> RunOutcome | None:
    """Learn the schemas of what is new, in workers, and run its examples."""
    shop, reading = run.workshop, _reading(run)
    run.ungranted = _ungranted(run)
    none = (None, ())
    changed = (tool for tool in reading.tools if run.is_thorough or shop.verdicts.get(tool.name, none)[0] is not tool)
    new = [
        tool
        for tool in changed
        if tool.name not in run.ungranted and not _is_known(shop.verdicts.get(tool.name), tool, run)
    ]
    if new:
        declarations = [(tool.name, tool.declaration) for tool in new]
        warnings: list[Problem] = []
        registered = (tool.registered for tool in shop.follower.snapshot.tools.values())
        verdicts = await shop.admission.admit(
            declarations,
            served={tool.digest: tool.revision for tool in registered},
            progress=shop.on_progress,
            on_warning=warnings.append,
            patience=SECONDS_FOR_PACKAGES,
        )
        for tool, verdict in zip(new, verdicts, strict=True):
            if not isinstance(verdict, Revision):
                told = tuple(placed(problem, tool) for problem in verdict)
                verdict = Waiting.of(told, verdict.retry_after) if isinstance(verdict, Waiting) else told  # noqa: PLW2901
            shop.verdicts[tool.name] = (tool, verdict)
            shop.code_warnings.pop(tool.name, None)
        by_name = {tool.name: tool for tool in new}
        for warning in warnings:
            tool = by_name[warning.tool or ""]
            shop.code_warnings.setdefault(tool.name, []).append(placed(warning, tool))
    if len(shop.verdicts) > len(reading.tools):
        names = {tool.name for tool in reading.tools}
        shop.verdicts = {name: known for name, known in shop.verdicts.items() if name in names}
        shop.code_warnings = {name: told for name, told in shop.code_warnings.items() if name in names}
    return None


async def plan(run: Run) -> RunOutcome | None:
    """Compare what the source wants with what is registered."""
    run.phase = Phase.PLANNING
    shop = run.workshop
    snapshot = shop.follower.snapshot
    living = {name: served.registered for name, served in snapshot.tools.items()}
    wanted = await in_thread(_desired, run, living)
    registered = Registered(
        generation=snapshot.generation,
        commit=shop.applied_commit,
        tools=living,
        groups=snapshot.groups,
        policy=snapshot.policy,
        policy_owner=snapshot.policy_owner,
        policy_path=snapshot.policy_path,
        tombstones=await _tombstones(shop, wanted, living),
    )
    scan = _scan(run)
    settling = settle(wanted, registered, scan.since, run.looked_at, scan.unsure)
    run.until = min((at for at in (settling.until, run.packages_until) if at is not None), default=None)
    withheld = withhold(settling.desired, registered)
    made = await in_thread(make_plan, withheld.desired, registered)
    run.plan = msgspec.structs.replace(made, guards=guards.check(made, recent=await _recent_deletes(shop, made)))
    reading = _reading(run)
    refused = [problem for problems in run.invalid.values() for problem in problems]
    told = dict.fromkeys([*reading.errors, *refused, *made.errors])
    run.problems = tuple(sorted(told, key=lambda problem: (problem.path, problem.line, problem.column)))
    of_code = [warning for told in shop.code_warnings.values() for warning in told]
    held = (Problem(path=path, message=_SETTLING, severity=Severity.WARNING) for path in settling.waiting)
    run.warnings = (
        *(problem for problem in reading.problems if not problem.is_error),
        *of_code,
        *held,
        *withheld.warnings,
    )
    return None


async def guard(run: Run) -> RunOutcome | None:
    """Hold the plan back where a guard asks for somebody's approval."""
    made = _plan(run)
    if not made.guards or made.plan_id in run.workshop.approved:
        run.conditions.set("PruneBlocked", False, "Allowed", "No guard holds anything back.")
        return None
    first = made.guards[0]
    message = " ".join(f"{found.message} {found.advice}" for found in made.guards)
    run.conditions.set("PruneBlocked", True, first.reason, message)
    run.conditions.set("Applied", False, "AwaitingApproval", f"The plan {made.plan_id} waits for approval.")
    run.phase = Phase.AWAITING_APPROVAL
    return RunOutcome.HELD


async def end_if_equal(run: Run) -> RunOutcome | None:
    """End where there is nothing to apply."""
    made = _plan(run)
    if not made.is_empty:
        return None
    if not run.conditions.holds("Applied"):  # what was applied last is told until something else is
        run.conditions.set("Applied", True, "Equal", "The registry is as the source wants it.")
    return RunOutcome.UNCHANGED


async def follow(run: Run) -> RunOutcome | None:
    """Wait until this replica serves what was applied."""
    if run.applied is not None:
        await run.workshop.follower.at_least(run.applied.generation, SECONDS_TO_FOLLOW)
    return RunOutcome.APPLIED


LOOK: tuple[Step, ...] = (fetch, compare)
UP_TO_ADMISSION: tuple[Step, ...] = (read, admit)
FROM_PLAN: tuple[Step, ...] = (plan, guard, end_if_equal)


async def take(run: Run, steps: tuple[Step, ...]) -> RunOutcome | None:
    """Take steps one after the other until one says how the run ends, and note how long each took."""
    for step in steps:
        run.step = step.__name__
        began = time.perf_counter()
        try:
            outcome = await step(run)
        finally:
            run.note(step.__name__, began)
        faults.point(f"sync.{step.__name__}")
        if outcome is not None:
            return outcome
    return None


def applied_tree(scan: Scan) -> str:
    """The name of a source's content as this version reads it."""
    return f"{__version__}.{READER_FORM}:{scan.commit or '-'}:{scan.tree}"


def _is_known(known: tuple[DeclaredTool, Verdict] | None, tool: DeclaredTool, run: Run) -> bool:
    """Whether admission has spoken already. What it refused is tried again when somebody asks for a run."""
    if known is None or isinstance(known[1], Waiting) or (run.is_thorough and not isinstance(known[1], Revision)):
        return False
    return known[0] is tool or (known[0].declaration == tool.declaration and known[0].path == tool.path)


def _ungranted(run: Run) -> dict[str, tuple[Problem, ...]]:
    """What the policy has against tools: the one that the source declares, else the one that is in force."""
    shop, reading = run.workshop, _reading(run)
    policy = reading.policy or shop.follower.snapshot.policy
    return {
        tool.name: tuple(placed(problem, tool) for problem in found)
        for tool in reading.tools
        if tool.declaration.requires
        and (found := ungranted_packages(policy, tool.name, tool.declaration, owner=shop.owner))
    }


def _desired(run: Run, living: Mapping[str, RegisteredTool]) -> Desired:
    shop, reading, scan = run.workshop, _reading(run), _scan(run)
    moved = _moved_paths(shop.wanted_of, scan)
    made: dict[str, Wanted] = {}
    invalid = dict(reading.invalid)
    waiting: dict[str, Waiting] = {}
    for tool in reading.tools:
        verdict = run.ungranted.get(tool.name) or shop.verdicts[tool.name][1]
        if isinstance(verdict, Waiting):
            waiting[tool.name] = verdict
            continue
        if not isinstance(verdict, Revision):
            invalid[tool.name] = verdict
            continue
        verdict = _as_served(shop, tool, verdict, living.get(tool.name))
        old = shop.wanted.get(tool.name)
        is_same = old is not None and old.tool is tool and old.revision is verdict
        if old is not None and is_same and moved is not None and moved.isdisjoint(tool.paths):
            made[tool.name] = old
        else:
            made[tool.name] = Wanted(tool, verdict, _wanted(shop, tool, verdict, scan))
    shop.wanted, shop.wanted_of = made, scan
    run.invalid = {name: invalid[name] for name in invalid.keys() - reading.invalid.keys()} | waiting
    if waiting:
        run.packages_until = time.monotonic() + min(each.retry_after for each in waiting.values())
    return Desired(
        owner=shop.owner,
        commit=scan.commit,
        tools=tuple(made_of.wanted for made_of in made.values()),
        invalid=invalid,
        broken_paths=reading.broken_paths,
        groups=reading.groups,
        broken_groups=reading.broken_groups,
        policy=reading.policy,
        policy_path=reading.policy_path,
        policy_is_unknown=reading.policy_is_unknown,
        wrong_policies=reading.wrong_policies,
        commits=_commits_of(scan, invalid, reading.broken_paths),
        waiting=frozenset(waiting),
    )


def _commits_of(
    scan: Scan, invalid: Mapping[str, tuple[Problem, ...]], broken: Mapping[str, Problem]
) -> dict[str, str]:
    """The commits of the files in which something is wrong, by path."""
    paths = {problem.path for problems in invalid.values() for problem in problems} | broken.keys()
    commits = {path: scan.provenance((path,))[0] for path in paths}
    return {path: commit for path, commit in commits.items() if commit is not None}


def _as_served(shop: Workshop, tool: DeclaredTool, revision: Revision, living: RegisteredTool | None) -> Revision:
    """The same revision, sharing its schemas with the snapshot: with many tools, two of each weigh tens of MiB."""
    if living is None or living.digest != revision.digest or living.revision.input_schema is revision.input_schema:
        return revision
    same = msgspec.structs.replace(living.revision, files=tool.declaration.files, examples=revision.examples)
    shop.verdicts[tool.name] = (tool, same)
    return same


def _moved_paths(old: Scan | None, new: Scan) -> frozenset[str] | None:
    """The paths whose provenance may be another one than in an older scan; None for all."""
    if old is None or old.commit != new.commit or old.commits is not new.commits:
        return None
    return old.dirty ^ new.dirty


def _wanted(shop: Workshop, tool: DeclaredTool, revision: Revision, scan: Scan) -> WantedTool:
    commit, author = scan.provenance(tool.paths)
    provenance = Provenance(
        source=shop.source.name, path=tool.path, commit=commit, author=author, applied_commit=scan.commit
    )
    desired = DesiredTool(
        name=tool.name,
        owner=shop.owner,
        revision=revision,
        group=tool.group,
        permissions=tool.permissions,
        provenance=provenance,
    )
    return WantedTool(desired=desired, line=tool.line, adopt=tool.adopt)


async def _tombstones(shop: Workshop, desired: Desired, living: Mapping[str, RegisteredTool]) -> frozenset[str]:
    """Which of the tools that are to come have been there before."""
    coming = [
        wanted.desired.name
        for wanted in desired.tools
        if wanted.desired.name not in living or living[wanted.desired.name].owner != shop.owner
    ]
    if not coming:
        return frozenset()
    async with shop.database.acquire() as connection:
        rows = await tools.named(connection, coming)
    return frozenset(row.name for row in rows if row.owner == shop.owner and not row.is_living)


async def _recent_deletes(shop: Workshop, made: Plan) -> int:
    """How many tools the source deleted a moment ago, unless somebody approved of it."""
    if not made.pruned:
        return 0
    async with shop.database.acquire() as connection:
        approved = await sync_runs.last_approved(connection, shop.source.name)
        return await tools.deleted_within(connection, shop.owner, guards.WINDOW, after_generation=approved)


def _scan(run: Run) -> Scan:
    if run.scan is None:
        raise RuntimeError("The source has not been fetched.")
    return run.scan


def _reading(run: Run) -> Reading:
    if run.reading is None:
        raise RuntimeError("The source has not been read.")
    return run.reading


def _plan(run: Run) -> Plan:
    if run.plan is None:
        raise RuntimeError("The run has no plan.")
    return run.plan
