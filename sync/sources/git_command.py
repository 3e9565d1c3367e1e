"""Running git: without hooks, prompts, locks and helpers of the repository's choice, and never past a deadline."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from portoser.catalog.errors import PortoserError

_KEPT = ("PATH", "HOME", "TMPDIR", "XDG_CONFIG_HOME", "SYSTEMROOT")
_OPTIONS = (
    "--no-pager",
    "--no-replace-objects",
    *("-c", "safe.directory=*"),  # a mounted repository often belongs to another user; nothing of it is run here
    *("-c", f"core.hooksPath={os.devnull}"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.quotePath=true"),
    *("-c", "log.showSignature=false"),  # it would start a program that the repository's configuration names
    *("-c", "protocol.allow=never"),
    *("-c", "gc.auto=0"),
    *("-c", "maintenance.auto=false"),
)


class GitFailed(PortoserError):
    """A git command failed, or took longer than it may."""


def environment() -> dict[str, str]:
    """What git gets to see of our environment."""
    return {
        **{name: os.environ[name] for name in _KEPT if name in os.environ},
        "LC_ALL": "C.UTF-8",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ASKPASS": "true",
    }


def run(folder: Path, *arguments: str, deadline: float = 20.0) -> bytes:
    """What a git command prints. ``deadline`` in seconds.

    Raises:
        GitFailed: it failed, did not end in time, or there is no git.
    """
    with lines_of(folder, *arguments, deadline=deadline) as output:
        return b"".join(output)


@contextmanager
def lines_of(folder: Path, *arguments: str, deadline: float) -> Iterator[Iterator[bytes]]:
    """The lines that a git command prints, as it prints them. It is ended with the block, whether done or not.

    Raises:
        GitFailed: it failed, did not end in time, or there is no git.
    """
    try:
        process = subprocess.Popen(
            ["git", *_OPTIONS, *arguments],
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # so that what git starts ends with it
        )
    except OSError as error:
        raise GitFailed(f"git cannot be started in {folder}: {error.strerror}.") from error
    is_late = threading.Event()

    def end() -> None:
        is_late.set()
        _kill(process)

    timer = threading.Timer(deadline, end)
    timer.start()
    assert process.stdout is not None and process.stderr is not None  # noqa: S101, PT018 - both are pipes
    exhausted = _Exhausted(process.stdout)
    try:
        yield iter(exhausted)
        if not exhausted.is_done:
            _kill(process)
        said = process.stderr.read()
        code = process.wait()
    finally:
        timer.cancel()
        _kill(process)
        process.wait()
        process.stdout.close()
        process.stderr.close()
        timer.join()
    if is_late.is_set():
        raise GitFailed(f"git {arguments[0]} did not end within {deadline:g} s.")
    if exhausted.is_done and code != 0:
        raise GitFailed(f"git {arguments[0]} failed: {said.decode(errors='replace').strip()[:500] or code}.")


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


class _Exhausted:
    """The lines of a pipe, and whether all have been read."""

    def __init__(self, pipe: Iterator[bytes]) -> None:
        self._pipe = pipe
        self.is_done = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pipe
        self.is_done = True
