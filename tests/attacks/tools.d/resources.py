"""Attacks that use up what everybody shares: memory, disk, processor time, the server's attention."""

import asyncio
import contextlib
import ctypes
import hashlib
import mmap
import os
import re
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from trying import Tries, libc

MIB = 1024 * 1024


def memory_lists(target: dict[str, Any]) -> dict[str, Any]:
    """Fills memory with Python's objects.

    ends: memory_limit
    limits: {memory: 64MiB}
    """
    kept = []
    while True:
        kept.append("x" * 100_000 + str(len(kept)))


def memory_at_once(target: dict[str, Any]) -> dict[str, Any]:
    """Asks for much memory at once.

    ends: memory_limit
    limits: {memory: 64MiB}
    """
    return {"got": [str(len(bytearray(1024 * MIB)))]}


def memory_by_malloc(target: dict[str, Any]) -> dict[str, Any]:
    """Takes memory from C, past Python.

    limits: {memory: 64MiB}
    real: no
    """
    tries = Tries()
    libc.malloc.restype = ctypes.c_void_p
    taken = 0
    while taken < 1024 and (piece := libc.malloc(ctypes.c_size_t(8 * MIB))):
        ctypes.memset(piece, 1, 8 * MIB)
        taken += 8
    tries("more than it may", lambda: taken > 170 and f"{taken} MiB")
    return tries.told()


def memory_shared(target: dict[str, Any]) -> dict[str, Any]:
    """Takes shared memory, which no limit on private memory counts.

    limits: {memory: 64MiB}
    real: no
    """
    tries = Tries()
    kept = []
    with contextlib.suppress(OSError, ValueError):
        while len(kept) < 128:
            piece = mmap.mmap(-1, 8 * MIB)
            kept.append(piece)
            ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(piece)), 1, 8 * MIB)
    tries("more than its address space", lambda: len(kept) == 128 and "1 GiB")
    return tries.told()


def memory_files(target: dict[str, Any]) -> dict[str, Any]:
    """Takes memory as files that are nowhere: memfd_create, /dev/shm.

    limits: {memory: 64MiB}
    """
    tries = Tries()
    tries("memfd", lambda: os.memfd_create("attack"))
    for folder in ("/dev/shm", "/run"):
        tries(folder, lambda folder=folder: os.open(f"{folder}/{target['marker']}m", os.O_CREAT | os.O_RDWR))
    return tries.told()


def memory_of_the_kernel(target: dict[str, Any]) -> dict[str, Any]:
    """Takes the kernel's memory: pipes and sockets that are full.

    real: no
    """
    import fcntl
    import socket

    tries = Tries()
    bytes_kept = 0
    with contextlib.suppress(OSError):
        while True:
            read_end, write_end = os.pipe()
            os.set_blocking(write_end, False)
            with contextlib.suppress(OSError):
                fcntl.fcntl(write_end, 1031, MIB)
            with contextlib.suppress(BlockingIOError):
                while True:
                    bytes_kept += os.write(write_end, b"x" * 65536)
    with contextlib.suppress(OSError):
        while True:
            left, _ = socket.socketpair()
            left.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    bytes_kept += left.send(b"x" * 65536)
    tries("more than 128 MiB", lambda: bytes_kept > 128 * MIB and f"{bytes_kept // MIB} MiB")
    return tries.told()


def one_large_file(target: dict[str, Any]) -> dict[str, Any]:
    """Writes a file of a gigabyte.

    ends: disk_limit
    """
    with open("large", "wb", buffering=0) as file:
        for _ in range(1024):
            file.write(bytes(MIB))
    return {"got": ["a gigabyte"]}


def many_large_files(target: dict[str, Any]) -> dict[str, Any]:
    """Writes many files, each as large as it may be, for more than the scratch folder may hold together.

    open in root-bare, user-bare: a scratch folder on the disk is limited by file; one in memory takes namespaces
    """
    tries = Tries()
    written = 0
    with contextlib.suppress(OSError):
        for number in range(24):
            descriptor = os.open(f"large{number}", os.O_CREAT | os.O_WRONLY)
            os.posix_fallocate(descriptor, 0, 16 * MIB)
            os.close(descriptor)
            written += 16
    tries("more than 64 MiB", lambda: written > 64 and f"{written} MiB")
    return tries.told()


def sparse_file(target: dict[str, Any]) -> dict[str, Any]:
    """Makes a file that says to be a terabyte.

    real: no
    """
    tries = Tries()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open("sparse", "wb") as file:
        tries("truncate", os.ftruncate, file.fileno(), 1 << 40)
        tries("a byte at its end", lambda: os.pwrite(file.fileno(), b"x", 1 << 40))
    return tries.told()


def many_files(target: dict[str, Any]) -> dict[str, Any]:
    """Makes more files than anybody needs.

    open in root-bare, user-bare: nobody counts the files of a scratch folder on the disk; they go with the worker
    limits: {timeout: 20s}
    """
    tries = Tries()
    made = 0
    with contextlib.suppress(OSError):
        while made < 30_000:
            os.close(os.open(f"f{made}", os.O_CREAT | os.O_WRONLY))
            made += 1
    tries("30,000 files", lambda: made == 30_000)
    return tries.told()


