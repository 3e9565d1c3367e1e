"""All layers together: what a zygote gives up for itself, and what each of its workers does before it sees tool code.

The order matters. The zygote: namespaces, then Landlock where there are none (a process under Landlock may not mount,
and workers mount their scratch folders), then seccomp, which leaves it what it needs to fork and to make workers. A
worker: its own scratch folder, the rules for Landlock while the paths can still be opened, every descriptor but its own
closed, limits, a user of its own, no capabilities, no new privileges, Landlock, seccomp last.
"""

import contextlib
import os
import resource
import signal
from typing import NamedTuple

import msgspec

from portoser.catalog.errors import PortoserError
from portoser.runtime import confine
from portoser.runtime.isolation import kernel, landlock, layers, namespaces, seccomp, uids
from portoser.runtime.isolation.layers import Layers, Name
from portoser.runtime.isolation.view import DEVICES, view

_THREADS = 128
"""How many threads a worker may have that is a user of its own."""
_STACK = 8 * confine.MIB
"""How far the stack of a worker's first thread may grow: it is not counted as memory."""
_THREADS_OF_ALL = 1024
"""How many the workers of one user namespace may have together."""
_LIKELY_TO_GO, _FIRST_TO_GO = b"500", b"900"


class Refused(PortoserError):
    """Tools cannot be isolated here, and the settings do not accept that."""


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What a zygote holds itself and its workers to. Sizes in bytes."""

    isolate: bool
    without: tuple[str, ...] = ()
    """Layers that a test wants left out."""
    scratch: str
    """Below it are the workers' folders, where no worker has one of its own."""
    packages: str | None = None


class Place(NamedTuple):
    """Where a worker works, and as whom."""

    folder: str
    user: int | None
    ruleset: int | None
    """A descriptor."""


