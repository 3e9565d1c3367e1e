"""Which states of calls were used: each may be once, on whichever replica."""

import os
import time
from datetime import UTC, datetime
from typing import Protocol

from portoser.store import questions as sql
from portoser.store.database import Database


class Nonces(Protocol):
    """What the states of calls that ask are signed with, and which of them were used."""

    async def key(self) -> bytes:
        """The key; Unavailable is raised where it cannot be had now."""

    async def spend(self, nonce: str, expires_at: float) -> bool:
        """Use a nonce, durably; False where it was used before. Unavailable is raised where that cannot be told."""


class SharedNonces:
    """Those of all servers of one Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._key: bytes | None = None

    async def key(self) -> bytes:
        """The key that all of them sign with."""
        if self._key is None:
            async with self._database.acquire() as connection:
                self._key = await sql.key(connection)
        return self._key

    async def spend(self, nonce: str, expires_at: float) -> bool:
        """Use a nonce; False where it was used before, on whichever server."""
        async with self._database.acquire() as connection:
            return await sql.spend(connection, nonce, datetime.fromtimestamp(expires_at, UTC))


class OwnNonces:
    """Those of one process, as of an author's laptop: forgotten with it."""

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._spent: dict[str, float] = {}

    async def key(self) -> bytes:
        """A key of this process."""
        return self._key

    async def spend(self, nonce: str, expires_at: float) -> bool:
        """Use a nonce; False where it was used before."""
        now = time.time()
        self._spent = {each: until for each, until in self._spent.items() if until > now}
        if nonce in self._spent:
            return False
        self._spent[nonce] = expires_at
        return True
