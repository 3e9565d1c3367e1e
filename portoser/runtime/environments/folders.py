"""The folders that environments are installed in: one for each lock, Python and platform; made whole or not at all.

Below ``PORTOSER_DATA/environments`` lie ``<id>/packages`` with a marker beside it, written last; whatever begins with
a dot is on its way in or out. A file in ``locks`` belongs to each id: who makes or removes a folder holds it alone, who
uses one shares it, so that several servers may use the same data directory.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import hashlib
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from pathlib import Path

import msgspec
import structlog

from portoser.catalog.errors import Unavailable
from portoser.catalog.requirement import Lock

log = structlog.get_logger(__name__)

FORM = 1
"""Grows when a folder comes to look otherwise, so that old ones are not taken."""

PACKAGES = "packages"
_MARKER = "environment.json"
_PAUSE = 0.2
_SECONDS_FOR_ANOTHER = 960.0
"""How long another process may be at work on the same folder."""


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """What stands beside the packages of a folder that is whole."""

    lock: str
    packages: tuple[str, ...]
    size: int


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """An environment on this disk. ``used_at`` is when a server last took it up, in seconds since 1970."""

    id: str
    lock: str
    packages: tuple[str, ...]
    size: int
    used_at: float


class Folders:
    """The environments of one data directory. Making and removing is work for `Environments`; asking costs little."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._held: dict[str, tuple[Path, int]] = {}
        """By the lock's digest: the packages' folder, and the descriptor that keeps it from being removed."""
        self.missing: set[str] = set()
        """The digests of locks that somebody has asked for in vain."""
        self.asked = asyncio.Event()
        """Set where there is something new in ``missing``."""

    def find(self, lock: str) -> Path | None:
        """The packages' folder of a lock, by its digest, or None where it is not installed. It is kept from now on."""
        held = self._held.get(lock)
        if held is not None:
            return held[0]
        folder = self.root / environment_id(lock)
        if not (folder / _MARKER).is_file():
            return None
        try:
            descriptor = self._lock_file(folder.name)
        except OSError as error:
            log.warning("environment.unusable", folder=folder.name, reason=error.strerror)
            return None
        try:
            # While another process removes it, it is as good as gone.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.utime(folder / _MARKER)
        except OSError:
            os.close(descriptor)
            return None
        self._held[lock] = folder / PACKAGES, descriptor
        return folder / PACKAGES

    def want(self, lock: str) -> None:
        """Tell that an environment is missing here."""
        if lock not in self.missing:
            self.missing.add(lock)
            self.asked.set()

    async def make(self, lock: Lock, install: Callable[[Path], Awaitable[None]]) -> Path:
        """The packages' folder of a lock, made by ``install``, which is given an empty folder, where there is none.

        Raises:
            Unavailable: another process makes it for very long, or this disk takes no more.
        """
        digest = lock.digest
        found = self.find(digest)
        if found is not None:
            return found
        name = environment_id(digest)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.root.chmod(0o755)  # whoever the workers run as must be able to read below it
            descriptor = self._lock_file(name)
        except OSError as error:
            raise _unusable(self.root, error) from error
        try:
            if not await self._alone(descriptor, digest):
                os.close(descriptor)
                return self._held[digest][0]
            if not (self.root / name / _MARKER).is_file():
                await self._make(lock, name, install)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        except OSError as error:
            os.close(descriptor)
            raise _unusable(self.root, error) from error
        except BaseException:
            os.close(descriptor)
            raise
        self._held[digest] = self.root / name / PACKAGES, descriptor
        self.missing.discard(digest)
        return self.root / name / PACKAGES

    async def _alone(self, descriptor: int, digest: str) -> bool:
        """Wait until nobody else has the lock, and take it; False where somebody else has made the folder meanwhile."""
        until = time.monotonic() + _SECONDS_FOR_ANOTHER
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if self.find(digest) is not None:
                    return False
                if time.monotonic() > until:
                    raise Unavailable("Another server installs the same packages for very long.") from None
                await asyncio.sleep(_PAUSE)
            else:
                return True

    async def _make(self, lock: Lock, name: str, install: Callable[[Path], Awaitable[None]]) -> None:
        aside = self.root / f".making-{name}"
        await asyncio.to_thread(_remove, aside)  # of a server that was killed: nobody else has the lock
        await asyncio.to_thread(_remove, self.root / name)
        try:
            (aside / PACKAGES).mkdir(parents=True)
            await install(aside / PACKAGES)
            size = await asyncio.to_thread(_close, aside / PACKAGES)
            marker = Marker(lock=lock.digest, packages=lock.packages, size=size)
            (aside / _MARKER).write_bytes(msgspec.json.encode(marker))
            aside.chmod(0o755)
            aside.rename(self.root / name)
        finally:
            await asyncio.to_thread(_remove, aside)

    def kept(self) -> list[Kept]:
        """Every environment that is whole. Blocks."""
        return [kept for folder in self._folders() if (kept := _read(folder)) is not None]

    def remove_unused(self, needed: Collection[str], *, older_than: float) -> list[Kept]:
        """Remove the environments of other locks than ``needed`` that nobody has taken up for so many seconds. Blocks.

        ``needed`` has the digests of locks. What another server holds stays.
        """
        for digest in self._held.keys() - set(needed):
            os.close(self._held.pop(digest)[1])
        removed = []
        for kept in self.kept():
            if kept.lock in needed or time.time() - kept.used_at < older_than:
                continue
            with self._alone_now(kept.id) as is_alone:
                if is_alone:
                    aside = self.root / f".removing-{kept.id}"
                    _remove(aside)
                    (self.root / kept.id).rename(aside)
                    _remove(aside)
                    removed.append(kept)
        self._remove_leftovers()
        return removed

    def release(self) -> None:
        """Hold nothing any more."""
        for _, descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()

    def _remove_leftovers(self) -> None:
        """What servers that were killed have left half made or half removed."""
        for pattern in (".making-*", ".removing-*"):
            for folder in self.root.glob(pattern):
                with self._alone_now(folder.name.rpartition("-")[2]) as is_alone:
                    if is_alone:
                        _remove(folder)

    @contextlib.contextmanager
    def _alone_now(self, name: str) -> Iterator[bool]:
        descriptor = self._lock_file(name)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

    def _lock_file(self, name: str) -> int:
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _folders(self) -> Iterator[Path]:
        if self.root.is_dir():
            yield from (entry for entry in self.root.iterdir() if (entry / _MARKER).is_file())


