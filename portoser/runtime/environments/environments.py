"""Sets of requirements become locks, and locks become folders: at admission, in the background, never in a call."""

import asyncio
import hashlib
import platform
import sys
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from typing import Any, Protocol, TypeAlias, TypeVar

import msgspec
import structlog

from portoser.catalog.errors import PortoserError, Unavailable
from portoser.catalog.requirement import Lock
from portoser.runtime.environments.folders import Folders, Kept
from portoser.runtime.environments.uv import Uv

log = structlog.get_logger(__name__)

FORM = 1
"""Grows when equal requirements have to be resolved anew."""

GRACE = 24 * 3600.0
"""Seconds that an environment is kept after the last server took it up, once no revision needs it."""

EVERY = 600.0
"""Seconds between two looks at what is not needed any more."""

SOON = 2.0
_AT_ONCE = 2
"""How many sets are resolved or installed at the same time."""

RequiredSet: TypeAlias = tuple[str, ...]
"""Requirements in their canonical form."""

T = TypeVar("T")


class Preparing(Unavailable):
    """The packages are on their way; whoever asks again soon will find them."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after=SOON)


class Locks(Protocol):
    """Where locks are kept: in the registry, for all replicas, or on an author's disk."""

    async def known(self, keys: Collection[str]) -> Mapping[str, Lock]:
        """The locks of these sets, by the sets' keys; sets that were never resolved are left out."""

    async def by_digest(self, digests: Collection[str]) -> Mapping[str, Lock]:
        """The locks of these digests; those that are not kept are left out."""

    async def keep(self, key: str, requires: RequiredSet, lock: Lock) -> Lock:
        """Keep the lock of a set; the answer is what counts, which is another one where somebody was faster."""

    async def needed(self) -> set[str]:
        """The digests of the locks that something still refers to."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A moment of the environments on this disk: how many, their bytes, and what is being made."""

    count: int
    size: int
    preparing: tuple[str, ...]


