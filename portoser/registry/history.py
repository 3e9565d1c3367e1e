"""What tools were: their versions, and any revision, whole, by its digest."""

from datetime import datetime

import msgspec

from portoser.catalog.errors import NotFound
from portoser.catalog.revision import Revision
from portoser.store import revisions, tools
from portoser.store.database import Database


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a tool's history."""

    version: int
    digest: str
    commit: str | None
    author: str | None
    at: datetime


async def versions(database: Database, name: str) -> list[Version]:
    """The history of a tool, newest first; of its newest tombstone where no tool of that name lives.

    Raises:
        NotFound: there never was such a tool.
    """
    async with database.acquire() as connection:
        rows = await tools.versions(connection, name)
    if not rows:
        raise NotFound(f"There is no tool {name!r}, and never was.")
    return [
        Version(version=row.version, digest=row.digest, commit=row.commit, author=row.author, at=row.at) for row in rows
    ]


async def revision(database: Database, digest: str) -> Revision:
    """A revision with its files.

    Raises:
        NotFound: no revision has this digest.
    """
    async with database.acquire() as connection:
        found = await revisions.whole(connection, digest)
    if found is None:
        raise NotFound(f"No revision has the digest {digest}.")
    return found
