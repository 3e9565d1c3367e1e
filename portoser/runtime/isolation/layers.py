"""Which layers hold on this machine: each is tried, in a process of its own, before anything relies on it.

Trying takes a process of one thread, which the zygote is at its start; ``probe`` starts one for whoever only wants to
know.
"""

import functools
import os
import subprocess
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

import msgspec

import portoser
from portoser.runtime.isolation import kernel, landlock, namespaces, syscalls, trials, uids
from portoser.runtime.isolation.trials import Trial
from portoser.runtime.isolation.view import View, view

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
        is_enough_alone = self.holds(Name.LANDLOCK) and self.landlock >= landlock.ENOUGH_ALONE
        if self.holds(Name.SECCOMP) and (self.holds(Name.NAMESPACES) or is_enough_alone):
            return None
        missing = [
            f"{name}: {self.found[name].why}"
            for name in (Name.SECCOMP, Name.NAMESPACES, Name.LANDLOCK)
            if name in self.found and not self.found[name].holds
        ]
        if self.holds(Name.LANDLOCK) and not is_enough_alone:
            missing.append(f"{Name.LANDLOCK}: version {self.landlock} lets files be cut whose contents it protects")
        return (
            f"Tools cannot be isolated on this machine, so none is run. {'; '.join(missing)}. {self.remedy} Or set "
            "PORTOSER_SANDBOX=off to accept that every tool can do whatever the server's user can."
        )

    @property
    def remedy(self) -> str:
        """What a machine needs so that tools are isolated."""
        return "It takes Linux with seccomp, and with namespaces or Landlock as of Linux 6.2."


_LEFT_OUT = Layer(False, f"{TESTING_VARIABLE} leaves it out")


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
    inside = Name.UID not in left and uids.may_change()
    user = uids.Slots(os.getpid()).take()
    # At the same time: what takes longest begins first.
    spaces = _Spaces(shown, user if inside else None) if Name.NAMESPACES not in left else None
    locks = _Locks(shown) if Name.LANDLOCK not in left else None
    filters = _Filters() if Name.SECCOMP not in left else None
    namespaces_ = spaces.layer() if spaces is not None else _LEFT_OUT
    as_user = spaces is not None and spaces.as_user
    if Name.UID in left:
        uid = _LEFT_OUT
    elif not inside:
        uid = Layer(False, "only root can give workers users of their own; they run as the server's, without its files")
    elif as_user:
        uid = Layer(False, "root needs CAP_SYS_ADMIN to give workers users of their own; they run as the server's")
    elif spaces is not None and namespaces_.holds:
        uid = _user(spaces.why_no_user)
    else:
        uid = _user(Trial(functools.partial(trials.try_user, scratch, user)).why(0, str))
    found = {
        Name.PROCESSES: Layer(True, "tool code runs in worker processes, never in the server"),
        Name.NAMESPACES: namespaces_,
        Name.LANDLOCK: locks.layer() if locks is not None else _LEFT_OUT,
        Name.SECCOMP: filters.layer() if filters is not None else _LEFT_OUT,
        Name.UID: uid,
        Name.RLIMITS: Layer(True, "memory, processor time, file size, open files, no core dumps"),
        Name.NO_NEW_PRIVS: Layer(True, "no program gives back what was given up; no capabilities"),
    }
    return Layers(found, as_user, locks.abi if locks is not None else 0)


class _Spaces:
    """Namespaces, and in them a user of its own, as root where this process is root, else in a user namespace."""

    def __init__(self, shown: View, user: int | None) -> None:
        self._shown = shown
        self.as_user = not kernel.has_capability(kernel.CAP_SYS_ADMIN)
        self.why_no_user: str | None = None
        steps = [functools.partial(trials.try_namespaces, shown, self.as_user)]
        if user is not None and not self.as_user:
            steps.append(functools.partial(trials.try_user, None, user))
        self._trial = Trial(*steps)

    def layer(self) -> Layer:
        why = self._trial.why(0, namespaces.why_not)
        self.why_no_user = self._trial.why(1, str)
        if why is not None and not self.as_user:
            self.as_user = True
            why = Trial(functools.partial(trials.try_namespaces, self._shown, self.as_user)).why(0, namespaces.why_not)
        if why is not None:
            self.as_user = False
            return Layer(False, why)
        how = "in a user namespace: " if self.as_user else ""
        return Layer(True, f"{how}files, processes, network, IPC and host name of their own")


class _Locks:
    """Landlock, and the version of it that holds, 0 for none."""

    def __init__(self, shown: View) -> None:
        self.abi = 0
        self._why = ""
        try:
            self.abi = landlock.version()
        except OSError as error:
            self._why = landlock.why_not(error)
            return
        self._trial = Trial(functools.partial(trials.try_landlock, shown, self.abi))

    def layer(self) -> Layer:
        why = self._why or self._trial.why(0, landlock.why_not)
        if why:
            self.abi = 0
            return Layer(False, why)
        return Layer(True, f"version {self.abi}: {landlock.reach(self.abi)}")


class _Filters:
    """Seccomp."""

    def __init__(self) -> None:
        self._trial = Trial(trials.try_seccomp) if syscalls.table() else None

    def layer(self) -> Layer:
        if self._trial is None:
            known = "those of x86_64 and aarch64 are"
            return Layer(False, f"the system calls of {syscalls.MACHINE} are not known; {known}")
        why = self._trial.why(0, lambda error: f"the kernel refuses the filter: {error}")
        what = "no programs, processes, sockets, tracing, mounts; what is not listed is refused"
        return Layer(why is None, why or what)


def _user(why: str | None) -> Layer:
    return Layer(why is None, why or "each worker is a user of its own")
