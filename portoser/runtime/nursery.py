"""The server's hold on one zygote: starts it, asks it for workers, replaces it when it has died."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import structlog

import portoser
from portoser.catalog.allowance import USUAL_SCRATCH
from portoser.catalog.errors import PortoserError, Unavailable
from portoser.runtime.isolation.enclosure import Orders
from portoser.runtime.process import WorkerProcess
from portoser.runtime.protocol import ZYGOTE_DECODER, End, Exited, Ready, Spawn, Spawned, Unfit
from portoser.runtime.scratch import Scratch
from portoser.runtime.zygote import PACKET

log = structlog.get_logger(__name__)

_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 5.0
_ROOT = Path(portoser.__file__).parent.parent

# -I keeps the environment and the working directory out of sys.path; where the package lies is appended, so that
# it stands in nobody's way.
_PROGRAM = """\
import sys
sys.path.append(sys.argv[5])
from portoser.runtime.zygote_start import run
run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
"""

_ENVIRONMENT = {
    # Libraries that start threads when they are imported could not be forked.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "LC_ALL": "C.UTF-8",
    "HOME": "/",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
}
"""All that a zygote's environment holds; nothing of the server's."""


class Held:
    """The layers that held in a runtime's first zygote. Each later one must have them, too."""

    def __init__(self) -> None:
        self.layers: frozenset[str] | None = None

    def missing(self, words: dict[str, str]) -> str:
        """What a zygote that has come up lacks, as people read it; empty where it lacks nothing."""
        found = frozenset(name for name, told in words.items() if told.startswith("on"))
        if self.layers is None:
            self.layers = found
        return "; ".join(f"{name}: {words.get(name, 'unknown')}" for name in sorted(self.layers - found))


class Terms(NamedTuple):
    """What a runtime's workers are held to, whichever zygote they come from."""

    scratch: Scratch
    isolate: bool
    without: tuple[str, ...]
    """Layers that a test wants left out."""
    held: Held

    def orders(self, packages: Path | None) -> Orders:
        """What a zygote is told that has a folder of packages."""
        return Orders(
            isolate=self.isolate,
            without=self.without,
            scratch=str(self.scratch.folder),
            packages=str(packages) if packages is not None else None,
        )


