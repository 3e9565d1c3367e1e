"""A server that is attacked, what there is around it to be taken, and who calls it."""

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from attacks import ATTACKS, Attack, manifests

import portoser
from e2e_server import REPO, Server, new_home
from portoser.identity.tokens import new_token
from portoser.runtime.removal import remove_tree

NOBODY = 65534
_SUBREAPER = 36
PLAIN_USER = [sys.executable, str(Path(__file__).with_name("attacks_plain_user.py"))]
"""Before a command: it runs as a plain user."""


class Profile(NamedTuple):
    """As whom a server runs, and with which layers."""

    name: str
    title: str
    plain: bool
    env: dict[str, str]


_BARE = {"PORTOSER_TESTING_LAYERS_OFF": "namespaces"}
PROFILES = {
    profile.name: profile
    for profile in (
        Profile("root", "root", plain=False, env={}),
        Profile("root-bare", "root, no namespaces", plain=False, env=_BARE),
        Profile("user", "plain user", plain=True, env={}),
        Profile("user-bare", "plain user, no namespaces", plain=True, env=_BARE),
    )
}
OPEN = Profile("off", "no sandbox", plain=True, env={"PORTOSER_SANDBOX": "off"})
"""Without any layer: to see that the attacks are real."""


class Holder:
    """Somebody with a token."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.token, self.hash = new_token()


class AttackedServer(Server):
    """A server that may run as a plain user, where we are root. It has hundreds of tools to describe first."""

    seconds_to_start = 200.0

    def __init__(self, home: Path, plain: bool, **env: str) -> None:
        super().__init__(home, **env)
        self.prefix = PLAIN_USER if plain else []

    def begin(self) -> int:
        with self.log.open("ab") as log:
            offset = log.tell()
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "portoser", "serve", "--port", "0"],
                cwd=self.home,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            return offset


class World:
    """The server, its callers, and everything that an attack may know of them."""

    def __init__(self, profile: Profile, folder: Path, attacks: Iterable[Attack] = ATTACKS) -> None:
        self.profile = profile
        self.folder = folder
        self.attacker, self.other = Holder("attacker"), Holder("other")
        self.secret, self.hidden, self.word = (secrets.token_hex(12) for _ in range(3))
        self.marker = f"portoser-attack-{secrets.token_hex(6)}"
        home = new_home(folder / "home", examples=False)
        for path, text in manifests(attacks).items():
            (home / "tools.d" / path).write_text(text, encoding="utf-8")
        (home / "tokens.yml").write_text(
            "".join(
                f'- {{name: {each.name}, hash: "{each.hash}", groups: [admins]}}\n'
                for each in (self.attacker, self.other)
            )
        )
        self.user_home = folder / "user"
        self.key = self.user_home / ".ssh" / "id_ed25519"
        self.key.parent.mkdir(parents=True, mode=0o700)
        self.key.write_text(self.secret)
        self.key.chmod(0o600)
        self.open_folder = folder / "open"
        self.open_folder.mkdir()
        for name, mode in (("private.txt", 0o600), ("public.txt", 0o644), ("victim", 0o600)):
            (self.open_folder / name).write_text(self.secret)
            (self.open_folder / name).chmod(mode)
        drop = profile.plain and os.geteuid() == 0
        if drop:
            for path in (home, self.user_home, self.open_folder):
                for each in (path, *path.rglob("*")):
                    os.chown(each, NOBODY, NOBODY, follow_symlinks=False)
        self.open_folder.chmod(0o777)
        self.server = AttackedServer(
            home,
            drop,
            **{
                "PORTOSER_SANDBOX": "strict",
                "PORTOSER_TOKENS": "tokens.yml",
                "PORTOSER_ADMIN_GROUPS": "admins",
                "PORTOSER_WORKERS": "12",
                "HOME": str(self.user_home),
                "ATTACK_SECRET": self.secret,
                "ATTACK_HIDDEN": self.hidden,
                **profile.env,
            },
        )

    # What there is --------------------------------------------------------------------------------------------

    @property
    def process(self) -> psutil.Process:
        """The server's."""
        assert self.server.process is not None
        return psutil.Process(self.server.process.pid)

    def zygotes(self) -> list[psutil.Process]:
        """The processes that workers are forked from."""
        return [each for each in self.process.children() if each.name().startswith("portoser-")]

    def workers(self) -> list[psutil.Process]:
        """The workers that live now, and whatever else comes from a zygote but the first process of a namespace."""
        family = [each for zygote in self.zygotes() for each in zygote.children(recursive=True)]
        return [each for each in family if each.name() != "portoser-init"]

    def target(self, listeners: "Listeners") -> dict[str, Any]:
        """What an attack is told, so that it need not find out."""
        home = self.server.home
        data = home / ".portoser"
        cluster = data / "postgres" / "cluster"
        socket_folder = (cluster / "postmaster.pid").read_text().splitlines()[4]
        package = Path(portoser.__file__).parent
        postmaster = int((cluster / "postmaster.pid").read_text().split("\n", 1)[0])
        processes = [self.process, *self.zygotes(), *self.workers()]
        pids = [self.process.pid, *(each.pid for each in self.zygotes()), postmaster, os.getpid()]
        site_packages = sysconfig.get_path("purelib")
        return {
            "repo": str(REPO), "home": str(home), "data": str(data), "package": str(package),
            "site_packages": site_packages, "server": self.process.pid, "pids": pids,
            "workers": [each.pid for each in processes], "port": int(self.server.url.rsplit(":", 1)[1]),
            "data_files": [
                str(data / "postgres" / "passwords.json"), str(cluster / "postgresql.conf"),
                str(cluster / "pg_hba.conf"), str(cluster / "PG_VERSION"),
                *(str(each) for each in data.glob("*") if each.is_file()),
            ],
            "key": str(self.key), "secret": self.secret, "marker": self.marker,
            "private": [str(self.open_folder / name) for name in ("private.txt", "public.txt")],
            "victim": str(self.open_folder / "victim"), "open_folder": str(self.open_folder),
            "scratch_of_others": [str(each) for each in (data / "scratch").rglob("private.txt")]
            or [f"{data}/scratch/private.txt"],
            "listings": {
                "/etc": "shadow", "/var/tmp": self.folder.name, str(home): "tools.d", str(data): "postgres",
                str(REPO): "pyproject.toml", str(self.open_folder): "private.txt", "/proc": str(self.process.pid),
            },
            "folders": [  # but /tmp, which may be a worker's own
                "/dev/shm", "/var/tmp", "/run", "/", "/root", "/etc", "/etc/cron.d", "/proc", "/sys", str(home),
                str(data), str(home / "tools.d"), str(self.open_folder), str(REPO), str(package), site_packages,
                sys.base_prefix, str(data / "scratch"), "/home",
            ],
            "socket": f"{socket_folder}/.s.PGSQL.5432", "words_reversed": [self.word[::-1], self.hidden[::-1]],
            "sandboxed": self.profile is not OPEN, **listeners.named,
        }  # fmt: skip

    def left_outside(self) -> list[str]:
        """Files with the attacks' mark, wherever they may have been written; they are removed."""
        roots = {"/tmp", "/dev/shm", "/var/tmp", "/run", "/", "/root", "/etc", "/etc/cron.d", "/home", sys.base_prefix}
        roots |= {str(each) for each in (REPO, Path(portoser.__file__).parent, self.server.home, self.open_folder)}
        roots |= {sysconfig.get_path("purelib"), str(self.server.tools), str(self.server.home / ".portoser")}
        found = [str(path) for root in roots for path in Path(root).glob(f"*{self.marker}*")]
        for path in found:
            shutil.rmtree(path) if Path(path).is_dir() and not Path(path).is_symlink() else Path(path).unlink()
        return found


