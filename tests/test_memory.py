"""Memory that nobody needs goes back to the system, at the start and ever after."""

import asyncio
import ctypes
import platform

import psutil
import pytest

from portoser import memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no malloc_trim")
async def test_what_is_free_between_what_stays_is_given_back() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    process = psutil.Process()
    pieces = [libc.malloc(ctypes.c_size_t(60_000)) for _ in range(2_000)]
    for piece in pieces:
        ctypes.memset(piece, 1, 60_000)
    for number, piece in enumerate(pieces):
        if number % 10:
            libc.free(ctypes.c_void_p(piece))
    held = process.memory_info().rss
    giving = asyncio.create_task(memory.keep_giving_back(every=0.01))
    try:
        for _ in range(1_000):
            await asyncio.sleep(0.01)
            if process.memory_info().rss < held - 50_000_000:  # of the 108 MB that are free
                break
        else:
            pytest.fail("nothing was given back")
    finally:
        giving.cancel()
        for piece in pieces[::10]:
            libc.free(ctypes.c_void_p(piece))
