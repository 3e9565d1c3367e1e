"""What is told of a run, and where: the log, the tables, the audit log. Idle runs leave no trace."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import asyncpg
import msgspec
import structlog

from portoser.audit.entry import Entry, Event, Outcome
from portoser.audit.registry_chain import append_registry
from portoser.catalog.caller import Caller
from portoser.catalog.errors import PortoserError, Problem
from portoser.registry.changes import Also
from portoser.store import sources, sync_runs
from portoser.store.database import Connection
from portoser.store.sources import SourceRow
from portoser.store.sync_runs import RunRow
from sync import report
from sync.planned import Plan
from sync.status import ENDED_WELL, Condition, RunOutcome, SourceStatus, SyncRun
from sync.steps import applied_tree
from sync.workshop import Run, Workshop

log = structlog.get_logger(__name__)

SHOWN_PROBLEMS = 200
_STORED_CHANGES = 1_000
_FAILURES = (PortoserError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What keeps something from being written down, and ends nothing else."""


class Start(NamedTuple):
    """What is known of a run when it starts."""

    run_id: str
    cause: str
    at: datetime

    def ends(self, run: Run, outcome: RunOutcome, error: Exception | None, generation: int) -> SyncRun:
        """The run as it is told of."""
        plan, scan = run.plan, run.scan
        return SyncRun(
            id=self.run_id,
            source=run.workshop.source.name,
            cause=self.cause,
            started_at=self.at,
            finished_at=datetime.now(UTC),
            outcome=outcome,
            plan_id=plan.plan_id if plan is not None else None,
            base_generation=plan.generation if plan is not None else None,
            generation=generation,
            commit=scan.commit if scan is not None else None,
            author=scan.author if scan is not None else None,
            summary=plan.summary if plan is not None else {},
            problems=run.problems[:SHOWN_PROBLEMS],
            error=str(error) or type(error).__name__ if error is not None else None,
            durations=dict(run.durations),
        )


class Overtaken(PortoserError):
    """Another replica leads by now, and took this run for one that its server did not live to end."""


class _Told(NamedTuple):
    """What two runs must have in common for the second not to be worth telling of."""

    outcome: RunOutcome
    error: str | None
    problems: tuple[Problem, ...]
    held_plan: str | None


