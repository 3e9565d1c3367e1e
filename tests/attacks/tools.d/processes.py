"""Attacks by new processes and programs, and on the processes that are there."""

import contextlib
import ctypes
import multiprocessing
import os
import pty
import resource
import select
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trying import Tries, libc, others, reaches, read, syscall

TRUE = "/bin/true"


def forks(target: dict[str, Any]) -> dict[str, Any]:
    """Starts a process: fork, clone, clone3, a pseudo terminal's."""
    tries = Tries()
    tries("fork", _child_of, os.fork)
    tries("syscall fork", _child_of, lambda: syscall("fork"))
    tries("clone", _child_of, lambda: syscall("clone", signal.SIGCHLD, 0, 0, 0, 0))
    tries("clone, shared files", _child_of, lambda: syscall("clone", signal.SIGCHLD | 0x400 | 0x200, 0, 0, 0, 0))
    tries("clone, a sibling", _child_of, lambda: syscall("clone", signal.SIGCHLD | 0x8000, 0, 0, 0, 0))
    arguments = (ctypes.c_uint64 * 11)(0, 0, 0, 0, signal.SIGCHLD)
    tries("clone3", _child_of, lambda: syscall("clone3", ctypes.byref(arguments), 88))
    tries("forkpty", _child_of, lambda: os.forkpty()[0])
    tries("pty.fork", _child_of, lambda: pty.fork()[0])
    return tries.told()


def _child_of(fork: Callable[[], int]) -> str:
    pid = fork()
    if pid == 0:
        os._exit(0)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
    return f"the process {pid}"


def vforks(target: dict[str, Any]) -> dict[str, Any]:
    """Starts a process that borrows its memory.

    harmless: no
    """
    tries = Tries()
    tries("vfork", reaches, "vfork")
    tries("clone vfork", reaches, "clone", signal.SIGCHLD | 0x4000 | 0x100, 0, 0, 0, 0)
    return tries.told()


def programs(target: dict[str, Any]) -> dict[str, Any]:
    """Runs other programs in every way that Python knows."""
    tries = Tries()
    tries("subprocess", lambda: subprocess.run([TRUE], check=True, timeout=5).args)
    tries("shell", lambda: subprocess.check_output("id", shell=True, timeout=5))
    tries("vfork of subprocess", lambda: subprocess.run([TRUE], check=True, close_fds=False, timeout=5).args)
    tries("system", lambda: os.system("exit 0") == 0)
    tries("popen", lambda: os.popen("id").read())
    tries("posix_spawn", lambda: os.waitpid(os.posix_spawn(TRUE, [TRUE], {}), 0))
    tries("spawn", lambda: os.spawnv(os.P_WAIT, TRUE, [TRUE]) == 0)
    tries("libc system", lambda: libc.system(b"exit 0") == 0)
    tries("python", lambda: subprocess.check_output([sys.executable, "-c", "print(1)"], timeout=5))
    return tries.told()


def worker_processes(target: dict[str, Any]) -> dict[str, Any]:
    """Starts processes by multiprocessing and by executors.

    limits: {timeout: 20s}
    """
    tries = Tries()
    for way in ("fork", "spawn", "forkserver"):
        tries(way, _multiprocessing, way)
    return tries.told()


def _multiprocessing(way: str) -> str:
    context = multiprocessing.get_context(way)
    process = context.Process(target=time.sleep, args=(0,))  # type: ignore[attr-defined]
    process.start()
    process.join(3)
    return f"the process {process.pid}"


def becomes_a_program(target: dict[str, Any]) -> dict[str, Any]:
    """Becomes another program, which none of Python's limits would bind.

    real: exited
    """
    tries = Tries()
    tries("execveat", reaches, "execveat", -100, ctypes.c_char_p(b"/nowhere"), None, None, 0)
    for path in ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1", sys.executable, "/bin/sh", TRUE):
        tries(path, os.execv, path, [path, TRUE])
    return tries.told()


def memory_programs(target: dict[str, Any]) -> dict[str, Any]:
    """Runs a program that was never in a file: memfd_create and fexecve.

    real: exited
    """
    tries = Tries()
    tries("memfd", os.memfd_create, "attack", 0)
    with os.fdopen(os.open("program", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o700), "wb") as file:
        file.write(b"#!/bin/sh\nexit 0\n")
    tries("own file", os.execv, "./program", ["program"])
    descriptor = os.open("program", os.O_RDONLY)
    tries("fexecve", os.execve, descriptor, ["program"], {})
    return tries.told()


