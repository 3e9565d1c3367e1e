"""Reads the audit log, newest first."""

import base64
import binascii
import uuid
from datetime import datetime
from typing import TypeAlias

import msgspec

from portoser.audit.entry import Entry
from portoser.audit.rows import entry_of
from portoser.catalog.errors import Invalid, Problem
from portoser.store import audit as sql
from portoser.store.database import Database

AuditFilter: TypeAlias = sql.LogFilter
"""Which entries are wanted; None in a field wants any."""

MAX_PAGE = 1000


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some entries, newest first, and where the next page begins; None after the last."""

    entries: tuple[Entry, ...]
    next_cursor: str | None


class _Place(msgspec.Struct, frozen=True, array_like=True):
    at: datetime
    id: str


class AuditLog:
    """The log as auditors read it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, filters: AuditFilter, *, limit: int = 100, cursor: str | None = None) -> AuditPage:
        """A page of entries. A cursor stands for a place in the log, so new entries never shift a page.

        Raises:
            Invalid: the limit is not between 1 and 1000, or the cursor is not one that a page gave.
            Unavailable: Postgres is away.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise Invalid([Problem(path="limit", message=f"A page has between 1 and {MAX_PAGE} entries, not {limit}.")])
        before = _place(cursor)
        async with self._database.acquire() as connection:
            rows = await sql.page(connection, filters, before=before, limit=limit + 1)
        entries = tuple(entry_of(row) for row in rows[:limit])
        return AuditPage(entries=entries, next_cursor=_cursor(entries[-1]) if len(rows) > limit else None)

    async def tail(self, chain: str, *, after: int, limit: int = 100) -> tuple[Entry, ...]:
        """The entries of one chain after a seq, oldest first; none is missed, however late it was committed.

        Raises:
            Unavailable: Postgres is away.
        """
        async with self._database.acquire() as connection:
            return tuple(entry_of(row) for row in await sql.tail(connection, chain, after, limit))


def _cursor(entry: Entry) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(_Place(entry.at, entry.id))).decode().rstrip("=")


def _place(cursor: str | None) -> tuple[datetime, str] | None:
    if cursor is None:
        return None
    try:
        place = msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=_Place)
        if place.at.tzinfo is None:
            raise ValueError("a moment without a zone")
        return place.at, str(uuid.UUID(place.id))
    except (binascii.Error, ValueError):  # msgspec's errors are ValueErrors
        problem = Problem(path="cursor", message="The cursor is not one that a page gave.", advice="Begin without one.")
        raise Invalid([problem]) from None