def environment_id(lock: str) -> str:
    """The name of the folder in which this Python on this machine keeps the packages of a lock, by its digest."""
    told = (str(FORM), lock, sys.implementation.cache_tag, sysconfig.get_config_var("SOABI"), sysconfig.get_platform())
    return hashlib.sha256("\n".join(map(str, told)).encode()).hexdigest()[:32]


def _unusable(root: Path, error: OSError) -> Unavailable:
    return Unavailable(f"Packages cannot be kept in {root}: {error.strerror}.", retry_after=30)


def _close(folder: Path) -> int:
    """Take every right to write away below a folder, and give everybody that to read; its size in bytes.

    It is on the disk when this returns, so that no crash leaves empty files behind a marker.
    """
    size = 0
    folder.joinpath(".lock").unlink(missing_ok=True)  # uv's own
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in folders + files:
            if (link := Path(parent, name)).is_symlink():  # no wheel has one, and it could lead anywhere
                link.unlink()
        for name in files:
            path = Path(parent, name)
            if not path.exists():
                continue
            size += path.stat().st_size
            path.chmod(0o555 if path.stat().st_mode & 0o100 else 0o444)
        Path(parent).chmod(0o555)
    _flush(folder)
    return size


def _flush(folder: Path) -> None:
    """Wait until the file system that a folder is on has written everything; others may be busy."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    """Remove a folder that may not be written to, and may not be there."""
    if not folder.exists():
        return
    for parent, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            Path(parent).chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)


def _read(folder: Path) -> Kept | None:
    path = folder / _MARKER
    try:
        marker = msgspec.json.decode(path.read_bytes(), type=Marker)
        used_at = path.stat().st_mtime
    except (OSError, msgspec.DecodeError):
        return None
    return Kept(id=folder.name, lock=marker.lock, packages=marker.packages, size=marker.size, used_at=used_at)
