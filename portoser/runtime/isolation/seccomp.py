"""Which system calls a process may make: a filter in classic BPF that the kernel asks at each of them.

It is a list of what is allowed: what Python, its standard library and numpy need to compute and to work on files. All
that is not on it fails: with EPERM where it is an old call, which programs take for a refusal, and with ENOSYS where it
is newer than the calls of Linux 5.1, so that the C library falls back to an older one that is looked at here (a call
whose arguments lie in memory, like clone3, cannot be).

Whoever may do what by which argument stands in ``WORKER``; in short: threads but no processes, no program, no socket
but a pair of connected ones that talk to nobody else, no descriptor passed on, signals to itself alone.
"""

import ctypes
import errno
import sys
from collections.abc import Mapping
from typing import NamedTuple

from portoser.runtime.isolation import kernel, syscalls

PID = -1
"""Stands for the id of the process that installs the filter."""


class When(NamedTuple):
    """A call is allowed where the lower 32 bits of an argument, masked, are ``among`` these.

    ``whole`` asks that the upper 32 bits are zero, too: for pointers. The kernel itself takes no more than the lower
    ones of a number.
    """

    argument: int
    among: tuple[int, ...]
    mask: int = 0xFFFF_FFFF
    whole: bool = False


Rules = Mapping[str, tuple[When, ...]]
"""The calls that are allowed, each where all of its conditions hold."""

_ALWAYS = """
    read write pread64 pwrite64 readv writev preadv pwritev preadv2 pwritev2 lseek close close_range dup dup2 dup3
    pipe pipe2 flock open openat creat stat fstat lstat newfstatat statx access faccessat faccessat2 readlink
    readlinkat getdents getdents64 getcwd chdir fchdir statfs fstatfs mkdir mkdirat rmdir unlink unlinkat rename
    renameat renameat2 link linkat symlink symlinkat chmod fchmod fchmodat fchmodat2 umask truncate ftruncate
    fallocate fsync fdatasync sync_file_range utime utimes utimensat futimesat copy_file_range sendfile fadvise64
    readahead getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr
    munmap mremap mprotect madvise brk msync
    poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
    eventfd eventfd2 timerfd_create timerfd_settime timerfd_gettime
    recvfrom shutdown getsockopt getsockname getpeername
    futex futex_waitv set_tid_address set_robust_list rseq gettid exit exit_group sched_yield
    sched_get_priority_max sched_get_priority_min getcpu arch_prctl restart_syscall
    clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times getitimer setitimer alarm pause
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack
    getpid getppid getuid geteuid getgid getegid getgroups getresuid getresgid getpgrp
    capget getrlimit setrlimit getrusage sysinfo uname getrandom
"""

_CLONE_VFORK, _CLONE_PTRACE, _CLONE_THREAD = 0x4000, 0x2000, 0x1_0000
_CLONE_NEW = 0x0002_0000 | 0x7E00_0000
"""New namespaces: mount; cgroup, uts, ipc, user, pid, net."""

_DUPLICATE, _FLAGS, _LOCKS = (0, 1030), (1, 2, 3, 4), (5, 6, 7, 36, 37, 38)
_PIPE_SIZE = 1032
_TERMINAL, _COUNT, _NONBLOCKING, _CLOSE_ON_EXEC = (0x5401, 0x5413, 0x802C_542A), 0x541B, 0x5421, (0x5450, 0x5451)
_STREAM, _UNIX = 1, 1
_SOL_SOCKET, _SOCKET_OPTIONS = 1, (7, 8, 20, 21)
"""The sizes of the buffers, and how long to wait."""
_PR_GET_PDEATHSIG, _PR_GET_DUMPABLE, _PR_SET_NAME, _PR_GET_NAME, _PR_CAPBSET_READ = 2, 3, 15, 16, 23
_PR_GET_NO_NEW_PRIVS, _PR_SET_VMA = 39, 0x5356_4D41

_MAP_GROWS_DOWN, _MAP_HUGE = 0x100, 0x4_0000
_PRIO_PROCESS = 0
_OF_ITSELF = (When(0, (0, PID)),)

_OF_NAMES = """
    chmod fchmod fchmodat fchmodat2 utime utimes utimensat futimesat
    getxattr lgetxattr listxattr llistxattr
"""
"""What changes rights and times, or reads attributes by a file's name: Landlock knows nothing of it."""

_OF_ZYGOTES = """
    fork clone wait4 waitid kill pidfd_open sendmsg recvmsg
    setsid prctl prlimit64 tgkill setgroups setresgid setresuid capset unshare mount chown fchownat
    landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp
"""

WORKER: Rules = {
    **dict.fromkeys(_ALWAYS.split(), ()),
    # No stacks, which are not counted as memory, and no huge pages, which are the machine's.
    "mmap": (When(3, (0,), _MAP_GROWS_DOWN | _MAP_HUGE),),
    # A thread of this process, in the namespaces that it has.
    "clone": (When(0, (_CLONE_THREAD,), _CLONE_THREAD | _CLONE_NEW | _CLONE_VFORK | _CLONE_PTRACE),),
    # No owner of signals, no leases, no pipes that hold more memory than they begin with.
    "fcntl": (When(1, (*_DUPLICATE, *_FLAGS, *_LOCKS, _PIPE_SIZE)),),
    # Is it a terminal, how much is there to be read; no terminal is written to in somebody's name.
    "ioctl": (When(1, (*_TERMINAL, _COUNT, _NONBLOCKING, *_CLOSE_ON_EXEC)),),
    # asyncio wakes itself by such a pair. One of datagrams could be sent anywhere.
    "socketpair": (When(0, (_UNIX,)), When(1, (_STREAM,), 0xF)),
    "sendto": (When(4, (0,), whole=True),),
    "setsockopt": (When(1, (_SOL_SOCKET,)), When(2, _SOCKET_OPTIONS)),
    "kill": (When(0, (PID,)),),
    "tgkill": (When(0, (PID,)),),
    "prlimit64": (When(0, (0, PID)),),
    # Asked of another process, they would tell whether it is there.
    **dict.fromkeys(("getpgid", "getsid", "sched_getaffinity", "sched_getparam", "sched_getscheduler"), _OF_ITSELF),
    "getpriority": (When(0, (_PRIO_PROCESS,)), When(1, (0, PID))),
    "prctl": (
        When(
            0,
            (
                _PR_GET_PDEATHSIG,
                _PR_GET_DUMPABLE,
                _PR_SET_NAME,
                _PR_GET_NAME,
                _PR_CAPBSET_READ,
                _PR_GET_NO_NEW_PRIVS,
                _PR_SET_VMA,
            ),
        ),
    ),
}
"""What a worker may do."""

