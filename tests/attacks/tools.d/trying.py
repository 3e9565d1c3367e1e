"""What the attacks share: each thing that is tried is refused, or what it got is told.

A file of an attack holds one public function for each attack. Its docstring says what is tried; ``key: value`` lines
below say what else the suite has to know of it, see ``attacks.py``.
"""

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)

NUMBERS = {
    "x86_64": {
        "acct": 163, "add_key": 248, "adjtimex": 159, "bpf": 321, "capget": 125, "capset": 126, "chroot": 161, "clock_settime": 227,
        "clone": 56, "clone3": 435, "delete_module": 176, "execve": 59, "execveat": 322, "fanotify_init": 300,
        "finit_module": 313, "fork": 57, "fsopen": 430, "fspick": 433, "init_module": 175, "inotify_init1": 294,
        "io_uring_setup": 425, "ioperm": 173, "iopl": 172, "ioprio_set": 251, "kcmp": 312, "kexec_load": 246,
        "keyctl": 250, "memfd_create": 319, "memfd_secret": 447, "migrate_pages": 256, "mknodat": 259, "mount": 165,
        "mount_setattr": 442, "move_mount": 429, "mq_open": 240, "msgget": 68, "name_to_handle_at": 303,
        "open_by_handle_at": 304, "open_tree": 428, "openat2": 437, "perf_event_open": 298, "personality": 135,
        "pidfd_getfd": 438, "pidfd_open": 434, "pidfd_send_signal": 424, "pivot_root": 155, "process_madvise": 440,
        "process_vm_readv": 310, "process_vm_writev": 311, "ptrace": 101, "quotactl": 179, "reboot": 169,
        "request_key": 249, "rt_sigqueueinfo": 129, "sched_setscheduler": 144, "semget": 64, "setdomainname": 171,
        "sethostname": 170, "setns": 308, "settimeofday": 164, "shmget": 29, "swapon": 167, "syslog": 103,
        "tgkill": 234, "umount2": 166, "unshare": 272, "userfaultfd": 323, "vfork": 58, "vhangup": 153,
    },
    "aarch64": {
        "acct": 89, "add_key": 217, "adjtimex": 171, "bpf": 280, "capget": 90, "capset": 91, "chroot": 51, "clock_settime": 112,
        "clone": 220, "clone3": 435, "delete_module": 106, "execve": 221, "execveat": 281, "fanotify_init": 262,
        "finit_module": 273, "fsopen": 430, "fspick": 433, "init_module": 105, "inotify_init1": 26,
        "io_uring_setup": 425, "ioprio_set": 30, "kcmp": 272, "kexec_load": 104,
        "keyctl": 219, "memfd_create": 279, "memfd_secret": 447, "migrate_pages": 238, "mknodat": 33, "mount": 40,
        "mount_setattr": 442, "move_mount": 429, "mq_open": 180, "msgget": 186, "name_to_handle_at": 264,
        "open_by_handle_at": 265, "open_tree": 428, "openat2": 437, "perf_event_open": 241, "personality": 92,
        "pidfd_getfd": 438, "pidfd_open": 434, "pidfd_send_signal": 424, "pivot_root": 41, "process_madvise": 440,
        "process_vm_readv": 270, "process_vm_writev": 271, "ptrace": 117, "quotactl": 60, "reboot": 142,
        "request_key": 218, "rt_sigqueueinfo": 138, "sched_setscheduler": 119, "semget": 190, "setdomainname": 162,
        "sethostname": 161, "setns": 268, "settimeofday": 170, "shmget": 194, "swapon": 224, "syslog": 116,
        "tgkill": 131, "umount2": 39, "unshare": 97, "userfaultfd": 282, "vhangup": 58,
    },
}.get(os.uname().machine, {})  # fmt: skip

_REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS)


class Tries:
    """Counts what an attack got."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.refused: list[str] = []

    def __call__(self, what: str, function: Callable[..., Any], *arguments: Any) -> None:
        """Try something. An answer that is false, such as no bytes, is nothing gained; None is."""
        try:
            got = function(*arguments)
        except BaseException as error:
            self.refused.append(f"{what}: {type(error).__name__}: {error}"[:160])
        else:
            if got is None or got:
                self.got.append(f"{what}: {'done' if got is None else repr(got)}"[:160])
            else:
                self.refused.append(f"{what}: nothing there")

    def told(self) -> dict[str, list[str]]:
        """The attack's result."""
        return {"got": self.got[:100], "refused": self.refused[:100]}


def syscall(name: str, *arguments: Any) -> int:
    """A system call by its number, past what libc and Python do before it."""
    number = NUMBERS.get(name)
    if number is None:
        raise OSError(errno.ENOSYS, f"no {name} here")
    plain = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = libc.syscall(ctypes.c_long(number), *plain)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)


def reaches(name: str, *arguments: Any) -> str:
    """How far a system call gets, where anything but a refusal at its door is too far."""
    try:
        return f"answered {syscall(name, *arguments)}"
    except OSError as error:
        if error.errno in _REFUSALS:
            raise
        return f"reached the kernel: {errno.errorcode.get(error.errno or 0, error.errno)}"


def read(path: str) -> bytes:
    """The beginning of a file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(descriptor, 200)
    finally:
        os.close(descriptor)


def write(path: str, content: bytes = b"attack") -> int:
    """Make a file, or write into one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        return os.write(descriptor, content)
    finally:
        os.close(descriptor)


def others(target: dict[str, Any]) -> list[int]:
    """Processes to attack: the server's, those of other workers, and the first ones of wherever we are."""
    return [pid for pid in (*target["pids"], *range(1, 24)) if pid != os.getpid()]
