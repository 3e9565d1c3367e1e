"""What came of a call, made of what its worker sent: which is someone else's bytes, and is looked at first."""

import asyncio
import time
from typing import Literal

from portoser.catalog.volume import MOST_VALUES, msgpack_values
from portoser.runtime import protocol
from portoser.runtime.protocol import ProtocolViolation
from portoser.runtime.running import Running, WorkerEnded
from portoser.runtime.types import Execution

_OUTCOMES: dict[str, Literal["timeout", "cancelled"]] = {"timeout": "timeout", "cancelled": "cancelled"}

_WORKERS_WORDS = frozenset(
    (
        "disk_limit",
        "exception",
        "exited",
        "invalid_arguments",
        "load_error",
        "memory_limit",
        "not_serializable",
        "result_too_large",
        "tool_error",
    )
)
"""The reasons that a worker may give; the others are the server's to find."""


def is_small(result: protocol.Result) -> bool:
    """Whether a result cannot hold more values than it may, so that ``check_volume`` has nothing to find."""
    return 2 * max(memoryview(result.content).nbytes, memoryview(result.structured).nbytes) <= MOST_VALUES


async def check_volume(result: protocol.Result) -> None:
    """Refuse, before anything is made of it, what a worker of ours would not have sent.

    Raises:
        ProtocolViolation: it holds more values than the server can read without making others wait.
    """
    for raw in (result.content, result.structured):
        # In a thread, which takes turns with the event loop.
        if await asyncio.to_thread(msgpack_values, memoryview(raw)) > MOST_VALUES:
            raise ProtocolViolation(f"a result holds more than {MOST_VALUES} values")


def execution_of(result: protocol.Result, running: Running, began: float) -> Execution:
    """The outcome of a call whose worker answered.

    Raises:
        ProtocolViolation: the answer is none that a worker of ours gives.
    """
    if result.reason is not None:
        if result.reason not in _WORKERS_WORDS:
            raise ProtocolViolation(f"{result.reason[:64]!r} is not a reason that a worker may give")
        if len(result.message or "") + len(result.traceback or "") > protocol.ENVELOPE:
            raise ProtocolViolation("what it says of a failure is longer than it may be")
        return Execution(
            outcome="error",
            reason=result.reason,
            message=result.message or result.reason,
            traceback=result.traceback,
            logs=running.output(),
            duration=time.perf_counter() - began,
        )
    sizes = memoryview(result.content).nbytes, memoryview(result.structured).nbytes
    largest = max(sizes)
    if largest > running.allowance.result:
        raise ProtocolViolation(f"a result of {largest} bytes is larger than it may be")
    return Execution(
        outcome="ok",
        content=protocol.decode_content(result.content),
        structured=protocol.decode_structured(result.structured),
        logs=running.output(),
        duration=time.perf_counter() - began,
        size=sum(sizes),
    )


def execution_that_ended(ended: WorkerEnded, running: Running, began: float) -> Execution:
    """The outcome of a call whose worker ended before it answered."""
    return Execution(
        outcome=_OUTCOMES.get(ended.reason, "error"),
        reason=ended.reason,
        message=ended.message,
        logs=running.output(),
        duration=time.perf_counter() - began,
    )
