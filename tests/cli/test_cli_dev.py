"""`portoser dev`: check at each save, and call at a prompt."""

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from portoser.authoring.workshop import Workshop
from portoser.cli.dev_session import Session
from portoser.cli.dev_told import teller_of

GREET = 'def greet(name: str, loud: bool = False) -> str:\n    """Greet."""\n    return f"{WORD}, {name}!"\n'
MANIFEST = "kind: Tool\nexamples:\n  - call: {name: Ada}\n    expect: 'Hello, Ada!'\n"
SLOW = (
    "import asyncio\nfrom portoser.tool import ctx\n\n"
    'async def slow(seconds: float) -> int:\n    """Wait."""\n    ctx.info("waiting", seconds=seconds)\n'
    "    await asyncio.sleep(seconds)\n    return 1\n"
)
ORDER = (
    "from typing import Literal\nfrom portoser.tool import ctx\n\n"
    'def order(item: str) -> str:\n    """Order."""\n'
    '    size = ctx.elicit(f"Which size of {item}?", Literal["S", "L"])\n'
    '    return f"ordered {size.content}" if size.action == "accept" else f"nothing: {size.action}"\n'
)
COMMAND = [sys.executable, "-m", "portoser", "dev"]
SECONDS = 30.0
STEERING = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]")


def greeting(word: str) -> str:
    return GREET.replace("{WORD}", word)


@pytest.fixture
def tools(home: Path) -> Path:
    folder = home / "tools.d"
    folder.mkdir()
    (folder / "greet.py").write_text(greeting("Hello"))
    (folder / "greet.yaml").write_text(MANIFEST)
    return folder


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "XDG_STATE_HOME": str(home / "state"),
        "PROMPT_TOOLKIT_NO_CPR": "1",
        "TERM": "xterm",
    }


