"""What git knows of a folder: its head, the last commit of each path, and which files differ from the head.

Works from the head's tree and our own hashes, not from the index: no lock is taken, nothing is refreshed, and a
`git add` changes nothing.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import structlog

from sync.sources.base import Commit
from sync.sources.git_command import GitFailed, lines_of, run

log = structlog.get_logger(__name__)

_HISTORY_DEADLINE = 60.0
_ESCAPE = re.compile(rb"\\([0-7]{3}|.)")
_ESCAPES = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}


class GitFacts:
    """The facts of one folder, kept for as long as the head stays. Blocking: call it in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._position = 0
        self.moves = 0
        """Grows whenever the head is another one."""
        self.git_dir: Path | None = None
        """Where the repository keeps its files, None outside git."""
        self.commit: str | None = None
        self.author: str | None = None
        self.commits: Mapping[str, Commit] = {}
        self._blobs: dict[str, str] = {}

    def refresh(self) -> None:
        """Look at the head again."""
        git_dir, head = self._head()
        self.git_dir = git_dir
        if head == self.commit:
            return
        old, self.commit = self.commit, head
        if head is None:
            self.author, self.commits, self._blobs = None, {}, {}
            self.moves += 1
            return
        try:
            self._blobs = self._tree(head)
            self.author = run(self._folder, "log", "-1", "--format=%an <%ae>", head).decode(errors="replace").strip()
            self.commits = self._history(old, head)
        except GitFailed:
            self.commit = None  # half known is not known: the next look begins anew
            raise
        self.moves += 1

    def differs(self, path: str, content: bytes) -> bool:
        """Whether a file's content is not what the head has at its path."""
        committed = self._blobs.get(path)
        if committed is None:
            return True
        if blob_id(content, committed) == committed:
            return False
        # With core.autocrlf the working tree has other ends of lines than the blob.
        return b"\r\n" not in content or blob_id(content.replace(b"\r\n", b"\n"), committed) != committed

    def _head(self) -> tuple[Path | None, str | None]:
        """Where the repository is, and the commit of its head; None for what there is not."""
        try:
            told = run(self._folder, "rev-parse", "--absolute-git-dir", "HEAD^{commit}").decode().splitlines()
        except GitFailed:
            try:  # a repository without a commit?
                told = run(self._folder, "rev-parse", "--absolute-git-dir").decode().splitlines()
            except GitFailed:
                return None, None
        return Path(told[0]), told[1] if len(told) > 1 else None

    def _tree(self, head: str) -> dict[str, str]:
        blobs: dict[str, str] = {}
        for entry in run(self._folder, "ls-tree", "-r", "-z", head).split(b"\0"):
            described, tab, path = entry.partition(b"\t")
            if tab:
                blobs[path.decode(errors="replace")] = described.split()[2].decode()
        return blobs

    def _history(self, old: str | None, head: str) -> dict[str, Commit]:
        """The last commit of each path of the head's tree."""
        known: dict[str, Commit] = {}
        span = head
        missing = None
        if old is not None and self.commits and self._is_ancestor(old, head):
            known = {path: commit for path, commit in self.commits.items() if path in self._blobs}
            span = f"{old}..{head}"
        else:
            missing = set(self._blobs)
        found = self._walk(span, missing)
        first = self._position + len(found)
        self._position = first
        order: dict[str, int] = {}
        for path, (sha, author) in found.items():
            position = first - order.setdefault(sha, len(order))
            known[path] = Commit(sha=sha, author=author, position=position)
        return known

    def _is_ancestor(self, old: str, head: str) -> bool:
        try:
            run(self._folder, "merge-base", "--is-ancestor", old, head)
        except GitFailed:
            return False
        return True

    def _walk(self, span: str, missing: set[str] | None) -> dict[str, tuple[str, str]]:
        """Sha and author of the newest commit that touched each path, newest first; ``missing`` may end it early."""
        found: dict[str, tuple[str, str]] = {}
        arguments = (
            "log",
            "-c",
            "--name-only",
            "--no-renames",
            "--relative",
            "--format=%x01%H %an <%ae>",
            span,
            "--",
            ".",
        )
        sha = author = ""
        with lines_of(self._folder, *arguments, deadline=_HISTORY_DEADLINE) as lines:
            for line in lines:
                if line.startswith(b"\1"):
                    sha, _, author = line[1:].decode(errors="replace").rstrip("\n").partition(" ")
                    continue
                path = _unquoted(line.rstrip(b"\n"))
                if not path or path in found:
                    continue
                found[path] = (sha, author)
                if missing is not None:
                    missing.discard(path)
                    if not missing:
                        break
        return found


def blob_id(content: bytes, like: str = "") -> str:
    """The id that git gives to a file's content, by the hash that ``like`` is of (sha1 without one)."""
    digest = hashlib.sha256() if len(like) == 64 else hashlib.sha1(usedforsecurity=False)
    digest.update(b"blob %d\0" % len(content))
    digest.update(content)
    return digest.hexdigest()


def _unquoted(name: bytes) -> str:
    """A path as git prints it: in quotes, with escapes, where it holds anything unusual."""
    if name.startswith(b'"') and name.endswith(b'"') and len(name) > 1:
        name = _ESCAPE.sub(_unescaped, name[1:-1])
    return name.decode(errors="replace")


def _unescaped(match: re.Match[bytes]) -> bytes:
    told = match[1]
    return bytes([int(told, 8) & 0xFF]) if len(told) == 3 else _ESCAPES.get(told, told)
