"""A real server, started as a user starts it, in a git repository of its own."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import mcp_types
import psutil
import pytest
from fastmcp import Client as FastMCPClient
from fastmcp.client.transports import SSETransport, StreamableHttpTransport
from mcp.client.client import Client as SDKClient
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

REPO = Path(__file__).parents[2]
SECONDS_TO_START = 60.0
URL_LINE = re.compile(r"http://127\.0\.0\.1:(\d+)")


class Server:
    """``portoser serve`` in its own folder: a git repository with ``tools.d`` in it."""

    seconds_to_start = SECONDS_TO_START

    def __init__(self, home: Path, **env: str) -> None:
        self.home = home
        self.tools = home / "tools.d"
        foreign = {key: value for key, value in os.environ.items() if not key.startswith(("PORTOSER_", "DATABASE_"))}
        self.env = {
            **foreign,
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
            **env,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.log = home / "server.log"
        self.url = ""

    def begin(self) -> int:
        """Start it and wait for nothing; where in the log what it says begins."""
        with self.log.open("ab") as log:
            offset = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "portoser", "serve", "--port", "0"],
                cwd=self.home,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            return offset

    def start(self) -> None:
        offset = self.begin()
        process = self.process
        assert process is not None
        deadline = time.monotonic() + self.seconds_to_start
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise AssertionError(f"the server ended with {process.returncode}:\n{self.output()}")
            match = URL_LINE.search(self.output()[offset:])
            if match:
                self.url = f"http://127.0.0.1:{match[1]}"
                if self._is_ready():
                    return
            time.sleep(0.02)
        raise AssertionError(f"the server was not ready in {self.seconds_to_start:g} s:\n{self.output()}")

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/ready", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def refusal(self) -> str:
        """What a server that cannot start says of it: it ends at once, with an exit code and without a traceback."""
        done = subprocess.run(
            [sys.executable, "-m", "portoser", "serve", "--port", "0"],
            cwd=self.home,
            env={"COLUMNS": "200", **self.env},
            capture_output=True,
            text=True,
            timeout=SECONDS_TO_START,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode not in (0, -signal.SIGSEGV), said
        assert "Traceback" not in said, said
        return said

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def stop(self, how: int = signal.SIGTERM) -> int:
        process = self.process
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(how)
        try:
            return process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the server did not stop in 20 s:\n{self.output()}") from None

    def stop_postgres(self) -> None:
        """Stop the Postgres that a killed server left running, as the next one would have adopted it."""
        pid_file = self.home / ".portoser" / "postgres" / "cluster" / "postmaster.pid"
        if pid_file.exists():
            postmaster = psutil.Process(int(pid_file.read_text().split("\n", 1)[0]))
            postmaster.send_signal(signal.SIGQUIT)
            postmaster.wait(20)

    def write(self, path: str, text: str) -> Path:
        file = self.tools / path
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_name(file.name + ".part")
        aside.write_text(text)
        aside.replace(file)
        return file

    def git(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.com", *arguments],
            cwd=self.home,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def commit(self, message: str = "Change tools") -> str:
        self.git("add", "-A", "tools.d")
        self.git("commit", "-qm", message)
        return self.git("rev-parse", "HEAD")

    def worker(self, name: str) -> int | None:
        """The worker whose tool has called its process ``name``: all that an isolated one can show of itself."""
        assert self.process is not None
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(OSError):  # it has just ended
                if Path(f"/proc/{child.pid}/comm").read_text().strip() == name:
                    return int(child.pid)
        return None

    def cli(self, *arguments: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
        env = {**self.env, "PORTOSER_URL": self.url, "COLUMNS": "100"}
        if token is not None:
            env["PORTOSER_TOKEN"] = token
        return subprocess.run(
            [sys.executable, "-m", "portoser", *arguments],
            cwd=self.home,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def api(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        return httpx.request(method, self.url + path, timeout=30, **arguments)


def new_home(folder: Path, *, examples: bool = True) -> Path:
    """A git repository with the examples that the product ships, committed."""
    folder.mkdir(parents=True, exist_ok=True)
    tools = folder / "tools.d"
    if examples:
        shutil.copytree(REPO / "tools.d", tools, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        tools.mkdir()
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=folder, check=True)
    (folder / ".gitignore").write_text(".portoser/\nserver.log\n")
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    subprocess.run(
        ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "-qm", "Tools"],
        cwd=folder,
        check=True,
    )
    return folder


@contextmanager
def new_folder() -> Iterator[Path]:
    """A folder that goes away again. Not pytest's: as root it is closed to the user that Postgres runs as."""
    folder = Path(tempfile.mkdtemp(prefix="portoser-e2e-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One server for a module's tests, auth off, with the shipped examples."""
    with new_folder() as folder:
        running = Server(new_home(folder / "home"))
        running.start()
        yield running
        assert running.stop() == 0, running.output()


@pytest.fixture
def own_server() -> Iterator[Callable[..., Server]]:
    """Makes servers for one test: ``own_server(PORTOSER_TOKENS=…)``."""
    made: list[Server] = []
    with new_folder() as folder:

        def make(*, examples: bool = False, **env: str) -> Server:
            one = Server(new_home(folder / f"home{len(made)}", examples=examples), **env)
            made.append(one)
            return one

        yield make
        for one in made:
            one.stop(signal.SIGKILL)
            one.stop_postgres()


class Notes:
    """Counts the notifications that a client was sent."""

    def __init__(self) -> None:
        self.changed = 0
        self._arrived = asyncio.Condition()

    async def __call__(self, message: object) -> None:
        if isinstance(message, mcp_types.ToolListChangedNotification):
            await self.count()

    async def count(self) -> None:
        async with self._arrived:
            self.changed += 1
            self._arrived.notify_all()

    async def more_than(self, seen: int, seconds: float = 10) -> None:
        async with asyncio.timeout(seconds), self._arrived:
            await self._arrived.wait_for(lambda: self.changed > seen)


@asynccontextmanager
async def sdk_sse(server: Server, token: str | None = None, query: str = "") -> AsyncIterator[tuple[SDKClient, Notes]]:
    """The SDK's client over SSE."""
    notes = Notes()
    headers = {"Authorization": f"Bearer {token}"} if token else None
    transport = sse_client(f"{server.url}/mcp/sse{query}", headers=headers)
    async with SDKClient(transport, mode="legacy", message_handler=notes, cache=None) as client:
        yield client, notes


@asynccontextmanager
async def sdk_http(server: Server, mode: str, token: str | None = None) -> AsyncIterator[tuple[SDKClient, Notes]]:
    """The SDK's client over Streamable HTTP: ``legacy`` shakes hands, ``2026-07-28`` does not."""
    notes = Notes()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx_client(headers) as http:
        transport = streamable_http_client(f"{server.url}/mcp", http_client=http)
        async with SDKClient(transport, mode=mode, message_handler=notes, cache=None) as client:
            yield client, notes


def httpx_client(headers: dict[str, str]) -> Any:
    """The HTTP client that the SDK's transport wants."""
    import httpx2

    return httpx2.AsyncClient(headers=headers, timeout=30)


def fastmcp_client(server: Server, transport: str, token: str | None = None, **more: Any) -> FastMCPClient[Any]:
    """FastMCP's client over ``sse`` or ``http``."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if transport == "sse":
        return FastMCPClient(SSETransport(f"{server.url}/mcp/sse", headers=headers), **more)
    return FastMCPClient(StreamableHttpTransport(f"{server.url}/mcp", headers=headers), **more)


async def until(look: Callable[[], Awaitable[Any]], seconds: float = 10) -> Any:
    """Waits until ``look`` answers something true, and returns it; fails when ``seconds`` have passed."""
    deadline = time.monotonic() + seconds
    while True:
        seen = await look()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"it did not come true in {seconds:g} s"
        await asyncio.sleep(0.02)


def text_of(result: Any) -> str:
    """The text of a tool's answer."""
    return "".join(block.text for block in result.content if block.type == "text")
