"""A directory's files, read again only where they changed. Blocking: call it in a thread."""

import hashlib
import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from portoser import faults
from portoser.catalog.errors import Problem
from sync.manifest import is_read
from sync.sources.base import SourceUnreadable
from sync.sources.git_facts import blob_id
from sync.sources.writers import read_whole
from sync.texts import MAX_FILE, too_large

MAX_FILES = 100_000
_SKIPPED = frozenset({"__pycache__", "node_modules"})
_RACY = 50_000_000
"""Nanoseconds: a file changed so shortly before it was read may change again under the same time stamp."""
_LATELY = 10.0
"""Seconds for which it is remembered when content was first seen."""

STILL = 2.0
"""Seconds: a file that somebody has open for writing is taken once it has been the same for this long."""

_BEING_WRITTEN = "This file is being written right now."

_Signature = tuple[int, int, int, int, int]


class _Entry:
    """A file as it was read. ``problem`` says why its content is not taken."""

    __slots__ = ("content", "is_racy", "mark", "problem", "signature")

    def __init__(
        self, signature: _Signature, content: bytes, problem: Problem | None, mark: int, is_racy: bool
    ) -> None:
        self.signature = signature
        self.content = content
        self.problem = problem
        self.mark = mark
        self.is_racy = is_racy