class Environments:
    """Resolves and installs. ``in_use`` tells the locks whose packages running processes have."""

    def __init__(
        self,
        folders: Folders,
        locks: Locks,
        uv: Uv,
        *,
        in_use: Callable[[], Collection[str]] = tuple,
        grace: float = GRACE,
        every: float = EVERY,
    ) -> None:
        self._folders = folders
        self._locks = locks
        self._uv = uv
        self._in_use = in_use
        self._grace = grace
        self._every = every
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._work: dict[str, asyncio.Task[Any]] = {}
        """What goes on, and what has ended and nobody has asked for yet."""
        self._told: dict[str, str] = {}

    async def resolve(
        self, sets: Iterable[RequiredSet], *, until: float | None = None
    ) -> dict[RequiredSet, Lock | PortoserError]:
        """The lock of each set, or why there is none: `Unresolvable`, or `Unavailable` where it is tried again.

        ``until``, by the event loop's clock, is how long anybody waits; what is not done by then goes on.

        Raises:
            Unavailable: the registry of locks is away.
        """
        keys = {each: set_key(each) for each in sets}
        known = await self._locks.known(list(keys.values())) if keys else {}
        answers: dict[RequiredSet, Lock | PortoserError] = {}
        missing = []
        for each, key in keys.items():
            if key in known:
                answers[each] = known[key]
            else:
                missing.append(each)
        found = await asyncio.gather(
            *(
                self._shared(f"lock {keys[each]}", self._resolve, keys[each], each, told=_shown(each), until=until)
                for each in missing
            ),
        )
        return answers | dict(zip(missing, found, strict=True))

    async def install(self, locks: Iterable[Lock], *, until: float | None = None) -> dict[str, PortoserError | None]:
        """Have the packages of each lock here: by its digest, None where they are, or why they are not.

        For ``until`` see `resolve`.
        """
        wanted = {lock.digest: lock for lock in locks}
        missing = [digest for digest in wanted if self._folders.find(digest) is None]
        found = await asyncio.gather(
            *(
                self._shared(
                    f"folder {digest}",
                    self._install,
                    wanted[digest],
                    told=_shown(wanted[digest].packages),
                    until=until,
                )
                for digest in missing
            ),
        )
        failed = {
            digest: got if isinstance(got, PortoserError) else None for digest, got in zip(missing, found, strict=True)
        }
        return {digest: failed.get(digest) for digest in wanted}

    async def run(self) -> None:
        """Install what is missing, and remove what nobody needs, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._fill())
            tasks.create_task(self._keep_tidy())

    def want_served(self, locks: Iterable[str]) -> None:
        """Have installed, in the background, the packages of these locks, by digest, where this disk lacks them."""
        for digest in locks:
            if self._folders.find(digest) is None:
                self._folders.want(digest)

    async def want_needed(self) -> None:
        """Have installed, in the background, what revisions refer to and this disk lacks."""
        self.want_served(await self._locks.needed())

    async def tidy(self) -> list[Kept]:
        """Remove the environments that nothing refers to and nobody has used for the grace period."""
        needed = await self._locks.needed() | set(self._in_use()) | self._folders.missing
        removed = await asyncio.to_thread(self._folders.remove_unused, needed, older_than=self._grace)
        if removed:
            await asyncio.to_thread(self._uv.empty_cache)  # it may hold what was removed a second time
            freed = sum(kept.size for kept in removed)
            log.info("environment.removed", count=len(removed), bytes=freed)
        return removed

    async def standing(self) -> Standing:
        """How many environments there are on this disk, how large, and what goes on."""
        kept = await asyncio.to_thread(self._folders.kept)
        return Standing(
            count=len(kept),
            size=sum(each.size for each in kept),
            preparing=tuple(self._told[key] for key, task in self._work.items() if not task.done()),
        )

    async def aclose(self) -> None:
        """End what goes on, uv with it."""
        work = list(self._work.values())
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        self._work.clear()
        self._folders.release()

    # What goes on --------------------------------------------------------------------------------------------

    async def _shared(
        self,
        key: str,
        work: Callable[..., Coroutine[Any, Any, T]],
        *arguments: Any,
        told: str,
        until: float | None,
    ) -> T | PortoserError:
        """Do something once, however many ask for it, and wait for it; what it comes to, or `Preparing`."""
        task = self._work.get(key)
        if task is None:
            task = self._work[key] = asyncio.create_task(work(*arguments), name=f"environment {key}")
            self._told[key] = told
            task.add_done_callback(_seen)
        timeout = None if until is None else max(0.0, until - asyncio.get_running_loop().time())
        await asyncio.wait({task}, timeout=timeout)
        if not task.done():
            return Preparing(f"The packages {told} are being prepared.")
        if self._work.get(key) is task:
            del self._work[key], self._told[key]
        if task.cancelled():
            return Unavailable("The server is stopping.")
        error = task.exception()
        if error is None:
            result: T = task.result()
            return result
        if isinstance(error, PortoserError):
            return error
        raise error

    async def _resolve(self, key: str, requires: RequiredSet) -> Lock:
        async with self._turn:
            began = time.monotonic()
            log.info("environment.resolving", requires=requires)
            lock = Lock(await self._uv.compile(requires))
            log.info("environment.resolved", requires=requires, packages=len(lock.packages), seconds=_since(began))
        return await self._locks.keep(key, requires, lock)

    async def _install(self, lock: Lock) -> None:
        async with self._turn:
            began = time.monotonic()
            log.info("environment.installing", packages=lock.packages)
            await self._folders.make(lock, lambda target: self._uv.install(lock.text, target))
            log.info("environment.ready", lock=lock.digest[:12], packages=len(lock.packages), seconds=_since(began))

    async def _fill(self) -> None:
        while True:
            await self._folders.asked.wait()
            self._folders.asked.clear()
            wanted = set(self._folders.missing)
            pause = 0.0
            try:
                locks = await self._locks.by_digest(wanted)
                failed = await self.install(locks.values())
            except Unavailable as error:
                log.info("environment.postponed", reason=str(error))
                pause = error.retry_after
            else:
                for digest in wanted:
                    error_of = failed.get(digest, _UNKNOWN)
                    if error_of is None:
                        self._folders.missing.discard(digest)
                        continue
                    log.warning("environment.missing", lock=digest[:12], reason=str(error_of))
                    pause = 30.0
            if self._folders.missing:
                if pause:
                    await asyncio.sleep(pause)
                self._folders.asked.set()

    async def _keep_tidy(self) -> None:
        while True:
            try:
                await self.want_needed()
                await self.tidy()
            except (PortoserError, OSError) as error:  # nothing that the server should end for
                log.info("environment.tidying_postponed", reason=str(error))
            await asyncio.sleep(self._every)


_UNKNOWN = PortoserError("The registry does not have this lock.")


def set_key(requires: RequiredSet) -> str:
    """What the lock of a set is kept by: the set, and the Python and the platform that it is for."""
    told = [FORM, sys.implementation.cache_tag, sys.platform, platform.machine(), list(requires)]
    return hashlib.sha256(msgspec.json.encode(told)).hexdigest()


def _seen(task: "asyncio.Task[Any]") -> None:
    """Have asyncio know that the outcome is asked for, perhaps later."""
    if not task.cancelled():
        task.exception()


def _shown(packages: Collection[str]) -> str:
    shown = ", ".join(list(packages)[:5])
    return f"{shown} and {len(packages) - 5} more" if len(packages) > 5 else shown


def _since(began: float) -> float:
    return round(time.monotonic() - began, 2)
