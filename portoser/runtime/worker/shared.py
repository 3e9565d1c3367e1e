"""Several calls of an async tool at once in one worker, as ``limits.share`` says.

Each call is a task with a context of its own, so that ``ctx``, powers and ``print`` know whose they are; tasks that it
makes inherit that, and end with it. A power's answer is awaited, so that the others go on meanwhile. Memory, processor
time and the process itself are everybody's: what ends the worker ends all of its calls.
"""

import asyncio
import contextvars
import io
import os
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from typing import Any, NoReturn, TextIO
from weakref import WeakSet

import msgspec

from portoser import tool
from portoser.runtime import confine
from portoser.runtime.protocol import NIL, CallFrame, Cancel, Frame, Printed, Result, Rpc, RpcResult
from portoser.runtime.worker.asking import answer_of, form_of
from portoser.runtime.worker.channel import Channel, RunningCall
from portoser.runtime.worker.hygiene import Hygiene

_PIECE = 64 * 1024

Run = Callable[[CallFrame], Coroutine[Any, Any, Result]]


class Pending:
    """A power's answer that is on its way. Only awaiting it gives it."""

    __slots__ = ("_answer", "_what")

    def __init__(self, what: str, answer: Awaitable[Any]) -> None:
        self._what = what
        self._answer = answer

    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer.__await__()

    def then(self, made: Callable[[Any], Any]) -> "Pending":
        """What is made of the answer, which is on its way as well."""

        async def answered() -> Any:
            return made(await self._answer)

        return Pending(self._what, asyncio.ensure_future(answered()))

    def _early(self, *_: object) -> NoReturn:
        raise tool.PowerError(
            f"{self._what}() has not been answered yet: in a tool with limits.share write `await {self._what}(…)`."
        )

    def __getattr__(self, name: str) -> NoReturn:
        self._early()

    __getitem__ = __iter__ = __len__ = __bool__ = __contains__ = __str__ = _early

    def __repr__(self) -> str:
        return f"<the answer of {self._what}, to be awaited>"