class Ledger:
    """Writes down what became of a source's runs, and how the source stands."""

    def __init__(self, workshop: Workshop, caller: Caller) -> None:
        self._shop = workshop
        self._caller = caller
        self._row: SourceRow | None = None
        self._told: _Told | None = None
        self._begun = str(uuid.UUID(int=0))
        self._is_tidy = False
        """Whether no run of a leader before this one is without its end."""

    async def take_up(self) -> SourceRow | None:
        """How the source stood when that was last stored, perhaps by another replica; None where it never was.

        Raises:
            Unavailable: Postgres is away.
        """
        async with self._shop.database.acquire() as connection:
            self._row = await sources.named(connection, self._shop.source.name)
        return self._row

    async def begin(self, run: Run, start: Start) -> None:
        """Write down that a run has begun, so that its end is known too where the server does not live to tell it."""
        scan = run.scan
        self._begun = start.run_id
        row = RunRow(
            id=start.run_id,
            source=self._shop.source.name,
            cause=start.cause,
            started_at=start.at,
            commit=scan.commit if scan is not None else None,
            author=scan.author if scan is not None else None,
        )
        try:
            async with self._shop.database.acquire() as connection:
                await sync_runs.begin(connection, row)
        except _FAILURES as error:  # the run itself will find that out, and tell it
            log.debug("sync.begin_unrecorded", source=row.source, error=str(error))

    async def drop(self) -> None:
        """Forget the run that began last, which another one takes the place of before it did anything."""
        try:
            async with self._shop.database.acquire() as connection:
                await sync_runs.drop(connection, self._begun)
        except _FAILURES as error:
            self._is_tidy = False
            log.debug("sync.drop_unrecorded", source=self._shop.source.name, error=str(error))

    def stand_by(self) -> None:
        """Another replica leads, whose end may have to be told."""
        self._is_tidy = False

    async def tidy(self) -> None:
        """Tell the end of the runs that a leader before this one did not live to tell. Only the leader may call it.

        Raises:
            Unavailable: Postgres is away.
        """
        if self._is_tidy:
            return
        source = self._shop.source.name
        async with self._shop.database.acquire() as connection:
            left = await sync_runs.unfinished(connection, source)
        ended = [_interrupted(row) for row in left]

        async def also(connection: Connection, _: int) -> None:
            for row in ended:
                await sync_runs.put(connection, row)
            told = [_entry_of_interrupted(row, caller=self._caller, owner=self._shop.owner) for row in ended]
            await append_registry(connection, told)

        if ended:
            await self._shop.writer.apply([], caller=self._caller, also=also)
            log.warning("sync.interrupted", source=source, runs=len(ended))
        self._is_tidy = True

    def of_applied(self, run: Run, start: Start, plan: Plan) -> Also:
        """What belongs into the transaction that applies a plan: the run, and its line of the audit log.

        It raises `Overtaken` where a leader after this one has told of the run as one that applied nothing.
        """

        async def also(connection: Connection, generation: int) -> None:
            if await sync_runs.has_ended(connection, start.run_id):
                raise Overtaken(f"Another replica leads the source {run.workshop.source.name!r} by now.")
            done = start.ends(run, RunOutcome.APPLIED, None, generation)
            await sync_runs.put(connection, run_row(done, plan))
            await append_registry(connection, [entry_of(done, caller=self._caller, owner=self._shop.owner)])

        return also

    async def record(self, run: Run, done: SyncRun, status: SourceStatus) -> None:
        """Log and store a run where it did something, or ended otherwise than the one before."""
        word = RunOutcome.UNCHANGED if done.outcome in ENDED_WELL else done.outcome
        old, told = self._told, _Told(word, done.error, done.problems, status.held_plan)
        if not run.is_repeated:
            self._told = told
        is_news = done.outcome is RunOutcome.APPLIED or (told != old and not run.is_repeated)
        if is_news:
            _log_run(run, done)
        is_kept = is_news and (old is not None or done.outcome is not RunOutcome.UNCHANGED)
        row = source_row(status, applied_tree=self._tree_of(run, done))
        if row == self._row and not is_kept and run.begun is None:
            return

        async def also(connection: Connection, _: int) -> None:
            if is_kept:
                await sync_runs.put(connection, run_row(done, run.plan))
            elif run.begun is not None:
                await sync_runs.drop(connection, done.id)
            if is_kept and done.outcome is not RunOutcome.APPLIED:  # that was told by the transaction that applied it
                await append_registry(connection, [entry_of(done, caller=self._caller, owner=self._shop.owner)])
            if row != self._row:
                await sources.put(connection, row)

        try:
            await self._shop.writer.apply([], caller=self._caller, also=also)
            self._row = row
        except _FAILURES as error:
            self._is_tidy = False
            log.warning("sync.unrecorded", source=done.source, error=str(error))

    def _tree_of(self, run: Run, done: SyncRun) -> str | None:
        """The name of what is applied, None where it is not all that the source wants."""
        settled = self._shop.settled
        if run.scan is not None and done.outcome in ENDED_WELL:
            return applied_tree(run.scan) if settled is not None and not settled.is_open else None
        return self._row.applied_tree if self._row is not None else None


def _log_run(run: Run, done: SyncRun) -> None:
    tell = log.warning if done.outcome in {RunOutcome.FAILED, RunOutcome.HELD} else log.info
    tell(
        "sync.run",
        source=done.source,
        cause=done.cause,
        outcome=done.outcome.value,
        commit=done.commit,
        generation=done.generation,
        problems=len(run.problems),
        error=done.error,
        ms=done.durations,
        **done.summary,
    )


