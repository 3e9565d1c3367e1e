"""A whole server on a real socket, with a real Postgres, real workers and a real git repository, in a thread.

Like `portoser serve`, but in this process, so that a test can look at its parts, and two tests share one start.
"""

import asyncio
import logging
import os
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import structlog
import uvicorn

from portoser.api.services import Services
from portoser.app import build
from portoser.beginning import Beginning, begin
from portoser.identity.tokens import new_token
from portoser.settings import Settings, load_settings

HELLO = '''\
def hello(name: str, times: int = 1) -> str:
    """Greet somebody."""
    return " ".join([f"Hello, {name}!"] * times)
'''
FILES = {
    "policy.yaml": "kind: Policy\nroles: {admin: [admins], editor: [authors], auditor: [security]}\n",
    "hello.yaml": "kind: Tool\npermissions: [operator]\nannotations: {readOnly: true}\n",
    "hello.py": HELLO,
    "orders/group.yaml": "kind: Group\npermissions: [operator]\ndescription: Orders.\n",
    "orders/refund.yaml": 'kind: Tool\nconfirm: "Refund {order}?"\n',
    "orders/refund.py": 'def refund(order: str) -> dict:\n    """Refund an order."""\n    return {"refunded": order}\n',
}


class Holder:
    """Somebody with a token."""

    def __init__(self, name: str, *groups: str) -> None:
        self.name = name
        self.groups = groups
        self.token, self.hash = new_token()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def entry(self) -> str:
        return f'- {{name: {self.name}, hash: "{self.hash}", groups: [{", ".join(self.groups)}]}}\n'


class LiveServer:
    """A running server. ``services`` belong to its own loop: look at them, and `await_in` what must be awaited."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.tools = home / "tools.d"
        self.url = ""
        self.loop: asyncio.AbstractEventLoop
        self.services: Services
        self.stop: asyncio.Event
        self.started = threading.Event()
        self.failed: BaseException | None = None

    def api(self, method: str, path: str, *, by: Holder | None = None, **arguments: Any) -> httpx.Response:
        headers = {**(by.headers if by else {}), **arguments.pop("headers", {})}
        return httpx.request(method, self.url + path, headers=headers, timeout=60, **arguments)

    def add(self, name: str, code: str, *, by: Holder | None = None, **more: Any) -> dict[str, Any]:
        answer = self.api("POST", "/api/mcp/tools", json={"name": name, "code": code, **more}, by=by)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def call(self, tool: str, /, *, by: Holder | None = None, **arguments: Any) -> httpx.Response:
        return self.api("POST", f"/api/mcp/tools/{tool}/call", json={"arguments": arguments}, by=by)


class Guarded(NamedTuple):
    """A server with auth on, and who may do what there."""

    server: LiveServer
    admin: Holder
    editor: Holder
    auditor: Holder
    operator: Holder
    nobody: Holder


def in_repository(home: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        file = home / "tools.d" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    git = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    for command in (["init", "-q", "-b", "main"], ["add", "-A", "tools.d"], ["commit", "-qm", "Tools"]):
        subprocess.run([*git, *command], cwd=home, check=True)


@contextmanager
def database_of(postgres: Any) -> Iterator[str]:
    """A fresh database of the session's Postgres, migrated; its owner's URL."""
    name = f"live_{uuid.uuid4().hex}"
    asyncio.run(postgres.admin(f"CREATE DATABASE {name} TEMPLATE {postgres.template} OWNER portoser_owner"))
    yield postgres.dsns(name).owner
    asyncio.run(postgres.admin(f"DROP DATABASE {name} WITH (FORCE)"))


@contextmanager
def serving(home: Path, dsn: str, holders: tuple[Holder, ...] = (), **flags: Any) -> Iterator[LiveServer]:
    """A server on ``home/tools.d``; with ``holders`` auth is on."""
    # The server's log would be among what tests capture, and is written by another thread.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    in_repository(home, FILES)
    if holders:
        (home / "tokens.yml").write_text("".join(holder.entry for holder in holders))
        flags["tokens"] = home / "tokens.yml"
    for name in [name for name in os.environ if name.startswith("PORTOSER_")]:
        del os.environ[name]
    settings = load_settings(tools=home / "tools.d", data=home / "data", database_url=dsn, workers=4, port=0, **flags)
    server = LiveServer(home)
    thread = threading.Thread(target=_run, args=(server, settings), daemon=True)
    thread.start()
    assert server.started.wait(60)
    if server.failed is not None:
        raise server.failed
    yield server
    server.loop.call_soon_threadsafe(server.stop.set)
    thread.join(30)
    assert not thread.is_alive()
    if server.failed is not None:
        raise server.failed


def _run(server: LiveServer, settings: Settings) -> None:
    try:
        asyncio.run(_serve(server, settings))
    except BaseException as error:  # noqa: BLE001 - told to the test, which is in another thread
        server.failed = error
    finally:
        server.started.set()


async def _serve(server: LiveServer, settings: Settings) -> None:
    server.loop, server.stop = asyncio.get_running_loop(), asyncio.Event()
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    server.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    with begin(settings) as beginning:
        await _serve_on(sock, server, settings, beginning)


async def _serve_on(sock: socket.socket, server: LiveServer, settings: Settings, beginning: Beginning) -> None:
    async with build(settings, beginning, replica="test") as built, asyncio.TaskGroup() as tasks:
        server.services = built.services
        background = [
            tasks.create_task(built.services.follower.run()),
            tasks.create_task(built.services.reconciler.run()),
        ]
        http = uvicorn.Server(uvicorn.Config(built.asgi, lifespan="off", log_config=None))
        answering = tasks.create_task(http.serve(sockets=[sock]))
        await built.services.reconciler.first_run()
        server.started.set()
        await server.stop.wait()
        built.mcp.drain()
        http.should_exit = True
        await answering
        for task in background:
            task.cancel()
