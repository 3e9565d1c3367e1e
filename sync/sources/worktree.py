"""A watched working tree: what is on disk is served, committed or not.

A change counts when two looks agree and nobody holds the repository's index. Events of the file system say where
to look; a slow look at everything finds what no event tells (network mounts, config maps, events that were lost).
"""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import structlog
from watchfiles import Change, awatch

from sync.blocking import in_thread
from sync.manifest import is_read
from sync.sources.base import Scan, SourceUnreadable
from sync.sources.folder import Folder
from sync.sources.git_command import GitFailed
from sync.sources.git_facts import GitFacts

log = structlog.get_logger(__name__)

_STALE_LOCK = 30.0
"""Seconds after which an index.lock was left by a git that died."""
_LONGEST_SETTLING = 10.0
_AFTER_A_LOSS = 0.1
"""Seconds that a file has to be gone: many editors rename the old one away before they write the new one."""
_FOR_WRITERS = 0.5
"""Seconds that a look waits for files that are being written; then the others are taken without them."""
_AGAIN = 0.1
"""Seconds after which it is looked again at files that are being written: nothing tells that they were closed."""
_GIT_FILES = frozenset({"HEAD", "index", "packed-refs", "ORIG_HEAD"})


class Worktree:
    """A source that serves a directory as it is.

    ``settle`` is the time in seconds between two looks that must agree, ``poll`` that between two slow looks at
    everything, and ``step`` how long, in milliseconds, events are gathered.
    """

    kind = "worktree"

    def __init__(
        self, root: Path, name: str = "main", *, settle: float = 0.01, poll: float = 10.0, step: int = 5
    ) -> None:
        self.root = root.absolute()
        self.name = name
        self.location = str(self.root)
        self._settle = settle
        self._poll = poll
        self._step = step
        self._folder = Folder(self.root)
        self._git = GitFacts(self.root)
        self._hints: set[str] = set()
        self._look_at_all = True
        self._scanning = asyncio.Lock()
        self._scan: Scan | None = None
        self._scan_of = (0, 0)
        """Which changes of the folder and moves of the head are in the scan. A look that was cancelled, or that failed,
        may have taken some; they belong to the next scan.
        """
        self._wake = asyncio.Event()

    # Watching ------------------------------------------------------------------------------------------------

    async def watch(self) -> AsyncIterator[None]:
        """Yields whenever the folder, or the repository's head, may have changed."""
        wake = self._wake
        watchers = [
            asyncio.create_task(self._watch_folder(wake)),
            asyncio.create_task(self._watch_head(wake)),
            asyncio.create_task(self._look_slowly(wake)),
        ]
        try:
            while True:
                await wake.wait()
                wake.clear()
                yield
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)

    async def _watch_folder(self, wake: asyncio.Event) -> None:
        while True:
            stop = asyncio.Event()
            replaced = asyncio.create_task(self._until_replaced(stop))
            try:
                async for changes in awatch(
                    self.root,
                    watch_filter=self._concerns_us,
                    debounce=20 * self._step,
                    step=self._step,
                    stop_event=stop,
                    ignore_permission_denied=True,
                ):
                    self._hints.update(self._relative(path) for _, path in changes)
                    wake.set()
            except (OSError, RuntimeError) as error:  # no such folder, or no more watches to be had
                log.debug("worktree.no_events", root=self.location, error=str(error))
                await asyncio.sleep(min(self._poll, 1.0) if self._identity() is None else self._poll)
            finally:
                replaced.cancel()
                await asyncio.gather(replaced, return_exceptions=True)
            self._look_at_all = True
            if self._identity() is not None:
                wake.set()

    async def _until_replaced(self, stop: asyncio.Event) -> None:
        """Ends the watch of a folder that was moved away or made anew, since its events come no more."""
        before = self._identity()
        while self._identity() == before:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(min(self._poll, 1.0))
        stop.set()

    def _identity(self) -> tuple[int, int] | None:
        try:
            told = self.root.stat()
        except OSError:
            return None
        return told.st_dev, told.st_ino

    async def _watch_head(self, wake: asyncio.Event) -> None:
        """A commit changes provenance and no file of ours."""
        while True:
            while self._git.git_dir is None:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(min(self._poll, 1.0))
            try:
                async for _ in awatch(
                    self._git.git_dir,
                    watch_filter=lambda _, path: Path(path).name in _GIT_FILES,
                    debounce=20 * self._step,
                    step=self._step,
                    recursive=False,
                ):
                    wake.set()
            except (OSError, RuntimeError) as error:
                log.debug("worktree.no_head_events", root=self.location, error=str(error))
            await asyncio.sleep(self._poll)

    async def _look_slowly(self, wake: asyncio.Event) -> None:
        while True:
            await asyncio.sleep(self._poll)
            self._look_at_all = True
            wake.set()

    def _concerns_us(self, _: Change, path: str) -> bool:
        relative = self._relative(path)
        if any(part.startswith(".") for part in relative.split("/")):
            return False
        return is_read(relative) or relative in self._folder.folders or Path(path).is_dir()

    def _relative(self, path: str) -> str:
        return path.removeprefix(self.location).lstrip("/")

    # Scanning ------------------------------------------------------------------------------------------------

    async def scan(self, *, thorough: bool = False) -> Scan:
        """What is in the folder, once two looks agree.

        Raises:
            SourceUnreadable: the folder is missing or cannot be read, or does not come to rest.
        """
        async with self._scanning:
            self._look_at_all = self._look_at_all or thorough
            if self._scan is None:
                await self._refresh_git()
            looks = [asyncio.create_task(self._settled()), asyncio.create_task(self._refresh_git())]
            try:
                await asyncio.gather(*looks)
            except BaseException:
                self._look_at_all = True
                await asyncio.wait(looks)  # the next scan must not meet this one's threads
                raise
            newest = (self._folder.changes, self._git.moves)
            if self._scan is None or newest != self._scan_of:
                self._scan = await in_thread(self._make_scan)
                self._scan_of = newest
            if self._folder.written:
                asyncio.get_running_loop().call_later(_AGAIN, self._look_again, self._folder.written)
            return self._scan

    def _look_again(self, paths: frozenset[str]) -> None:
        self._hints.update(paths)
        self._wake.set()

    async def _settled(self) -> None:
        """Look until nothing moves any more."""
        began = time.monotonic()
        lost: set[str] = set()
        look_at: set[str] | None = self._take_hints()
        while True:
            changed = await in_thread(self._folder.update, look_at) if look_at != set() else set()
            written = self._folder.written if time.monotonic() - began < _FOR_WRITERS else frozenset()
            if not changed and not written and not self._is_locked() and not self._hints:
                return
            if time.monotonic() - began > _LONGEST_SETTLING:
                raise SourceUnreadable(
                    f"{self.root} did not come to rest in {_LONGEST_SETTLING:g} s. Nothing is changed until it does."
                )
            lost = {path for path in lost | changed if not self._folder.has(path)}
            await asyncio.sleep(max(self._settle, _AFTER_A_LOSS) if lost & changed else self._settle)
            hints = self._take_hints()
            look_at = None if hints is None else hints | changed | written

    def _take_hints(self) -> set[str] | None:
        """The paths to look at, None for all."""
        hints, self._hints = self._hints, set()
        if self._look_at_all or "" in hints:
            self._look_at_all = False
            return None
        return hints

    def _is_locked(self) -> bool:
        """Whether git is at work on the index, and with it perhaps on our files."""
        if self._git.git_dir is None:
            return False
        try:
            age = time.time() - (self._git.git_dir / "index.lock").stat().st_mtime
        except OSError:
            return False
        return abs(age) < _STALE_LOCK  # one of the future is as old: the clock was set back since

    async def _refresh_git(self) -> None:
        try:
            await in_thread(self._git.refresh)
        except GitFailed as error:
            log.warning("worktree.git_failed", root=self.location, error=str(error))

    def _make_scan(self) -> Scan:
        files = self._folder.files()
        old = self._scan
        dirty: frozenset[str]
        if old is not None and old.commit == self._git.commit:
            looked_at = [path for path, content in files.items() if old.files.get(path) is not content]
            dirty = old.dirty.difference(looked_at).intersection(files)
        else:
            looked_at = list(files)
            dirty = frozenset()
        if self._git.commit is not None:
            dirty |= {path for path in looked_at if self._git.differs(path, files[path])}
        return Scan(
            files=files,
            refused=self._folder.refused(),
            tree=self._folder.tree,
            commit=self._git.commit,
            author=self._git.author,
            commits=self._git.commits,
            dirty=dirty,
            since=self._folder.since(),
            unsure=self._folder.unsure(),
        )
