"""Starting a server as a user would, watching and weighing all of its processes, and stopping it."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.http import Connection, HttpError, bearer, get

REPOSITORY = Path(__file__).resolve().parent.parent


class StartFailed(Exception):
    """A server ended, or was not ready in time. Carries the end of its log."""


@dataclass(frozen=True)
class Memory:
    """Proportional set size in MiB: memory that processes share is counted once. Postgres is ours alone."""

    server: float
    workers: float
    postgres: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.server + self.workers + self.postgres


class Server:
    """A running server: its main process, what that process started, and its embedded Postgres if it has one."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", port: int, sse_path: str, data: Path | None, token: str | None
    ) -> None:
        self.port = port
        self.sse_path = sse_path
        self._token = token
        self._popen = process
        self._main = psutil.Process(process.pid)
        self._data = data

    def processes(self) -> tuple[list[psutil.Process], list[psutil.Process]]:
        """The main process and its descendants, main first; and those of its Postgres.

        The embedded Postgres is a daemon, no descendant; its pid stands in its data directory.
        """
        tree = [self._main, *self._main.children(recursive=True)]
        postgres: dict[int, psutil.Process] = {}
        # Not by rglob, which raises where a folder goes while it looks: workers' scratch folders come and go.
        for folder, _, files in os.walk(self._data) if self._data is not None else ():
            if "postmaster.pid" not in files:
                continue
            with contextlib.suppress(OSError, ValueError, psutil.NoSuchProcess):
                head = psutil.Process(int((Path(folder) / "postmaster.pid").read_text().split("\n", 1)[0]))
                postgres |= {each.pid: each for each in (head, *head.children(recursive=True))}
        return [each for each in tree if each.pid not in postgres], list(postgres.values())

    def cpu_seconds(self) -> float:
        """User and system time so far, of the living processes and of those they have outlived."""
        total = 0.0
        tree, postgres = self.processes()
        for process in (*tree, *postgres):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def memory(self) -> Memory:
        """What the processes weigh now."""
        (main, *workers), postgres = self.processes()
        return Memory(_pss([main]), _pss(workers), _pss(postgres))

    async def get_json(self, path: str) -> tuple[int, object]:
        """Status and body of a GET; the body is None where it is no JSON."""
        connection = await Connection.open(self.port)
        try:
            async with asyncio.timeout(30):
                response = await connection.request(get(self.port, path, bearer(self._token)))
        finally:
            connection.close()
        with contextlib.suppress(ValueError):
            return response.status, json.loads(response.body)
        return response.status, None

    def exit_code(self) -> int | None:
        """None while the server runs."""
        return self._popen.poll()

    async def stop(self) -> None:
        """Ask the server to end; kill what it leaves behind, by pid."""
        tree, postgres = self.processes() if self._main.is_running() else ([], [])
        self._popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._popen.wait, 20)
        left = [each for each in (*tree, *postgres) if each.is_running()]
        _, left = await asyncio.to_thread(psutil.wait_procs, left, 5)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        await asyncio.to_thread(self._popen.wait, 10)


def _pss(processes: list[psutil.Process]) -> float:
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total / 2**20


@contextlib.asynccontextmanager
async def anchor(tools: int, folder: Path) -> AsyncIterator[Server]:
    """A bare FastMCP server with ``tools`` tools in process."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.anchor", "--tools", str(tools), "--port", str(port)]

    async def ready(server: Server) -> bool:
        return (await server.get_json("/ready"))[0] == 200

    async with _running(
        command,
        environment={},
        port=port,
        sse_path="/sse",
        log=folder / f"anchor-{tools}.log",
        data=None,
        ready=ready,
        deadline=180,
    ) as server:
        yield server


@contextlib.asynccontextmanager
async def portoser(
    tools_d: Path, data: Path, tools: int, *, deadline: float, tokens: Path | None = None, token: str | None = None
) -> AsyncIterator[Server]:
    """Portoser over ``tools_d``, ready when it serves ``tools`` tools. ``data`` holds what it keeps over restarts.

    With a file of ``tokens`` auth is on, and ``token`` is an admin's, which the server is watched with.
    """
    port = free_port()
    environment = {
        "PORTOSER_TOOLS": str(tools_d),
        "PORTOSER_DATA": str(data),
        "PORTOSER_HOST": "127.0.0.1",
        "PORTOSER_PORT": str(port),
    }
    if tokens is not None:
        environment["PORTOSER_TOKENS"] = str(tokens)

    async def ready(server: Server) -> bool:
        if (await server.get_json("/ready"))[0] != 200:
            return False
        _, body = await server.get_json("/api/mcp/tools?limit=1")
        return isinstance(body, dict) and body.get("total") == tools

    command = [sys.executable, "-m", "portoser", "serve"]
    async with _running(
        command,
        environment=environment,
        port=port,
        sse_path="/mcp/sse",
        log=data.with_suffix(".log"),
        data=data,
        ready=ready,
        deadline=deadline,
        token=token,
    ) as server:
        yield server


@contextlib.asynccontextmanager
async def _running(
    command: list[str],
    *,
    environment: dict[str, str],
    port: int,
    sse_path: str,
    log: Path,
    data: Path | None,
    ready: Callable[[Server], Awaitable[bool]],
    deadline: float,
    token: str | None = None,
) -> AsyncIterator[Server]:
    ours = ("PORTOSER_", "DATABASE_URL", "KEYCLOAK_", "OIDC_", "OTEL_", "LOG_LEVEL", "FASTMCP_")
    ours = (*ours, "PYTHONDONTWRITEBYTECODE")  # a restart that compiles everything anew is not what users have
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    paths = os.pathsep.join(filter(None, (str(REPOSITORY), inherited.get("PYTHONPATH"))))
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: ASYNC220 - starting takes a moment, and nothing else is going on
            command,
            env=inherited | {"PYTHONPATH": paths} | environment,
            cwd=log.parent,  # so that no portoser.toml of this repository is read
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(process, port, sse_path, data, token)
    try:
        end = time.monotonic() + deadline
        while True:
            if server.exit_code() is not None:
                raise StartFailed(f"{' '.join(command)} ended with code {server.exit_code()}:\n{_tail(log)}")
            if time.monotonic() > end:
                raise StartFailed(f"{' '.join(command)} was not ready in {deadline:.0f} s:\n{_tail(log)}")
            with contextlib.suppress(OSError, HttpError, TimeoutError):
                if await ready(server):
                    break
            await asyncio.sleep(0.05)
        yield server
    finally:
        await server.stop()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:] if log.exists() else "its log is gone"


def free_port() -> int:
    """A port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