class SharedCall(RunningCall):
    """One of the calls that run, as ``portoser.tool`` sees it."""

    def __init__(self, channel: Channel, frame: CallFrame, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(channel, frame)
        self._loop = loop
        self._thread = threading.get_ident()
        self._questions: deque[tuple[asyncio.Future[Any], Callable[[int], Rpc]]] = deque()
        """What was asked: the first waits for the server, which answers one question of a call at a time."""
        self._printed = bytearray()
        self.tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        """The tasks that it has made."""
        self.task: asyncio.Task[Result] | None = None

    def ask(self, power: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Ask a power. The answer is to be awaited; a thread of the tool's waits for it here."""
        if threading.get_ident() != self._thread:
            return asyncio.run_coroutine_threadsafe(self._answer(power, method, args, kwargs), self._loop).result()
        return Pending(f"{power}.{method}", self._ask(power, method, args, kwargs))

    def elicit(self, message: str, schema: Any, key: str | None) -> Any:
        """Ask the caller's user. The answer is to be awaited, as that of a power."""
        form, read = form_of(schema)

        async def answered() -> tool.Answer:
            try:
                return answer_of(await self._ask("ctx", "elicit", (message, form, key), {}), read)
            except tool.PowerError as error:
                raise tool.ElicitError(str(error)) from None

        if threading.get_ident() != self._thread:
            return asyncio.run_coroutine_threadsafe(answered(), self._loop).result()
        return Pending("ctx.elicit", asyncio.ensure_future(answered()))

    async def _answer(self, power: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return await self._ask(power, method, args, kwargs)

    def _ask(self, power: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "asyncio.Future[Any]":
        answer: asyncio.Future[Any] = self._loop.create_future()

        def question(seq: int) -> Rpc:
            return Rpc(self._id, self._nonce, seq, power, method, list(args), kwargs)

        self._questions.append((answer, question))
        if len(self._questions) == 1:
            self._send_question()
        return answer

    def _send_question(self) -> None:
        while self._questions:
            answer, question = self._questions[0]
            rpc = question(self._asked + 1)
            try:
                self._channel.send(rpc)
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                self._questions.popleft()
                if not answer.done():
                    message = f"{rpc.power}.{rpc.method}() cannot be sent these arguments: {error}"
                    answer.set_exception(tool.PowerError(message))
            else:
                self._asked += 1
                return

    def answered(self, frame: RpcResult) -> None:
        """The server has answered the first question."""
        answer, _ = self._questions.popleft()
        if answer.done():
            pass
        elif frame.error is not None:
            answer.set_exception(tool.PowerError(frame.error))
        else:
            answer.set_result(frame.value)
        self._send_question()

    def print(self, text: str) -> None:
        """Keep what Python prints until the line is whole."""
        self._printed += text.encode("utf-8", "backslashreplace")
        if "\n" in text or len(self._printed) > _PIECE:
            self.flush()

    def flush(self) -> None:
        """Send what was printed."""
        while self._printed:
            piece = bytes(self._printed[:_PIECE])
            del self._printed[:_PIECE]
            self._channel.send(Printed(self._id, self._nonce, piece))

    async def end_tasks(self) -> None:
        """Cancel the tasks that it has left running."""
        left = [task for task in self.tasks if not task.done()]
        for task in left:
            task.cancel()
        if left:
            await asyncio.gather(*left, return_exceptions=True)


class _Prints(io.TextIOBase):
    """A standard stream, of which each call has its own part. What no call prints goes to the stream itself."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.buffer = stream.buffer

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """How text becomes bytes."""
        return "utf-8"

    def writable(self) -> bool:
        """Part of Python's interface."""
        return True

    def fileno(self) -> int:
        """Part of Python's interface."""
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Part of Python's interface."""
        call = tool.wire.running
        if isinstance(call, SharedCall):
            call.print(text)
            return len(text)
        return self._stream.write(text)

    def flush(self) -> None:
        """Part of Python's interface."""
        call = tool.wire.running
        if isinstance(call, SharedCall):
            call.flush()
        self._stream.flush()


class SharedCalls:
    """Runs the calls of one program as they come; ``run`` is what runs one, to its result."""

    def __init__(self, channel: Channel, run: Run) -> None:
        self._channel = channel
        self._run = run
        self._calls: dict[str, SharedCall] = {}
        self._loop = asyncio.new_event_loop()
        self._loop.set_task_factory(_task_of_a_call)  # type: ignore[arg-type]
        self._end: BaseException | None = None
        sys.stdout, sys.stderr = _Prints(sys.stdout), _Prints(sys.stderr)
        self._hygiene = Hygiene()

    def serve(self) -> NoReturn:
        """Serve the channel. Raises whatever ends it."""
        self._loop.add_reader(self._channel.fileno(), self._handle, self._channel.receive_ready)
        self._loop.call_soon(self._handle, self._channel.received)
        try:
            self._loop.run_forever()
        except SystemExit as error:  # of a task that the tool has made
            os._exit(error.code if isinstance(error.code, int) else 1)
        raise self._end or RuntimeError("the loop was stopped")

    def _handle(self, receive: Callable[[], list[Frame]]) -> None:
        confine.memory.open()
        try:
            for frame in receive():
                if isinstance(frame, CallFrame):
                    self._begin(frame)
                elif isinstance(frame, RpcResult) and frame.id in self._calls:
                    self._calls[frame.id].answered(frame)
                elif isinstance(frame, Cancel) and frame.id in self._calls:
                    task = self._calls[frame.id].task
                    if task is not None:
                        task.cancel()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it ends the worker
            self._stop(error)
        finally:
            self._close_memory()

    def _begin(self, frame: CallFrame) -> None:
        call = SharedCall(self._channel, frame, self._loop)
        context = contextvars.copy_context()
        context.run(tool.wire.share, call)
        self._calls[frame.id] = call
        call.task = self._loop.create_task(self._work(call, frame), context=context)
        call.task.add_done_callback(partial(self._done, call, frame))

    async def _work(self, call: SharedCall, frame: CallFrame) -> Result:
        result = await self._run(frame)
        await call.end_tasks()
        return result

    def _done(self, call: SharedCall, frame: CallFrame, task: "asyncio.Task[Result]") -> None:
        del self._calls[frame.id]
        confine.memory.open()
        try:
            if task.cancelled() or task.exception() is not None:
                result = Result(frame.id, frame.nonce, "exception", "The call was cancelled.", None, NIL, NIL, False)
            else:
                result = task.result()
            call.flush()
            if not self._calls and not result.retire and self._hygiene.is_dirty():
                result = msgspec.structs.replace(result, retire=True)
            self._channel.send(result)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it ends the worker
            self._stop(error)
        finally:
            self._close_memory()

    def _close_memory(self) -> None:
        if self._calls:
            confine.memory.close()

    def _stop(self, error: BaseException) -> None:
        self._end = error
        self._loop.stop()


def _task_of_a_call(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **more: Any
) -> "asyncio.Task[Any]":
    task = asyncio.Task(coroutine, loop=loop, **more)
    call = tool.wire.running
    if isinstance(call, SharedCall):
        call.tasks.add(task)
    return task
