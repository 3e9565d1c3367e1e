"""Work in a thread is over when its await is, whatever happens to the await."""

import asyncio
import threading

import pytest

from sync.blocking import in_thread


async def test_a_cancelled_await_ends_after_its_work() -> None:
    started, may_end, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        may_end.wait(5)
        done.set()

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(started.wait, 5)
    task.cancel()
    await asyncio.wait({task}, timeout=0.05)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()


async def test_results_and_errors_come_through() -> None:
    assert await in_thread(int, "5") == 5
    with pytest.raises(ValueError, match="invalid literal"):
        await in_thread(int, "x")
