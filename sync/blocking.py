"""Blocking work in a thread, that is over when the await of it is."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """Do blocking work in a thread.

    Where the awaiting task is cancelled, the work is waited for all the same: a thread cannot be stopped, and
    what it works on must not be touched by another one meanwhile.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
