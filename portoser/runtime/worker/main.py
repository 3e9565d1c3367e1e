"""A worker's life: limit itself, load one program, run its calls until the server closes the channel."""

import contextlib
import contextvars
import os
import socket
import sys
from typing import Any

import msgspec

from portoser import tool
from portoser.catalog.volume import MOST_VALUES, msgpack_values
from portoser.runtime import confine
from portoser.runtime.protocol import (
    MOST_BLOCKS,
    NIL,
    WORKER_FAILED,
    BadCode,
    CallFrame,
    Describe,
    Load,
    Result,
    Setup,
    encode_value,
)
from portoser.runtime.worker import results
from portoser.runtime.worker.channel import Channel, Closed, RunningCall
from portoser.runtime.worker.entry import ArgumentsError, Entry
from portoser.runtime.worker.failures import Failure, failure_of, summary
from portoser.runtime.worker.hygiene import Hygiene
from portoser.runtime.worker.loader import EntrypointError, Library
from portoser.runtime.worker.shared import SharedCalls

CHANNEL_FD = 3


def main() -> None:
    """Serve the channel that the zygote left at its place. Does not return."""
    channel = Channel(socket.socket(fileno=CHANNEL_FD))
    status = 0
    try:
        setup = channel.receive()
        if not isinstance(setup, Setup):
            raise TypeError(f"the first frame is a {type(setup).__name__}")
        confine.limit_files(setup.disk, setup.open_files)
        confine.memory.begin(setup.memory)
        _serve(channel)
    except (Closed, ConnectionError):
        pass
    except BaseException as error:  # noqa: BLE001 - a worker that does not know what happened must end, and say so
        status = WORKER_FAILED
        with contextlib.suppress(Exception):
            print(f"The worker failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)  # noqa: T201
    finally:
        # No interpreter shutdown: nothing of the tool's (atexit, __del__) gets to run.
        os._exit(status)


def _serve(channel: Channel) -> None:
    program: Program | Failure | None = None
    hygiene: Hygiene | None = None
    while True:
        frame = channel.receive()
        if isinstance(frame, CallFrame):
            if not isinstance(program, Program):
                program = program or Failure(reason="load_error", message="The worker was given no program.")
                channel.send(_failed(frame, program, retire=True))
                continue
            call = RunningCall(channel, frame)
            tool.wire.running = call
            result = contextvars.copy_context().run(program.run, frame)
            tool.wire.running = None
            _flush()
            if not result.retire and (hygiene is None or hygiene.is_dirty()):
                result = msgspec.structs.replace(result, retire=True)
            channel.send(result)
        elif isinstance(frame, Load):
            program = load(frame)
            if isinstance(program, Program) and frame.share > 1:
                SharedCalls(channel, program.run_beside_others).serve()
            hygiene = Hygiene()
        elif isinstance(frame, Describe):
            from portoser.runtime.worker.describe import describe

            answer = describe(frame)
            _flush()
            try:
                channel.send(answer)
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                path, _, name = frame.entrypoint.partition(":")
                message = f"The description of {name} cannot be sent: {error}."
                channel.send(BadCode(message, path, 0, 0, "Use smaller types, or fewer."))


class Program:
    """A loaded program."""

    def __init__(self, frame: Load, library: Library, entry: Entry) -> None:
        self._entry = entry
        self._paths = library.paths
        self._output_schema = frame.output_schema
        self._cap = frame.result

    def run(self, frame: CallFrame) -> Result:
        """Run one call, whatever comes of it."""
        arguments = self._bound(frame)
        if isinstance(arguments, Result):
            return arguments
        try:
            confine.memory.close()
            value = self._entry.call(arguments)
        except BaseException as error:  # noqa: BLE001 - the tool's code may raise anything
            return self._raised(frame, error)
        confine.memory.open()
        return self._converted(frame, value)

    async def run_beside_others(self, frame: CallFrame) -> Result:
        """Run one call, whatever comes of it, on an event loop that runs others."""
        confine.memory.open()
        arguments = self._bound(frame)
        if isinstance(arguments, Result):
            return arguments
        try:
            confine.memory.close()
            value = await self._entry.finish(arguments)
        except BaseException as error:  # noqa: BLE001 - the tool's code may raise anything
            return self._raised(frame, error)
        confine.memory.open()
        return self._converted(frame, value)

    def _bound(self, frame: CallFrame) -> dict[str, Any] | Result:
        try:
            return self._entry.bind(frame.arguments)
        except ArgumentsError as error:
            return _failed(frame, Failure(reason="invalid_arguments", message=f"Invalid arguments: {error}"))
        except BaseException as error:  # noqa: BLE001 - validators are the tool's code: they may raise anything
            return _failed(frame, failure_of(error, self._paths))

    def _raised(self, frame: CallFrame, error: BaseException) -> Result:
        confine.memory.open()
        failure = failure_of(error, self._paths)
        return _failed(frame, failure, retire=failure.reason in ("exited", "memory_limit"))

    def _converted(self, frame: CallFrame, value: Any) -> Result:
        try:
            content, structured = results.convert(value, adapter=self._entry.results, output_schema=self._output_schema)
            packed = encode_value(content), encode_value(structured)
        except MemoryError as error:
            return _failed(frame, failure_of(error, self._paths), retire=True)
        except OSError as error:  # a path of an Image that is not there
            return _failed(frame, failure_of(error, self._paths))
        except results.NotSerializable as error:
            return _failed(frame, Failure(reason="not_serializable", message=str(error)))
        except BaseException as error:  # noqa: BLE001 - serializing asks the tool's objects, which may raise anything
            detail = summary(error, self._paths)
            message = f"The tool returned a {type(value).__name__} that cannot be sent as JSON: {detail}"
            return _failed(frame, Failure(reason="not_serializable", message=message))
        size = max(len(packed[0]), len(packed[1]))
        if size > self._cap:
            message = (
                f"The result has {_size(size)}; the limit is {_size(self._cap)}. Return less, or raise limits.result."
            )
            return _failed(frame, Failure(reason="result_too_large", message=message))
        if len(content) > MOST_BLOCKS:
            message = f"The result has {len(content):,} content blocks; the limit is {MOST_BLOCKS:,}. Return fewer."
            return _failed(frame, Failure(reason="result_too_large", message=message))
        if msgpack_values(packed[0]) + msgpack_values(packed[1]) > MOST_VALUES:
            values = msgpack_values(packed[0], None) + msgpack_values(packed[1], None)
            message = (
                f"The result holds {values:,} values, where keys count, and each list and object counts twice; the "
                f"limit is {MOST_VALUES:,}. Return less, or in pages, or as one text."
            )
            return _failed(frame, Failure(reason="result_too_large", message=message))
        raw = msgspec.Raw(packed[0]), msgspec.Raw(packed[1])
        return Result(frame.id, frame.nonce, None, None, None, raw[0], raw[1], False)


def load(frame: Load) -> Program | Failure:
    """The program, or why it cannot be loaded."""
    library = Library(frame.files)
    try:
        confine.memory.close()
        library.import_all()
        entry = Entry(library.entrypoint(frame.entrypoint))
    except EntrypointError as error:
        confine.memory.open()
        return Failure(reason="load_error", message=f"{error} {error.advice}".rstrip())
    except BaseException as error:  # noqa: BLE001 - importing runs the tool's code, which may raise anything
        confine.memory.open()
        failure = failure_of(error, library.paths)
        reason = failure.reason if failure.reason in ("memory_limit", "disk_limit", "exited") else "load_error"
        message = f"The tool's code cannot be loaded: {failure.message}"
        return Failure(reason=reason, message=message, traceback=failure.traceback)
    confine.memory.open()
    return Program(frame, library, entry)


def _failed(frame: CallFrame, failure: Failure, *, retire: bool = False) -> Result:
    printable = [
        text.encode("utf-8", "backslashreplace").decode("utf-8") if text is not None else None
        for text in (failure.message, failure.traceback)
    ]
    return Result(frame.id, frame.nonce, failure.reason, printable[0], printable[1], NIL, NIL, retire)


def _flush() -> None:
    """Bring everything that was printed to the pipe before the answer goes out."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except Exception:  # noqa: BLE001, S110 - the tool may have closed or replaced its streams
        pass
    confine.flush_c_output()


def _size(size: int) -> str:
    for unit, factor in (("MiB", 1024 * 1024), ("KiB", 1024)):
        if size >= factor:
            return f"{size / factor:.4g} {unit}"
    return f"{size} B"
