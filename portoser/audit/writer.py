"""Writes what calls do: the intent before, the outcome after, each durable before its caller goes on.

One task writes. While one statement is on its way to the disk, everything that calls have to say meanwhile
waits, and goes together into the next: sixteen calls cost little more than one. The writer alone numbers its
chain, so the numbers have no gap.
"""

import asyncio
import contextlib
import uuid
from collections import deque
from datetime import UTC, datetime

import msgspec
import structlog

from portoser.audit.chain import Chain
from portoser.audit.entry import Entry, Event, Outcome
from portoser.audit.pending import Pending
from portoser.catalog.caller import system_caller
from portoser.catalog.errors import Unavailable
from portoser.store.database import Database

log = structlog.get_logger(__name__)

_MAX_BATCH = 256
_MAX_WAITING = 4096
"""How many entries may wait before no further call may begin."""
_MAX_KEPT = 10_000
"""How many entries wait before those of calls that ran nothing are counted instead of kept."""
_CLOSING_SECONDS = 5.0
_SHORTEST_DELAY = 0.05
_STEADY_SECONDS = 5.0
"""A connection that lasted so long was a good one: the next one is tried at once."""


class WriterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A moment of the writer. ``owed`` counts entries that nobody waits for, kept until Postgres is back."""

    available: bool
    waiting: int
    owed: int
    left_out: int


class AuditWriter:
    """The writer of one server's calls, to the chain ``calls:<replica>``, which it alone writes: a second server of
    the same name gets ``calls:<replica>#2``.

    ``patience`` is how long, in seconds, a call waits for Postgres before it is told Unavailable; ``lease`` is
    how long after its last sign of life a server counts as dead.
    """

    def __init__(self, database: Database, *, replica: str, patience: float = 2.0, lease: float = 15.0) -> None:
        self._database = database
        self._name = f"calls:{replica}"
        self._holder = f"{replica}/{uuid.uuid4().hex[:12]}"  # a restarted server is another one
        self._patience = patience
        self._lease = lease
        self._queue: deque[Pending] = deque()
        self._in_flight: list[Pending] = []
        self._recoveries: list[asyncio.Future[int]] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._available = asyncio.Event()
        self._away_since = 0.0
        self._sweeper: asyncio.TimerHandle | None = None
        self._left_out = 0
        self._closing = False
        self._problem = "Its writer does not run."

    async def start(self) -> None:
        """Connect, take the lease, and write from now on.

        Raises:
            Unavailable: Postgres does not answer.
        """
        chain = await self._open()
        self._task = asyncio.create_task(self._run(chain), name="audit-writer")

    async def aclose(self) -> None:
        """Write what is left, for a few seconds at most, and end."""
        if self._task is None:
            return
        self._closing = True
        self._wake.set()
        await asyncio.wait([self._task], timeout=_CLOSING_SECONDS)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        if self._sweeper is not None:
            self._sweeper.cancel()
        lost = [item.entry.id for item in self._queue if not item.begins]
        if lost:
            log.error("audit.entries_lost", count=len(lost), ids=lost[:100])
        for item in self._queue:
            item.fail(Unavailable("The server is stopping."))
        self._queue.clear()

    async def keep_lease(self) -> None:
        """Return when the writer ends, which it does not before it is closed: for a task group to watch."""
        if self._task is not None:
            await asyncio.shield(self._task)

    @property
    def status(self) -> WriterStatus:
        """How the writer stands."""
        unwritten = (*self._in_flight, *self._queue)
        owed = sum(1 for item in unwritten if item.waiter is None)
        return WriterStatus(
            available=self._available.is_set(), waiting=len(unwritten) - owed, owed=owed, left_out=self._left_out
        )

    async def begin(self, entry: Entry) -> None:
        """Record that a call begins; durable on return.

        Raises:
            Unavailable: it could not be recorded in time, so the call must not run. Whether it is recorded is
                then not known: ``note`` the refusal with ``had_intent=True``.
        """
        if not self._available.is_set() or self._closing:
            self._refuse_if_long_away()
        if len(self._queue) >= _MAX_WAITING:
            raise Unavailable("Too many calls wait for the audit log. Try again in a moment.")
        await self._put(entry, begins=True, ends=False)

    async def finish(self, entry: Entry, *, had_intent: bool) -> None:
        """Record how a call, or anything else, ended; durable on return.

        The entry is in the writer's hands before this first waits: cancelling the caller does not lose it.

        Raises:
            Unavailable: it is not recorded yet. It will be once Postgres is back.
        """
        if not self._has_room(had_intent=had_intent):
            raise self._unavailable()
        await self._put(entry, begins=False, ends=had_intent)

    def note(self, entry: Entry, *, had_intent: bool = False) -> None:
        """Record, as soon as possible, an entry that nobody waits for."""
        if self._has_room(had_intent=had_intent):
            self._queue.append(Pending(entry, ends=had_intent))
            self._wake.set()

    async def recover(self) -> int:
        """Turn the intents that dead servers left behind into ``interrupted`` entries; how many there were.

        The writer does so by itself whenever it renews its lease.

        Raises:
            Unavailable: Postgres is away.
        """
        self._refuse_if_long_away()
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._recoveries.append(future)
        self._wake.set()
        return await future

    async def _put(self, entry: Entry, *, begins: bool, ends: bool) -> None:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        deadline = loop.time() + self._patience
        self._queue.append(Pending(entry, begins=begins, ends=ends, waiter=waiter, deadline=deadline))
        self._wake.set()
        if self._sweeper is None:
            self._sweeper = loop.call_later(self._patience / 4, self._sweep)
        await waiter

    def _has_room(self, *, had_intent: bool) -> bool:
        """Whether an entry is kept. One that ends an intent always is; of the others at least the number is."""
        if had_intent or len(self._queue) < _MAX_KEPT:
            return True
        self._left_out += 1
        return False

    def _sweep(self) -> None:
        """Tell those who have waited long enough. One timer serves them all: one for each would cost more."""
        self._sweeper = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        someone_waits = False
        for item in (*self._in_flight, *self._queue):
            if item.is_waited_for:
                if item.deadline <= now:
                    item.fail(self._unavailable())
                else:
                    someone_waits = True
        if someone_waits:
            self._sweeper = loop.call_later(self._patience / 4, self._sweep)

    def _unavailable(self) -> Unavailable:
        return Unavailable(f"The audit log cannot be written right now. {self._problem}", retry_after=self._patience)

    def _refuse_if_long_away(self) -> None:
        if self._task is None or self._task.done() or self._closing:
            raise self._unavailable()
        if not self._available.is_set() and asyncio.get_running_loop().time() - self._away_since > self._patience:
            raise self._unavailable()

    async def _run(self, chain: Chain | None) -> None:
        """Write until closed, over every absence of Postgres."""
        loop = asyncio.get_running_loop()
        opened_at = loop.time()
        delay = _SHORTEST_DELAY
        while True:
            try:
                if chain is None:
                    chain = await self._open()
                opened_at = loop.time()
                await self._serve(chain)
                await chain.close()
                return
            except Unavailable as error:
                self._gone(error)
            except Exception as error:
                log.exception("audit.writer_failed")  # whatever it was, what waits is still to be written
                self._gone(error)
            finally:
                if chain is not None:
                    chain.terminate()
                    chain = None
            if self._closing:
                return
            delay = _SHORTEST_DELAY if loop.time() - opened_at > _STEADY_SECONDS else min(delay * 2, 1.0)
            await asyncio.sleep(delay)

    async def _open(self) -> Chain:
        chain = await Chain.open(
            self._database, name=self._name, holder=self._holder, lease=self._lease, on_lost=self._wake.set
        )
        if not self._available.is_set() and self._task is not None:
            log.info("audit.postgres_back", owed=len(self._queue))
        self._available.set()
        self._problem = "Postgres is slow."
        return chain

    def _gone(self, error: Exception) -> None:
        if self._available.is_set():
            log.warning("audit.postgres_away", error=str(error))
            self._away_since = asyncio.get_running_loop().time()
        self._available.clear()
        self._problem = str(error)
        for item in self._queue:
            item.is_retry = True
        for future in self._recoveries:
            if not future.done():
                future.set_exception(self._unavailable())
        self._recoveries.clear()

    async def _serve(self, chain: Chain) -> None:
        """Write until the writer is closed and all is written."""
        loop = asyncio.get_running_loop()
        if any(item.is_retry for item in self._queue):
            await chain.settle(self._queue)
        timer = loop.call_at(chain.renew_at, self._wake.set)
        try:
            while True:
                if chain.is_lost:
                    raise Unavailable("Postgres closed the connection.")
                if self._recoveries or loop.time() >= chain.renew_at:
                    await self._keep_house(chain)
                    timer.cancel()
                    timer = loop.call_at(chain.renew_at, self._wake.set)
                elif self._queue:
                    await self._write_some(chain)
                elif self._closing:
                    return
                else:
                    self._wake.clear()
                    await self._wake.wait()
        finally:
            timer.cancel()

    async def _write_some(self, chain: Chain) -> None:
        if self._left_out and len(self._queue) < _MAX_KEPT:
            self._queue.append(Pending(self._told_left_out()))
            self._left_out = 0
        batch = self._in_flight
        while self._queue and len(batch) < _MAX_BATCH:
            item = self._queue.popleft()
            if not item.is_given_up:
                batch.append(item)
        if not batch:
            return
        try:
            await chain.write(batch)
        except BaseException:
            self._queue.extendleft(reversed([item for item in batch if not item.is_given_up]))
            raise
        else:
            for item in batch:
                item.done()
        finally:
            self._in_flight = []

    async def _keep_house(self, chain: Chain) -> None:
        count = await chain.keep_house()
        if count:
            log.warning("audit.calls_interrupted", count=count)
        for future in self._recoveries:
            if not future.done():
                future.set_result(count)
        self._recoveries.clear()

    def _told_left_out(self) -> Entry:
        return Entry(
            id=str(uuid.uuid4()),
            at=datetime.now(UTC),
            event=Event.REFUSED,
            caller=system_caller("audit"),
            outcome=Outcome.ERROR,
            reason="audit_overflow",
            error=f"{self._left_out} entries of refused calls could not be kept while Postgres was away.",
        )
