"""Attacks on the kernel's doors that no tool needs. Each must be refused at the door."""

import ctypes
import mmap
import os
import time
from collections.abc import Callable
from typing import Any

from trying import Tries, libc, reaches, read, syscall

_NOWHERE = ctypes.c_char_p(b"/nowhere")


def namespaces(target: dict[str, Any]) -> dict[str, Any]:
    """Makes namespaces of its own, or enters those of others.

    harmless: no
    """
    tries = Tries()
    for name, flag in {
        "user": 0x10000000, "mount": 0x20000, "pid": 0x20000000, "net": 0x40000000, "ipc": 0x8000000,
        "uts": 0x4000000, "cgroup": 0x2000000, "time": 0x80,
    }.items():  # fmt: skip
        tries(f"unshare {name}", reaches, "unshare", flag)
        tries(f"clone {name}", reaches, "clone", flag | 17, 0, 0, 0, 0)
    tries("setns", reaches, "setns", -1, 0)
    for pid in ("self", "1", *map(str, target["pids"])):
        tries(f"ns of {pid}", lambda pid=pid: syscall("setns", os.open(f"/proc/{pid}/ns/user", os.O_RDONLY), 0))
    return tries.told()


def mounts(target: dict[str, Any]) -> dict[str, Any]:
    """Mounts, remounts and unmounts, changes its root."""
    tries = Tries()
    here = ctypes.c_char_p(os.getcwd().encode())
    tmpfs = ctypes.c_char_p(b"tmpfs")
    tries("mount", reaches, "mount", tmpfs, _NOWHERE, tmpfs, 0, None)
    tries("bind", reaches, "mount", ctypes.c_char_p(b"/"), _NOWHERE, None, 4096, None)
    tries("umount", reaches, "umount2", _NOWHERE, 2)
    tries("fsopen", reaches, "fsopen", ctypes.c_char_p(b"no-such-filesystem"), 0)
    tries("fspick", reaches, "fspick", -100, _NOWHERE, 0)
    tries("open_tree", reaches, "open_tree", -100, _NOWHERE, 1)
    tries("move_mount", reaches, "move_mount", -100, _NOWHERE, -100, _NOWHERE, 0)
    tries("mount_setattr", reaches, "mount_setattr", -100, _NOWHERE, 0, None, 0)
    tries("pivot_root", reaches, "pivot_root", _NOWHERE, _NOWHERE)
    tries("chroot", reaches, "chroot", _NOWHERE)
    tries("chroot here", lambda: syscall("chroot", here) if target["sandboxed"] else False)
    return tries.told()


def modules_and_machine(target: dict[str, Any]) -> dict[str, Any]:
    """Loads modules, sets the clock and the host's name, restarts the machine.

    real: no
    """
    tries = Tries()
    tries("init_module", reaches, "init_module", ctypes.c_char_p(b"x"), 1, ctypes.c_char_p(b""))
    tries("finit_module", reaches, "finit_module", -1, ctypes.c_char_p(b""), 0)
    tries("delete_module", reaches, "delete_module", ctypes.c_char_p(b"no_such_module"), 0)
    tries("kexec", reaches, "kexec_load", 0, 1000, None, 0)
    tries("reboot", reaches, "reboot", 0, 0, 0, None)  # whose first number would have to be another
    tries("swapon", reaches, "swapon", _NOWHERE, 0)
    tries("acct", reaches, "acct", _NOWHERE)
    tries("quotactl", reaches, "quotactl", 0, _NOWHERE, 0, None)
    tries("vhangup", reaches, "vhangup") if target["sandboxed"] else None
    tries("sethostname", reaches, "sethostname", None, 10)
    tries("setdomainname", reaches, "setdomainname", None, 10)
    tries("syslog", reaches, "syslog", 3, None, 0)
    return tries.told()


def clock(target: dict[str, Any]) -> dict[str, Any]:
    """Sets the machine's clock."""
    tries = Tries()
    impossible = (ctypes.c_long * 2)(-1, -1)
    tries("clock_settime", reaches, "clock_settime", 0, ctypes.byref(impossible))
    tries("settimeofday", reaches, "settimeofday", ctypes.byref(impossible), None)
    settings = (ctypes.c_long * 32)()
    settings[0] = 0x4000
    tries("adjtimex", reaches, "adjtimex", ctypes.byref(settings)) if target["sandboxed"] else None
    tries("python", time.clock_settime, time.CLOCK_REALTIME, -1.0)
    return tries.told()


