"""The server's hold on one worker process: its frames, its output, its end.

Everything here runs on the event loop and trusts nothing that comes from the worker: frames are checked for size,
shape, call id, nonce and turn, and the first one that is wrong ends the worker. A worker's end, whatever its
cause, ends each call that it was running with one reason, and nothing else.
"""

import asyncio
import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

from portoser.catalog.errors import PowerError
from portoser.runtime import protocol
from portoser.runtime.clock import Clock
from portoser.runtime.frames import Frames
from portoser.runtime.output import TOO_MUCH, Output
from portoser.runtime.protocol import (
    HEADER,
    LEVELS,
    WORKER_FAILED,
    BadCode,
    Cancel,
    Described,
    Frame,
    Log,
    Printed,
    Progress,
    ProtocolViolation,
    Result,
    Rpc,
    RpcResult,
)
from portoser.runtime.running import Running, WorkerEnded
from portoser.runtime.types import PowerHost

_GRACE = 0.5
"""Seconds that a worker whose channel closed has to end, that a channel has to close after its worker ended, and that
a call has to stop which shares its worker with others."""
_IDLE_WORK = 0.1
"""Seconds of processor time that a worker may use between two calls."""
_PROCESS_CLOCK = 2
"""The kernel's name of a process's clock, beside its pid: CPUCLOCK_SCHED of linux/posix-timers.h."""

_OF_A_CALL = (Result, Rpc, Log, Progress, Printed)
_EVENTS = (Log, Progress, Printed)


