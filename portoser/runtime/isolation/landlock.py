"""Which files a process may touch, whatever its user may: Landlock, by the version (ABI) that the kernel has.

https://docs.kernel.org/userspace-api/landlock.html
"""

import ctypes
import errno
import os

from portoser.runtime.isolation import kernel

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG, _MAKE_SYM = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 12
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15

READ = _READ_FILE | _READ_DIR
"""To read files and list folders, never to execute."""
WORK = READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _REFER | _TRUNCATE
"""To do what one does in a folder of one's own; no devices, sockets or pipes are made."""
DEVICE = _READ_FILE | _WRITE_FILE
"""To read and write what is there."""
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV

_HANDLED = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All rights over files that there are, from which version on."""
ENOUGH_ALONE = 3
"""The first version that keeps files from being cut by their names. Without namespaces nothing else does."""
_NET_SINCE, _NET = 4, 0b11
"""Binding and connecting TCP sockets."""
_SCOPES_SINCE, _SCOPES = 6, 0b11
"""Abstract Unix sockets and signals, to whom is outside."""
_QUIET_SINCE, _QUIET = 7, 1
"""What is refused is not written to the kernel's log: hostile code would fill it."""

_VERSION = 1
_PATH_BENEATH = 1


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """The kernel's version of Landlock.

    Raises:
        OSError: it has none (ENOSYS), or it is switched off (EOPNOTSUPP).
    """
    return kernel.syscall("landlock_create_ruleset", None, ctypes.c_size_t(0), _VERSION)


class Ruleset:
    """What is allowed: nothing, until it is."""

    def __init__(self, abi: int) -> None:
        self._abi = abi
        self._files = max(rights for since, rights in _HANDLED.items() if since <= abi)
        attributes = _RulesetAttributes(
            self._files, _NET if abi >= _NET_SINCE else 0, _SCOPES if abi >= _SCOPES_SINCE else 0
        )
        size = 24 if abi >= _SCOPES_SINCE else 16 if abi >= _NET_SINCE else 8
        self.descriptor = kernel.syscall(
            "landlock_create_ruleset", ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0)
        )

    def allow(self, descriptor: int, rights: int, *, is_folder: bool) -> None:
        """Allow ``rights`` over what a descriptor opened by O_PATH stands for, and what lies below."""
        rights &= self._files if is_folder else self._files & _OF_FILES
        rule = _PathBeneath(rights, descriptor)
        kernel.syscall("landlock_add_rule", self.descriptor, _PATH_BENEATH, ctypes.byref(rule), ctypes.c_uint32(0))

    def allow_path(self, path: str, rights: int) -> None:
        """Allow ``rights`` over a folder and what lies below."""
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            self.allow(descriptor, rights, is_folder=True)
        finally:
            os.close(descriptor)


def restrict(descriptor: int, abi: int) -> None:
    """Hold this process to a ruleset, for ever; ``no_new_privileges`` must have been called."""
    quiet = _QUIET if abi >= _QUIET_SINCE else 0
    kernel.syscall("landlock_restrict_self", descriptor, ctypes.c_uint32(quiet))


def why_not(error: OSError) -> str:
    """Why there is no Landlock, and what to do."""
    if error.errno == errno.EOPNOTSUPP:
        return "this kernel has Landlock, but it is switched off: add landlock to the kernel's lsm= parameter"
    if error.errno in (errno.ENOSYS, errno.EPERM):
        return "this kernel has no Landlock, or a container's profile forbids it: it takes Linux 5.13 or newer"
    return str(error)


def reach(abi: int) -> str:
    """What a version restricts, in words."""
    words = ["files"]
    if abi >= _NET_SINCE:
        words.append("TCP")
    if abi >= _SCOPES_SINCE:
        words.append("signals and abstract sockets")
    return ", ".join(words)