class Nursery:
    """One zygote and the workers that it has forked.

    ``terms`` are what they are held to; ``packages`` is a folder of modules that they can import.
    """

    def __init__(self, kind: Literal["call", "describe"], terms: Terms, *, packages: Path | None = None) -> None:
        self.kind = kind
        self.layers: dict[str, str] = {}
        """Which layers of isolation hold, as people read it, once a zygote has come up."""
        self._terms = terms
        self._packages = packages
        self._private_scratch = False
        self._process: subprocess.Popen[bytes] | None = None
        self._begun: socket.socket | None = None
        """The control socket of a zygote that is on its way, until `start` listens to it."""
        self._control: socket.socket | None = None
        self._ready: asyncio.Future[None] | None = None
        self._starting = asyncio.Lock()
        self._workers: dict[int, WorkerProcess] = {}
        self._seq = 0
        self._closed = False
        self._encoder = msgspec.msgpack.Encoder()

    @property
    def alive(self) -> bool:
        """Whether the zygote runs."""
        return self._control is not None

    @property
    def pid(self) -> int | None:
        """The zygote's process id."""
        return self._process.pid if self._process is not None else None

    @property
    def workers(self) -> int:
        """How many workers have not ended yet."""
        return len(self._workers)

    def begin(self) -> None:
        """Start the zygote without waiting for it, before there is an event loop; `start` must follow.

        Raises:
            Unavailable: where no process can be started.
        """
        self._begun = self._popen()

    def abandon(self) -> None:
        """End a zygote that was begun and never listened to. Blocks."""
        if self._begun is not None and self._process is not None:
            self._begun.close()
            self._process.kill()
            self._process.wait()

    def _popen(self) -> socket.socket:
        """Start the process; its control socket."""
        if self._closed:
            raise Unavailable("Tools cannot be run: the server is stopping.")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            # On this thread: the zygote dies with the thread that has started it.
            self._process = _popen(self.kind, theirs.fileno(), self._terms.orders(self._packages))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        return ours

    async def start(self) -> None:
        """Start the zygote, where none runs, and wait until it can fork.

        Raises:
            PortoserError: tools cannot be isolated here.
            Unavailable: where it does not come up.
        """
        async with self._starting:
            if self._control is None:
                await self._start()

    async def _start(self) -> None:
        control, self._begun = self._begun or self._popen(), None
        self._control = control
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        loop.add_reader(control, self._on_control)
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                await self._ready
        except PortoserError:
            self._lost()
            raise
        except (TimeoutError, ConnectionError) as error:
            self._lost()
            raise Unavailable(
                f"The process that starts workers did not come up: {str(error) or 'it took too long'}.", retry_after=5
            ) from None
        log.debug("zygote_ready", kind=self.kind, pid=self.pid)

    async def spawn(self, warm: bool = False, disk: int = USUAL_SCRATCH) -> WorkerProcess:
        """A new worker; its process may still be on its way when this returns, and frames can be sent to it.

        ``warm`` makes it run a sample program first; ``disk`` is how many bytes fit in the folder that it works in.

        Raises:
            Unavailable: where the zygote cannot be started, or descriptors have run out.
        """
        if self._control is None:
            await self.start()
        try:
            return await self._spawn(asyncio.get_running_loop(), warm, disk)
        except OSError as error:
            raise Unavailable(f"No worker can be started: {error.strerror or error}.") from error

    async def _spawn(self, loop: asyncio.AbstractEventLoop, warm: bool, disk: int) -> WorkerProcess:
        self._seq += 1
        seq = self._seq
        folder = self._folder()
        try:
            worker = await self._spawn_in(loop, Spawn(seq, warm, str(folder or ""), disk))
        except BaseException:
            if folder is not None:
                self._terms.scratch.remove(folder)
            raise
        if folder is not None:
            worker.when_gone(lambda: self._terms.scratch.remove(folder))
        return worker

    def _folder(self) -> Path | None:
        """A folder for the next worker, where it does not make its own.

        Raises:
            Unavailable: it cannot be made.
        """
        if self._private_scratch:
            return None
        try:
            return self._terms.scratch.make()
        except OSError as error:
            raise Unavailable(f"No worker can be given a folder to work in: {error.strerror}.") from error

    async def _spawn_in(self, loop: asyncio.AbstractEventLoop, spawn: Spawn) -> WorkerProcess:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            read, write = os.pipe()
        except OSError:
            ours.close()
            theirs.close()
            raise
        try:
            os.set_blocking(read, False)
            ours.setblocking(False)
            await self._send(self._encoder.encode(spawn), [theirs.fileno(), write])
            worker = WorkerProcess(loop, spawn.seq, read, self._forget)
        except BaseException:
            os.close(read)
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(write)
        self._workers[spawn.seq] = worker
        await loop.create_unix_connection(lambda: worker, sock=ours)
        return worker

    async def _send(self, packet: bytes, descriptors: list[int]) -> None:
        while True:
            control = self._control
            if control is None:
                raise Unavailable("The process that starts workers has ended; it is being replaced.")
            try:
                socket.send_fds(control, [packet], descriptors)
            except BlockingIOError:
                await asyncio.sleep(0.001)  # the zygote is behind by hundreds of forks
            except ConnectionError:
                self._lost()
            else:
                return

    def _on_control(self) -> None:
        assert self._control is not None  # noqa: S101 - the reader is removed before it becomes None
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._control, PACKET, 1)
        except BlockingIOError:
            return
        except ConnectionError:
            packet, descriptors = b"", []
        if not packet:
            self._lost()
            return
        message = ZYGOTE_DECODER.decode(packet)
        if isinstance(message, Ready | Unfit):
            self._came_up(message)
            return
        worker = self._workers.get(message.seq)
        if worker is None:
            for descriptor in descriptors:
                os.close(descriptor)
        elif isinstance(message, Spawned):
            if descriptors:
                worker.spawned(message.pid, descriptors[0])
            else:  # the kernel drops it where there is no room for one more
                worker.kill("crashed", "No worker could be started: the server has too many files open.")
                self._end(message.seq)
        elif isinstance(message, Exited):
            worker.exited(message.status)
        else:
            worker.kill("crashed", f"No worker could be started: {message.message}.")
            worker.exited(None)

    def _end(self, seq: int) -> None:
        """Have the zygote end a worker that cannot be ended from here."""
        if self._control is None or seq not in self._workers:
            return
        try:
            self._control.send(self._encoder.encode(End(seq)))
        except BlockingIOError:
            asyncio.get_running_loop().call_later(0.01, self._end, seq)
        except ConnectionError:
            self._lost()

    def _came_up(self, message: Ready | Unfit) -> None:
        if self._ready is None or self._ready.done():
            return
        if isinstance(message, Unfit):
            # What has held once will hold again: the machine was too busy to find out.
            kind = PortoserError if self._terms.held.layers is None else Unavailable
            self._ready.set_exception(kind(message.message))
            return
        missing = self._terms.held.missing(message.layers)
        if missing:
            log.error("zygote_with_fewer_layers", kind=self.kind, missing=missing, layers=message.layers)
            self._ready.set_exception(Unavailable(f"Tools would be isolated by less than before: {missing}."))
            return
        self.layers = message.layers
        self._private_scratch = message.has_private_scratch
        self._ready.set_result(None)

    def _forget(self, seq: int) -> None:
        self._workers.pop(seq, None)

    def _lost(self) -> None:
        """The zygote has ended: so have its workers, by the kernel's hand."""
        control, self._control = self._control, None
        if control is None:
            return
        asyncio.get_running_loop().remove_reader(control)
        control.close()
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(ConnectionError("it ended while it was starting"))
        if self._process is not None and not self._closed:
            self._process.kill()
            status = self._process.wait()
            log.warning("zygote_ended", kind=self.kind, pid=self._process.pid, status=status)
        for worker in list(self._workers.values()):
            worker.exited(None)

    async def retire(self) -> None:
        """End a zygote that has no workers, so that its memory comes back; the next `spawn` starts another."""
        async with self._starting:
            control, process = self._control, self._process
            if control is None or process is None or self._workers:
                return
            self._control = None
            asyncio.get_running_loop().remove_reader(control)
            control.close()  # it takes this as its end
            await _wait_for(process)
            log.debug("zygote_retired", kind=self.kind, pid=process.pid)

    async def aclose(self) -> None:
        """End the zygote and all its workers; return when none of them runs any more."""
        self._closed = True
        for worker in list(self._workers.values()):
            worker.kill("cancelled", "The server is stopping.")
        gone = [worker.gone() for worker in self._workers.values()]
        if gone:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_TIMEOUT):
                    await asyncio.gather(*gone)
        self._lost()
        if self._process is not None:
            if self._begun is not None:  # begun, and never listened to
                self._begun.close()
                self._process.kill()
            elif self._ready is not None and (self._ready.cancelled() or self._ready.exception() is not None):
                self._process.kill()  # it would finish its imports first
            await _wait_for(self._process)


async def _wait_for(process: "subprocess.Popen[bytes]") -> None:
    try:
        await asyncio.to_thread(process.wait, _STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        await asyncio.to_thread(process.wait)


def _popen(kind: str, control: int, orders: Orders) -> "subprocess.Popen[bytes]":
    program = [sys.executable, "-I", "-X", "utf8", "-c", _PROGRAM]
    try:
        return subprocess.Popen(
            [*program, kind, str(os.getpid()), str(control), msgspec.json.encode(orders).decode(), str(_ROOT)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
            pass_fds=(control,),
        )
    except OSError as error:
        raise Unavailable(f"The process that starts workers cannot be started: {error}.") from error