def daemons(target: dict[str, Any]) -> dict[str, Any]:
    """Leaves processes behind that are nobody's child, in sessions of their own.

    limits: {timeout: 20s}
    """
    tries = Tries()
    for number in range(3):
        tries(f"daemon {number}", _daemon)
    return tries.told()


def _daemon() -> str:
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            os.write(write_end, str(os.getpid()).encode())
            os.closerange(0, 64)
            time.sleep(60)
        os._exit(0)
    written = select.select([read_end], [], [], 1)[0]
    return f"the process {os.read(read_end, 20).decode() if written else '?'}"


def fork_bomb(target: dict[str, Any]) -> dict[str, Any]:
    """Starts processes that start processes.

    harmless: no
    limits: {timeout: 2s}
    """
    tries = Tries()

    def bomb() -> int:
        pid = os.fork()
        if pid == 0:
            while True:
                with contextlib.suppress(OSError):
                    os.fork()
        return pid

    tries("bomb", bomb)
    return tries.told()


def thread_bomb(target: dict[str, Any]) -> dict[str, Any]:
    """Starts threads without end.

    ends: ok, memory_limit, timeout
    limits: {memory: 64MiB, timeout: 20s}
    real: no
    """
    tries = Tries()
    threads = 0
    threading.stack_size(64 * 1024)
    with contextlib.suppress(RuntimeError, MemoryError):
        while threads < 3000:
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
            threads += 1
    tries("3,000 threads", lambda: threads == 3000)
    return tries.told()


def signals(target: dict[str, Any]) -> dict[str, Any]:
    """Sends signals to the server, the zygotes, other workers and everybody, to see whether they would arrive."""
    tries = Tries()
    for pid in others(target):
        tries(f"kill {pid}", os.kill, pid, 0)
        tries(f"killpg {pid}", os.killpg, pid, 0)
        tries(f"tgkill {pid}", syscall, "tgkill", pid, pid, 0)
        tries(f"pidfd {pid}", _by_pidfd, pid)
        information = ctypes.create_string_buffer(struct.pack("iii", 0, 0, -1), 128)
        tries(f"queue {pid}", syscall, "rt_sigqueueinfo", pid, 0, ctypes.byref(information))
    tries("everybody", os.kill, -1, 0)
    tries("the parent", _parent)
    return tries.told()


def _by_pidfd(pid: int) -> None:
    signal.pidfd_send_signal(os.pidfd_open(pid), 0)


def _parent() -> bool:
    if os.getppid() == 0:
        return False
    os.kill(os.getppid(), 0)
    return True


