"""Tries of the layers, each in a process of its own, which ends with what it has given up."""

import errno
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

import portoser
from portoser.runtime.isolation import kernel, landlock, namespaces, seccomp, uids
from portoser.runtime.isolation.view import View

_SECONDS = 10.0
"""How long a trial may take."""


class Unreachable(Exception):
    """Something that workers need is not in reach of other users."""


class Trial:
    """Steps that a child takes one after the other, until one fails."""

    def __init__(self, *steps: Callable[[], None]) -> None:
        self._read, write = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            try:
                for step in steps:
                    os.write(write, msgspec.json.encode(_outcome(step)) + b"\n")
            finally:
                os._exit(0)
        os.close(write)
        self._said: list[_Outcome] | None = None

    def why(self, step: int, told: Callable[[OSError], str]) -> str | None:
        """Why a step failed, or None; ``told`` finds the words for an error of the system. Waits for the child."""
        if self._said is None:
            try:
                lines = _read_in_time(self._read).split(b"\n")[:-1]
                self._said = [msgspec.json.decode(line, type=_Outcome) for line in lines]
            finally:
                os.close(self._read)
                os.kill(self._child, signal.SIGKILL)
                os.waitpid(self._child, 0)
        if step >= len(self._said):
            return "the process that tried it ended"
        number, where, message = self._said[step]
        return told(OSError(number, os.strerror(number), where)) if number else message or None


class _Outcome(NamedTuple):
    """What came of a step: an error of the system and where it came from, or a message; nothing where it went well."""

    number: int = 0
    where: str = ""
    message: str = ""


def _outcome(step: Callable[[], None]) -> _Outcome:
    try:
        step()
    except OSError as error:
        return _Outcome(error.errno or errno.EIO, str(error.filename or ""))
    except Unreachable as error:
        return _Outcome(message=str(error))
    except Exception as error:  # noqa: BLE001 - it is told
        return _Outcome(message=f"{type(error).__name__}: {error}")
    return _Outcome()


def _read_in_time(descriptor: int) -> bytes:
    said, until = b"", time.monotonic() + _SECONDS
    while select.select([descriptor], [], [], max(0.0, until - time.monotonic()))[0]:
        piece = os.read(descriptor, 4096)
        if not piece:
            break
        said += piece
    return said


def try_namespaces(shown: View, as_user: bool) -> None:
    """Enter them, and look whether the machine is out of sight."""
    user, group = os.getuid(), os.getgid()
    first = namespaces.enter(shown, as_user=as_user)
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    namespaces.private_scratch(1 << 20, user, group)
    Path(namespaces.SCRATCH, "file").write_bytes(b"x")
    Path(os.__file__).read_bytes()
    if Path("/proc/self").exists() or Path("/etc/passwd").exists():
        raise RuntimeError("the machine's files can still be seen")


def try_landlock(shown: View, abi: int) -> None:
    """Be held to a ruleset, and look whether it holds."""
    ruleset = landlock.Ruleset(abi)
    for path in shown.paths:
        descriptor = os.open(path, os.O_PATH)
        ruleset.allow(descriptor, landlock.READ, is_folder=os.path.isdir(path))  # noqa: PTH112
    kernel.no_new_privileges()
    landlock.restrict(ruleset.descriptor, abi)
    Path(os.__file__).read_bytes()
    try:
        os.listdir("/")  # noqa: PTH208
    except PermissionError:
        return
    raise RuntimeError("it is set, and files outside can still be read")


def try_seccomp() -> None:
    """Install the filter of workers, and look whether it holds."""
    kernel.no_new_privileges()
    seccomp.Filter(seccomp.WORKER).install(os.getpid())
    try:
        socket.socket().close()
    except PermissionError:
        return
    raise RuntimeError("it is set, and sockets can still be made")


def try_user(scratch: str | None, user: int) -> None:
    """Become ``user``, and look whether Python and the folder for scratch folders are in reach."""
    uids.become(user)
    needed = [(str(module.__file__), os.O_RDONLY) for module in (os, msgspec, portoser)]
    if scratch is not None:
        needed.append((f"{scratch}/.", os.O_PATH))
    for path, flags in needed:
        try:
            os.close(os.open(path, flags))
        except OSError as error:
            raise Unreachable(f"other users cannot reach {path}: {error.strerror}") from None
