"""Requests that nobody should send: each gets the answer that HTTP has for it, and the server goes on."""

import asyncio
import gzip
import json
import socket
from typing import Any

import httpx
import psutil
import pytest
from live_server import LiveServer

TOOLS = "/api/mcp/tools"
JSON = {"Content-Type": "application/json"}
TEN_MB = 10 * 1024 * 1024


def problem(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert (told["status"], bool(told["code"])) == (status, True)
    return str(told["detail"])


def memory() -> int:
    return psutil.Process().memory_info().rss


@pytest.mark.parametrize("path", [TOOLS, "/api/mcp/tools/hello/call", "/api/mcp/sync"])
def test_ten_megabytes_are_refused_with_the_limit_and_the_connection_goes_on(server: LiveServer, path: str) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        answer = client.post(path, content=b'{"a": "' + b"x" * TEN_MB + b'"}', headers=JSON)
        assert "1.5 MiB" in problem(answer, 413)
        assert client.get("/health").status_code == 200


def test_a_body_without_a_length_is_refused_once_it_is_too_long(server: LiveServer) -> None:
    sent = 0

    def chunks() -> Any:
        nonlocal sent
        for _ in range(TEN_MB // 65536):
            sent += 65536
            yield b"x" * 65536

    answer = httpx.post(server.url + TOOLS, content=chunks(), headers=JSON, timeout=60)
    assert "1.5 MiB" in problem(answer, 413)


def test_a_body_of_very_many_values_is_refused_before_it_is_read(server: LiveServer) -> None:
    body = b'{"arguments": {"a": [' + b"[]," * 400_000 + b"0]}}"
    assert "100,000 values" in problem(httpx.post(server.url + TOOLS, content=body, headers=JSON, timeout=60), 413)


def test_many_large_bodies_at_once_take_bounded_memory(server: LiveServer) -> None:
    async def post(client: httpx.AsyncClient) -> int:
        async def chunks() -> Any:
            for _ in range(TEN_MB // 65536):
                yield b"x" * 65536

        return (await client.post(TOOLS, content=chunks(), headers=JSON)).status_code

    async def all_at_once() -> list[int]:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            return await asyncio.gather(*(post(client) for _ in range(20)))

    before = memory()
    assert set(asyncio.run(all_at_once())) == {413}
    assert memory() - before < 100 * 1024 * 1024  # of 200 MB sent; client and server are one process here


def test_a_client_that_asks_first_is_told_before_it_sends(server: LiveServer) -> None:
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as raw:
        raw.sendall(
            f"POST {TOOLS} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {TEN_MB}\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"\x00\x01\x02\xff" * 1000, "not JSON"),
        (b"", "not JSON"),
        (b'{"name": "\xff\xfe"}', "not JSON"),
        ('{"name": "a"}'.encode("utf-16"), "not JSON"),
        (b'\xef\xbb\xbf{"name": "a"}', "not JSON"),
        (b'{"name": "a", "limits": {"timeout": NaN}}', "not JSON"),
        (b'{"name": "a", "limits": {"timeout": Infinity}}', "not JSON"),
        (b'{"name": "a"} trailing', "not JSON"),
        (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, "nested"),
        (b'{"name": "\\udc00"}', "surrogate"),
        (b'{"name": "a", "code": "x\\u0000"}', "U+0000"),
        (b'{"name": "a", "permissions": ["admins"], "permissions": []}', "'permissions' twice"),
    ],
    ids=[
        "bytes",
        "empty",
        "utf-8",
        "utf-16",
        "bom",
        "nan",
        "infinity",
        "trailing",
        "deep",
        "surrogate",
        "nul",
        "twice",
    ],
)
def test_what_is_not_json_is_a_400_that_says_why(server: LiveServer, body: bytes, told: str) -> None:
    answer = server.api("POST", TOOLS, content=body, headers=JSON)
    if body == b"":
        assert answer.status_code in {400, 422}
        return
    assert told in problem(answer, 400)


@pytest.mark.parametrize("body", [None, True, 1, "text", [], [{}]], ids=json.dumps)
def test_json_that_is_no_object_is_a_422(server: LiveServer, body: object) -> None:
    for method, path in (("POST", TOOLS), ("PUT", f"{TOOLS}/x"), ("PUT", "/api/mcp/groups/orders")):
        problem(server.api(method, path, content=json.dumps(body), headers=JSON), 422)


@pytest.mark.parametrize("number", ["1e400", "9" * 5000, "-0.0", "1" + "0" * 400 + ".5"])
def test_any_number_is_taken_or_refused(server: LiveServer, number: str) -> None:
    body = f'{{"arguments": {{"name": "a", "times": {number}}}}}'
    answer = server.api("POST", "/api/mcp/tools/hello/call", content=body, headers=JSON)
    assert answer.status_code in {200, 400, 422}, answer.text


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "nonsense"])
def test_another_type_is_a_415(server: LiveServer, kind: str) -> None:
    assert "application/json" in problem(server.api("POST", TOOLS, content=b"{}", headers={"Content-Type": kind}), 415)


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, identity"])
def test_an_encoded_body_is_a_415_that_says_what_is_taken(server: LiveServer, encoding: str) -> None:
    answer = server.api("POST", TOOLS, content=gzip.compress(b"{}"), headers={**JSON, "Content-Encoding": encoding})
    assert "Content-Encoding" in problem(answer, 415)
    assert answer.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "path",
    [
        f"{TOOLS}/%00",
        f"{TOOLS}/%ed%a0%80",
        f"{TOOLS}/%F0%9F%92%A9",
        f"{TOOLS}/..%2f..%2fetc%2fpasswd",
        f"{TOOLS}/" + "x" * 5000,
        "/api/mcp/sync/runs/%00",
        "/" + "a/" * 2000,
        "/docs/%2e%2e/start.js",
        "/docs/../../pyproject.toml",
    ],
)
def test_any_path_is_answered(server: LiveServer, path: str) -> None:
    answer = server.api("GET", path)
    assert answer.status_code in {404, 422}
    problem(answer, answer.status_code)


