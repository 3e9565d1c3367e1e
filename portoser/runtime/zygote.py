"""The zygote: a single-threaded process that has imported what tools need, and forks workers.

It is started by ``zygote_start``, with an environment of its own and a control socket as its only descriptor beside the
standard ones; it never sees tool code. One packet on the control socket is one message: the server sends Spawn with
two descriptors, the zygote answers Spawned with the worker's pidfd, and Exited when it ends. The end of the control
socket is the end of the zygote, and of every worker and of all that the workers left behind.
"""

import contextlib
import errno
import gc
import importlib
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Literal

import msgspec

from portoser.runtime import confine
from portoser.runtime.isolation.enclosure import Enclosure
from portoser.runtime.protocol import (
    ORDER_DECODER,
    WORKER_FAILED,
    End,
    Exited,
    FromZygote,
    Ready,
    Spawn,
    Spawned,
    SpawnFailed,
)
from portoser.runtime.worker import main
from portoser.runtime.worker.packages import put_first
from portoser.runtime.worker.warm import warm_calls, warm_worker

PACKET = 4096
_DESCRIPTORS = 2

_COMMON = (
    "asyncio",
    "base64",
    "collections",
    "contextlib",
    "csv",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
    "enum",
    "fractions",
    "functools",
    "hashlib",
    "hmac",
    "html",
    "io",
    "ipaddress",
    "itertools",
    "json",
    "math",
    "mimetypes",
    "pathlib",
    "random",
    "re",
    "secrets",
    "statistics",
    "string",
    "tempfile",
    "textwrap",
    "time",
    "typing",
    "unicodedata",
    "urllib.parse",
    "uuid",
    "zoneinfo",
    "_strptime",
)