def new_interfaces(target: dict[str, Any]) -> dict[str, Any]:
    """Uses the interfaces that most kernel exploits begin with: bpf, perf, io_uring, userfaultfd."""
    tries = Tries()
    zeros = ctypes.create_string_buffer(256)
    tries("bpf", reaches, "bpf", 0, ctypes.byref(zeros), 128)
    tries("perf", reaches, "perf_event_open", ctypes.byref(zeros), 0, -1, -1, 0)
    tries("io_uring", reaches, "io_uring_setup", 1, ctypes.byref(zeros))
    tries("userfaultfd", reaches, "userfaultfd", 1)
    tries("memfd_secret", reaches, "memfd_secret", 0)
    tries("process_madvise", reaches, "process_madvise", -1, None, 0, 0, 0)
    tries("migrate_pages", reaches, "migrate_pages", 1, 0, None, None)
    return tries.told()


def keyrings(target: dict[str, Any]) -> dict[str, Any]:
    """Reads and leaves keys in the kernel's keyrings."""
    tries = Tries()
    user, name = ctypes.c_char_p(b"user"), ctypes.c_char_p(b"attack")
    tries("add_key", reaches, "add_key", user, name, ctypes.c_char_p(b"x"), 1, -3)
    tries("keyctl", reaches, "keyctl", 0, -4, 0, 0, 0)
    tries("request_key", reaches, "request_key", user, name, None, 0)
    return tries.told()


def shared_memory(target: dict[str, Any]) -> dict[str, Any]:
    """Makes shared memory, queues and semaphores, which would outlive it.

    harmless: no
    """
    tries = Tries()
    tries("shmget", reaches, "shmget", 0, 4096, 0o1666)
    tries("msgget", reaches, "msgget", 0, 0o1666)
    tries("semget", reaches, "semget", 0, 1, 0o1666)
    tries("mq_open", reaches, "mq_open", ctypes.c_char_p(target["marker"].encode()), os.O_CREAT | os.O_RDWR, 0o666, None)
    return tries.told()


def personality(target: dict[str, Any]) -> dict[str, Any]:
    """Becomes a process of another kind: without randomised addresses, with executable data."""
    tries = Tries()
    tries("no randomisation", lambda: syscall("personality", 0x0040000) or "done")
    tries("executable data", lambda: syscall("personality", 0x0400000) or "done")
    return tries.told()


def x32_table(target: dict[str, Any]) -> dict[str, Any]:
    """Calls the kernel by its x32 table, past a filter of the 64-bit one.

    where: x86_64
    ends: crashed
    real: no
    """
    tries = Tries()
    tries("an x32 socket", lambda: libc.syscall(ctypes.c_long(0x40000000 | 41), 2, 1, 0) >= 0)
    tries("an x32 key", lambda: libc.syscall(ctypes.c_long(0x40000000 | 248), 1, 0, 0) >= 0)  # add_key
    return tries.told()


def old_table(target: dict[str, Any]) -> dict[str, Any]:
    """Calls the kernel by its 32-bit table, past a filter of the 64-bit one.

    where: x86_64
    ends: crashed
    real: ok
    """
    tries = Tries()
    pages = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    # push rbx; mov eax, 359 (socket); mov ebx, 2; mov ecx, 1; xor edx, edx; int 0x80; pop rbx; ret
    code = bytes.fromhex("53b867010000bb02000000b90100000031d2cd805bc3")
    pages.write(code)
    old: Callable[[], int] = ctypes.CFUNCTYPE(ctypes.c_int)(address)
    tries("a 32-bit socket", lambda: old() >= 0)
    pages.seek(0)
    pages.write(code.replace((359).to_bytes(4, "little"), (350).to_bytes(4, "little")))  # finit_module
    tries("a 32-bit module", lambda: old() not in (-1, -38))
    return tries.told()


def kernel_log(target: dict[str, Any]) -> dict[str, Any]:
    """Reads the kernel's log, with the addresses and names in it.

    real: no
    """
    tries = Tries()
    buffer = ctypes.create_string_buffer(4096)
    tries("syslog", syscall, "syslog", 3, ctypes.byref(buffer), 4096)
    tries("/dev/kmsg", read, "/dev/kmsg")
    return tries.told()


def input_output_ports(target: dict[str, Any]) -> dict[str, Any]:
    """Takes the machine's input and output ports.

    real: no
    """
    tries = Tries()
    tries("iopl", syscall, "iopl", 3)
    tries("ioperm", syscall, "ioperm", 0x80, 1, 1)
    return tries.told()