@pytest.mark.parametrize(
    "query",
    [
        "q=%00",
        "q=%ed%a0%80&group=%ff",
        "q=" + "x" * 50_000,
        "&".join(f"f{number}=1" for number in range(5000)),
        "groups=" + ",".join(f"g{number}" for number in range(5000)),
        "limit=1&limit=2",
        "skip=999999999",
        "=&&&==;;",
    ],
    ids=["nul", "surrogate", "long", "many", "groups", "twice", "far", "signs"],
)
def test_any_query_is_answered(server: LiveServer, query: str) -> None:
    answer = server.api("GET", f"{TOOLS}?{query}")
    assert answer.status_code in {200, 422}, answer.text


def test_a_query_of_too_many_groups_is_refused_and_opens_nothing(server: LiveServer) -> None:
    assert "fields" in problem(server.api("GET", f"{TOOLS}?{'groups=orders&' * 2000}"), 400)


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PATCH", "PROPFIND"])
@pytest.mark.parametrize("path", [TOOLS, "/health", "/nothing"])
def test_an_unknown_method_is_a_405_that_names_the_known_ones(server: LiveServer, method: str, path: str) -> None:
    answer = server.api(method, path)
    if path == "/nothing":
        problem(answer, 404)
        return
    allowed = answer.headers["allow"]
    assert allowed == ("GET, HEAD" if path == "/health" else "GET, HEAD, POST")
    assert allowed in problem(answer, 405)


def test_a_made_up_method_is_refused_and_the_server_goes_on(server: LiveServer) -> None:
    assert server.api("X", TOOLS).status_code == 400
    assert server.api("GET", "/health").status_code == 200


@pytest.mark.parametrize("path", ["/health", "/ready", TOOLS, "/metrics", "/api/mcp/audit/export"])
def test_head_answers_as_get_does_without_the_body(server: LiveServer, path: str) -> None:
    head = server.api("HEAD", path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == server.api("GET", path).headers["content-type"]
    assert server.api("HEAD", f"{TOOLS}/nothing").status_code == 404


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}])
def test_the_guards_refusals_are_problem_documents_too(server: LiveServer, headers: dict[str, str]) -> None:
    answer = server.api("GET", TOOLS, headers=headers)
    problem(answer, 421 if "Host" in headers else 403)
    assert answer.json()["errors"] == []


def test_headers_of_any_bytes_are_taken_or_refused(server: LiveServer) -> None:
    for name in ("If-Match", "Authorization", "X-Forwarded-For", "User-Agent", "Mcp-Session-Id"):
        answer = server.api("DELETE", f"{TOOLS}/nothing", headers={name: b"\xff\xfe" * 50})
        assert answer.status_code in {404, 422}, (name, answer.text)
