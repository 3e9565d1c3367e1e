"""The loop: what starts a run, who may run, what a run comes to, and when to try again.

One run at a time. Triggers that come during a run are one more run after it; a change of the source that comes
while new code is still being admitted starts the run anew, so that nobody waits for code that is no longer
wanted. Only the replica that holds the source's lock runs; the others stand by. State is written in one place,
`_finish`.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import msgspec
import structlog

from portoser import faults
from portoser.admission import Admission
from portoser.catalog.caller import system_caller
from portoser.catalog.errors import Conflict, PortoserError, Unavailable
from portoser.registry.changes import RegistryWriter
from portoser.registry.follower import Follower
from portoser.registry.snapshot import Snapshot
from portoser.store.database import Database
from portoser.store.sources import SourceRow
from sync import report
from sync.conclusion import conclude, settled_after, status_after
from sync.leader import Leadership
from sync.ledger import Ledger, Overtaken, Start, remembered
from sync.planned import Plan
from sync.sources.base import Scan, Source, SourceUnreadable
from sync.status import ENDED_WELL, Conditions, Phase, RunOutcome, SourceStatus, SyncRun
from sync.steps import FROM_PLAN, LOOK, UP_TO_ADMISSION, applied_tree, follow, take
from sync.workshop import Run, Workshop

log = structlog.get_logger(__name__)

FIRST_RETRY = 1.0
LONGEST_RETRY = 300.0
_STANDBY = 5.0
"""Seconds after which a replica that stands by asks for the lock again."""
_MOST_PREEMPTIONS = 3
_MOST_ATTEMPTS = 5


class Reconciler:
    """Keeps the registry as a source wants it.

    ``is_authority`` says whether the source may declare the policy. ``on_progress`` is told how many of how many
    tools are admitted while that takes long.
    """

    def __init__(
        self,
        *,
        source: Source,
        admission: Admission,
        writer: RegistryWriter,
        follower: Follower,
        database: Database,
        is_authority: bool = True,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._shop = Workshop(
            source, admission, writer, follower, database, is_authority=is_authority, on_progress=on_progress
        )
        self._source = source
        self._caller = system_caller(f"reconciler:{source.name}")
        self._leadership = Leadership(database, source.name)
        self._ledger = Ledger(self._shop, self._caller)
        self._status = SourceStatus(source=source.name, kind=source.kind, location=source.location)
        self._wake = asyncio.Event()
        self._cause = "start"
        self._is_thorough = False
        self._waiting: list[asyncio.Future[SyncRun]] = []
        self._approvals: set[str] = set()
        self._running = asyncio.Lock()
        self._current: Run | None = None
        self._first = asyncio.Event()
        self._compared = asyncio.Event()
        self._is_up = False
        self._retry_at = 0.0
        """When to try again what failed, by the monotonic clock."""
        self._failed: Scan | None = None
        """What the last run failed at, None where it could not be read."""
        follower.on_swap(self._on_swap)

    # What others ask -----------------------------------------------------------------------------------------

    @property
    def status(self) -> SourceStatus:
        """How the source stands."""
        current = self._current
        return self._status if current is None else msgspec.structs.replace(self._status, phase=current.phase)

    @property
    def has_run(self) -> bool:
        """Whether the source was compared with the registry once, or found to be as it was applied before."""
        return self._first.is_set()

    async def first_run(self) -> None:
        """Wait until `has_run`."""
        await self._first.wait()

    async def compared(self) -> None:
        """Wait until the first run is over, which compares in full also what `first_run` did not wait for."""
        await self._compared.wait()

    async def sync_now(self, cause: str = "manual", *, approve: str | None = None) -> SyncRun:
        """Compare everything now, whatever was told of changes; returns when that is done.

        ``approve`` is the id of a plan that a guard holds back. It lets exactly that plan through: where anything
        has changed since, there is another plan, which is held back again.

        Raises:
            PortoserError: the reconciler is not running.
        """
        if not self._is_up:
            raise PortoserError("The reconciler is not running.")
        if approve is not None:
            self._approvals.add(approve)
        future: asyncio.Future[SyncRun] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._is_thorough = True
        self._trigger(cause)
        return await future

    async def plan(self) -> Plan:
        """What a run would do now, with what is wrong in the source among its errors. Changes nothing.

        Raises:
            SourceUnreadable: the source cannot be read.
            Unavailable: the database or the runtime is away.
        """
        async with self._running:
            run = Run(self._shop, Conditions(()), is_thorough=True)
            await take(run, (*LOOK, *UP_TO_ADMISSION, FROM_PLAN[0]))
        if run.plan is None:
            raise RuntimeError("A thorough run always has a plan.")
        known = frozenset(map(str, run.plan.errors))
        return msgspec.structs.replace(
            run.plan, errors=(*run.plan.errors, *(found for found in run.problems if str(found) not in known))
        )

    # The loop ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Reconcile until cancelled, over every absence of Postgres and of the source."""
        self._is_up = True
        try:
            await self._start_from(await self._take_up())
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch())
                tasks.create_task(self._loop())
        finally:
            self._is_up = False
            await self._leadership.release()
            for future in self._waiting:
                if not future.done():
                    future.set_exception(Unavailable("The reconciler was stopped."))

    async def _watch(self) -> None:
        async for _ in self._source.watch():
            self._trigger("change")

    def _trigger(self, cause: str) -> None:
        if not self._wake.is_set():
            self._cause = cause
        self._wake.set()

    def _on_swap(self, _: Snapshot, new: Snapshot) -> None:
        """A change of the registry by others may answer an open question: a name in conflict that is free now."""
        settled = self._shop.settled
        if settled is not None and settled.is_open and new.generation != settled.generation:
            self._trigger("registry")

    async def _loop(self) -> None:
        preempted = 0
        self._wake.set()
        while True:
            cause, is_thorough = self._cause, self._is_thorough
            waiting, self._waiting = self._waiting, []
            self._shop.approved |= self._approvals
            self._approvals.clear()
            self._wake.clear()
            self._is_thorough = False
            run = await self._preemptible(cause, is_thorough=is_thorough, may_preempt=preempted < _MOST_PREEMPTIONS)
            if run is None:
                preempted += 1
                self._waiting = waiting + self._waiting
                self._is_thorough = self._is_thorough or is_thorough
                log.info("sync.preempted", source=self._source.name, cause=cause)
                continue
            preempted = 0
            self._shop.approved = frozenset()  # an approval is for one run, not for the next time of the same plan
            for future in waiting:
                if not future.done():
                    future.set_result(run)
            await self._rest(run)

    async def _rest(self, run: SyncRun) -> None:
        """Until there is something to do."""
        until, settled = self._status.next_retry_at, self._shop.settled
        if run.outcome is RunOutcome.STANDBY:
            seconds: float | None = _STANDBY
        elif until is not None:
            seconds = max(0.0, self._retry_at - time.monotonic())  # not by the clock, which may be set back
        elif settled is not None and settled.until is not None:
            seconds = max(0.0, settled.until - time.monotonic()) + 0.02
        else:
            seconds = None
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
                while run.outcome is RunOutcome.FAILED and not await self._is_new():
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            is_standby = run.outcome is RunOutcome.STANDBY
            self._cause = "standby" if is_standby else "retry" if until is not None else "settled"

    async def _is_new(self) -> bool:
        """Whether what woke us is more than a source that looks again at what failed: that waits for its retry."""
        if self._waiting or self._cause != "change":
            return True
        try:
            return await self._source.scan() is not self._failed
        except SourceUnreadable:
            return False

    async def _preemptible(self, cause: str, *, is_thorough: bool, may_preempt: bool) -> SyncRun | None:
        """Run; None where a newer change of the source stopped it while it admitted older code."""
        run = asyncio.create_task(self._run(cause, is_thorough=is_thorough))
        try:
            while not run.done():
                woken = asyncio.create_task(self._wake.wait())
                await asyncio.wait({run, woken}, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
                await asyncio.gather(woken, return_exceptions=True)
                if run.done() or not may_preempt:
                    break
                if await self._is_outdated():
                    run.cancel()
                    await asyncio.gather(run, return_exceptions=True)
                    if not run.cancelled():
                        return run.result()
                    await self._ledger.drop()  # the newer one tells of itself
                    return None
                await asyncio.wait({run}, timeout=0.25)  # before the trigger is looked at again
            return await run
        finally:
            if not run.done():
                run.cancel()
                await asyncio.gather(run, return_exceptions=True)

    async def _is_outdated(self) -> bool:
        """Whether the run that is on admits code of an older state of the source."""
        current = self._current
        if current is None or current.step != "admit":
            return False
        try:
            newest = await self._source.scan()
        except SourceUnreadable:
            return False
        return current.step == "admit" and newest is not current.scan

    # One run -------------------------------------------------------------------------------------------------

    async def _run(self, cause: str, *, is_thorough: bool) -> SyncRun:
        async with self._running:
            run = Run(self._shop, Conditions(self._status.conditions), is_thorough=is_thorough)
            start = Start(str(uuid.uuid4()), cause, datetime.now(UTC))
            clock = time.perf_counter()
            self._current = run
            error: Exception | None = None
            try:
                if not await self._leadership.take():
                    outcome = RunOutcome.STANDBY
                    self._ledger.stand_by()
                else:
                    faults.point("sync.triggered")
                    await self._ledger.tidy()
                    outcome = await self._reconcile(run, start)
            except Overtaken as overtaken:  # what that replica told of this run is what became of it
                log.warning("sync.overtaken", source=self._source.name, reason=str(overtaken))
                outcome = RunOutcome.STANDBY
                self._ledger.stand_by()
            except (PortoserError, asyncpg.PostgresError, OSError) as failed:
                outcome, error = RunOutcome.FAILED, failed
            except Exception as failed:  # a fault of ours: told, recorded and tried again, never the end of the loop
                log.exception("sync.broke", source=self._source.name, step=run.step)
                outcome, error = RunOutcome.FAILED, failed
            except asyncio.CancelledError:
                if run.begun is not None:
                    run.begun.cancel()
                    await asyncio.gather(run.begun, return_exceptions=True)
                raise
            finally:
                self._current = None
            if run.begun is not None:
                await asyncio.gather(run.begun, return_exceptions=True)  # the run goes without it
            run.note("total", clock)
            applied = run.applied
            generation = applied.generation if applied is not None else self._shop.follower.snapshot.generation
            done = start.ends(run, outcome, error, generation)
            await self._finish(run, done)
            faults.point("sync.closed")
            self._first.set()
            self._compared.set()
            return done

    async def _reconcile(self, run: Run, start: Start) -> RunOutcome:
        outcome = await take(run, LOOK)
        if outcome is not None:
            return outcome
        run.begun = asyncio.create_task(self._ledger.begin(run, start))
        outcome = await take(run, UP_TO_ADMISSION)
        if outcome is not None:
            return outcome
        for attempt in range(1, _MOST_ATTEMPTS + 1):
            outcome = await take(run, FROM_PLAN)
            if outcome is not None:
                return outcome
            try:
                await run.begun
                await self._apply(run, start)
                faults.point("sync.applied")
                break
            except Conflict as error:
                if attempt == _MOST_ATTEMPTS:
                    raise
                log.info("sync.moved_on", source=self._source.name, error=str(error))
                await self._shop.follower.refresh()
        ended = await take(run, (follow,))
        return ended or RunOutcome.APPLIED

    async def _apply(self, run: Run, start: Start) -> None:
        """Apply the plan as one transaction, with its run and the source's state."""
        plan = run.plan
        if plan is None:
            raise RuntimeError("There is no plan to apply.")
        run.phase, run.step = Phase.APPLYING, "apply"
        began = time.perf_counter()
        also = self._ledger.of_applied(run, start, plan)
        try:
            run.applied = await self._shop.writer.apply(
                plan.to_apply(), caller=self._caller, base_generation=plan.generation, also=also
            )
        finally:
            run.note("apply", began)
        summary = report.headline(plan)
        run.conditions.set("Applied", True, "Applied", f"Generation {run.applied.generation}: {summary}")

    # What a run comes to -------------------------------------------------------------------------------------

    async def _finish(self, run: Run, done: SyncRun) -> None:
        """Take over what the run found, tell of it, and record it where it is worth that."""
        if done.outcome is RunOutcome.STANDBY:
            await self._take_up()
        conclude(run, done.outcome, done.error)
        if done.outcome is RunOutcome.FAILED:
            self._failed = run.scan
        self._shop.settled = settled_after(run, done, self._shop.settled)
        failures = self._status.failures + 1 if done.outcome is RunOutcome.FAILED else 0
        pause = _backoff(failures)
        self._retry_at = time.monotonic() + pause.total_seconds()
        if run.scan is not None and done.outcome in ENDED_WELL:
            self._shop.applied_commit = run.scan.commit
        self._status = status_after(run, done, self._status, failures=failures, pause=pause)
        if done.outcome is not RunOutcome.STANDBY:
            await self._ledger.record(run, done, self._status)

    async def _take_up(self) -> SourceRow | None:
        """Take up how the source stood when that was last stored, perhaps by another replica."""
        try:
            row = await self._ledger.take_up()
        except (PortoserError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.info("sync.nothing_taken_up", source=self._source.name, error=str(error))
            return None
        if row is not None:
            self._shop.applied_commit = row.applied_commit
            self._status = remembered(self._status, row)
        return row

    async def _start_from(self, row: SourceRow | None) -> None:
        """Be ready at once where the source still is what was applied last, before it is compared in full."""
        if row is None or row.applied_tree is None:
            return
        try:
            scan = await self._source.scan()
        except SourceUnreadable:
            return  # the first run tells of it
        if row.applied_tree == applied_tree(scan):
            self._first.set()


def _backoff(failures: int) -> timedelta:
    seconds = min(FIRST_RETRY * 2 ** min(max(failures, 1) - 1, 20), LONGEST_RETRY)
    return timedelta(seconds=seconds * random.uniform(0.8, 1.2))  # noqa: S311 (jitter)
