"""Which layers hold on this machine: each is tried, in a process of its own, before anything relies on it.

Trying takes a process of one thread, which the zygote is at its start; ``probe`` starts one for whoever only wants to
know.
"""

import functools
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path

import msgspec

import portoser
from portoser.runtime.isolation import kernel, landlock, namespaces, seccomp, syscalls, uids
from portoser.runtime.isolation.view import View, view

_TRIAL_SECONDS = 10.0

TESTING_VARIABLE = "PORTOSER_TESTING_LAYERS_OFF"
"""Names layers that are left out, with commas between. For tests only: the server warns of it."""


class Name(StrEnum):
    """The layers, from the outside."""

    PROCESSES = "processes"
    NAMESPACES = "namespaces"
    LANDLOCK = "landlock"
    SECCOMP = "seccomp"
    UID = "uid"
    RLIMITS = "rlimits"
    NO_NEW_PRIVS = "no_new_privs"


class Layer(msgspec.Struct, frozen=True):
    """Whether a layer holds, and what that means, or why it does not."""

    holds: bool
    why: str


class Layers(msgspec.Struct, frozen=True):
    """What was found of each layer, and what their modules need to know."""

    found: dict[Name, Layer]
    as_user: bool = False
    """Namespaces take a user namespace."""
    landlock: int = 0
    """The kernel's version of Landlock, 0 for none."""

    def holds(self, name: Name) -> bool:
        """Whether a layer holds."""
        return name in self.found and self.found[name].holds

    @property
    def words(self) -> dict[str, str]:
        """Each layer as people read it: ``on: …`` or ``off: …``."""
        return {name.value: f"{'on' if layer.holds else 'off'}: {layer.why}" for name, layer in self.found.items()}

    @property
    def refusal(self) -> str | None:
        """Why tools may not be run with so little, or None where they may."""
        if self.holds(Name.SECCOMP) and (self.holds(Name.NAMESPACES) or self.holds(Name.LANDLOCK)):
            return None
        missing = (
            f"{name}: {self.found[name].why}"
            for name in (Name.SECCOMP, Name.NAMESPACES, Name.LANDLOCK)
            if name in self.found and not self.found[name].holds
        )
        return (
            f"Tools cannot be isolated on this machine, so none is run. {'; '.join(missing)}. {self.remedy} Or set "
            "PORTOSER_SANDBOX=off to accept that every tool can do whatever the server's user can."
        )

    @property
    def remedy(self) -> str:
        """What a machine needs so that tools are isolated."""
        return "It takes Linux with seccomp, and with namespaces or Landlock (5.13 or newer)."


_LEFT_OUT = Layer(False, f"{TESTING_VARIABLE} leaves it out")


class Unreachable(Exception):
    """Something that workers need is not in reach of other users."""


def left_out() -> tuple[str, ...]:
    """The layers that a test wants left out."""
    return tuple(part for part in os.environ.get(TESTING_VARIABLE, "").replace(",", " ").split() if part)


def probe() -> Layers:
    """Which layers hold here, tried once by a process that ends again."""
    return _probe(left_out())


@functools.cache
def _probe(without: tuple[str, ...]) -> Layers:
    if not kernel.IS_LINUX:
        return unknown_system()
    program = "import sys; sys.path.append(sys.argv[1]); from portoser.runtime.isolation.layers import tell; tell()"
    root = str(Path(portoser.__file__).parent.parent)
    said = subprocess.run(
        [sys.executable, "-I", "-c", program, root, *without], stdout=subprocess.PIPE, cwd="/", env={}, check=False
    )
    try:
        return msgspec.json.decode(said.stdout, type=Layers)
    except msgspec.DecodeError:
        why = f"trying it failed: the process that tries ended with {said.returncode}"
        return Layers(dict.fromkeys(Name, Layer(False, why)))


def tell() -> None:
    """Print what ``measure`` finds: what the process does that ``probe`` starts."""
    sys.stdout.buffer.write(msgspec.json.encode(measure(view(None), sys.argv[2:])))


def unknown_system() -> Layers:
    """What holds where there is no Linux: nothing that we know how to ask for."""
    why = f"{os.uname().sysname} has nothing of the kind that Portoser knows; tools run on Linux"
    return Layers(dict.fromkeys(Name, Layer(False, why)))