class Enclosure:
    """What one zygote's workers are held in. Without isolation, it is their limits alone."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self.layers: Layers | None = None
        self.first: int | None = None
        """The pid 1 of the workers' namespace."""
        # The machine's, from before it goes out of sight: for the zygote, and for what workers measure of themselves.
        self.proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._rules: list[tuple[int, int, bool]] = []
        self._filter: seccomp.Filter | None = None
        self._slots: uids.Slots | None = None

    @property
    def has_private_scratch(self) -> bool:
        """Whether workers make their scratch folders themselves."""
        return self._holds(Name.NAMESPACES)

    def _holds(self, name: Name) -> bool:
        return self.layers is not None and self.layers.holds(name)

    # The zygote ----------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """Find out what holds here, and confine this process, the zygote, which has one thread and few imports.

        Raises:
            Refused: too little holds.
            OSError: a step failed that has worked a moment ago.
        """
        orders = self._orders
        if not orders.isolate:
            return
        shown = view(orders.packages)
        self.layers = layers.measure(shown, orders.without, orders.scratch)
        if self.layers.refusal is not None:
            raise Refused(self.layers.refusal)
        self.write_proc("oom_score_adj", _LIKELY_TO_GO)
        if self._holds(Name.NAMESPACES):
            self.first = namespaces.enter(shown, as_user=self.layers.as_user)
        if self._holds(Name.UID):
            self._slots = uids.Slots(os.getpid())
        if self._holds(Name.LANDLOCK):
            self._rules = [_rule(path, landlock.READ) for path in shown.paths]
            self._rules += [_rule(path, landlock.DEVICE) for path in DEVICES if os.path.exists(path)]  # noqa: PTH110
        alone = self._holds(Name.NAMESPACES)
        self._filter = seccomp.Filter(seccomp.WORKER if alone else seccomp.WORKER_AMONG_FILES)
        kernel.undumpable()
        kernel.no_new_privileges()
        if self._rules and not self._holds(Name.NAMESPACES):
            ruleset = self._ruleset(orders.scratch)
            ruleset.allow_path("/proc", landlock.READ | landlock.DEVICE)
            landlock.restrict(ruleset.descriptor, self.layers.landlock)
            os.close(ruleset.descriptor)
        seccomp.Filter(seccomp.ZYGOTE).install(os.getpid())
        confine.isolated = True

    def _ruleset(self, scratch: str) -> landlock.Ruleset:
        assert self.layers is not None  # noqa: S101 - there are rules only where there are layers
        ruleset = landlock.Ruleset(self.layers.landlock)
        for descriptor, rights, is_folder in self._rules:
            ruleset.allow(descriptor, rights, is_folder=is_folder)
        ruleset.allow_path(scratch, landlock.WORK)
        return ruleset

    def take_user(self) -> int | None:
        """A user for the next worker, where each has its own; ``give_back`` it once the worker has ended."""
        return self._slots.take() if self._slots is not None else None

    def give_back(self, user: int | None) -> None:
        """The worker that was ``user`` has ended."""
        if self._slots is not None and user is not None:
            self._slots.give_back(user)

    def threads(self) -> int:
        """How many threads this process has."""
        descriptor = self._open_proc("task")
        try:
            return len(os.listdir(descriptor))  # noqa: PTH208
        finally:
            os.close(descriptor)

    def children(self) -> list[int]:
        """The processes that this one is the parent of."""
        try:
            return list(map(int, self._read_proc(f"task/{os.getpid()}/children").split()))
        except FileNotFoundError:  # the kernel does not tell
            return []

    # A worker ------------------------------------------------------------------------------------------------

    def prepare(self, folder: str, disk: int, user: int | None) -> Place:
        """Make this forked process's place: what takes descriptors and rights that it is going to give up.

        It is ``folder``, or where workers make theirs, one of ``disk`` bytes.

        Raises:
            OSError: a step failed. The process must end.
        """
        self.write_proc("oom_score_adj", _FIRST_TO_GO)
        confine.memory.measure(self._read_proc("statm"))
        if self.has_private_scratch:
            owner = user if user is not None else os.getuid()
            namespaces.private_scratch(disk, owner, user if user is not None else os.getgid())
            folder = namespaces.SCRATCH
        elif user is not None:
            os.chown(folder, user, user)
        ruleset = self._ruleset(folder).descriptor if self._rules else None
        os.chdir(folder)
        os.umask(0o077)
        os.environ["HOME"] = os.environ["TMPDIR"] = folder
        return Place(folder, user, ruleset)

    def seal(self, place: Place, zygote: int) -> None:
        """Give up all rights, for good. Every descriptor but the worker's own and the ruleset must be closed.

        ``zygote`` is the parent, as this process sees it.

        Raises:
            OSError: a step failed. The process must end.
        """
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        confine.limit_stack(_STACK)
        if self.layers is None:
            kernel.no_new_privileges()
            return
        if place.user is not None:
            resource.setrlimit(resource.RLIMIT_NPROC, (_THREADS, _THREADS))
            uids.become(place.user)
        elif self.has_private_scratch and self.layers.as_user:
            resource.setrlimit(resource.RLIMIT_NPROC, (_THREADS_OF_ALL, _THREADS_OF_ALL))
        kernel.drop_capabilities()
        kernel.undumpable()
        # Becoming another user has undone it, and the parent may have ended in between.
        confine.die_with_parent(zygote, signal.SIGKILL)
        kernel.no_new_privileges()
        if place.ruleset is not None:
            landlock.restrict(place.ruleset, self.layers.landlock)
            os.close(place.ruleset)
        if self._filter is not None:
            self._filter.install(os.getpid())

    # /proc ---------------------------------------------------------------------------------------------------

    def _open_proc(self, name: str, flags: int = os.O_RDONLY) -> int:
        return os.open(f"self/{name}", flags | os.O_CLOEXEC, dir_fd=self.proc)

    def _read_proc(self, name: str) -> bytes:
        descriptor = self._open_proc(name)
        try:
            return os.read(descriptor, 4096)
        finally:
            os.close(descriptor)

    def write_proc(self, name: str, value: bytes) -> None:
        """Write to a file of this process's in ``/proc``, where it may be written."""
        with contextlib.suppress(OSError):
            descriptor = self._open_proc(name, os.O_WRONLY)
            try:
                os.write(descriptor, value)
            finally:
                os.close(descriptor)


def _rule(path: str, rights: int) -> tuple[int, int, bool]:
    return os.open(path, os.O_PATH | os.O_CLOEXEC), rights, os.path.isdir(path)  # noqa: PTH112