def folders_that_are_hard_to_remove(target: dict[str, Any]) -> dict[str, Any]:
    """Leaves folders that nest deeper than paths are long, are closed to everybody, or have odd names.

    real: no
    """
    scratch = os.getcwd()
    Path("closed").mkdir()
    Path("closed/file").write_text("x")
    os.symlink("/", "closed/root")
    os.mkdir(b"odd\xff\n name")
    for _ in range(1500):
        os.mkdir("d")
        os.chdir("d")
    os.chdir(scratch)
    with contextlib.suppress(OSError):
        os.chmod("closed/file", 0)
        os.chmod("closed", 0)
    with contextlib.suppress(OSError):
        os.chmod(".", 0)
    return {"got": []}


def regular_expression(target: dict[str, Any]) -> dict[str, Any]:
    """Holds the interpreter in a regular expression that never ends.

    ends: timeout
    limits: {timeout: 1s}
    """
    re.match(r"(a+)+$", "a" * 60 + "b")
    return {"got": ["it ended"]}


def large_power(target: dict[str, Any]) -> dict[str, Any]:
    """Holds the interpreter in one multiplication.

    ends: timeout
    limits: {timeout: 1s}
    """
    return {"got": [str((7**10_000_000) % 2)]}


def long_hash(target: dict[str, Any]) -> dict[str, Any]:
    """Hashes for hours, without the interpreter.

    ends: timeout
    limits: {timeout: 1s}
    """
    hashlib.pbkdf2_hmac("sha512", b"a", b"b", 2_000_000_000)
    return {"got": ["it ended"]}


def sleeps_in_c(target: dict[str, Any]) -> dict[str, Any]:
    """Sleeps in C and never gives the interpreter back.

    ends: timeout
    limits: {timeout: 1s}
    """
    ctypes.PyDLL(None).sleep(3600)
    return {"got": ["it ended"]}


def busy_threads(target: dict[str, Any]) -> dict[str, Any]:
    """Computes in many threads at once.

    ends: timeout
    limits: {timeout: 1s}
    """
    for _ in range(8):
        threading.Thread(target=hashlib.pbkdf2_hmac, args=("sha512", b"a", b"b", 2_000_000_000), daemon=True).start()
    while True:
        time.sleep(1)


def processor_time(target: dict[str, Any]) -> dict[str, Any]:
    """Computes beyond its processor time, in threads, and ignores the signal that would tell it.

    ends: cpu_limit
    limits: {cpu: 300ms, timeout: 20s}
    """
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    threading.Thread(target=hashlib.pbkdf2_hmac, args=("sha512", b"a", b"b", 2_000_000_000), daemon=True).start()
    while True:
        pass


def stops_itself(target: dict[str, Any]) -> dict[str, Any]:
    """Stops its own process, which then answers nothing.

    ends: timeout
    limits: {timeout: 1s}
    """
    os.kill(os.getpid(), signal.SIGSTOP)
    return {"got": ["it went on"]}


def hears_no_signal(target: dict[str, Any]) -> dict[str, Any]:
    """Ignores and blocks every signal, asks not to die with its parent, and computes.

    ends: timeout
    limits: {timeout: 1s}
    """
    for number in range(1, 65):
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, set(range(1, 65)) - {32, 33})
    libc.prctl(1, 0, 0, 0, 0)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    while True:
        pass


async def ignores_cancellation(target: dict[str, Any]) -> dict[str, Any]:
    """Catches every cancellation and goes on.

    ends: timeout
    limits: {timeout: 1s}
    """
    while True:
        with contextlib.suppress(BaseException):
            await asyncio.sleep(3600)


def never_ending_generator(target: dict[str, Any]) -> Any:
    """Returns a generator that never ends.

    ends: timeout, memory_limit
    limits: {timeout: 1s, memory: 64MiB}
    """
    while True:
        yield 1


def a_gigabyte_of_output(target: dict[str, Any]) -> dict[str, Any]:
    """Prints a gigabyte.

    ends: output_limit
    """
    for _ in range(1024 * 1024):
        print("x" * 1023)
    return {"got": ["a gigabyte"]}


def a_gigabyte_of_errors(target: dict[str, Any]) -> dict[str, Any]:
    """Writes a gigabyte to the descriptor of its errors.

    ends: output_limit
    """
    for _ in range(16 * 1024):
        os.write(2, b"x" * 65536)
    return {"got": ["a gigabyte"]}


def a_gigabyte_of_logs(target: dict[str, Any]) -> dict[str, Any]:
    """Sends log messages without end.

    ends: output_limit
    """
    while True:
        ctx.info("x" * 100_000)  # type: ignore[name-defined]  # noqa: F821


def endless_progress(target: dict[str, Any]) -> dict[str, Any]:
    """Reports progress without end.

    ends: output_limit
    """
    while True:
        ctx.report_progress(1, None, "x" * 1000)  # type: ignore[name-defined]  # noqa: F821


def huge_result(target: dict[str, Any]) -> dict[str, Any]:
    """Returns a hundred megabytes.

    ends: result_too_large, memory_limit, not_serializable
    """
    return {"got": ["x" * (100 * MIB)]}


def recursion(target: dict[str, Any]) -> dict[str, Any]:
    """Calls itself until the stack of C is full.

    ends: crashed, memory_limit, exception, timeout
    limits: {timeout: 2s}
    """
    sys.setrecursionlimit(1 << 30)

    def deeper(value: Any) -> Any:
        return repr(value)

    nested: Any = []
    for _ in range(1_000_000):
        nested = [nested]
    deeper(nested)
    class Deep:
        def __repr__(self) -> str:
            return repr(self)

    repr(Deep())
    return {"got": ["it ended"]}