def measure(shown: View, without: Iterable[str] = (), scratch: str | None = None) -> Layers:
    """Try each layer here and now; ``without`` names some that are to be taken for missing, ``scratch`` is where
    workers' folders are made that do not make their own.

    This process must have one thread, and changes nothing of itself.
    """
    left = set(without)
    namespaces_, as_user = _namespaces(shown) if Name.NAMESPACES not in left else (_LEFT_OUT, False)
    landlock_, abi = _landlock(shown) if Name.LANDLOCK not in left else (_LEFT_OUT, 0)
    found = {
        Name.PROCESSES: Layer(True, "tool code runs in worker processes, never in the server"),
        Name.NAMESPACES: namespaces_,
        Name.LANDLOCK: landlock_,
        Name.SECCOMP: _seccomp() if Name.SECCOMP not in left else _LEFT_OUT,
        Name.UID: _uid(shown, scratch, as_user, inside=namespaces_.holds) if Name.UID not in left else _LEFT_OUT,
        Name.RLIMITS: Layer(True, "memory, processor time, file size, open files, no core dumps"),
        Name.NO_NEW_PRIVS: Layer(True, "and no capabilities"),
    }
    return Layers(found, as_user, abi)


def _namespaces(shown: View) -> tuple[Layer, bool]:
    """The layer, and whether it takes a user namespace."""
    why: str | None = None
    for as_user in (False, True):
        if as_user or kernel.has_capability(kernel.CAP_SYS_ADMIN):
            why = _try(functools.partial(_try_namespaces, shown, as_user), namespaces.why_not)
            if why is None:
                how = "in a user namespace: " if as_user else ""
                return Layer(True, f"{how}files, processes, network, IPC and host name of their own"), as_user
    return Layer(False, str(why)), False


def _landlock(shown: View) -> tuple[Layer, int]:
    """The layer, and the kernel's version of it."""
    try:
        abi = landlock.version()
    except OSError as error:
        return Layer(False, landlock.why_not(error)), 0
    why = _try(functools.partial(_try_landlock, shown, abi), landlock.why_not)
    return (Layer(False, why), 0) if why is not None else (Layer(True, f"version {abi}: {landlock.reach(abi)}"), abi)


def _seccomp() -> Layer:
    if not syscalls.table():
        known = "those of x86_64 and aarch64 are"
        return Layer(False, f"the system calls of {syscalls.MACHINE} are not known; {known}")
    why = _try(_try_seccomp, lambda error: f"the kernel refuses the filter: {error}")
    what = "no programs, processes, sockets, tracing, mounts; what is not listed is refused"
    return Layer(why is None, why or what)


def _uid(shown: View, scratch: str | None, as_user: bool, *, inside: bool) -> Layer:
    if as_user or not uids.may_change():
        why: str | None = "only root can give workers users of their own; they run as the server's, without its files"
    else:
        why = _try(functools.partial(_try_user, shown, scratch, uids.Slots(os.getpid()).take(), inside), str)
    return Layer(why is None, why or "each worker is a user of its own")


def _try(trial: Callable[[], None], told: Callable[[OSError], str]) -> str | None:
    """Run a trial in a child; why it failed, or None."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        why = "it ended"
        try:
            trial()
            why = ""
        except OSError as error:
            why = told(error)
        except Unreachable as error:
            why = str(error)
        except Exception as error:  # noqa: BLE001 - it is told
            why = f"{type(error).__name__}: {error}"
        finally:
            os.write(write, b"\0" + why.encode())
            os._exit(0)
    os.close(write)
    try:
        said = _read_in_time(read)
    finally:
        os.close(read)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if not said.startswith(b"\0"):
        return "the process that tried it ended"
    return said[1:].decode() or None


def _read_in_time(descriptor: int) -> bytes:
    said, until = b"", time.monotonic() + _TRIAL_SECONDS
    while select.select([descriptor], [], [], max(0.0, until - time.monotonic()))[0]:
        piece = os.read(descriptor, 4096)
        said += piece
        if not piece or said.startswith(b"\0"):
            break
    return said


def _try_namespaces(shown: View, as_user: bool) -> None:
    user, group = os.getuid(), os.getgid()
    namespaces.enter(shown, as_user=as_user)
    namespaces.private_scratch(1 << 20, user, group)
    Path(namespaces.SCRATCH, "file").write_bytes(b"x")
    Path(os.__file__).read_bytes()
    if Path("/proc/self").exists() or Path("/etc/passwd").exists():
        raise RuntimeError("the machine's files can still be seen")


def _try_landlock(shown: View, abi: int) -> None:
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


def _try_seccomp() -> None:
    kernel.no_new_privileges()
    seccomp.Filter(seccomp.WORKER).install(os.getpid())
    try:
        socket.socket().close()
    except PermissionError:
        return
    raise RuntimeError("it is set, and sockets can still be made")


def _try_user(shown: View, scratch: str | None, user: int, inside: bool) -> None:
    if inside:
        namespaces.enter(shown, as_user=False)
    uids.become(user)
    needed = [str(module.__file__) for module in (os, msgspec, portoser)]
    if scratch is not None and not inside:
        needed.append(f"{scratch}/.")
    for path in needed:
        try:
            os.close(os.open(path, os.O_RDONLY if path != f"{scratch}/." else os.O_PATH))
        except OSError as error:
            raise Unreachable(f"other users cannot reach {path}: {error.strerror}") from None