class Folder:
    """What is in a directory, by path relative to it. Hidden files and folders are not part of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.changes = 0
        """Grows with whatever is taken of the directory, so that nobody who looks can lose what another one saw."""
        self._base = str(root)
        self.folders: set[str] = set()
        self._entries: dict[str, _Entry] = {}
        self._links: set[str] = set()
        self._tree = 0
        self._since: dict[str, float] = {}
        self._unsure: set[str] = set()
        self._written: dict[str, tuple[_Signature, float]] = {}
        """The files that are being written, as they were seen, and since when they have been like that."""

    @property
    def written(self) -> frozenset[str]:
        """The files whose new content is not taken yet, because somebody has them open for writing."""
        return frozenset(self._written)

    def unsure(self) -> frozenset[str]:
        """Of what changed lately, the files of which nobody can tell whether they are still being written."""
        self._unsure &= self.since().keys()
        return frozenset(self._unsure)

    @property
    def tree(self) -> str:
        """Equal for equal content, whatever the order in which it came about."""
        return f"{self._tree % 2**256:064x}"

    def files(self) -> dict[str, bytes]:
        """The contents by path."""
        return {path: entry.content for path, entry in self._entries.items() if entry.problem is None}

    def has(self, path: str) -> bool:
        """Whether there was anything at a path when it was looked at last, taken or not."""
        return path in self._entries

    def since(self) -> dict[str, float]:
        """When, by the monotonic clock, the content was first seen of what changed lately."""
        lately = time.monotonic() - _LATELY
        self._since = {path: seen for path, seen in self._since.items() if seen > lately}
        return dict(self._since)

    def refused(self) -> dict[str, Problem]:
        """Why what is there is not taken, by path."""
        return {path: entry.problem for path, entry in self._entries.items() if entry.problem is not None}

    def update(self, paths: Iterable[str] | None = None) -> set[str]:
        """Look again, at everything or only at some paths; which of them changed since the last look.

        Raises:
            SourceUnreadable: the directory is missing or cannot be read.
        """
        changed: set[str] = set()
        try:
            root = os.stat(self.root)  # noqa: PTH116 - one call, used on thousands of files below
            faults.point("folder.read")
            if not stat.S_ISDIR(root.st_mode):
                raise SourceUnreadable(f"{self.root} is not a directory.")
            if paths is None:
                seen = self._walk("", changed)
                changed.update(self._drop(self._entries.keys() - seen))
            else:
                for path in {*paths, *self._links}:
                    changed.update(self._look_at(path))
            self._forget_written()
        except FileNotFoundError as error:
            raise SourceUnreadable(
                f"There is no directory {self.root}. Nothing is changed until it is back."
            ) from error
        except OSError as error:
            raise SourceUnreadable(
                f"{self.root} cannot be read: {error.strerror or error}. Nothing is changed until it can."
            ) from error
        return changed

    def _look_at(self, path: str) -> set[str]:
        """What changed at one path and below it."""
        changed: set[str] = set()
        if any(_is_skipped(part) for part in path.split("/")):
            return changed
        if any(str(folder) in self._entries for folder in PurePosixPath(path).parents):
            return changed  # in a folder that is refused as a whole
        below = {path} & self._entries.keys()
        if path in self.folders:
            below.update(known for known in self._entries if known.startswith(f"{path}/"))
        mode = self._mode(path)
        if mode is None:
            self.folders.discard(path)
        elif stat.S_ISDIR(mode):
            below -= self._walk(path, changed)
        elif (is_read(path) or stat.S_ISLNK(mode)) and self._take(path, changed):
            below.discard(_storable(path))
        return changed | self._drop(below)

    def _walk(self, folder: str, changed: set[str]) -> set[str]:
        """Look at everything below a folder; the paths that are there."""
        seen: set[str] = set()
        waiting = [folder]
        while waiting:
            at = waiting.pop()
            if at and self._refuses_folder(at, seen, changed):
                continue
            self.folders.add(at)
            for name in self._names(at, seen, changed):
                if _is_skipped(name):
                    continue
                path = f"{at}/{name}" if at else name
                mode = self._mode(path)
                if mode is not None and stat.S_ISDIR(mode):
                    waiting.append(path)
                elif mode is not None and (is_read(path) or stat.S_ISLNK(mode)) and self._take(path, changed):
                    seen.add(_storable(path))
            if len(seen) > MAX_FILES:
                raise SourceUnreadable(f"{self.root} holds more than {MAX_FILES:,} files. Is it the right folder?")
        return seen

    def _mode(self, path: str) -> int | None:
        try:
            return os.lstat(f"{self._base}/{path}").st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None  # gone since it was listed

    def _names(self, folder: str, seen: set[str], changed: set[str]) -> list[str]:
        try:
            return sorted(os.listdir(f"{self._base}/{folder}"))  # noqa: PTH208 - names are what is wanted
        except (FileNotFoundError, NotADirectoryError):
            if not folder:
                raise
            return []
        except PermissionError:
            if not folder:
                raise
            self._refuse(folder, "The folder cannot be read: permission denied.", "Let the server read it.", changed)
            seen.add(_storable(folder))
            return []

    def _refuses_folder(self, folder: str, seen: set[str], changed: set[str]) -> bool:
        if not os.path.lexists(self.root / folder / ".git"):
            return False
        self._refuse(folder, "Submodules and repositories within are not read.", "Copy its files instead.", changed)
        seen.add(_storable(folder))
        return True

    def _take(self, path: str, changed: set[str]) -> bool:
        """Read a file where it is not as it was; False where there is nothing (any more) to speak of."""
        try:
            return self._taken(path, changed)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):  # it went, or a folder came in its place
            return False
        except PermissionError:
            self._refuse(path, "The file cannot be read: permission denied.", "Let the server read it.", changed)
            return True

    def _taken(self, path: str, changed: set[str]) -> bool:
        whole = f"{self._base}/{path}"
        told = os.lstat(whole)
        if stat.S_ISLNK(told.st_mode):
            self._links.add(path)
            linked = self._linked(path, Path(whole), changed)
            if linked is None:
                return _storable(path) in self._entries
            told = linked
            if stat.S_ISDIR(told.st_mode):
                self._refuse(path, "A folder that is a symlink is not followed.", "Copy the folder.", changed)
                return True
            if not is_read(path):
                return False
        else:
            self._links.discard(path)
        if _storable(path) != path:
            self._refuse(path, "The name of this file is not UTF-8.", "Rename it.", changed)
            return True
        if not stat.S_ISREG(told.st_mode):
            self._refuse(path, "This is not a file but a pipe, a socket or a device.", "Take it away.", changed)
            return True
        signature = (told.st_mtime_ns, told.st_ctime_ns, told.st_size, told.st_ino, told.st_mode)
        known = self._entries.get(path)
        if known is not None and known.signature == signature and not known.is_racy:
            return True
        if told.st_size > MAX_FILE:
            self._put(path, signature, b"", too_large(path, told.st_size), changed)
        else:
            self._read(path, signature, changed)
        return True

    def _read(self, path: str, signature: _Signature, changed: set[str]) -> None:
        """Take a file's content, unless somebody is writing it: then what was known of it stays."""
        content, has_writer = read_whole(f"{self._base}/{path}")
        if has_writer and self._is_moving(path, signature):
            if path not in self._entries:
                self._refuse(path, _BEING_WRITTEN, "It is read as soon as its writer has closed it.", changed)
            return
        self._written.pop(path, None)
        if has_writer is None and _is_young(signature):
            self._unsure.add(path)
        else:
            self._unsure.discard(path)
        self._put(path, signature, content, None, changed)

    def _is_moving(self, path: str, signature: _Signature) -> bool:
        """Whether a file that is being written has changed within the last moments."""
        if not _is_young(signature):
            return False
        seen, since = self._written.get(path, (None, 0.0))
        if seen != signature:
            self._written[path] = signature, time.monotonic()
            return True
        return time.monotonic() - since < STILL

    def _linked(self, path: str, whole: Path, changed: set[str]) -> os.stat_result | None:
        """What a symlink leads to, None where that is not taken."""
        try:
            target = whole.resolve(strict=True)
        except FileNotFoundError:
            if is_read(path):
                self._refuse(path, "This symlink leads nowhere.", "Take it away, or put a file in its place.", changed)
            return None
        except (OSError, RuntimeError):
            self._refuse(path, "This symlink leads to itself.", "Put a file in its place.", changed)
            return None
        if not target.is_relative_to(self.root.resolve()):
            self._refuse(path, "This symlink leaves the folder.", "Put the file itself in its place.", changed)
            return None
        return target.stat()

    def _refuse(self, path: str, message: str, advice: str, changed: set[str]) -> None:
        path = _storable(path)
        problem = Problem(path=path, message=message, advice=advice)
        self._put(path, (0, 0, 0, 0, 0), b"", problem, changed)

    def _put(
        self, path: str, signature: _Signature, content: bytes, problem: Problem | None, changed: set[str]
    ) -> None:
        known = self._entries.get(path)
        is_racy = problem is None and time.time_ns() - max(signature[:2]) < _RACY
        if known is not None and known.content == content and known.problem == problem:
            known.signature, known.is_racy = signature, is_racy
            return
        told = str(problem) if problem is not None else blob_id(content)
        mark = int.from_bytes(hashlib.sha256(f"{path}\0{told}".encode()).digest())
        self._tree += mark - (known.mark if known is not None else 0)
        self._since[path] = time.monotonic()
        self._entries[path] = _Entry(signature, content, problem, mark, is_racy)
        self.changes += 1
        changed.add(path)

    def _drop(self, paths: set[str]) -> set[str]:
        for path in paths:
            self._tree -= self._entries.pop(path).mark
            self.changes += 1
            self._links.discard(path)
        return paths

    def _forget_written(self) -> None:
        """Of what is gone, nothing is being written any more."""
        for path in [path for path in self._written if path not in self._entries]:
            del self._written[path]


def _is_young(signature: _Signature) -> bool:
    """Whether a file was changed within the last moments, or in the future, by a clock that was set back."""
    return time.time_ns() - max(signature[:2]) < STILL * 1e9


def _is_skipped(name: str) -> bool:
    return name.startswith(".") or name in _SKIPPED


def _storable(path: str) -> str:
    """A path as text that can be stored and shown, also where its bytes are no UTF-8."""
    return path if path.isascii() else path.encode(errors="surrogateescape").decode(errors="replace")