def piped(lines: str, environment: dict[str, str], *options: str, code: int = 0) -> str:
    """What it says to lines of standard input."""
    done = subprocess.run(
        [*COMMAND, *options], input=lines, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback (most" not in done.stderr
    return done.stdout + done.stderr


class Terminal:
    """A person at a terminal of 80 columns."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execvpe(COMMAND[0], COMMAND, environment)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.said = ""
        self._seen = 0

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def sees(self, text: str) -> None:
        """Wait until it says something, from where the last wait ended on."""
        deadline = time.monotonic() + SECONDS
        seen = ""
        while text not in (seen := self._unread()):
            assert time.monotonic() < deadline, f"{text!r} is not in {seen!r}"
            self._read()
        self._seen = self.said.index(text, self._seen) + len(text)

    def ends(self) -> int:
        """Its exit code, once it has ended."""
        deadline = time.monotonic() + SECONDS
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < deadline, f"it goes on: {self.said!r}"
            self._read()

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)

    def _unread(self) -> str:
        return self.said[self._seen :]

    def _read(self) -> None:
        if select.select([self._fd], [], [], 0.1)[0]:
            with contextlib.suppress(OSError):  # it has ended
                self.said += STEERING.sub(b"", os.read(self._fd, 65536)).decode(errors="replace")


@pytest.fixture
def terminal(tools: Path, environment: dict[str, str]) -> Iterator[Terminal]:
    opened = Terminal(environment)
    yield opened
    opened.close()


def test_an_author_completes_calls_edits_and_quits(terminal: Terminal, tools: Path, home: Path) -> None:
    terminal.sees("1 example passed")
    terminal.sees("anonymous>")
    terminal.type("gr\t")
    terminal.sees("greet")
    terminal.type("na\t")
    terminal.sees("name=")
    terminal.type("Ada lo\t")
    terminal.sees("loud=")
    terminal.type("f\t")
    terminal.sees("false")
    terminal.type("\r")
    terminal.sees("Hello, Ada!")
    terminal.sees("anonymous>")
    terminal.type("gree")
    (tools / "greet.py").write_text(greeting("Hi"))
    terminal.sees("~ greet")
    terminal.sees("tools.d/greet.yaml:3:5: error: Example 1 expects")
    terminal.sees("1 failed")
    terminal.type("t name=Bob\r")  # the line that was begun is still there
    terminal.sees("Hi, Bob!")
    terminal.sees("anonymous>")
    terminal.type("\x04")
    assert terminal.ends() == 0
    history = home / "state" / "portoser" / "dev-history"
    assert "greet name=Bob" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


def test_ctrl_c_ends_the_call_and_not_the_program(terminal: Terminal, tools: Path) -> None:
    terminal.sees("anonymous>")
    (tools / "slow.py").write_text(SLOW)
    (tools / "slow.yaml").write_text('kind: Tool\nconfirm: "Wait {seconds}?"\n')
    terminal.sees("+ slow")
    terminal.type("slow seconds=60\r")
    terminal.sees("Wait 60? [y/N]")
    terminal.type("y\r")
    terminal.sees("info: waiting")
    terminal.type("\x03")
    terminal.sees("cancelled: slow seconds=60")
    terminal.sees("anonymous>")
    terminal.type("as ada operator\r")
    terminal.sees("ada>")
    terminal.type("greet name=A\r")
    terminal.sees("You may not call 'greet'")
    terminal.type("quit\r")
    assert terminal.ends() == 0


def test_a_tool_asks_at_the_prompt(terminal: Terminal, tools: Path) -> None:
    terminal.sees("anonymous>")
    (tools / "order.py").write_text(ORDER)
    (tools / "order.yaml").write_text("kind: Tool\n")
    terminal.sees("+ order")
    for typed, told in (("L", "ordered L"), ("\x04", "nothing: decline")):
        terminal.type("order item=shirt\r")
        terminal.sees("Which size of shirt? (Ctrl-D declines)")
        terminal.sees("value (S, L):")
        if typed == "L":
            terminal.type("XXL\r")
            terminal.sees("is not one of")
            terminal.sees("value (S, L):")
        terminal.type(typed if typed == "\x04" else f"{typed}\r")
        terminal.sees(told)
        terminal.sees("anonymous>")
    terminal.type("quit\r")
    assert terminal.ends() == 0


def test_killing_it_leaves_no_process_behind(terminal: Terminal) -> None:
    terminal.sees("anonymous>")
    children = psutil.Process(terminal.pid).children(recursive=True)
    assert children
    terminal.close()
    terminal.pid = 0
    _, alive = psutil.wait_procs(children, timeout=SECONDS)
    assert alive == []
    terminal._fd = os.open(os.devnull, os.O_RDONLY)


def test_lines_are_read_from_a_pipe_and_told_in_words(tools: Path, environment: dict[str, str]) -> None:
    lines = "greet name=Ada\ntools\nshow greet\ngreet nam=Ada\ngreet\nas ada\nexamples\nhelp\n"
    said = piped(lines, environment, code=1)
    for told in (
        "Did you mean 'name'?",
        "name is missing",
        "Hello, Ada!",
        "1/1",
        "greet.yaml, greet.py",
        "may call 0 tools",
        "1 example passed",
        "Ctrl-D",
    ):
        assert told in said
    assert "\x1b" not in said


def test_a_program_gets_json_lines(tools: Path, environment: dict[str, str]) -> None:
    (tools / "slow.py").write_text(SLOW)
    (tools / "slow.yaml").write_text("kind: Tool\n")
    (tools / "hosts.py").write_text('def hosts() -> int:\n    """Count."""\n    return len(registry.machines())\n')
    (tools / "hosts.yaml").write_text("kind: Tool\n")
    lines = 'slow seconds=0\nhosts\nschema greet\nnothing\ncall greet {"name": "Ada"}\n'
    events: list[dict[str, Any]] = [
        json.loads(line) for line in piped(lines, environment, "--json", code=1).splitlines()
    ]
    by_kind = {event["event"]: event for event in events}
    assert by_kind["checked"]["examples"] == {"passed": 1, "failed": 0}
    assert by_kind["checked"]["added"] == ["greet", "hosts", "slow"]
    assert by_kind["log"]["data"] == {"seconds": 0.0}
    assert by_kind["schema"]["input"]["required"] == ["name"]
    assert "nothing" in by_kind["error"]["message"]
    slow, hosts, greet = (event for event in events if event["event"] == "result")
    assert slow["structuredContent"] == {"result": 1}
    assert hosts["structuredContent"]["result"] > 0  # the registry's own power answers, as it does on a server
    assert greet["content"][0]["text"] == "Hello, Ada!"


def test_once_says_what_validate_says_and_exits_as_it_does(
    portoser: Callable[..., Any], tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*arguments: str) -> tuple[int, list[str]]:
        done = portoser(*arguments)
        return done.code, [line for line in done.out.splitlines() if line.startswith("tools.d/")]

    assert said("dev", "--once") == (0, [])
    (tools / "greet.py").write_text(greeting("Hi"))
    (tools / "bad.yaml").write_text("kind: Tool\nnmae: bad\n")
    code, problems = said("dev", "--once")
    assert (code, problems) == said("validate")
    assert code == 1
    assert len(problems) == 3
    monkeypatch.setenv("PORTOSER_TESTING_LAYERS_OFF", "seccomp")
    refused = portoser("dev")
    assert refused.code == 1
    assert "PORTOSER_SANDBOX=off" in refused.err
    assert "nmae" in refused.out  # what can be told without running code is told all the same
    assert said("dev", "--once", "--no-run") == said("validate", "--no-run")


def test_paths_are_told_alike_and_names_with_a_dot_once(
    portoser: Callable[..., Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home / "sub" / "tools.d"
    monkeypatch.setenv("PORTOSER_TOOLS", "sub/tools.d")
    for command in ("dev", "validate"):
        refused = portoser(command).err
        assert "There is no folder sub/tools.d here. `portoser tool new NAME` begins one; or name one:" in refused
        assert f"`portoser {command} DIR`" in refused
    (folder / "shop").mkdir(parents=True)
    for number in range(12):
        (folder / "shop" / f"t{number:02}.yaml").write_text("kind: Tool\n")
        (folder / "shop" / f"t{number:02}.py").write_text(f'def t{number:02}() -> int:\n    """One."""\n    return 1\n')
    (folder / "bad.yaml").write_text("kind: Tool\nnmae: bad\n")
    said = portoser("dev", "--once", "--no-run")
    problems = [line for line in said.out.splitlines() if line.startswith("sub/tools.d/")]
    assert any(line.startswith("sub/tools.d/bad.yaml:2:1: error: ") for line in problems)
    told = portoser("validate", "--no-run")
    assert told.out.splitlines()[:-1] == problems
    [named] = [line for line in problems if "holds a dot" in line]
    assert named.startswith("sub/tools.d/shop/t00.yaml:1:1: warning: ")
    assert named.endswith("Name it 'shop_t00' if your clients refuse it. The same goes for 11 more tools.")
    assert "12 warnings" in told.out
    assert "+ 13 tools (bad, shop.t00, shop.t01, …)" in said.out
    kept = portoser("validate", "--no-run", "--json").json["problems"]
    assert sum("holds a dot" in problem["message"] for problem in kept) == 12


def test_without_running_a_tool_that_can_be_read_is_not_called_invalid(
    tools: Path, environment: dict[str, str]
) -> None:
    said = piped("tools\nshow greet\n", environment, "--no-run")
    assert "Invalid" not in said
    assert re.search(r"greet +read", said)
    assert re.search(r"status +read", said)


async def test_watching_that_fails_is_told_at_once_and_begins_again(
    tools: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("portoser.cli.dev_session._AGAIN", 0.0)
    workshop = Breaking(tools, None, registry=tools / "registry.yml")
    session = Session(workshop, teller_of(Path("tools.d"), as_json=False), runs=False)
    watching = asyncio.create_task(session.watch())
    try:
        async with asyncio.timeout(SECONDS):
            while workshop.checked is None:
                (tools / "greet.yaml").touch()
                await asyncio.sleep(0.05)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    printed = capsys.readouterr()
    assert "Watching the folder failed: OSError('gone'). It is watched again." in printed.err
    assert "1 tool" in printed.out


class Breaking(Workshop):
    """A workshop whose first watching fails."""

    _has_failed = False

    async def watch(self) -> AsyncIterator[None]:
        if not self._has_failed:
            self._has_failed = True
            raise OSError("gone")
        async for _ in super().watch():
            yield
