"""The server's hold on one worker process: its frames, its output, its end.

Everything here runs on the event loop and trusts nothing that comes from the worker: frames are checked for size,
shape, call id, nonce and turn, and the first one that is wrong ends the worker. A worker's end, whatever its
cause, ends the call that it was running with one reason, and nothing else.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

from portoser.catalog.errors import PowerError
from portoser.runtime import protocol
from portoser.runtime.clock import Clock
from portoser.runtime.protocol import (
    HEADER,
    LEVELS,
    WORKER_FAILED,
    BadCode,
    Described,
    Frame,
    Log,
    Progress,
    ProtocolViolation,
    Result,
    Rpc,
    RpcResult,
)
from portoser.runtime.running import Running
from portoser.runtime.types import PowerHost

_BUFFER = 16 * 1024
_PIPE_READ = 64 * 1024
_GRACE = 0.5
"""Seconds that a worker whose channel closed has to end, and that a channel has to close after its worker ended."""


_PROCESS_CLOCK = 2
"""The kernel's name of a process's clock, beside its pid: CPUCLOCK_SCHED of linux/posix-timers.h."""

_OF_A_CALL = (Result, Rpc, Log, Progress)
_EVENTS = (Log, Progress)


class WorkerEnded(Exception):
    """The worker ended before it answered. ``reason`` is one of the words of ``Execution``."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        self.message = message
        super().__init__(f"{reason}: {message}")


