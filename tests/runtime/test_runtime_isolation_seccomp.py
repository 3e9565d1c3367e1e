"""The filter of system calls by itself: its program for each machine, and in a process that has no other layer."""

import errno
import json
import struct
import subprocess
import sys
import textwrap
from collections.abc import Sequence

import pytest

from portoser.runtime.isolation import seccomp, syscalls
from portoser.runtime.isolation.seccomp import PID, WORKER, WORKER_AMONG_FILES, ZYGOTE, Rules, build

MACHINES = ("x86_64", "aarch64")
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL = "allow", "kill"

_THREAD = 0x3D0F00
_NEW_USER = 0x10000000


def verdict(rules: Rules, machine: str, number: int, arguments: Sequence[int] = (), architecture: int = 0) -> str | int:
    """What the filter says of a call: run as the kernel would, in a few lines."""
    program = build(rules, machine)
    asked = struct.pack("<iIQ", number, architecture or ARCHITECTURES[machine], 0)
    asked += struct.pack("<6Q", *arguments, *(0,) * (6 - len(arguments)))
    accumulator = at = 0
    while True:
        step = program[at]
        at += 1
        if step.code == 0x20:
            (accumulator,) = struct.unpack_from("<I", asked, step.k)
        elif step.code == 0x54:
            accumulator &= step.k
        elif step.code == 0x05:
            at += step.k
        elif step.code == 0x15:
            at += step.jt if accumulator == (4711 if step.k == PID else step.k) else step.jf
        elif step.code == 0x35:
            at += step.jt if accumulator >= step.k else step.jf
        else:
            assert step.code == 0x06
            return {0x7FFF0000: ALLOW, 0x80000000: KILL}.get(step.k) or step.k & 0xFFFF


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_listed_is_allowed_and_all_else_is_refused(machine: str) -> None:
    numbers = syscalls.table(machine)
    always = {numbers[name] for name, conditions in WORKER.items() if not conditions and name in numbers}
    on_condition = {numbers[name] for name, conditions in WORKER.items() if conditions and name in numbers}
    assert len(always) > 100
    for number in range(600):
        if number in always:
            assert verdict(WORKER, machine, number) == ALLOW
        elif number not in on_condition:
            assert verdict(WORKER, machine, number) == (errno.EPERM if number < 424 else errno.ENOSYS)


@pytest.mark.parametrize("machine", MACHINES)
def test_who_sees_the_machines_files_neither_changes_their_rights_and_times_nor_reads_attributes(machine: str) -> None:
    numbers = syscalls.table(machine)
    for name in ("chmod", "fchmod", "fchmodat", "fchmodat2", "utime", "utimensat", "getxattr", "llistxattr"):
        if name in numbers:
            assert verdict(WORKER, machine, numbers[name]) == ALLOW
            assert verdict(WORKER_AMONG_FILES, machine, numbers[name]) in (errno.EPERM, errno.ENOSYS)
    assert verdict(WORKER_AMONG_FILES, machine, numbers["openat"]) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("clone", [(_THREAD,)], [(0x11,), (_THREAD | _NEW_USER,), (0x4111,), (0x1200011,)]),
        ("kill", [(4711, 9)], [(1, 9), (0, 9), (0xFFFFFFFF, 9), (2**64 - 1, 9)]),
        ("tgkill", [(4711, 4712, 6)], [(1, 1, 9)]),
        ("socketpair", [(1, 1, 0), (1, 0x80801, 0)], [(1, 2, 0), (1, 5, 0), (2, 1, 0), (16, 3, 0)]),
        ("sendto", [(3, 1, 1, 0, 0, 0)], [(3, 1, 1, 0, 4096, 16), (3, 1, 1, 0, 1 << 32, 16)]),
        ("setsockopt", [(3, 1, 7), (3, 1, 20)], [(3, 1, 26), (3, 1, 50), (3, 6, 7)]),
        ("fcntl", [(3, 1), (3, 4), (3, 6), (3, 1030)], [(3, 8), (3, 10), (3, 1024), (3, 1026), (3, 1031)]),
        ("ioctl", [(1, 0x5401), (1, 0x5421)], [(0, 0x5412), (0, 0x541C), (3, 0x40049409), (0, 0x15412 << 16)]),
        ("mmap", [(0, 1, 3, 0x22), (0, 1, 3, 0x2_0022)], [(0, 1, 3, 0x122), (0, 1, 3, 0x4_0022)]),
        ("prlimit64", [(0, 7), (4711, 7)], [(1, 7)]),
        ("getpriority", [(0, 0), (0, 4711)], [(0, 1), (1, 4711), (2, 0)]),
        ("sched_getaffinity", [(0,), (4711,)], [(1,)]),
        ("prctl", [(15,), (16,)], [(1,), (4,), (8,), (22,), (24,), (35,), (36,), (38,), (0x59616D61,)]),
    ],
)
def test_arguments_are_looked_at(
    machine: str, name: str, allowed: list[tuple[int, ...]], refused: list[tuple[int, ...]]
) -> None:
    number = syscalls.table(machine)[name]
    assert [verdict(WORKER, machine, number, arguments) for arguments in allowed] == [ALLOW] * len(allowed)
    assert [verdict(WORKER, machine, number, arguments) for arguments in refused] == [errno.EPERM] * len(refused)


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_of_another_machine_end_the_process(machine: str) -> None:
    read = syscalls.table(machine)["read"]
    for architecture in (0x40000003, 0x40000028, ARCHITECTURES[MACHINES[machine == MACHINES[0]]]):
        assert verdict(WORKER, machine, read, architecture=architecture) == KILL
    assert verdict(WORKER, machine, 0x40000000 | read) == KILL  # x32