class Listeners:
    """Sockets outside that anybody may reach who can reach any; they are not read."""

    def __init__(self, world: World) -> None:
        self._sockets: list[socket.socket] = []
        folder, marker = world.open_folder, world.marker
        stream, datagram = str(folder / "stream"), str(folder / "datagram")
        for kind, name in (
            (socket.SOCK_STREAM, stream),
            (socket.SOCK_DGRAM, datagram),
            (socket.SOCK_STREAM, f"\0{marker}-stream"),
            (socket.SOCK_DGRAM, f"\0{marker}-datagram"),
        ):
            listener = socket.socket(socket.AF_UNIX, kind)
            listener.bind(name)
            if kind == socket.SOCK_STREAM:
                listener.listen(100)
            self._sockets.append(listener)
        for name in (stream, datagram):
            Path(name).chmod(0o777)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        self._sockets.append(udp)
        self.named = {
            "unix_stream": stream, "unix_datagram": datagram, "udp_port": udp.getsockname()[1],
            "abstract_stream": f"\0{marker}-stream", "abstract_datagram": f"\0{marker}-datagram",
        }  # fmt: skip

    def close(self) -> None:
        for each in self._sockets:
            each.close()


@contextlib.contextmanager
def attacked(profile: Profile, attacks: Iterable[Attack] = ATTACKS, prefix: Sequence[str] = ()) -> Iterator[World]:
    """A running server of a profile. Whatever escapes from it becomes a child of this process.

    ``prefix`` comes before its command. A server that was killed in between is no fault.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(_SUBREAPER, 1, 0, 0, 0)
    folder = Path(tempfile.mkdtemp(prefix="portoser-attacked-", dir="/var/tmp"))
    folder.chmod(0o711)
    before = set(psutil.Process().children(recursive=True))
    world = World(profile, folder, attacks)
    world.server.prefix = [*(part.format(home=world.server.home) for part in prefix), *world.server.prefix]
    try:
        world.server.start()
        yield world
        if world.server.stop() == -signal.SIGKILL:
            world.server.stop_postgres()
        else:
            assert world.server.process is not None
            assert world.server.process.returncode == 0, world.server.output()[-5000:]
        left = escaped(before)
        assert not left, f"left running: {left}"
    finally:
        world.server.stop(signal.SIGKILL)
        world.server.stop_postgres()
        for process in set(psutil.Process().children(recursive=True)) - before:
            with contextlib.suppress(psutil.Error):
                process.kill()
        reap(before)
        world.left_outside()
        remove_tree(folder)
        libc.prctl(_SUBREAPER, 0, 0, 0, 0)


def escaped(before: set[psutil.Process], seconds: float = 5) -> list[psutil.Process]:
    """The children of this process that are new and live on."""
    deadline = time.monotonic() + seconds
    while True:
        reap(before)
        left = [
            each
            for each in set(psutil.Process().children(recursive=True)) - before
            if each.is_running() and each.status() != psutil.STATUS_ZOMBIE
        ]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def reap(before: set[psutil.Process]) -> None:
    """Bury the children that came to us when their parent ended."""
    for process in set(psutil.Process().children()) - before:
        with contextlib.suppress(psutil.Error, ChildProcessError):
            if process.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(process.pid, os.WNOHANG)