def memory_of_others(target: dict[str, Any]) -> dict[str, Any]:
    """Reads and writes the memory of the server, the zygotes and other workers."""
    tries = Tries()
    local = ctypes.create_string_buffer(64)
    here = (ctypes.c_uint64 * 2)(ctypes.addressof(local), 64)
    there = (ctypes.c_uint64 * 2)(16, 64)  # where nobody has anything: to be let so far is too far
    for pid in others(target):
        tries(f"mem {pid}", os.open, f"/proc/{pid}/mem", os.O_RDWR)
        tries(f"maps {pid}", read, f"/proc/{pid}/maps")
        for name in ("process_vm_readv", "process_vm_writev"):
            tries(f"{name} {pid}", reaches, name, pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
        tries(f"kcmp {pid}", syscall, "kcmp", os.getpid(), pid, 1, 0, 0)
        tries(f"trace {pid}", reaches, "ptrace", 1, pid, 0, 0)
    tries("traced", reaches, "ptrace", 0, 0, 0, 0)
    return tries.told()


def descriptors_of_others(target: dict[str, Any]) -> dict[str, Any]:
    """Takes open files and sockets from the server: by pidfd_getfd, and through /proc."""
    tries = Tries()
    for pid in others(target):
        tries(f"getfd {pid}", lambda pid=pid: syscall("pidfd_getfd", syscall("pidfd_open", pid, 0), 3, 0))
        tries(f"list {pid}", os.listdir, f"/proc/{pid}/fd")
    tries("inherited", lambda: [number for number in range(4, 256) if _is_socket(number)])
    return tries.told()


def _is_socket(number: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(number).st_mode)
    except OSError:
        return False


def environment_of_others(target: dict[str, Any]) -> dict[str, Any]:
    """Reads the environment and the command line of the server, its parent and the zygotes."""
    tries = Tries()
    for pid in (*target["pids"], 1, os.getppid()):
        tries(f"environ {pid}", lambda pid=pid: target["secret"].encode() in Path(f"/proc/{pid}/environ").read_bytes())
        tries(f"cmdline {pid}", lambda pid=pid: b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes())
        tries(f"auxv {pid}", read, f"/proc/{pid}/auxv") if pid != os.getpid() and pid > 1 else None
    tries("own environment", lambda: [name for name, value in os.environ.items() if target["secret"] in value])
    tries("PORTOSER_", lambda: [name for name in os.environ if name.startswith(("PORTOSER_", "DATABASE"))])
    return tries.told()


def other_processes(target: dict[str, Any]) -> dict[str, Any]:
    """Sees which processes run on the host."""
    tries = Tries()
    tries("list", lambda: [pid for pid in target["pids"] if str(pid) in os.listdir("/proc") and pid != os.getpid()])
    tries("names", lambda: [p for p in target["pids"] if b"portoser" in Path(f"/proc/{p}/stat").read_bytes()])
    tries("priority", lambda: [pid for pid in target["pids"] if _is_there(pid)])
    return tries.told()


def _is_there(pid: int) -> bool:
    try:
        os.getpriority(os.PRIO_PROCESS, pid)
        return pid != os.getpid()
    except OSError:
        return False


def higher_limits(target: dict[str, Any]) -> dict[str, Any]:
    """Raises its own limits, and changes those of others."""
    tries = Tries()
    for name in ("NOFILE", "FSIZE", "AS", "DATA", "CORE", "CPU", "NPROC"):
        kind = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            tries(name, resource.setrlimit, kind, (hard + 1, hard + 1))
    for pid in others(target):
        tries(f"of {pid}", resource.prlimit, pid, resource.RLIMIT_NOFILE)
    tries("last to go", _last_to_go)
    return tries.told()


def _last_to_go() -> bool:
    before = int(Path("/proc/self/oom_score_adj").read_text())
    Path("/proc/self/oom_score_adj").write_text("0")
    return before > 0


def higher_priority(target: dict[str, Any]) -> dict[str, Any]:
    """Runs before everybody else, or makes the server run after everybody."""
    tries = Tries()
    tries("nice", os.nice, -5)
    for policy in (os.SCHED_FIFO, os.SCHED_RR):
        tries(f"policy {policy}", os.sched_setscheduler, 0, policy, os.sched_param(1))
    tries("disk", syscall, "ioprio_set", 1, 0, 1 << 13)
    for pid in others(target):
        tries(f"slower {pid}", lambda pid=pid: os.setpriority(os.PRIO_PROCESS, pid, 0))
        tries(f"affinity {pid}", lambda pid=pid: os.sched_setaffinity(pid, os.sched_getaffinity(pid)))
    return tries.told()


def identities(target: dict[str, Any]) -> dict[str, Any]:
    """Becomes another user, or root; takes capabilities; takes back that it may gain none.

    real: no
    """
    tries = Tries()
    other = 12345
    for name, arguments in {
        "setuid": (0,), "setgid": (0,), "setreuid": (0, other), "setresuid": (other, other, other),
        "setresgid": (other, other, other), "setgroups": ([0],), "seteuid": (other,),
    }.items():  # fmt: skip
        if name != "setgroups" and arguments == (os.geteuid(),):
            continue
        tries(name, getattr(os, name), *arguments)
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(*([0xFFFFFFFF] * 6))
    tries("capset", syscall, "capset", ctypes.byref(header), ctypes.byref(data))
    tries(
        "has capabilities", lambda: syscall("capget", ctypes.byref(header), ctypes.byref(data)) or list(data) != [0] * 6
    )
    libc.prctl(38, 0, 0, 0, 0)
    tries("new privileges", lambda: libc.prctl(39, 0, 0, 0, 0) == 0)
    tries("ambient", lambda: libc.prctl(47, 2, 21, 0, 0) == 0)
    return tries.told()