@pytest.mark.parametrize("machine", MACHINES)
def test_a_zygote_may_fork_and_neither_execute_nor_connect(machine: str) -> None:
    numbers = syscalls.table(machine)
    for name in ("clone", "wait4", "kill", "sendmsg", "mount", "seccomp"):
        assert verdict(ZYGOTE, machine, numbers[name], (0x11,)) == ALLOW
    for name in ("execve", "execveat", "socket", "connect", "ptrace", "bpf", "setns", "pivot_root", "keyctl"):
        assert verdict(ZYGOTE, machine, numbers[name]) == errno.EPERM


def test_a_machine_that_is_not_known_has_no_filter() -> None:
    assert syscalls.table("riscv64") == {}
    with pytest.raises(OSError, match="riscv64 are not known"):
        build(WORKER, "riscv64")


def _alone(program: str) -> dict[str, object]:
    """What a program says that has given itself the filter of workers and nothing else."""
    head = """
        import ctypes, errno, json, os, signal, socket, sys, threading
        from portoser.runtime.isolation import kernel, seccomp, syscalls
        kernel.no_new_privileges()
        seccomp.Filter(seccomp.WORKER).install(os.getpid())
        said = {}
        def attempt(name, do):
            try:
                do()
            except OSError as error:
                said[name] = errno.errorcode[error.errno]
            else:
                said[name] = "done"
    """
    text = textwrap.dedent(head) + textwrap.dedent(program) + "\nprint(json.dumps(said), flush=True)\nos._exit(0)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, object] = json.loads(done.stdout)
    return told


def test_the_kernel_refuses_what_the_program_refuses() -> None:
    said = _alone("""
        for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET, 38, 40):
            attempt(f"socket {int(family)}", lambda: socket.socket(family, socket.SOCK_STREAM))
        attempt("fork", os.fork)
        attempt("execve", lambda: os.execv("/bin/true", ["true"]))
        attempt("kill parent", lambda: os.kill(os.getppid(), 0))
        attempt("kill all", lambda: os.kill(-1, 0))
        attempt("kill group", lambda: os.killpg(os.getpgrp(), 0))
        attempt("nice", lambda: os.setpriority(os.PRIO_USER, 0, 19))
        attempt("setuid", lambda: os.setuid(os.getuid()))
        attempt("chroot", lambda: os.chroot("/"))
        attempt("memfd", lambda: os.memfd_create("x"))
        attempt("mkfifo", lambda: os.mkfifo("/tmp/no"))
        attempt("limits of another", lambda: __import__("resource").prlimit(1, 7))
        for name in ("ptrace", "unshare", "setns", "mount", "bpf", "keyctl", "userfaultfd", "perf_event_open", "shmget",
                     "seccomp", "capset", "pivot_root", "io_uring_setup", "clone3", "pidfd_open", "mount_setattr",
                     "landlock_create_ruleset"):
            attempt(name, lambda: kernel.syscall(name, 0, 0, 0, 0, 0))
    """)
    new = {"io_uring_setup", "clone3", "pidfd_open", "mount_setattr", "landlock_create_ruleset"}
    assert said == {name: "ENOSYS" if name in new else "EPERM" for name in said}
    assert len(said) > 30


def test_what_python_and_its_libraries_do_goes_on() -> None:
    said = _alone("""
        import asyncio, concurrent.futures, mmap, shutil, sqlite3, tempfile, time
        def databases():
            with tempfile.TemporaryDirectory() as folder:
                with sqlite3.connect(f"{folder}/x.db") as connection:
                    connection.execute("create table t (a)")
                connection.close()
                shutil.copytree(folder, f"{folder}/copy")
        async def waiting():
            await asyncio.sleep(0)
            assert await asyncio.to_thread(lambda: 5) == 5
            async with asyncio.timeout(5):
                await asyncio.gather(*(asyncio.sleep(0.001) for _ in range(3)))
        def pool():
            with concurrent.futures.ThreadPoolExecutor(4) as executor:
                assert list(executor.map(abs, [-1, -2])) == [1, 2]
        def alarm():
            signal.signal(signal.SIGALRM, lambda *_: None)
            signal.setitimer(signal.ITIMER_REAL, 0.001)
            signal.pause()
        def pair():
            a, b = socket.socketpair()
            a.sendall(b"x")
            assert b.recv(1) == b"x"
        def memory():
            with mmap.mmap(-1, 8192) as shared:
                shared[0] = 1
        def matrices():
            import numpy
            assert (numpy.ones((300, 300)) @ numpy.ones((300, 300))).sum() == 300 ** 3
        for do in (databases, lambda: asyncio.run(waiting()), pool, alarm, pair, memory, matrices, os.getloadavg,
                   lambda: os.urandom(8), time.localtime, lambda: os.kill(os.getpid(), 0)):
            attempt(getattr(do, "__name__", "") + str(len(said)), do)
    """)
    assert set(said.values()) == {"done"}, said


def test_a_process_that_asks_in_another_machines_way_is_ended() -> None:
    if syscalls.MACHINE != "x86_64":
        pytest.skip("the other way is one of x86_64")
    text = """
        import ctypes, os
        from portoser.runtime.isolation import kernel, seccomp
        kernel.no_new_privileges()
        seccomp.Filter(seccomp.WORKER).install(os.getpid())
        ctypes.CDLL(None).syscall(0x40000000 | 39)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(text)], capture_output=True, check=False)
    assert done.returncode == -31  # SIGSYS


def test_the_program_is_small_enough_for_the_kernel() -> None:
    for rules in (WORKER, ZYGOTE):
        for machine in MACHINES:
            assert len(build(rules, machine)) < 4096
    assert seccomp.Filter(WORKER)