class WorkerProcess(asyncio.BufferedProtocol):
    """One worker: spawned, then set up and loaded, then given one call after the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seq: int, output: int, on_end: Callable[[int], None]) -> None:
        self.seq = seq
        self.pid: int | None = None
        self.born = time.monotonic()
        self.calls = 0
        self._loop = loop
        self._output = output
        self._on_end = on_end
        self._pidfd: int | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = bytearray(_BUFFER)
        self._filled = 0
        self._running: Running | None = None
        self._frame: Frame | None = None
        self._idle_output = 0
        self._kill_cause: tuple[str, str] | None = None
        self._ended: WorkerEnded | None = None
        self._status: int | None = None
        self._gone: asyncio.Future[None] = loop.create_future()
        self._grace: asyncio.TimerHandle | None = None
        loop.add_reader(output, self._on_output)

    # Life ----------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the worker can be given a call."""
        return self._ended is None and self._kill_cause is None and self._status is None

    def spawned(self, pid: int, pidfd: int) -> None:
        """The zygote has forked it. ``pid`` is what the zygote calls it."""
        self.pid = _pid_of(pidfd) or pid
        self._pidfd = pidfd
        if self._kill_cause is not None:
            self._send_kill()

    def kill(self, reason: str, message: str) -> None:
        """End the worker. The call that it runs ends now, for this reason; the process a moment later."""
        if self._kill_cause is None and self._ended is None:
            self._kill_cause = (reason, message)
            self._send_kill()
            self._end(reason, message)

    def _send_kill(self) -> None:
        # A pidfd names this process and never another that got its pid.
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def exited(self, status: int | None) -> None:
        """The zygote says that the process has ended; None where the zygote itself has, and took it along."""
        self._status = -1 if status is None else status
        if self._transport is None or self._transport.is_closing() or self._ended is not None:
            self._conclude()
        elif self._grace is None:
            # What it sent before its end is still to be read, unless something it started holds the channel open.
            self._grace = self._loop.call_later(_GRACE, self._conclude)

    async def gone(self) -> None:
        """Wait until the process has ended and everything of it is released."""
        await asyncio.shield(self._gone)

    def when_gone(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called when the process has ended."""
        self._gone.add_done_callback(lambda _: callback())

    def _end(self, reason: str, message: str) -> None:
        if self._ended is not None:
            return
        self._ended = WorkerEnded(reason, message)
        running = self._running
        if running is not None:
            self._read_output()
            if running.waiter is not None and not running.waiter.done():
                running.waiter.set_exception(self._ended)
            if running.power is not None:
                running.power.reschedule(self._loop.time())
        if self._transport is not None:
            self._transport.abort()
        if self._status is not None:
            self._conclude()

    def _conclude(self) -> None:
        """The process has ended: say why to the call, and release what is left of it."""
        if self._gone.done() or self._status is None:
            return
        if self._ended is None:
            self._read_output()
            self._end(*self._cause(self._status))
            return
        if self._grace is not None:
            self._grace.cancel()
        self._gone.set_result(None)
        self._loop.remove_reader(self._output)
        os.close(self._output)
        if self._pidfd is not None:
            os.close(self._pidfd)
        self._on_end(self.seq)

    def _cause(self, status: int) -> tuple[str, str]:
        if status == -1:
            return "crashed", "The worker was lost with the process that started it. Calling again may work."
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == WORKER_FAILED:
            return "protocol_error", "The tool's worker could not go on; its output says why."
        if os.WIFEXITED(status):
            return "exited", f"The tool ended its process with exit code {os.WEXITSTATUS(status)}."
        number = os.WTERMSIG(status)
        if number == signal.SIGXCPU:
            return "cpu_limit", "The tool used more processor time than a call may."
        if number == signal.SIGXFSZ:
            return "disk_limit", "The tool wrote a larger file than it may."
        if number == signal.SIGABRT and self._running is not None and b"memory allocation of" in self._running.logs:
            return "memory_limit", "The tool needs more memory than its limit allows."
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        hint = " It may have been out of memory." if number == signal.SIGKILL else ""
        return "crashed", f"The tool's process was ended by {name}.{hint}"

    # The channel ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio's interface."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's are none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio's interface."""
        if self._ended is None and self._status is None:
            self._grace = self._loop.call_later(
                _GRACE, self.kill, "protocol_error", "The tool closed the channel of its worker."
            )
        else:
            self._conclude()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Part of asyncio's interface."""
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Part of asyncio's interface."""
        self._filled += nbytes
        try:
            self._parse()
        except ProtocolViolation as error:
            self.kill("protocol_error", f"The tool's worker broke the protocol: {error}.")

    def _parse(self) -> None:
        position = 0
        needed = HEADER.size
        while self._filled - position >= HEADER.size:
            length, kind = HEADER.unpack_from(self._buffer, position)
            running = self._running
            cap = running.cap if running is not None and kind in protocol.LARGE_FRAMES else protocol.MESSAGE_CAP
            if length > cap:
                raise ProtocolViolation(f"a frame of {length} bytes is larger than the {cap} that it may have")
            needed = HEADER.size + length
            if self._filled - position < needed:
                break
            start = position + HEADER.size
            position += needed
            needed = HEADER.size
            body: bytes | memoryview = memoryview(self._buffer)[start:position]
            if length > _BUFFER and position == self._filled:
                self._buffer = bytearray(_BUFFER)  # the frame keeps the old one: copying megabytes takes its time
                self._filled = position = 0
            else:
                body = bytes(body)
            self._received(protocol.decode_from_worker(kind, body), length)
            if self._ended is not None:
                return
        rest = self._filled - position
        if needed > len(self._buffer) or (len(self._buffer) > _BUFFER and max(rest, needed) <= _BUFFER):
            grown = bytearray(max(needed, _BUFFER))
            grown[:rest] = self._buffer[position : self._filled]
            self._buffer = grown
        elif position:
            self._buffer[:rest] = self._buffer[position : self._filled]
        self._filled = rest

    def _received(self, frame: Frame, length: int) -> None:
        running = self._running
        if running is None or self._frame is not None:
            raise ProtocolViolation(f"a {type(frame).__name__} came out of turn")
        if isinstance(frame, _OF_A_CALL) and (frame.id != running.id or frame.nonce != running.nonce):
            raise ProtocolViolation(f"a {type(frame).__name__} belongs to another call")
        if isinstance(frame, _EVENTS):
            self._event(running, frame, length)
            return
        if isinstance(frame, Rpc):
            if running.power is not None or frame.seq != running.asked + 1:
                raise ProtocolViolation("a power was asked out of turn")
            running.asked = frame.seq
        self._hand_over(running, frame)

    def _event(self, running: Running, frame: Log | Progress, length: int) -> None:
        running.budget -= length + HEADER.size
        if isinstance(frame, Log) and frame.level not in LEVELS:
            raise ProtocolViolation(f"{frame.level[:64]!r} is not a level of MCP's")
        if running.budget < 0:
            self._too_much_output(running)
        elif running.events is None:
            return
        elif isinstance(frame, Progress):
            running.events.progress(frame.done, frame.total, frame.message)
        else:
            running.events.log(frame.level, frame.message, frame.data)

    def _hand_over(self, running: Running, frame: Frame) -> None:
        if running.waiter is not None and not running.waiter.done():
            running.waiter.set_result(frame)
        else:
            self._frame = frame

    def send(self, encoded: bytes | bytearray) -> None:
        """Send an encoded frame; nothing happens where the worker has ended."""
        if self._transport is not None and self._ended is None:
            self._transport.write(encoded)

    # Work ----------------------------------------------------------------------------------------------------

    async def run(self, running: Running, call: bytes | bytearray, powers: PowerHost | None) -> Result:
        """Send a call and wait for its result, while the tool asks powers through ``powers``.

        Cancelling the waiting task ends the worker.

        Raises:
            WorkerEnded: where the worker ended first.
        """
        answer = await self._work(running, call, powers)
        if isinstance(answer, Result):
            return answer
        raise self._wrong(answer)

    async def describe(self, running: Running, request: bytes | bytearray) -> Described | BadCode:
        """Send a Describe and wait for its answer; otherwise as ``run``."""
        answer = await self._work(running, request, None)
        if isinstance(answer, Described | BadCode):
            return answer
        raise self._wrong(answer)

    def _wrong(self, answer: Frame) -> WorkerEnded:
        self.kill("protocol_error", f"The tool's worker answered with a {type(answer).__name__}.")
        return self._ended or WorkerEnded("protocol_error", "The tool's worker gave a wrong answer.")

    async def _work(self, running: Running, encoded: bytes | bytearray, powers: PowerHost | None) -> Frame:
        self._running = running
        self._frame = None
        self.calls += 1
        before = self._processor_time()
        clock = Clock(
            self._loop, running.limits.timeout, running.cpu, lambda: self._processor_time() - before, self.kill
        )
        running.clock = clock
        try:
            self.send(encoded)
            while True:
                frame = await self._next(running)
                if isinstance(frame, Rpc):
                    await self._answer(running, frame, powers)
                    continue
                self._read_output()
                if self._ended is not None:
                    raise self._ended
                return frame
        except BaseException:
            self.kill("cancelled", "The call was cancelled.")
            raise
        finally:
            clock.stop()
            self._running = None

    def _processor_time(self) -> float:
        """The seconds of processor time that the process has used, by the kernel's count; 0 where it has ended."""
        if self.pid is None:
            return 0.0
        try:
            return time.clock_gettime(~self.pid << 3 | _PROCESS_CLOCK)
        except OSError:
            return 0.0

    async def _next(self, running: Running) -> Frame:
        frame, self._frame = self._frame, None
        if frame is not None:
            return frame
        if self._ended is not None:
            raise self._ended
        running.waiter = self._loop.create_future()
        try:
            return await running.waiter
        finally:
            running.waiter = None

    async def _answer(self, running: Running, frame: Rpc, powers: PowerHost | None) -> None:
        value, error = None, None
        for_a_person = frame.power == "ctx"
        if for_a_person:
            running.pause()
        try:
            async with asyncio.timeout(None) as running.power:
                if powers is None:
                    raise PowerError(f"{frame.power}.{frame.method}() is not available here.")
                value = await powers.call(frame.power, frame.method, frame.args, frame.kwargs)
        except PowerError as refused:
            error = str(refused)
        except TimeoutError:
            if self._ended is None:
                raise
            return
        finally:
            running.power = None
            if for_a_person:
                running.resume()
        try:
            encoded = protocol.encode(RpcResult(frame.seq, value, error))
        except (TypeError, ValueError, OverflowError, RecursionError) as unsendable:
            message = f"{frame.power}.{frame.method}() gave an answer that cannot be sent to the tool: {unsendable}"
            encoded = protocol.encode(RpcResult(frame.seq, None, message))
        self.send(encoded)

    # Output --------------------------------------------------------------------------------------------------

    def _on_output(self) -> None:
        if self._read_piece() is None:
            self._loop.remove_reader(self._output)

    def _read_output(self) -> None:
        """Read what is in the pipe now: all that was printed before the frame that is being handled."""
        while not self._gone.done() and self._read_piece():
            running = self._running
            if running is not None and running.budget < 0:
                return

    def _read_piece(self) -> int | None:
        """Read once: how many bytes there were; 0 for none now, None for none any more."""
        try:
            piece = os.read(self._output, _PIPE_READ)
        except BlockingIOError:
            return 0
        if not piece:
            return None
        running = self._running
        if running is None:
            # Printed between calls, by a thread that one of them left. It belongs to nobody.
            self._idle_output += len(piece)
            if self._idle_output > _PIPE_READ:
                self.kill("output_limit", "The tool printed while it had no call.")
            return len(piece)
        running.printed += len(piece)
        running.budget -= len(piece)
        room = running.limits.logs - len(running.logs)
        if room > 0:
            running.logs += piece[:room]
        if running.budget < 0:
            self._too_much_output(running)
        return len(piece)

    def _too_much_output(self, running: Running) -> None:
        self.kill("output_limit", "The tool printed or logged more than a call may. Print less.")


def _pid_of(pidfd: int) -> int | None:
    """What this process, which may see others than the zygote does, calls the process of a pidfd."""
    try:
        lines = Path(f"/proc/self/fdinfo/{pidfd}").read_bytes().splitlines()
    except OSError:
        return None
    return next((int(line[4:]) for line in lines if line.startswith(b"Pid:")), None)
