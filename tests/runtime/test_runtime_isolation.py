"""What a worker can reach of the machine, with all layers and with each of them left out."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from runtime_bench import Bench

from portoser.catalog.caller import Caller
from portoser.catalog.revision import MIB
from portoser.runtime import runtime as runtime_module
from portoser.runtime.isolation.layers import TESTING_VARIABLE, Name, probe
from portoser.runtime.runtime import Runtime

pytestmark = pytest.mark.asyncio(loop_scope="module")

FOUND = probe()
needs_isolation = pytest.mark.skipif(FOUND.refusal is not None, reason=str(FOUND.refusal))
AS_PLAIN_USER = [sys.executable, str(Path(__file__).parents[1] / "attacks" / "attacks_plain_user.py")]

PYTEST = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider"]

PROFILES = [
    profile
    for profile in ("", "landlock", "namespaces", "uid")
    if not profile or (FOUND.holds(Name(profile)) and FOUND.holds(Name.LANDLOCK) and FOUND.holds(Name.NAMESPACES))
]

LOOK = """
import ctypes, errno, os, socket

def said(do, *arguments):
    try:
        return do(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]

def tool(paths: list[str], writable: list[str], here: list[str]):
    header, capabilities = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    ctypes.CDLL(None).capget(header, capabilities)
    libc = ctypes.CDLL(None, use_errno=True)
    return {
        "read": {path: said(lambda: len(open(path, "rb").read(10))) for path in paths},
        "listed": {path: said(lambda: len(os.listdir(path))) for path in paths},
        "written": {path: said(lambda: open(path, "a").close()) for path in writable},
        "made": {path: said(os.mkdir, path + "/made") for path in writable},
        "here": {path: said(lambda: open(path, "rb").read(10) and 1) for path in here},
        "environment": dict(os.environ),
        "descriptors": [number for number in range(1000) if said(os.fstat, number) != "EBADF"],
        "capabilities": sum(capabilities),
        "folder": os.getcwd(),
        "user": os.getuid(),
        "groups": os.getgroups(),
        "parent": os.getppid(),
        "pid": os.getpid(),
        "socket": said(socket.socket, socket.AF_UNIX),
        "fork": said(os.fork),
        "execute": said(os.execv, "/bin/sh", ["sh"]),
        "dumpable": libc.prctl(3, 0, 0, 0, 0),
        "host": os.uname().nodename,
    }
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=PROFILES, ids=lambda off: off or "all")
async def confined(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TESTING_VARIABLE, f"{os.environ.get(TESTING_VARIABLE, '')},{request.param}")
        runtime = Runtime(workers=3, scratch=tmp_path_factory.mktemp("scratch"), spares=0)
    await runtime.start()
    try:
        yield Bench(runtime)
    finally:
        await runtime.aclose()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of the machine may read and write. Not below /tmp, which may be a worker's own."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def holds(bench: Bench, name: Name) -> bool:
    return bench.runtime.status().layers[name].startswith("on")


@needs_isolation
async def test_a_worker_has_its_own_folder_and_nothing_else_of_the_machine(
    confined: Bench, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "x")
    secret = open_folder / "secret"
    secret.write_text("x")
    secret.chmod(0o666)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(open_folder / "socket"))
    root = Path(runtime_module.__file__).parents[2]
    paths = [
        *map(str, (secret, open_folder, root, root / "pyproject.toml", root / ".git", Path.home())),
        *("/", "/etc", "/etc/passwd", "/etc/hostname", "/proc", "/proc/1", "/proc/self/environ", "/proc/self/mem"),
        *("/sys", "/dev", "/dev/shm", "/dev/tty", "/var", "/run", "/home", "/root", "/boot"),
    ]  # /tmp may be its own folder
    writable = [str(secret), str(open_folder), "/dev/shm", str(Path(os.__file__).parent), str(root), "/"]
    here = [os.__file__, pytest.__file__, runtime_module.__file__, "/dev/urandom", "/etc/localtime"]
    answer = await confined.run(
        LOOK, {"paths": paths, "writable": writable, "here": [path for path in here if Path(path).exists()]}
    )
    listener.close()
    assert answer.outcome == "ok", answer
    told = answer.structured
    missing = {"EACCES", "ENOENT", "EISDIR", "ENOTDIR", "EINVAL"}
    if holds(confined, Name.LANDLOCK):
        assert {path: told["read"][path] for path in paths if told["read"][path] not in missing} == {}
        assert {path: told["listed"][path] for path in paths if told["listed"][path] not in missing} == {}
    else:  # names of folders on the way to what may be read
        assert {path for path in paths if told["read"][path] not in missing} == set()
        seen = {path for path in paths if told["listed"][path] not in missing}
        assert seen <= {"/", "/etc", "/dev", "/tmp", "/root", "/home", str(root), str(Path.home())}
    assert set(told["written"].values()) <= {"EACCES", "ENOENT", "EROFS", "EISDIR"}
    assert set(told["made"].values()) <= {"EACCES", "ENOENT", "EROFS", "ENOTDIR"}
    assert set(told["here"].values()) == {1}
    assert "SECRET_OF_THE_SERVER" not in told["environment"]
    assert told["environment"]["HOME"] == told["environment"]["TMPDIR"] == told["folder"]
    assert told["descriptors"] == [0, 1, 2, 3]
    assert told["capabilities"] == told["dumpable"] == 0
    assert told["socket"] == told["fork"] == told["execute"] == "EPERM"
    if holds(confined, Name.NAMESPACES):
        assert (told["folder"], told["parent"], told["host"]) == ("/scratch", 0, "portoser")
    if holds(confined, Name.UID):
        assert told["user"] > 0x8000_0000
        assert told["groups"] == []