class Zygote:
    """Forks workers, and reports their ends."""

    def __init__(self, control: socket.socket, enclosure: Enclosure) -> None:
        self._control = control
        self._enclosure = enclosure
        self._workers: dict[int, tuple[int, int | None]] = {}
        """pid → the number of the Spawn that it answered, and the user that it is."""
        self._encoder = msgspec.msgpack.Encoder()

    def serve(self) -> None:
        """Answer the server until it closes the socket, then end everything."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake_read, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, _noted)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        layers = self._enclosure.layers
        self._reap()  # what trying the layers has left
        self._send(Ready(layers.words if layers is not None else {}, self._enclosure.has_private_scratch))
        try:
            while True:
                for descriptor, _ in poll.poll():
                    if descriptor == wake_read:
                        noted = os.read(wake_read, 4096)
                        if not self._reap() or signal.SIGTERM in noted:
                            return
                    elif not self._answer():
                        return
        finally:
            self._end_everything()

    def _answer(self) -> bool:
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._control, PACKET, _DESCRIPTORS)
        except ConnectionError:
            return False
        if not packet:
            return False
        order = ORDER_DECODER.decode(packet)
        try:
            if isinstance(order, End):
                self._end(order.seq)
            else:
                self._spawn(order, descriptors)
        except OSError as error:
            self._send(SpawnFailed(order.seq, f"{error.strerror} ({error.errno})"))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _spawn(self, spawn: Spawn, descriptors: list[int]) -> None:
        if len(descriptors) != _DESCRIPTORS:  # the kernel drops those that there is no room for
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        channel, output = descriptors
        # In a pid namespace of its own, it does not see this process.
        zygote = os.getpid() if self._enclosure.first is None else 0
        user = self._enclosure.take_user()
        try:
            pid = os.fork()
        except OSError:
            self._enclosure.give_back(user)
            raise
        if pid == 0:
            become_worker(self._enclosure, spawn, zygote, user, channel, output)
        self._workers[pid] = spawn.seq, user
        try:
            pidfd = os.pidfd_open(pid)
            try:
                self._send(Spawned(spawn.seq, pid), pidfd)
            finally:
                os.close(pidfd)
        except OSError:
            os.kill(pid, signal.SIGKILL)  # nobody would know of it
            raise

    def _end(self, seq: int) -> None:
        for pid, (known, _) in self._workers.items():
            if known == seq:
                os.kill(pid, signal.SIGKILL)

    def _send(self, message: FromZygote, *descriptors: int) -> None:
        packet = self._encoder.encode(message)
        # Where the server is gone, the next read says so.
        with contextlib.suppress(ConnectionError):
            socket.send_fds(self._control, [packet], list(descriptors))

    def _reap(self) -> bool:
        """Report the workers that ended, and end what they left behind; False where no more can live."""
        while True:
            try:
                # The pid must stay taken until its process group has been ended.
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return True
            if ended is None:
                break
            if ended.si_pid == self._enclosure.first:
                return False
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(ended.si_pid, signal.SIGKILL)
            pid, status = os.waitpid(ended.si_pid, 0)
            seq, user = self._workers.pop(pid, (None, None))
            self._enclosure.give_back(user)
            if seq is not None:
                self._send(Exited(seq, status))
        self._end_orphans()
        return True

    def _end_orphans(self) -> None:
        """End the processes that workers started and left: they have become our children."""
        for pid in self._enclosure.children():
            if pid not in self._workers and pid != self._enclosure.first:
                os.kill(pid, signal.SIGKILL)

    def _end_everything(self) -> None:
        signal.set_wakeup_fd(-1)
        if self._enclosure.first is not None:
            os.kill(self._enclosure.first, signal.SIGKILL)  # and with it the kernel ends all in its namespace
        for pid in self._workers:
            os.kill(pid, signal.SIGKILL)
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(ended.si_pid, signal.SIGKILL)
                os.waitpid(ended.si_pid, 0)
                self._workers.pop(ended.si_pid, None)
            self._end_orphans()


def become_worker(enclosure: Enclosure, spawn: Spawn, zygote: int, user: int | None, channel: int, output: int) -> None:
    """Turn the forked child into a worker, confined in all but its program's memory. Does not return."""
    try:
        confine.die_with_parent(zygote, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        place = enclosure.prepare(spawn.scratch, spawn.disk, user)
        null = os.open(os.devnull, os.O_RDONLY)
        wanted = [null, output, output, channel]
        if place.ruleset is not None:
            wanted.append(place.ruleset)
        # Copied up first: any of them may stand where another has to go.
        copies = [os.dup2(descriptor, 100 + target) for target, descriptor in enumerate(wanted)]
        for target, descriptor in enumerate(copies):
            os.dup2(descriptor, target, inheritable=target < main.CHANNEL_FD)
        os.closerange(len(wanted), 65536)
        enclosure.seal(place._replace(ruleset=main.CHANNEL_FD + 1 if place.ruleset is not None else None), zygote)
        confine.set_process_name("portoser-worker")
        gc.enable()
        if spawn.warm:
            warm_worker()
        main.main()
    except BaseException as error:  # noqa: BLE001 - it must end, and say why
        with contextlib.suppress(Exception):
            os.write(2, f"The worker cannot be confined: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(WORKER_FAILED)


def _noted(number: int, frame: object) -> None:
    """Do nothing: the wakeup descriptor has the number."""


def preload(kind: Literal["call", "describe"]) -> None:
    """Import what workers will need, run it once, and set it aside from the garbage collector."""
    gc.disable()
    for name in _COMMON:
        importlib.import_module(name)
    warm_calls()
    if kind == "describe":
        from portoser.runtime.worker.describe import warm

        warm()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    gc.collect()
    gc.freeze()


def serve(
    kind: Literal["call", "describe"], control: socket.socket, enclosure: Enclosure, packages: str | None
) -> None:
    """Preload what workers need, and fork them until the server closes ``control``.

    ``packages`` is a folder of modules that workers can import. The zygote imports none of them: their code runs in
    workers alone.
    """
    preload(kind)
    if packages is not None:
        put_first(Path(packages))
    threads = enclosure.threads()
    if threads != 1:
        sys.exit(f"The zygote has {threads} threads after preloading, and cannot be forked safely.")
    Zygote(control, enclosure).serve()
