"""A machine of its own for the workers: other processes, other files, no network.

The zygote enters it for all of its workers: its root is a small read-only tmpfs that shows, read-only, what tool code
may read, and nothing else; no ``/proc``, no host. A process of ours is its pid 1: it waits, and ends with the zygote,
and then the kernel ends all the others. The zygote itself stays in the pid namespace that it came from, so that it
knows the workers by the ids by which the server knows them. Each worker has, on top of that, a mount namespace with a
scratch folder that no other process sees, on a tmpfs of limited size, which is gone with it.

As root the kernel allows that as it is; other users need a user namespace, which not every system lets them have.
"""

import ctypes
import errno
import os
import select
import signal
from pathlib import Path

from portoser.runtime.isolation import kernel
from portoser.runtime.isolation.view import DEVICES, View

SCRATCH = "/scratch"
"""Where a worker's scratch folder is in its own mount namespace."""

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = (
    0x0002_0000,
    0x0400_0000,
    0x0800_0000,
    0x1000_0000,
    0x2000_0000,
    0x4000_0000,
)
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_MNT_DETACH = 2

_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_NOEXEC = 1, 2, 4, 8
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000

_OLD = "/.old"


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("user_namespace", ctypes.c_uint64),
    )


def enter(shown: View, *, as_user: bool) -> int:
    """Enter namespaces of our own in which ``shown`` can be read; the pid of the process that is their pid 1.

    ``as_user`` makes a user namespace first. This process must have one thread, and may be left in between where a
    step fails.

    Raises:
        OSError: the kernel refuses a step; the error names it.
    """
    user, group = os.getuid(), os.getgid()
    if as_user:
        _unshare(_NEWUSER)
        # Without this the group could not be mapped; it keeps processes from getting rid of groups that deny them.
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    _unshare(_NEWNS | _NEWUTS | _NEWIPC | _NEWNET | _NEWPID)
    name = b"portoser"
    kernel.check(kernel.libc.sethostname(name, len(name)), "sethostname")
    first = _start_first()
    try:
        _make_root(shown)
    except BaseException:
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
        raise
    return first


def private_scratch(size: int, user: int, group: int) -> None:
    """Give this process a mount namespace with an empty ``SCRATCH`` of ``size`` bytes, which nobody else sees.

    Raises:
        OSError: the kernel refuses it.
    """
    _unshare(_NEWNS)
    # Files are counted, too: each takes kernel memory beside its contents.
    files = max(64, size // 4096)
    _mount(
        "scratch",
        SCRATCH,
        "tmpfs",
        _MS_NOSUID | _MS_NODEV | _MS_NOEXEC,
        f"size={size},nr_inodes={files},mode=700,uid={user},gid={group}",
    )


def _start_first() -> int:
    """Start the pid 1 of the namespace: it does nothing, and ends with this process."""
    parent = os.pidfd_open(os.getpid())
    pid = os.fork()
    if pid == 0:
        try:
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            watch = select.poll()
            watch.register(parent, select.POLLIN)
            if not watch.poll(0):
                kernel.libc.prctl(kernel.PR_SET_NAME, b"portoser-init", 0, 0, 0)
                os.setsid()
                os.closerange(0, 65536)
                signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # there is nobody to be waited for
                while True:
                    signal.pause()
        finally:
            os._exit(0)
    os.close(parent)
    return pid


def _make_root(shown: View) -> None:
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE, None)
    # Once this is the root, the old one shows again what is at /tmp.
    _mount("root", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1m,mode=755")  # noqa: S108
    os.mkdir(f"/tmp{_OLD}")  # noqa: PTH102, S108
    kernel.syscall("pivot_root", b"/tmp", f"/tmp{_OLD}".encode())  # noqa: S108
    os.chdir("/")
    for path in shown.paths:
        _show(path, _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV)
    for path in DEVICES:
        if os.path.exists(_OLD + path):  # noqa: PTH110
            _show(path, _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NOEXEC)
    os.mkdir(SCRATCH)  # noqa: PTH102
    for place, target in (*shown.links, ("/tmp", SCRATCH)):  # noqa: S108
        if not os.path.lexists(place):
            os.makedirs(os.path.dirname(place), exist_ok=True)  # noqa: PTH103, PTH120
            os.symlink(target, place)  # noqa: PTH211
    kernel.check(kernel.libc.umount2(_OLD.encode(), _MNT_DETACH), "umount2")
    os.rmdir(_OLD)  # noqa: PTH106
    _restrict_mount("/", _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV | _ATTR_NOEXEC, recursive=False)


def _show(path: str, attributes: int) -> None:
    """Show a path of the old root at the same place."""
    if os.path.isdir(_OLD + path):  # noqa: PTH112
        os.makedirs(path, exist_ok=True)  # noqa: PTH103
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    _mount(_OLD + path, path, None, _MS_BIND | _MS_REC, None)
    _restrict_mount(path, attributes, recursive=True)


def _restrict_mount(path: str, attributes: int, *, recursive: bool) -> None:
    wanted = _MountAttributes(attributes, 0, 0, 0)
    kernel.syscall(
        "mount_setattr",
        _AT_FDCWD,
        path.encode(),
        ctypes.c_uint(_AT_RECURSIVE if recursive else 0),
        ctypes.byref(wanted),
        ctypes.c_size_t(ctypes.sizeof(wanted)),
    )


def _unshare(flags: int) -> None:
    what = "unshare (user)" if flags == _NEWUSER else "unshare"
    kernel.check(kernel.libc.unshare(flags), what)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None) -> None:
    encoded = [None if text is None else text.encode() for text in (source, target, kind, options)]
    result = kernel.libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    kernel.check(result, f"mount of {target}")


def why_not(error: OSError) -> str:
    """Why there are no namespaces, and what to do."""
    if "user" in str(error.filename) or error.errno in (errno.EPERM, errno.ENOSPC, errno.EACCES):
        return (
            f"{error.filename}: {error.strerror}; a server that is not root needs user namespaces: look at the sysctls "
            "user.max_user_namespaces, kernel.unprivileged_userns_clone and "
            "kernel.apparmor_restrict_unprivileged_userns; a container needs a profile that allows them"
        )
    return f"{error.filename}: {error.strerror}"