class WorkerProcess(Frames):
    """One worker: spawned, then set up and loaded, then given one call after the other, or several at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seq: int, output: int, on_end: Callable[[int], None]) -> None:
        super().__init__()
        self.seq = seq
        self.pid: int | None = None
        self.born = time.monotonic()
        self.calls = 0
        self._loop = loop
        self._on_end = on_end
        self._pidfd: int | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._sent = 0
        """How many bytes were sent, or wait to be."""
        self._running: dict[str, Running] = {}
        self._leaving: dict[str, tuple[int, asyncio.TimerHandle]] = {}
        """Calls that have their outcome and were told to stop: their nonces, and what happens if they do not."""
        self._begun = 0
        """How many calls have begun since the worker was last at rest."""
        self._used = 0.0
        """The processor time at which it was last at rest."""
        self._output = Output(loop, output, self._running, self.kill)
        self._kill_cause: tuple[str, str] | None = None
        self._ended: WorkerEnded | None = None
        self._status: int | None = None
        self._gone: asyncio.Future[None] = loop.create_future()
        self._grace: asyncio.TimerHandle | None = None

    # Life ----------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the worker can be given a call."""
        return self._ended is None and self._kill_cause is None and self._status is None

    @property
    def is_restless(self) -> bool:
        """Whether the worker has worked since its last call has ended: something that the call left there runs."""
        return self.processor_time() - self._used > _IDLE_WORK

    def spawned(self, pid: int, pidfd: int) -> None:
        """The zygote has forked it. ``pid`` is what the zygote calls it."""
        self.pid = _pid_of(pidfd) or pid
        self._pidfd = pidfd
        if self._kill_cause is not None:
            self._send_kill()

    def kill(self, reason: str, message: str) -> None:
        """End the worker. The calls that it runs end now, for this reason; the process a moment later."""
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
        if status is None:
            self._send_kill()  # should the kernel not have
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

    def processor_time(self) -> float:
        """The seconds of processor time that the process has used, by the kernel's count; 0 where it has ended."""
        if self.pid is None:
            return 0.0
        try:
            return time.clock_gettime(~self.pid << 3 | _PROCESS_CLOCK)
        except OSError:
            return 0.0

    def _end(self, reason: str, message: str) -> None:
        if self._ended is not None:
            return
        self._ended = WorkerEnded(reason, message)
        if self._running:
            self._output.read()
        for running in self._running.values():
            # Each its own: an exception that is raised in several tasks collects the frames of them all.
            running.end(WorkerEnded(reason, message))
        for _, grace in self._leaving.values():
            grace.cancel()
        self._leaving.clear()
        if self._transport is not None:
            self._transport.abort()
        if self._status is not None:
            self._conclude()

    def _conclude(self) -> None:
        """The process has ended: say why to the calls, and release what is left of it."""
        if self._gone.done() or self._status is None:
            return
        if self._ended is None:
            self._output.read()
            self._end(*self._cause(self._status))
            return
        if self._grace is not None:
            self._grace.cancel()
        self._gone.set_result(None)
        self._output.close()
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
        if number == signal.SIGXFSZ:
            return "disk_limit", "The tool wrote a larger file than it may."
        if number == signal.SIGABRT and any(b"memory allocation of" in each.logs for each in self._running.values()):
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
            self._grace = self._loop.call_later(_GRACE, self._left_without_channel)
        else:
            self._conclude()

    def _left_without_channel(self) -> None:
        """The channel has been closed for a while, and nobody has told of an end."""
        if self._pidfd is not None and _has_ended(self._pidfd):
            return  # the zygote is behind with telling how
        self.kill("protocol_error", "The tool closed the channel of its worker.")

    def send(self, encoded: bytes | bytearray) -> None:
        """Send an encoded frame; nothing happens where the worker has ended."""
        if self._transport is not None and self._ended is None:
            self._transport.write(encoded)
            self._sent += len(encoded)

    def violated(self, error: ProtocolViolation) -> None:
        """Part of what frames are read by."""
        self.kill("protocol_error", f"The tool's worker broke the protocol: {error}.")

    def received(self, frame: Frame, length: int) -> bool:
        """Part of what frames are read by."""
        told = (frame.id, frame.nonce) if isinstance(frame, _OF_A_CALL) else ("", None)
        running = self._running.get(told[0])
        if running is None:
            self._of_nobody(frame, told)
            return self._ended is None
        if running.frame is not None:
            raise ProtocolViolation(f"a {type(frame).__name__} came out of turn")
        if told[1] is not None and told[1] != running.nonce:
            raise ProtocolViolation(f"a {type(frame).__name__} belongs to another call")
        if isinstance(frame, _EVENTS):
            self._event(running, frame, length)
        elif isinstance(frame, Rpc):
            self._asked(running, frame)
        else:
            running.hand_over(frame)
        return self._ended is None

    def _of_nobody(self, frame: Frame, told: tuple[str, int | None]) -> None:
        left = self._leaving.get(told[0])
        if left is None or left[0] != told[1]:
            raise ProtocolViolation(f"a {type(frame).__name__} came out of turn, or belongs to another call")
        if isinstance(frame, Result):
            left[1].cancel()
            del self._leaving[frame.id]
            self._rest()

    def _asked(self, running: Running, frame: Rpc) -> None:
        if running.answered is None or frame.seq != running.asked + 1:
            raise ProtocolViolation("a power was asked out of turn")
        if self._transport is not None and running.answered > self._sent - self._transport.get_write_buffer_size():
            # It would have them all kept here.
            raise ProtocolViolation("a power was asked before the last answer was read")
        running.asked, running.answered = frame.seq, None
        most = running.allowance.powers
        if running.asked > most:
            self.fail(running, "power_limit", f"The tool asked its powers more than the {most:,} times that it may.")
        elif running.ended is None:
            running.hand_over(frame)

    def _event(self, running: Running, frame: Log | Progress | Printed, length: int) -> None:
        running.budget -= length + HEADER.size
        if isinstance(frame, Log) and frame.level not in LEVELS:
            raise ProtocolViolation(f"{frame.level[:64]!r} is not a level of MCP's")
        if running.ended is not None:
            return
        if running.budget < 0:
            self.fail(running, "output_limit", TOO_MUCH)
        elif isinstance(frame, Printed):
            running.print(frame.piece)
        elif running.events is None:
            return
        elif isinstance(frame, Progress):
            running.events.progress(frame.done, frame.total, frame.message)
        else:
            running.events.log(frame.level, frame.message, frame.data)

    # Work ----------------------------------------------------------------------------------------------------

    async def run(self, running: Running, call: bytes | bytearray, powers: PowerHost | None) -> Result:
        """Send a call and wait for its result, while the tool asks powers through ``powers``.

        Cancelling the waiting task ends the worker; where it is shared, the call alone, unless that does not stop.

        Raises:
            WorkerEnded: where the worker, or the call, ended first.
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

    def fail(self, running: Running, reason: str, message: str) -> None:
        """End a call: with its worker, where it has one for itself."""
        if running.allowance.share > 1 and reason != "cpu_limit":
            running.end(WorkerEnded(reason, message))
        else:
            self.kill(reason, message)

    async def _work(self, running: Running, encoded: bytes | bytearray, powers: PowerHost | None) -> Frame:
        if self._ended is not None:
            raise WorkerEnded(self._ended.reason, self._ended.message)
        allowance = running.allowance
        if not self._running:
            self._begun, self._used = 0, self.processor_time()
        self._begun += 1
        self._output.call_begins()
        self._running[running.id] = running
        self.cap = running.cap
        self.calls += 1
        used = partial(self._used_by_each, allowance.cpu)
        running.clock = Clock(self._loop, allowance.timeout, allowance.cpu, used, partial(self.fail, running))
        try:
            self.send(encoded)
            while True:
                frame = await self._next(running)
                if isinstance(frame, Rpc):
                    await self._answer(running, frame, powers)
                    continue
                self._output.read()
                if running.ended is not None:
                    raise running.ended
                return frame
        except BaseException:
            self._leave(running)
            raise
        finally:
            running.clock.stop()
            del self._running[running.id]
            self._rest()

    def _rest(self) -> None:
        if self._running:
            return
        self._used = self.processor_time()
        if not self._leaving:
            self.cap = protocol.MESSAGE_CAP

    def _used_by_each(self, cpu: float) -> float:
        """What calls that ran together have used is everybody's: each brings the worker ``cpu`` seconds more."""
        return self.processor_time() - self._used - (self._begun - 1) * cpu

    def _leave(self, running: Running) -> None:
        """Stop a call that nobody waits for any more."""
        if running.allowance.share == 1:
            self.kill("cancelled", "The call was cancelled.")
        elif self._ended is None and not isinstance(running.frame, Result):
            message = "Another call of the tool, in the same worker, did not stop when it was told to."
            self._leaving[running.id] = running.nonce, self._loop.call_later(_GRACE, self.kill, "crashed", message)
            self.send(protocol.encode(Cancel(running.id)))

    async def _next(self, running: Running) -> Frame:
        frame, running.frame = running.frame, None
        if frame is not None:
            return frame
        if running.ended is not None:
            raise running.ended
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
            if powers is None:
                raise PowerError(f"{frame.power}.{frame.method}() is not available here.")
            running.power_begins()
            value = await powers.call(frame.power, frame.method, frame.args, frame.kwargs)
        except PowerError as refused:
            error = str(refused)
        except asyncio.CancelledError:
            if not running.power_ends():
                raise
            return
        finally:
            running.power_ends()
            if for_a_person:
                running.resume()
        try:
            encoded = protocol.encode(RpcResult(running.id, frame.seq, value, error))
        except (TypeError, ValueError, OverflowError, RecursionError) as unsendable:
            message = f"{frame.power}.{frame.method}() gave an answer that cannot be sent to the tool: {unsendable}"
            encoded = protocol.encode(RpcResult(running.id, frame.seq, None, message))
        self.send(encoded)
        running.answered = self._sent


def _pid_of(pidfd: int) -> int | None:
    """What this process, which may see others than the zygote does, calls the process of a pidfd."""
    try:
        lines = Path(f"/proc/self/fdinfo/{pidfd}").read_bytes().splitlines()
    except OSError:
        return None
    return next((int(line[4:]) for line in lines if line.startswith(b"Pid:")), None)


def _has_ended(pidfd: int) -> bool:
    ended = select.poll()
    ended.register(pidfd, select.POLLIN)
    return bool(ended.poll(0))
