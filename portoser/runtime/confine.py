"""What a process of the runtime gives up before it sees tool code, step by step.

Each step is a function; ``ZYGOTE_STEPS`` and ``WORKER_STEPS`` are their order, which is DESIGN's. The isolation layers
(namespaces, Landlock, seccomp, a uid for each slot) take their places in these lists: namespaces among the
zygote's steps, the others at the end of the worker's, seccomp last.
"""

import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import msgspec

MIB = 1024 * 1024

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


class Confinement(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker may use; sizes in bytes. Processor time is the server's to measure."""

    scratch: str
    memory: int
    disk: int
    open_files: int


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {argument}) failed")


def set_process_name(name: str) -> None:
    """What ``ps`` and ``top`` show; 15 bytes."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _libc.prctl(_PR_SET_NAME, buffer, 0, 0, 0)


def die_with_parent(parent: int, by: signal.Signals) -> None:
    """Have the kernel send ``by`` when the parent ends, and end now if it already has."""
    _prctl(_PR_SET_PDEATHSIG, by)
    if os.getppid() != parent:
        os._exit(0)


def adopt_orphans() -> None:
    """Become the parent of what the workers leave behind, so that it can be found and ended."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def flush_c_output() -> None:
    """Flush what C code has printed to its own buffers."""
    _libc.fflush(None)


# The worker's steps ----------------------------------------------------------------------------------------------


def own_scratch(limits: Confinement) -> None:
    """Work in a folder of its own, which is also HOME and TMPDIR."""
    os.chdir(limits.scratch)
    os.umask(0o077)
    os.environ["HOME"] = os.environ["TMPDIR"] = limits.scratch


def first_to_go(limits: Confinement) -> None:
    """Where memory runs out, the kernel ends workers before the server."""
    with contextlib.suppress(OSError), Path("/proc/self/oom_score_adj").open("wb", buffering=0) as file:
        file.write(b"900")


def no_new_privileges(limits: Confinement) -> None:
    """No set-uid program gives anything back."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def resource_limits(limits: Confinement) -> None:
    """No core dumps, few open files, files and memory up to a size."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits.open_files, limits.open_files))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.disk, limits.disk))
    memory.begin(limits.memory)


Step: TypeAlias = Callable[[Confinement], None]

WORKER_STEPS: tuple[Step, ...] = (own_scratch, first_to_go, no_new_privileges, resource_limits)

ZYGOTE_STEPS: tuple[Callable[[], None], ...] = (adopt_orphans,)


def confine_worker(limits: Confinement) -> None:
    """Take every step of a worker. Raises OSError where one cannot be taken: the worker must then end."""
    for step in WORKER_STEPS:
        step(limits)


def _within(kind: int, value: int) -> int:
    """The value, or the hard limit that this process was born with where that is lower."""
    hard = resource.getrlimit(kind)[1]
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


class MemoryLimit:
    """The memory that tool code may have, beyond what the worker itself has when it begins.

    The soft limit binds while the tool's code runs and stands below the hard one, because msgspec and pydantic
    crash where an allocation fails: around our own code the room in between is open.
    """

    ROOM = 96 * MIB

    def __init__(self) -> None:
        self._data = resource.getrlimit(resource.RLIMIT_DATA)

    def begin(self, limit: int) -> None:
        """Measure what is in use, and set the hard limits above it."""
        size, _, _, _, _, data, _ = (int(pages) for pages in Path("/proc/self/statm").read_bytes().split())
        page = resource.getpagesize()
        soft = data * page + limit
        self._data = _within(resource.RLIMIT_DATA, soft), _within(resource.RLIMIT_DATA, soft + self.ROOM)
        # Shared anonymous memory counts in the address space alone; libraries do too, so there is slack.
        space = size * page + 2 * limit + 512 * MIB
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
