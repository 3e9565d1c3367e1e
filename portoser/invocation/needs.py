"""What the way of a call needs of the rooms below: a server's are Postgres's, an author's are in memory."""

from typing import Protocol

from portoser.audit.entry import Entry
from portoser.catalog.revision import SourceFile
from portoser.registry.snapshot import Snapshot


class Registered(Protocol):
    """What is registered now."""

    @property
    def snapshot(self) -> Snapshot:
        """The picture that the next call is answered from."""


class Code(Protocol):
    """The code of revisions."""

    async def files(self, digest: str) -> tuple[SourceFile, ...]:
        """A revision's files, in the order of their import.

        Raises:
            NotFound: no revision has this digest.
            Unavailable: they cannot be fetched now.
        """


class Recorder(Protocol):
    """Where calls are recorded."""

    async def begin(self, entry: Entry) -> None:
        """Record that a call begins; Unavailable is raised where that cannot be done."""

    async def finish(self, entry: Entry, *, had_intent: bool) -> None:
        """Record how a call ended; Unavailable is raised where that is not done yet."""

    def note(self, entry: Entry, *, had_intent: bool = False) -> None:
        """Record, as soon as possible, an entry that nobody waits for."""
