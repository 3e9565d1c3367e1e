"""Points at which a test may make something fail in a real server. For tests only.

Where the environment variable ``PORTOSER_TESTING_FAULTS`` names a file, that file says at which point what is to
happen: ``sync.plan kill``. It is looked for at each point, and what it says happens once. Without the variable a
point does nothing, at the cost of a call. What may happen:

* ``kill``: the process ends by SIGKILL;
* ``pause``: the process stands still, its event loop too, from when the file ``….reached`` appears until it is gone;
* the name of an error of the operating system, ``ENOSPC`` or ``EIO``: that error is raised.
"""

import contextlib
import errno
import os
import signal
import time
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

VARIABLE = "PORTOSER_TESTING_FAULTS"

_FILE = os.environ.get(VARIABLE)

POINTS = (
    "sync.triggered",
    "sync.fetch",
    "sync.compare",
    "sync.read",
    "sync.admit",
    "sync.plan",
    "sync.guard",
    "sync.end_if_equal",
    "registry.locked",
    "registry.checked",
    "registry.revisions",
    "registry.tools",
    "registry.versions",
    "registry.groups",
    "registry.policy",
    "registry.audited",
    "registry.numbered",
    "registry.uncommitted",
    "registry.committed",
    "sync.applied",
    "sync.follow",
    "sync.closed",
    "folder.read",
)
"""In the order in which a run passes them: each is reached once what it is named after is done."""


def point(name: str) -> None:
    """Let a test make something fail here.

    Raises:
        OSError: the test wants it.
    """
    if _FILE is not None:
        _fail(name, Path(_FILE))


def warn() -> None:
    """Say, once at the start, that this server fails where a file tells it to."""
    if _FILE is not None:
        log.warning("testing_faults", file=_FILE, told=f"{VARIABLE} is set: for tests only. Unset it.")


def _fail(name: str, file: Path) -> None:
    try:
        wanted, what = file.read_text().split()
    except (FileNotFoundError, ValueError):  # no test asks for anything, or it still writes
        return
    if wanted != name:
        return
    if what == "kill":
        file.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "pause":
        reached = file.with_name(f"{file.name}.reached")
        file.rename(reached)
        with contextlib.suppress(FileNotFoundError):
            while reached.stat():
                time.sleep(0.005)
    else:
        file.unlink()
        number = getattr(errno, what, None)
        if not isinstance(number, int):
            log.error("testing_fault_unknown", point=name, what=what)
            return
        raise OSError(number, os.strerror(number), name)
