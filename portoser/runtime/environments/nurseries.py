"""A zygote for each environment that is in use, and one for tools that require nothing."""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Literal

import structlog

from portoser.catalog.allowance import USUAL_SCRATCH
from portoser.catalog.errors import Unavailable
from portoser.runtime.environments.folders import Folders
from portoser.runtime.nursery import Nursery, Terms
from portoser.runtime.process import WorkerProcess

log = structlog.get_logger(__name__)


class Absent(Unavailable):
    """The packages that a tool requires are not on this server's disk. They are being installed."""

    def __init__(self) -> None:
        super().__init__("The packages that this tool requires are being installed here. Try again.", retry_after=5)


class Nurseries:
    """Starts the zygotes of environments when they are needed, and ends those that nobody has used for long.

    At most ``most`` environments have one; where one more is needed, the one that was used longest ago is ended,
    unless all of them are in use.
    """

    def __init__(
        self, kind: Literal["call", "describe"], terms: Terms, folders: Folders | None, *, most: int = 16
    ) -> None:
        self.own = Nursery(kind, terms)
        self._terms = terms
        self._kind: Literal["call", "describe"] = kind
        self._folders = folders
        self._most = most
        self._by_lock: OrderedDict[str, _Used] = OrderedDict()
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def alive(self) -> int:
        """How many zygotes run."""
        return self.own.alive + sum(used.nursery.alive for used in self._by_lock.values())

    @property
    def workers(self) -> int:
        """How many workers have not ended yet."""
        return self.own.workers + sum(used.nursery.workers for used in self._by_lock.values())

    @property
    def environments(self) -> frozenset[str]:
        """The locks whose packages processes have now."""
        return frozenset(self._by_lock)

    async def spawn(self, lock: str | None, warm: bool, disk: int = USUAL_SCRATCH) -> WorkerProcess:
        """A new worker that has the packages of a lock, by its digest; see `Nursery.spawn`.

        Raises:
            Absent: they are not installed here; they will be, in the background.
            Unavailable: no worker can be started.
        """
        if lock is None:
            return await self.own.spawn(warm, disk)
        return await self._nursery(lock).spawn(warm, disk)

    @contextlib.contextmanager
    def using(self, lock: str | None) -> Iterator[None]:
        """Keep the zygote of a lock for as long as a call runs."""
        if lock is None:
            yield
            return
        self._nursery(lock)
        used = self._by_lock[lock]
        used.count += 1
        try:
            yield
        finally:
            used.count -= 1
            used.at = time.monotonic()

    def _nursery(self, lock: str) -> Nursery:
        used = self._by_lock.get(lock)
        if used is None:
            folder = self._folders.find(lock) if self._folders is not None else None
            if folder is None:
                if self._folders is not None:
                    self._folders.want(lock)
                raise Absent
            self._make_room()
            used = self._by_lock[lock] = _Used(Nursery(self._kind, self._terms, packages=folder))
        self._by_lock.move_to_end(lock)
        used.at = time.monotonic()
        return used.nursery

    def _make_room(self) -> None:
        if len(self._by_lock) >= self._most:
            unused = next((lock for lock, used in self._by_lock.items() if not used.count), None)
            if unused is not None:
                self._end(unused)

    def _end(self, lock: str) -> None:
        nursery = self._by_lock.pop(lock).nursery
        log.debug("environment.zygote_ended", kind=self._kind, lock=lock[:12])
        task = asyncio.create_task(nursery.aclose(), name="environment-zygote-ends")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def retire_unused(self, longest_rest: float) -> None:
        """End the zygotes of environments that nobody has used for so many seconds, with their workers."""
        before = time.monotonic() - longest_rest
        for lock in [lock for lock, used in self._by_lock.items() if not used.count and used.at < before]:
            self._end(lock)

    async def aclose(self) -> None:
        """End every zygote and all workers; return when none of them runs any more."""
        nurseries = [self.own, *(used.nursery for used in self._by_lock.values())]
        self._by_lock.clear()
        await asyncio.gather(*(nursery.aclose() for nursery in nurseries), *self._ending)


class _Used:
    """A nursery, how many calls use it, and when one did last, by the monotonic clock."""

    __slots__ = ("at", "count", "nursery")

    def __init__(self, nursery: Nursery) -> None:
        self.nursery = nursery
        self.count = 0
        self.at = time.monotonic()