def entry_of(done: SyncRun, *, caller: Caller, owner: str) -> Entry:
    """The run's line in the audit log."""
    outcomes = {RunOutcome.HELD: Outcome.DENIED, RunOutcome.FAILED: Outcome.ERROR}
    return Entry(
        id=str(uuid.uuid4()),
        at=done.finished_at,
        event=Event.SYNC_RUN,
        caller=caller,
        outcome=outcomes.get(done.outcome, Outcome.OK),
        commit=done.commit,
        owner=owner,
        arguments={"run": done.id, "cause": done.cause, "plan": done.plan_id},
        result={"outcome": done.outcome.value, "generation": done.generation, "summary": done.summary},
        reason="held" if done.outcome is RunOutcome.HELD else None,
        error=done.error,
    )


_INTERRUPTED = "The server ended before the run did. Nothing of it was applied; the next run begins anew."


def _interrupted(row: RunRow) -> RunRow:
    return msgspec.structs.replace(
        row, outcome=RunOutcome.INTERRUPTED.value, finished_at=datetime.now(UTC), error=_INTERRUPTED
    )


def _entry_of_interrupted(row: RunRow, *, caller: Caller, owner: str) -> Entry:
    return Entry(
        id=str(uuid.uuid4()),
        at=datetime.now(UTC),
        event=Event.SYNC_RUN,
        caller=caller,
        outcome=Outcome.INTERRUPTED,
        commit=row.commit,
        owner=owner,
        arguments={"run": row.id, "cause": row.cause, "plan": None},
        result={"outcome": row.outcome, "generation": None, "summary": {}},
        error=row.error,
    )


def source_row(status: SourceStatus, *, applied_tree: str | None) -> SourceRow:
    """The status as it is stored."""
    return SourceRow(
        name=status.source,
        kind=status.kind,
        path=status.location,
        phase=status.phase.value,
        conditions=[msgspec.to_builtins(condition) for condition in status.conditions],
        problems=[msgspec.to_builtins(problem) for problem in status.problems],
        observed_commit=status.observed_commit,
        applied_commit=status.applied_commit,
        applied_tree=applied_tree,
        generation=status.generation,
        failures=status.failures,
        next_retry_at=status.next_retry_at,
    )


async def plan_ids(connection: Connection, run_ids: Sequence[str]) -> dict[str, str | None]:
    """The ids of the plans that stored runs made, by run; None for those that failed before they had one."""
    records = await connection.fetch(
        "SELECT id::text, plan ->> 'plan_id' AS plan_id FROM mcp_sync_runs WHERE id = ANY($1)", list(run_ids)
    )
    return {record["id"]: record["plan_id"] for record in records}


def remembered(status: SourceStatus, row: SourceRow) -> SourceStatus:
    """The status with what was stored of it, perhaps by another replica."""
    return msgspec.structs.replace(
        status,
        conditions=tuple(msgspec.convert(told, Condition) for told in row.conditions),
        problems=tuple(msgspec.convert(told, Problem) for told in row.problems),
        problem_count=len(row.problems),
        observed_commit=row.observed_commit,
        applied_commit=row.applied_commit,
        generation=row.generation,
    )


def run_row(done: SyncRun, plan: Plan | None) -> RunRow:
    """The run as it is stored, with its plan."""
    told = None
    if plan is not None:
        told = report.as_json(plan)
        left_out = len(told["changes"]) - _STORED_CHANGES
        if left_out > 0:
            told["changes"], told["changes_left_out"] = told["changes"][:_STORED_CHANGES], left_out
        told["errors"] = told["errors"][:SHOWN_PROBLEMS]
    return RunRow(
        id=done.id,
        source=done.source,
        cause=done.cause,
        started_at=done.started_at,
        finished_at=done.finished_at,
        base_generation=done.base_generation,
        generation=done.generation,
        commit=done.commit,
        author=done.author,
        outcome=done.outcome.value,
        summary=done.summary,
        problems=[msgspec.to_builtins(problem) for problem in done.problems],
        error=done.error,
        durations=done.durations,
        plan=told,
    )
