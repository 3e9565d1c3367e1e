"""What is left behind in memory: by a start, much that stays for ever; and always what nobody needs any more."""

import asyncio
import ctypes
import gc

EVERY = 300.0
"""Seconds after which freed memory is given back again."""


def set_aside() -> None:
    """Keep what there is now out of every later collection, and collect from now on.

    Modules, classes and the registry's tools are there to stay: looking through them again and again would cost
    each collection tens of milliseconds, in which no call is answered. What is set aside and given up later
    still goes, by its reference count; only cycles in it would stay.
    """
    gc.collect()
    gc.freeze()
    gc.enable()


def give_back() -> None:
    """Give freed memory back to the system: what loading thousands of tools took in passing is not needed again.

    The C library keeps it otherwise, below whatever was allocated last. Others than glibc know no such call.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


async def keep_giving_back(*, every: float = EVERY) -> None:
    """Give freed memory back now and then, for ever.

    Buffers of every size come and go with calls; between those that stay, the C library keeps ever more that is
    free. Giving it back takes some milliseconds.
    """
    while True:
        await asyncio.sleep(every)
        give_back()
