"""A web server that says byte by byte what the test wants, and networks in which names mean what the test wants."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpcore2
from powers_world import Call, rule

from portoser.catalog.policy import PowerRule
from portoser.powers.http import HttpPower
from portoser.powers.pinned import Connections

Handler = Callable[["Asked", asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Asked:
    """A request as the server got it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Server:
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    routes: dict[str, Handler] = field(default_factory=dict)

    def says(self, path: str, body: bytes = b"", *, status: str = "200 OK", headers: Iterable[str] = ()) -> None:
        lines = [f"HTTP/1.1 {status}", *headers]
        if not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in lines):
            lines.append(f"Content-Length: {len(body)}")
        self.says_raw(path, "\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def says_raw(self, path: str, answer: bytes) -> None:
        async def handler(asked: Asked, writer: asyncio.StreamWriter) -> None:
            writer.write(answer)

        self.routes[path] = handler

    def redirects(self, path: str, location: str, status: str = "302 Found") -> None:
        self.says(path, status=status, headers=[f"Location: {location}"])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while line := await reader.readline():
                method, target, _ = line.decode("latin-1").split(" ", 2)
                headers = {}
                while (line := await reader.readline()) not in (b"\r\n", b""):
                    name, _, value = line.decode("latin-1").partition(":")
                    headers[name.lower()] = value.strip()
                asked = Asked(method, target, headers, await reader.readexactly(int(headers.get("content-length", 0))))
                self.asked.append(asked)
                handler = self.routes.get(target.partition("?")[0])
                if handler is None:
                    writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                else:
                    await handler(asked, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server()
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(server.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listening = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Network(httpcore2.AsyncNetworkBackend):
    """The real network, told of where it goes; ``routes`` leads addresses of the world to this machine."""

    def __init__(self, names: dict[str, list[str]] | None = None, routes: dict[str, str] | None = None) -> None:
        self.names = names or {}
        self.routes = routes or {}
        self.looked_up: list[str] = []
        self.connected: list[str] = []
        self._real = httpcore2.AnyIOBackend()

    async def resolve(self, name: str, port: int) -> list[str]:
        self.looked_up.append(name)
        if name not in self.names:
            raise OSError(-2, "Name or service not known")
        return self.names[name]

    async def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> httpcore2.AsyncNetworkStream:
        self.connected.append(host)
        return await self._real.connect_tcp(self.routes.get(host, host), port, *args, **kwargs)


class Web(Call):
    """One call of a tool that uses the network. Close it."""

    def __init__(
        self,
        *rules: PowerRule,
        uses: list[str],
        network: Network | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.network = network or Network()
        self.power = HttpPower(Connections(self.network.resolve, tls=tls, network=self.network))
        super().__init__(self.power, rules=rules, network=uses)

    async def get(self, url: str, **kwargs: Any) -> Any:
        return await self.ask("http", "get", url, **kwargs)


@asynccontextmanager
async def web(*places: str, network: Network | None = None, **fields: Any) -> AsyncIterator[Web]:
    """A call whose manifest asks for places, and to which a rule with these fields grants them."""
    tls = fields.pop("tls", None)
    made = Web(rule(network=list(places), **fields), uses=list(places), network=network, tls=tls)
    try:
        yield made
    finally:
        await made.power.aclose()


def bomb(mebibytes: int) -> bytes:
    return gzip.compress(b"\0" * (mebibytes * 1024 * 1024), compresslevel=9)
