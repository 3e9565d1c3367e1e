"""What a process of the runtime does to itself whether tools are isolated or not: its name, its end, its memory."""

import ctypes
import os
import resource
import signal

from portoser.runtime.isolation import kernel

MIB = 1024 * 1024

isolated = False
"""Whether this process is a zygote that has confined itself, or comes from one."""


def set_process_name(name: str) -> None:
    """What ``ps`` and ``top`` show; 15 bytes."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    kernel.libc.prctl(kernel.PR_SET_NAME, buffer, 0, 0, 0)


def die_with_parent(parent: int, by: signal.Signals) -> None:
    """Have the kernel send ``by`` when the parent ends, and end now if it already has.

    ``parent`` is its id as this process sees it: 0 where it is in another pid namespace.
    """
    kernel.prctl(kernel.PR_SET_PDEATHSIG, by)
    if os.getppid() != parent:
        os._exit(0)


def adopt_orphans() -> None:
    """Become the parent of what the workers leave behind, so that it can be found and ended."""
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)


def flush_c_output() -> None:
    """Flush what C code has printed to its own buffers."""
    kernel.libc.fflush(None)


def _within(kind: int, value: int) -> int:
    """The value, or the hard limit that this process was born with where that is lower."""
    hard = resource.getrlimit(kind)[1]
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def limit_files(size: int, count: int) -> None:
    """Let this process make no file larger than ``size``, and open no more than ``count``; for good."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


def limit_stack(size: int) -> None:
    """Let the stack of this process's first thread grow to ``size`` and no further, for good."""
    size = _within(resource.RLIMIT_STACK, size)
    resource.setrlimit(resource.RLIMIT_STACK, (size, size))


class MemoryLimit:
    """The memory that tool code may have, beyond what the worker itself has when it begins.

    The soft limit binds while the tool's code runs and stands below the hard one, because msgspec and pydantic
    crash where an allocation fails: around our own code the room in between is open.
    """

    ROOM = 96 * MIB

    def __init__(self) -> None:
        self._data = resource.getrlimit(resource.RLIMIT_DATA)
        self._in_use = 0, 0

    def measure(self, statm: bytes) -> None:
        """Take what is in use now, as this process's ``/proc/self/statm`` says it, for the worker's own."""
        size, _, _, _, _, data, _ = (int(pages) * resource.getpagesize() for pages in statm.split())
        self._in_use = size, data

    def begin(self, limit: int) -> None:
        """Set the hard limits above what was in use when it was measured."""
        size, data = self._in_use
        soft = data + limit
        self._data = _within(resource.RLIMIT_DATA, soft), _within(resource.RLIMIT_DATA, soft + self.ROOM)
        # Shared anonymous memory counts in the address space alone; libraries do too, so there is slack.
        space = size + 2 * limit + 512 * MIB
        space = _within(resource.RLIMIT_AS, space)
        resource.setrlimit(resource.RLIMIT_AS, (space, space))
        self.open()

    def close(self) -> None:
        """Tool code is about to run."""
        resource.setrlimit(resource.RLIMIT_DATA, self._data)

    def open(self) -> None:
        """Tool code has run."""
        resource.setrlimit(resource.RLIMIT_DATA, (self._data[1], self._data[1]))


memory = MemoryLimit()
"""This process's. The one piece of state of its kind: a process has one set of limits."""
