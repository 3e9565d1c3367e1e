"""Whether somebody has a file open for writing: what is in it then may be half of what it will be."""

import contextlib
import ctypes
import fcntl
import os
import signal

from sync.texts import MAX_FILE

_SET_LEASE = getattr(fcntl, "F_SETLEASE", None)
_SET_SIGNAL = getattr(fcntl, "F_SETSIG", None)
_STATFS = getattr(ctypes.CDLL(None), "fstatfs", None)

_LOCAL = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # XFS
        0x9123683E,  # btrfs
        0x01021994,  # tmpfs
        0x794C7630,  # overlay
        0x2FC12FC1,  # ZFS
        0xF2F52010,  # F2FS
    }
)
"""The kinds of file systems whose files nobody can have open without this kernel's knowing it."""


def has_writer(descriptor: int) -> bool | None:
    """Whether anybody has the open file open for writing; None where the system does not tell.

    Linux gives a lease for reading only on a file that nobody has open for writing. It is given back at once. Not
    told where the file is somebody else's, on a mount that another machine may write to (of a network, of a virtual
    machine's host, or FUSE), or on another system.
    """
    if _SET_LEASE is None or _SET_SIGNAL is None or kind_of_file_system(descriptor) not in _LOCAL:
        return None
    try:
        # Who opens the file in between makes the kernel send a signal; this one is ignored, the usual one would end us.
        fcntl.fcntl(descriptor, _SET_SIGNAL, signal.SIGURG)
        fcntl.fcntl(descriptor, _SET_LEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return None
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, _SET_LEASE, fcntl.F_UNLCK)
    return False


def kind_of_file_system(descriptor: int) -> int | None:
    """The number by which Linux knows the kind of file system that an open file is on; None where it does not tell."""
    told = (ctypes.c_long * 64)()  # more than any system's `struct statfs`, which begins with that number
    if _STATFS is None or _STATFS(descriptor, told) != 0:
        return None
    return int(told[0]) & 0xFFFFFFFF


def read_whole(path: str) -> tuple[bytes, bool | None]:
    """A file's content, and whether it was being written when it had been read; None where that is not told.

    Of a file that is larger than any that is taken, there is just enough to see that.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_FILE + 1)
        return content, has_writer(descriptor)
    finally:
        os.close(descriptor)
