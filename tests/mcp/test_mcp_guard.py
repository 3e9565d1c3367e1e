"""Which hosts and origins get through to the application."""

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from portoser.mcp.guard import LOOPBACK_HOSTS, HostOriginGuard


async def inner(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("inside")(scope, receive, send)


GUARDED = HostOriginGuard(
    inner,
    allowed_hosts=[*LOOPBACK_HOSTS, "tools.example.org", "*.internal.example.org"],
    allowed_origins=["https://inspector.example.org", "http://localhost:6274/"],
)


async def ask(app: HostOriginGuard, host: str, origin: str | None = None) -> httpx.Response:
    headers = {"Host": host} | ({"Origin": origin} if origin is not None else {})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:8000") as http:
        return await http.get("/anything", headers=headers)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8000",
        "LOCALHOST:8000",
        "localhost.:8000",
        "127.0.0.1:9",
        "[::1]:8000",
        "[::1]",
        "tools.example.org",
        "tools.example.org:443",
        "a.internal.example.org",
        "a.b.internal.example.org",
    ],
)
async def test_a_host_that_the_server_answers_for_gets_through(host: str) -> None:
    assert (await ask(GUARDED, host)).text == "inside"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evillocalhost",
        "internal.example.org",
        "tools.example.org.evil.example",
        "localhost@evil.example",
        "localhost/evil",
        "localhost:port",
        "127.0.0.2",
        "[::2]",
        "",
        "0",
    ],
)
async def test_any_other_host_is_misdirected(host: str) -> None:
    refused = await ask(GUARDED, host)
    assert refused.status_code == 421
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["title"] == "Misdirected Request"


async def test_two_hosts_are_no_host() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "path": "/", "headers": [(b"host", b"localhost"), (b"host", b"localhost")]}
    await GUARDED(scope, receive, send)
    assert sent[0]["status"] == 421


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", None),
        ("localhost:8000", "http://localhost:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("tools.example.org", "http://tools.example.org:80"),
        ("tools.example.org", "https://inspector.example.org"),
        ("localhost:8000", "https://INSPECTOR.example.org:443"),
        ("localhost:8000", "http://localhost:6274"),
    ],
)
async def test_no_origin_its_own_and_the_allowed_get_through(host: str, origin: str | None) -> None:
    assert (await ask(GUARDED, host, origin)).text == "inside"


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "",
        "http://localhost:3000",
        "https://localhost:8000",
        "http://inspector.example.org",
        "https://inspector.example.org.evil.example",
        "http://localhost:8000/path",
        "file://",
    ],
)
async def test_any_other_origin_is_forbidden(origin: str) -> None:
    refused = await ask(GUARDED, "localhost:8000", origin)
    assert refused.status_code == 403
    assert refused.json()["title"] == "Forbidden Origin"


async def test_every_host_can_be_allowed_by_a_star() -> None:
    assert (await ask(HostOriginGuard(inner, allowed_hosts=["*"]), "anything.example")).text == "inside"


async def test_a_websocket_of_a_stranger_is_closed() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": [(b"host", b"evil.example")]}
    await GUARDED(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "Misdirected Request"}]
