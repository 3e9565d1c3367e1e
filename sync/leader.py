"""Which replica reconciles a source: the one that holds its advisory lock, on a connection of its own."""

import asyncpg
import structlog

from portoser.catalog.errors import Unavailable
from portoser.store.database import AWAY, Database, away

log = structlog.get_logger(__name__)


class Leadership:
    """One source's lock. It is lost with the connection, so a leader that dies is replaced."""

    def __init__(self, database: Database, source: str) -> None:
        self._database = database
        self._source = source
        self._connection: asyncpg.Connection | None = None
        self._holds = False

    async def take(self) -> bool:
        """Whether this replica leads now; it takes the lock where that is free.

        Raises:
            Unavailable: Postgres is away.
        """
        try:
            if self._connection is None or self._connection.is_closed():
                self._holds = False
                self._connection = await self._database.connect_alone(timeout=5.0)
            if self._holds:
                await self._connection.execute("SELECT 1", timeout=5.0)  # a lock without a connection is none
                return True
            told = await self._connection.fetchval(
                "SELECT pg_try_advisory_lock(hashtextextended($1, 0))", f"portoser:source:{self._source}", timeout=5.0
            )
        except (*AWAY, asyncpg.InterfaceError) as error:
            await self.release()
            raise away(error) from error
        except Unavailable:
            self._connection = None
            raise
        self._holds = bool(told)
        if self._holds:
            log.info("sync.leads", source=self._source)
        return self._holds

    async def release(self) -> None:
        """Give the lock up, by ending its connection."""
        connection, self._connection, self._holds = self._connection, None, False
        if connection is not None:
            connection.terminate()
