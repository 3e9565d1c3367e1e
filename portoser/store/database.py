"""The connection to Postgres: a pool, the codecs, and one clear error for "not there right now"."""

import asyncio
import contextlib
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self, TypeAlias, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
import msgspec
import structlog
from asyncpg.pool import PoolConnectionProxy

from portoser.catalog.errors import PortoserError, Unavailable

log = structlog.get_logger(__name__)

Connection: TypeAlias = asyncpg.Connection | PoolConnectionProxy
"""What functions that speak SQL take."""

AWAY = (
    OSError,  # also TimeoutError
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shut down, crashed, cannot connect now
    asyncpg.InsufficientResourcesError,  # disk full, too many connections
    asyncpg.ReadOnlySQLTransactionError,  # a standby since the last failover
)
"""What asyncpg raises when Postgres is not there, or not able, right now."""

_SECONDS_TO_ANSWER = 5.0
_HANGS = f"Postgres has not answered within {_SECONDS_TO_ANSWER:g} s: it is there, but it hangs."

_Answer = TypeVar("_Answer")

_LOST = (ConnectionError, TimeoutError, *AWAY[1:])
"""The same, of a connection that was there: any other OSError is of the work done with it."""

_ESCAPED_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


def plain_dsn(url: str) -> str:
    """A ``DATABASE_URL`` as asyncpg takes it: SQLAlchemy's forms are understood too.

    Raises:
        PortoserError: the URL is not one of Postgres.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise PortoserError(f"DATABASE_URL is not a URL: {error}.") from error
    if parts.scheme not in {"postgresql", "postgres", "postgresql+asyncpg"}:
        raise PortoserError(f"DATABASE_URL must begin with postgresql://, not with {parts.scheme or url[:12]!r}.")
    if parts.scheme == "postgresql+asyncpg":
        query = [("sslmode" if key == "ssl" else key, value) for key, value in parse_qsl(parts.query)]
        parts = parts._replace(query=urlencode(query, safe="/"))
    return urlunsplit(parts._replace(scheme="postgresql"))


def encode_json(value: Any) -> bytes:
    """JSON that ``jsonb`` takes, of anything JSON-like.

    What it cannot hold is replaced, never refused, because it comes from callers: NUL and lone
    surrogates become U+FFFD or ``?``; integers beyond 64 bits stay whole.
    """
    encoded = _encode_exactly(value)
    return _ESCAPED_NUL.sub(rb"\1\\ufffd", encoded) if b"\\u0000" in encoded else encoded


def _encode_exactly(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (UnicodeEncodeError, OverflowError):
        return msgspec.json.encode(_scrubbed(value))


def _scrubbed(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, int) and value.bit_length() > 63:
        return msgspec.Raw(str(value).encode())
    if isinstance(value, dict):
        return {_scrubbed(key): _scrubbed(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_scrubbed(item) for item in value]
    return value


def _encode_jsonb(value: Any) -> bytes:
    return b"\x01" + encode_json(value)  # the version of jsonb's binary form


def _decode_jsonb(data: bytes) -> Any:
    return msgspec.json.decode(memoryview(data)[1:])


async def set_codecs(connection: Connection) -> None:
    """Teach a connection that ``json`` and ``jsonb`` are Python values and ``uuid`` is a string."""
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=_encode_jsonb, decoder=_decode_jsonb, format="binary"
    )
    await connection.set_type_codec(
        "json", schema="pg_catalog", encoder=_encode_exactly, decoder=msgspec.json.decode, format="binary"
    )
    await connection.set_type_codec("uuid", schema="pg_catalog", encoder=str, decoder=str, format="text")


class Database:
    """A pool of connections to the registry's Postgres."""

    def __init__(self, dsn: str, pool: asyncpg.Pool) -> None:
        self._dsn = dsn
        self.pool = pool
        self._hangs = False
        self._in_use: set[PoolConnectionProxy] = set()

    @classmethod
    async def connect(cls, dsn: str, *, max_size: int = 8) -> Self:
        """Connect to a migrated database.

        Raises:
            Unavailable: Postgres does not answer.
            PortoserError: it does not let us in, or the URL is wrong.
        """
        dsn = plain_dsn(dsn)
        try:
            pool = await asyncpg.create_pool(
                dsn, min_size=1, max_size=max_size, init=set_codecs, timeout=10, command_timeout=60
            )
        except AWAY as error:
            raise away(error) from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            raise PortoserError(f"The database refuses the connection: {error}. Check DATABASE_URL.") from error
        return cls(dsn, pool)

    async def close(self) -> None:
        """Close every connection; those that do not end within five seconds are cut."""
        try:
            await asyncio.wait_for(self.pool.close(), 5)
        except TimeoutError:
            self.pool.terminate()

    async def connect_alone(self, *, timeout: float) -> asyncpg.Connection:
        """A connection outside of the pool, for who keeps it; ``timeout`` in seconds holds for each statement too.

        Raises:
            Unavailable: Postgres is away.
        """
        try:
            connection = await asyncpg.connect(self._dsn, timeout=timeout, command_timeout=timeout)
            await set_codecs(connection)
        except (*AWAY, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresError) as error:
            raise away(error) from error
        return connection

    @contextlib.asynccontextmanager
    async def acquire(self, *, timeout: float = 5.0, to_probe: bool = False) -> AsyncIterator[PoolConnectionProxy]:
        """A connection for the ``with`` block; ``timeout`` in seconds is for getting one.

        ``to_probe`` asks for one also while Postgres is known to hang, to see whether it still does.

        Raises:
            Unavailable: Postgres is away or hangs, or went away inside the block, or every connection is busy.
        """
        if self._hangs and not to_probe:
            raise Unavailable(_HANGS)
        try:
            connection = await self.pool.acquire(timeout=timeout)
        except TimeoutError as error:
            if to_probe and await self._is_silent():
                await self._cut()
                raise Unavailable(_HANGS) from error
            raise Unavailable(f"No connection to Postgres was to be had within {timeout:g} s.") from error
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            raise away(error) from error
        self._in_use.add(connection)
        try:
            yield connection
        except _LOST as error:
            raise away(error) from error
        except asyncpg.InternalClientError as error:  # the farewell of a Postgres that goes was read as an answer
            with contextlib.suppress(asyncpg.InterfaceError):  # the pool has noticed, and took it back
                connection.terminate()
            raise away(error) from error
        except asyncpg.InterfaceError as error:
            if _is_gone(connection):
                raise away(error) from error
            raise
        finally:
            self._in_use.discard(connection)
            await self._release(connection)

    async def prompt(self, answer: Awaitable[_Answer]) -> _Answer:
        """What Postgres says to a question that takes it no time, over a connection that was acquired ``to_probe``.

        Where it does not answer, it hangs: every connection is cut, so that whoever waits for it is told, and nobody
        is given another one until it answers again. A Postgres that is stopped, or whose disk does not answer, keeps
        its connections, and would be waited for without end.

        Raises:
            Unavailable: Postgres hangs.
        """
        try:
            async with asyncio.timeout(_SECONDS_TO_ANSWER):
                told = await answer
        except TimeoutError as error:
            await self._cut()
            raise Unavailable(_HANGS) from error
        self._hangs = False
        return told

    async def _is_silent(self) -> bool:
        """Whether Postgres does not answer at all, where every connection of the pool is busy; a no is an answer."""
        try:
            connection = await self.connect_alone(timeout=_SECONDS_TO_ANSWER)
        except Unavailable as error:
            return isinstance(error.__cause__, TimeoutError)
        connection.terminate()
        return False

    async def _cut(self) -> None:
        if not self._hangs:
            log.warning("postgres.hangs", connections=len(self._in_use))
        self._hangs = True
        for connection in self._in_use:
            with contextlib.suppress(asyncpg.InterfaceError):  # the pool took it back
                connection.terminate()
        await self.pool.expire_connections()

    async def _release(self, connection: PoolConnectionProxy) -> None:
        try:
            await self.pool.release(connection)
        except (*AWAY, asyncpg.InterfaceError, asyncpg.InternalClientError):
            # It could not be reset; the pool has cut it, and makes another.
            log.debug("postgres.connection_lost")

    async def listen(self, channel: str, callback: Callable[[str | None], None]) -> None:
        """Call ``callback`` with the payload of each notification on ``channel``, until cancelled.

        It has a connection of its own and makes a new one whenever that is lost. After each connect it calls
        ``callback(None)``: something may have been missed in between.
        """
        delay = 0.1
        while True:
            try:
                connection = await asyncpg.connect(self._dsn, timeout=10)
            except (*AWAY, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
                log.debug("postgres.listen_waits", error=str(error), delay=delay)
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
                delay = min(delay * 2, 5.0)
                continue
            delay = 0.1
            await self._listen_on(connection, channel, callback)

    async def _listen_on(
        self, connection: asyncpg.Connection, channel: str, callback: Callable[[str | None], None]
    ) -> None:
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        try:
            await connection.add_listener(channel, lambda *notification: callback(str(notification[3])))
            callback(None)
            await ended.wait()
        except (*AWAY, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            log.debug("postgres.listen_lost", error=str(error))
        finally:
            connection.terminate()


def _is_gone(connection: PoolConnectionProxy) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # the pool has noticed before us, and took it back
        return True


def away(error: BaseException) -> Unavailable:
    """The error that says Postgres is not there right now, and why."""
    late = "it did not answer in time" if isinstance(error, TimeoutError) else type(error).__name__
    return Unavailable(f"Postgres is not available: {str(error).rstrip('.') or late}.")
