"""What a source is: something that says when it may have changed, and what is in it."""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Protocol

import msgspec

from portoser.catalog.errors import PortoserError, Problem


class SourceUnreadable(PortoserError):
    """The source cannot be read right now. That is never the same as a source in which nothing is."""


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit, as far as provenance speaks of it."""

    sha: str
    author: str
    position: int
    """Grows from older commits to newer ones."""


class Scan(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A source's content at one moment. A source that did not change answers with the same object.

    ``files`` and ``refused`` are as `sync.manifest.Reader.read` takes them. ``tree`` is equal for equal content.
    ``commit`` and ``author`` are the head's, None outside git. ``commits`` has the last commit of each path, and
    ``dirty`` the paths whose content is not the head's. ``since`` says, by the monotonic clock, when content was first
    seen that may be half written, because the source is written to while it is read. Of ``unsure`` paths among them
    nobody can tell whether somebody is still writing.
    """

    files: Mapping[str, bytes]
    refused: Mapping[str, Problem] = {}
    tree: str
    commit: str | None = None
    author: str | None = None
    commits: Mapping[str, Commit] = {}
    dirty: frozenset[str] = frozenset()
    since: Mapping[str, float] = {}
    unsure: frozenset[str] = frozenset()

    def provenance(self, paths: Iterable[str]) -> tuple[str | None, str | None]:
        """Commit and author of what some files declare together: those of the newest commit that touched any.

        ``+dirty`` follows the commit where a file is not as the head has it; of files that no commit knows, the
        commit is the head's.
        """
        if self.commit is None:
            return None, None
        newest: Commit | None = None
        is_dirty = False
        for path in paths:
            is_dirty = is_dirty or path in self.dirty
            commit = self.commits.get(path)
            if commit is not None and (newest is None or commit.position > newest.position):
                newest = commit
        sha, author = (newest.sha, newest.author) if newest is not None else (self.commit, None)
        return (f"{sha}+dirty", author) if is_dirty else (sha, author)


class Source(Protocol):
    """Where desired state comes from. A new kind of source is a class with these, in a file of its own."""

    name: str
    kind: str
    """A word for people: ``worktree`` or ``git``."""
    location: str
    """Where it is, for people: a path or a URL without credentials."""

    def watch(self) -> AsyncIterator[None]:
        """Yields whenever the source may have changed. It never ends by itself."""

    async def scan(self, *, thorough: bool = False) -> Scan:
        """What is in it now; ``thorough`` trusts nothing that was told of changes, and looks at everything.

        Raises:
            SourceUnreadable: it cannot be read; nothing may be concluded from that.
        """