WORKER_AMONG_FILES: Rules = {name: conditions for name, conditions in WORKER.items() if name not in _OF_NAMES.split()}
"""What a worker may do that sees the machine's files, though it may not open them: where there are no namespaces."""

ZYGOTE: Rules = {
    **WORKER,
    **dict.fromkeys(
        _OF_ZYGOTES.split(),
        (),
    ),
}
"""What the zygote may do, for itself and for what its children do before they are workers."""

_NEW_CALLS = 424
"""From here on machines number their calls alike; the first of them came with Linux 5.1."""

_X32 = 0x4000_0000
_ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7, "arm64": 0xC000_00B7}
_SET_MODE_FILTER = 1

_LOAD, _AND, _EQUAL, _AT_LEAST, _JUMP, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x05, 0x06
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF_0000, 0x0005_0000, 0x8000_0000
_AT_NUMBER, _AT_ARCHITECTURE, _AT_ARGUMENTS = 0, 4, 16


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


class _Step(NamedTuple):
    code: int
    k: int
    jt: int = 0
    jf: int = 0


class Filter:
    """A filter, built once and installed by each process that is forked from the one that has built it."""

    def __init__(self, rules: Rules) -> None:
        steps = build(rules)
        self._instructions = (_Instruction * len(steps))(
            *(_Instruction(step.code, step.jt, step.jf, max(step.k, 0)) for step in steps)
        )
        self._own = [place for place, step in enumerate(steps) if step.k == PID]
        self._program = _Program(len(steps), self._instructions)

    def install(self, pid: int) -> None:
        """Have the kernel ask it from now on, for ever; ``pid`` is this process as it sees itself.

        Raises:
            OSError: the kernel will not.
        """
        for place in self._own:
            self._instructions[place].k = pid
        kernel.syscall("seccomp", _SET_MODE_FILTER, 0, ctypes.byref(self._program))


def build(rules: Rules, machine: str = syscalls.MACHINE) -> list[_Step]:
    """The program: the machine first, then the number by halving, then the arguments.

    Halving is for the kernel's sake: it runs the program for each number once when it is installed, to know which
    calls need not be asked about again.

    Raises:
        OSError: the machine is none that we know.
    """
    numbers = syscalls.table(machine)
    if not numbers:
        raise OSError(errno.ENOSYS, f"the system calls of {machine} are not known")
    leaves = {0: _refused(errno.EPERM), _NEW_CALLS: _refused(errno.ENOSYS)}
    for name, conditions in rules.items():
        number = numbers.get(name)
        if number is not None:
            rest = _refused(errno.EPERM if number + 1 < _NEW_CALLS else errno.ENOSYS)
            leaves[number] = _allowed(conditions)
            leaves.setdefault(number + 1, rest)
    spans: list[tuple[int, list[_Step]]] = []
    for start, leaf in sorted(leaves.items()):
        if not spans or spans[-1][1] != leaf:
            spans.append((start, leaf))
    return [
        _Step(_LOAD, _AT_ARCHITECTURE),
        _Step(_EQUAL, _ARCHITECTURES[machine], jt=1),
        _Step(_RETURN, _KILL_PROCESS),
        _Step(_LOAD, _AT_NUMBER),
        _Step(_AT_LEAST, _X32, jf=1),
        _Step(_RETURN, _KILL_PROCESS),
        *_halved(spans),
    ]


def _halved(spans: list[tuple[int, list[_Step]]]) -> list[_Step]:
    if len(spans) == 1:
        return spans[0][1]
    middle = len(spans) // 2
    low, high = _halved(spans[:middle]), _halved(spans[middle:])
    start = spans[middle][0]
    if len(low) <= 255:
        return [_Step(_AT_LEAST, start, jt=len(low)), *low, *high]
    return [_Step(_AT_LEAST, start, jf=1), _Step(_JUMP, len(low)), *low, *high]


def _refused(number: int) -> list[_Step]:
    return [_Step(_RETURN, _ERRNO | number)]


def _allowed(conditions: tuple[When, ...]) -> list[_Step]:
    steps: list[_Step] = []
    lower, upper = (0, 4) if sys.byteorder == "little" else (4, 0)
    for condition in conditions:
        at = _AT_ARGUMENTS + 8 * condition.argument
        steps.append(_Step(_LOAD, at + lower))
        if condition.mask != 0xFFFF_FFFF:
            steps.append(_Step(_AND, condition.mask))
        count = len(condition.among)
        steps += [_Step(_EQUAL, value, jt=count - place) for place, value in enumerate(condition.among)]
        steps += _refused(errno.EPERM)
        if condition.whole:
            steps += [_Step(_LOAD, at + upper), _Step(_EQUAL, 0, jt=1), *_refused(errno.EPERM)]
    return [*steps, _Step(_RETURN, _ALLOW)]