@needs_isolation
async def test_the_kernel_says_that_zygotes_and_workers_are_confined(confined: Bench) -> None:
    await confined.run("def tool(): return 1")
    await confined.describe("def tool(): return 1")
    kinds = set()
    for process in psutil.Process().children(recursive=True):
        try:
            text = Path(f"/proc/{process.pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):  # the worker that has described has just ended
            continue
        status = dict(line.split(":\t", 1) for line in text.splitlines())
        kinds.add(status["Name"])
        if status["Name"] in ("portoser-worker", "portoser-call", "portoser-descri"):
            assert (status["Seccomp"], status["NoNewPrivs"], status["Threads"]) == ("2", "1", "1"), status["Name"]
        if status["Name"] == "portoser-worker":
            assert status["Seccomp_filters"] == "2"
            assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert kinds >= {"portoser-worker", "portoser-call", "portoser-describe"[:15]}


@needs_isolation
async def test_workers_are_strangers_to_each_other(confined: Bench) -> None:
    code = """
        import os
        def tool(folder: str, pid: int):
            try:
                os.kill(pid, 0)
                killed = True
            except OSError:
                killed = False
            try:
                theirs = os.listdir(folder) if folder != os.getcwd() else []
            except OSError:
                theirs = []
            mine = os.listdir(".")
            open("mine", "w").write("x")
            return {"folder": os.getcwd(), "pid": os.getpid(), "user": os.getuid(), "theirs": theirs, "mine": mine,
                    "killed": killed}
    """
    first = (await confined.run(code, {"folder": "/", "pid": 2**22}, caller=Caller(subject="a"))).structured
    again = await confined.run(code, {"folder": first["folder"], "pid": first["pid"]}, caller=Caller(subject="b"))
    second = again.structured
    assert second["pid"] != first["pid"]
    assert (second["theirs"], second["mine"], second["killed"]) == ([], [], False)
    if holds(confined, Name.UID):
        assert first["user"] != second["user"]


@needs_isolation
async def test_a_scratch_folder_holds_what_its_limit_says(confined: Bench) -> None:
    code = """
        def tool(files: int):
            for number in range(files):
                with open(f"file{number}", "wb") as file:
                    file.write(bytes(4 << 20))
            return {"files": files}
    """
    assert (await confined.run(code, {"files": 3}, scratch=16 * MIB)).structured == {"files": 3}
    execution = await confined.run(code, {"files": 5}, scratch=16 * MIB)
    if holds(confined, Name.NAMESPACES):
        assert execution.reason == "disk_limit"
    execution = await confined.run(code.replace("4 << 20", "32 << 20"), {"files": 1}, scratch=16 * MIB)
    assert execution.reason == "disk_limit"
    assert (await confined.run(code, {"files": 20}, scratch=128 * MIB)).structured == {"files": 20}


@needs_isolation
async def test_an_author_is_told_what_tools_may_not_do(confined: Bench) -> None:
    for body, told in (
        ("import socket; socket.create_connection(('127.0.0.1', 1))", "ask the power http"),
        ("import subprocess; subprocess.run(['/bin/true'])", "ask the power http"),
        ("import urllib.request; urllib.request.urlopen('http://127.0.0.1:1')", "ask the power http"),
        ("open(__import__('os').__file__, 'w')", "in their own folder"),
    ):
        execution = await confined.run(f"def tool():\n    {body}")
        assert execution.reason == "exception"
        assert told in execution.message, execution.message


@needs_isolation
async def test_threads_are_bounded_where_workers_are_users(confined: Bench) -> None:
    if not holds(confined, Name.UID):
        pytest.skip("workers share a user")
    code = """
        import threading
        def tool():
            threading.stack_size(64 << 10)
            stop = threading.Event()
            try:
                for number in range(100_000):
                    threading.Thread(target=stop.wait, daemon=True).start()
            except RuntimeError:
                return {"threads": number}
            finally:
                stop.set()
    """
    execution = await confined.run(code)
    assert 32 < execution.structured["threads"] < 256


@needs_isolation
@pytest.mark.skipif(os.getuid() != 0, reason="this suite is run as a plain user already")
@pytest.mark.parametrize("off", ["", "namespaces"])
async def test_it_holds_for_a_plain_user_too(off: str) -> None:
    home = Path(tempfile.mkdtemp())
    home.chmod(0o777)
    try:
        which = "(own_folder or strangers or kernel_says) and all"
        done = subprocess.run(  # noqa: ASYNC221
            [*AS_PLAIN_USER, *PYTEST, f"--basetemp={home / 'base'}", __file__, "-k", which],
            env={"PATH": os.environ["PATH"], "HOME": str(home), TESTING_VARIABLE: off},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "3 passed" in done.stdout
    finally:
        shutil.rmtree(home)
