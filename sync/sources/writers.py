"""Whether somebody has a file open for writing: what is in it then may be half of what it will be."""

import contextlib
import fcntl
import os
import signal

_SET_LEASE = getattr(fcntl, "F_SETLEASE", None)
_SET_SIGNAL = getattr(fcntl, "F_SETSIG", None)


def has_writer(descriptor: int) -> bool | None:
    """Whether anybody has the open file open for writing; None where the system does not tell.

    Linux gives a lease for reading only on a file that nobody has open for writing. It is given back at once. Not
    told where the file is somebody else's, on a network mount, or on another system.
    """
    if _SET_LEASE is None or _SET_SIGNAL is None:
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


def read_whole(path: str) -> tuple[bytes, bool | None]:
    """A file's content, and whether it was being written when it had been read; None where that is not told."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        content = file.read()
        return content, has_writer(descriptor)
