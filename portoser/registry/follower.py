"""Keeps a replica's snapshot at the registry's generation: by notification, and by a slow re-read besides."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime

import asyncpg
import structlog

from portoser.catalog.errors import Unavailable
from portoser.registry.snapshot import Snapshot, load
from portoser.store import generation as generations
from portoser.store.database import Database

log = structlog.get_logger(__name__)


class Follower:
    """Holds the current snapshot and swaps it, whole, when the registry moves on.

    ``enabled_groups`` are switched on whatever their declaration says. ``reread`` is the time in seconds after
    which the generation is read even though no notification came.
    """

    def __init__(
        self, database: Database, *, enabled_groups: frozenset[str] = frozenset(), reread: float = 1.5
    ) -> None:
        self._database = database
        self._enabled_groups = enabled_groups
        self._reread = reread
        self._snapshot: Snapshot | None = None
        self._callbacks: list[Callable[[Snapshot, Snapshot], None]] = []
        self._wake = asyncio.Event()
        self._swapped = asyncio.Event()
        self._reading = asyncio.Lock()
        self._away = False
        self.last_read_at = 0.0
        """When the registry was last read, by the monotonic clock; the snapshot is not older than that."""

    @property
    def snapshot(self) -> Snapshot:
        """The current snapshot. Take it once for each request: it is swapped, never changed."""
        if self._snapshot is None:
            raise RuntimeError("The follower has not been started.")
        return self._snapshot

    def on_swap(self, callback: Callable[[Snapshot, Snapshot], None]) -> None:
        """Have ``callback(old, new)`` called after each swap, on the event loop; it must not block."""
        self._callbacks.append(callback)

    async def start(self) -> None:
        """Load the first snapshot.

        Raises:
            Unavailable: Postgres is away; there is nothing to serve from yet.
        """
        await self.refresh()

    async def run(self) -> None:
        """Follow the registry until cancelled, over every absence of Postgres."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._database.listen(generations.CHANNEL, self._told))
            tasks.create_task(self._follow())

    async def at_least(self, generation: int, timeout: float) -> Snapshot:
        """The snapshot of ``generation`` or a later one, waited for up to ``timeout`` seconds.

        Raises:
            Unavailable: it did not come in time.
        """
        try:
            async with asyncio.timeout(timeout):
                while self.snapshot.generation < generation:
                    swapped = self._swapped
                    await self.refresh()
                    if self.snapshot.generation < generation:
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(swapped.wait(), self._reread)
        except TimeoutError as error:
            raise Unavailable(
                f"Generation {generation} did not come within {timeout:g} s; this replica is at "
                f"{self.snapshot.generation}."
            ) from error
        return self.snapshot

    async def refresh(self) -> Snapshot:
        """Read the registry now, and swap the snapshot where it moved on.

        Raises:
            Unavailable: Postgres is away. The snapshot stays.
        """
        async with self._reading:
            old = self._snapshot
            async with self._database.acquire(to_probe=True) as connection:
                generation = await self._database.prompt(generations.current(connection))
                if old is None or self._away:  # after an absence nothing is taken for granted
                    new = await load(connection, previous=None, enabled_groups=self._enabled_groups)
                elif generation == old.generation and not _has_expired(old):
                    new = old
                else:
                    new = await load(connection, previous=old, enabled_groups=self._enabled_groups)
            self.last_read_at = time.monotonic()
            self._away = False
            if old is None or (new is not old and not _says_the_same(old, new)):
                self._swap(old, new)
            return self.snapshot

    def _swap(self, old: Snapshot | None, new: Snapshot) -> None:
        self._snapshot = new
        swapped, self._swapped = self._swapped, asyncio.Event()
        swapped.set()
        log.info("snapshot.swapped", generation=new.generation, tools=len(new.tools))
        if old is None:
            return
        for callback in self._callbacks:
            try:
                callback(old, new)
            except Exception:  # one listener's fault must not keep the replica, or the other listeners, behind
                log.exception("snapshot.callback_failed", generation=new.generation)

    def _told(self, payload: str | None) -> None:
        """A notification came, or (None) the connection for them is new and may have missed some."""
        known = self._snapshot.generation if self._snapshot is not None else -1
        if payload is None or not payload.isdecimal() or int(payload) > known:
            self._wake.set()

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._until_next_read())
            self._wake.clear()
            try:
                was_away = self._away
                await self.refresh()
                if was_away:
                    log.info("registry.back", generation=self.snapshot.generation)
            except (Unavailable, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                if not self._away:
                    log.warning("registry.away", error=str(error), serving=self.snapshot.generation)
                self._away = True

    def _until_next_read(self) -> float:
        """Seconds to wait for a notification: jittered, so that replicas do not read in step.

        While Postgres is away there is nothing to be had at an override's end, so nobody asks more often for it.
        """
        wait = self._reread * random.uniform(0.8, 1.2)  # noqa: S311 (jitter)
        expiry = self.snapshot.next_expiry
        if expiry is not None and not self._away:
            wait = min(wait, max(0.0, (expiry - datetime.now(UTC)).total_seconds()))
        return wait


def _has_expired(snapshot: Snapshot) -> bool:
    return snapshot.next_expiry is not None and snapshot.next_expiry <= datetime.now(UTC)


def _says_the_same(old: Snapshot, new: Snapshot) -> bool:
    same_time = (old.generation, old.next_expiry) == (new.generation, new.next_expiry)
    return same_time and old.same_content(new)
