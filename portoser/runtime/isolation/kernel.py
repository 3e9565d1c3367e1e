"""The system calls that Python has no function for."""

import ctypes
import os
import sys

from portoser.runtime.isolation.syscalls import number

IS_LINUX = sys.platform == "linux"

libc = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38

_CAPABILITY_VERSION = 0x20080522
CAP_SETUID = 7
CAP_SYS_ADMIN = 21


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


_Capabilities = ctypes.c_uint32 * 6
"""Effective, permitted, inheritable, twice: for the lower and the upper 32."""


def check(result: int, what: str) -> int:
    """The result of a call of libc's.

    Raises:
        OSError: it is -1.
    """
    if result == -1:
        number_ = ctypes.get_errno()
        raise OSError(number_, os.strerror(number_), what)
    return result


def syscall(name: str, *arguments: object) -> int:
    """Make a system call by its name.

    Raises:
        OSError: it failed, or this machine has no such call.
    """
    return check(int(libc.syscall(ctypes.c_long(number(name)), *arguments)), name)


def prctl(option: int, argument: int) -> int:
    """Have the kernel treat this process otherwise.

    Raises:
        OSError: it does not.
    """
    zero = ctypes.c_ulong(0)
    return check(int(libc.prctl(option, ctypes.c_ulong(argument), zero, zero, zero)), f"prctl({option})")


def no_new_privileges() -> None:
    """No set-uid program gives anything back; seccomp and Landlock ask for it."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def undumpable() -> None:
    """No core dump, and no process of the same user may read this one's memory or trace it."""
    prctl(PR_SET_DUMPABLE, 0)


def has_capability(capability: int) -> bool:
    """Whether this process may use a capability now."""
    header, capabilities = _CapabilityHeader(_CAPABILITY_VERSION, 0), _Capabilities()
    syscall("capget", ctypes.byref(header), ctypes.byref(capabilities))
    low_or_high, bit = divmod(capability, 32)
    return bool(int(capabilities[3 * low_or_high]) >> bit & 1)


def drop_capabilities() -> None:
    """Give up every capability, for good where no program can be executed."""
    header, none = _CapabilityHeader(_CAPABILITY_VERSION, 0), _Capabilities()
    syscall("capset", ctypes.byref(header), ctypes.byref(none))
