"""One server's chain in the log, over a connection that nothing else uses."""

import asyncio
import itertools
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Self

import asyncpg
import msgspec
import structlog

from portoser.audit.entry import Entry, Outcome
from portoser.audit.pending import Pending, intent_of, interrupted, reduced
from portoser.audit.rows import row_of
from portoser.catalog.errors import Unavailable
from portoser.store import audit as sql
from portoser.store.database import AWAY, Database, away

log = structlog.get_logger(__name__)

_STATEMENT_SECONDS = 5.0
_ATTEMPTS = 5
_HANDOVER_SECONDS = 1.0
"""How long a chain's name may stay taken by a connection that is on its way out: our own one before this."""
_HANDOVER_PAUSE = 0.1
_LOST = (*AWAY, asyncpg.InterfaceError)
_REFUSED = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValueError, TypeError, OverflowError)
"""What the database, or the way to it, says of a row that it does not take."""


class Chain:
    """Appends to a chain, and holds the lease that says its server lives."""

    def __init__(self, connection: asyncpg.Connection, *, name: str, holder: str, lease: float) -> None:
        self._connection = connection
        self._name = name
        self._holder = holder
        self._lease = lease
        self._seq = 0
        self.renew_at = 0.0
        """When the lease is to be renewed, by the event loop's clock."""

    @classmethod
    async def open(
        cls, database: Database, *, name: str, holder: str, lease: float, on_lost: Callable[[], None]
    ) -> Self:
        """Connect, take a chain that nobody else writes, and the lease as ``holder`` for ``lease`` seconds.

        The chain is ``name``; where another server writes that one, ``name#2``, ``name#3`` and so on.

        Raises:
            Unavailable: Postgres is away.
        """
        connection = await database.connect_alone(timeout=_STATEMENT_SECONDS)
        try:
            chain = cls(connection, name=await _free(connection, name), holder=holder, lease=lease)
            await chain._renew()
            chain._seq = await sql.last_seq(connection, chain._name)
        except (*_LOST, asyncpg.PostgresError) as error:
            connection.terminate()
            raise away(error) from error
        connection.add_termination_listener(lambda _: on_lost())
        return chain

    @property
    def is_lost(self) -> bool:
        """Whether Postgres has closed the connection."""
        return self._connection.is_closed()

    def terminate(self) -> None:
        """Close the connection now."""
        self._connection.terminate()

    async def write(self, batch: Sequence[Pending]) -> None:
        """Write a batch as one transaction. What cannot be taken is found, and the rest is written without it.

        Raises:
            Unavailable: Postgres went away; whether the batch was written is not known.
        """
        try:
            await self._write(batch)
        except (*_LOST, asyncpg.PostgresError) as error:
            raise away(error) from error

    async def settle(self, items: deque[Pending]) -> None:
        """Find out which items an attempt whose end we did not see has written, and take those out.

        Raises:
            Unavailable: Postgres went away.
        """
        try:
            await self._settle(items)
        except _LOST as error:
            raise away(error) from error

    async def keep_house(self) -> int:
        """Renew the lease, and end the calls of servers that let theirs run out; how many there were.

        Raises:
            Unavailable: Postgres went away.
        """
        try:
            await self._renew()
            async with self._connection.transaction():
                taken = await sql.take_orphans(self._connection, self._holder)
                rows = [row_of(interrupted(msgspec.convert(entry, Entry))) for entry in taken]
                await sql.write(self._connection, chain=self._name, last_seq=self._seq, rows=rows)
        except _LOST as error:
            raise away(error) from error
        self._seq += len(rows)
        return len(rows)

    async def close(self) -> None:
        """Give the lease back and close the connection."""
        try:
            await sql.end_lease(self._connection, self._holder)
        except _LOST as error:
            log.debug("audit.lease_left", error=str(error))  # it runs out by itself
        self._connection.terminate()

    async def _renew(self) -> None:
        await sql.renew_lease(self._connection, self._holder, timedelta(seconds=self._lease))
        self.renew_at = asyncio.get_running_loop().time() + self._lease / 3

    async def _write(self, batch: Sequence[Pending]) -> None:
        for _ in range(_ATTEMPTS):
            try:
                await self._commit(batch)
            except asyncpg.UniqueViolationError:  # an attempt whose end we did not see, or a second writer
                remaining = deque(batch)
                await self._settle(remaining)
                batch = remaining
            except _REFUSED as error:
                await self._write_alone(batch, error)
                return
            else:
                return
        raise Unavailable(f"The chain {self._name!r} is being written by another server of the same name.")

    async def _commit(self, batch: Sequence[Pending]) -> None:
        beginning = [intent_of(item.entry) for item in batch if item.begins]
        rows = [row_of(item.entry) for item in batch if not item.begins]
        await sql.write(
            self._connection,
            chain=self._name,
            last_seq=self._seq,
            rows=rows,
            ended=[item.entry.id for item in batch if item.ends],
            begun=self._intents(beginning) if beginning else None,
        )
        self._seq += len(rows)

    def _intents(self, entries: Sequence[Entry]) -> sql.Intents:
        return sql.Intents(self._holder, [entry.id for entry in entries], [entry.at for entry in entries], entries)

    async def _write_alone(self, batch: Sequence[Pending], error: Exception) -> None:
        if len(batch) > 1:
            for item in batch:
                await self._write([item])
            return
        item = batch[0]
        log.error("audit.entry_refused", id=item.entry.id, tool=item.entry.tool, error=type(error).__name__)
        if item.begins:
            item.fail(Unavailable("The audit log does not take the entry of this call."))
            return
        item.entry = reduced(item.entry)
        await self._commit([item])

    async def _settle(self, items: deque[Pending]) -> None:
        self._seq = await sql.last_seq(self._connection, self._name)
        written = await sql.outcomes(self._connection, [item.entry.id for item in items if not item.begins])
        for item in list(items):
            item.is_retry = False
            outcome = None if item.begins else written.get(item.entry.id)
            if outcome is None:
                continue
            if outcome == Outcome.INTERRUPTED and item.entry.outcome is not Outcome.INTERRUPTED:
                # Our lease ran out while the call went on, and another server ended it for us. Both are kept.
                item.entry = msgspec.structs.replace(item.entry, id=str(uuid.uuid4()), reason="after_interrupted")
                continue
            items.remove(item)
            item.done()


async def _free(connection: asyncpg.Connection, name: str) -> str:
    """Take the first chain of this name that nobody holds; it is held as long as the connection."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + _HANDOVER_SECONDS
    while not await sql.take_chain(connection, name):
        if loop.time() >= give_up:
            break
        await asyncio.sleep(_HANDOVER_PAUSE)
    else:
        return name
    for number in itertools.count(2):
        other = f"{name}#{number}"
        if await sql.take_chain(connection, other):
            break
    log.warning("audit.chain_taken", chain=name, instead=other)
    return other
