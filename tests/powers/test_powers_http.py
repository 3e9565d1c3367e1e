"""Requests that tools send through the server, to a real one on this machine."""

import asyncio
import gzip
from typing import Any

import pytest
from http_world import Asked, Server, Web, bomb, serving, web
from hypothesis import given
from hypothesis import strategies as st
from powers_world import rule

from portoser.catalog.errors import PowerError
from portoser.catalog.network import place_of
from portoser.powers.base import PowerRefused
from portoser.powers.http import MOST_REDIRECTS
from portoser.powers.http_body import MOST_RESPONSE
from portoser.powers.http_request import MOST_REQUEST, read_request


async def test_a_request_goes_out_as_asked_and_its_answer_comes_back_whole(server: Server) -> None:
    server.says("/v1/orders", b'{"id": 1}', status="201 Created", headers=["Content-Type: application/json", "X-A: b"])
    url = f"http://127.0.0.1:{server.port}/v1/orders?page=2&q=a%20b#there"
    async with web("127.0.0.1:*") as call:
        answer = await call.ask("http", "post", url, headers=[("X-Key", "k"), ("content-type", "t/p")], content=b"{}")
    assert answer["status"] == 201
    assert answer["content"] == b'{"id": 1}'
    assert ("x-a", "b") in answer["headers"]
    assert answer["url"] == url.partition("#")[0]
    [asked] = server.asked
    assert (asked.method, asked.target, asked.body) == ("POST", "/v1/orders?page=2&q=a%20b", b"{}")
    assert asked.headers["host"] == f"127.0.0.1:{server.port}"
    assert asked.headers["x-key"] == "k"
    assert asked.headers["user-agent"].startswith("portoser/")


async def test_an_error_of_the_other_server_is_an_answer_like_any_other(server: Server) -> None:
    async with web("127.0.0.1:*") as call:
        assert (await call.get(f"http://127.0.0.1:{server.port}/nothing"))["status"] == 404


async def test_connections_are_kept_and_no_cookie_and_no_proxy_is(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.says("/", b"x", headers=["Set-Cookie: session=secret"])
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with web("127.0.0.1:*") as call:
        for _ in range(3):
            await call.get(f"http://127.0.0.1:{server.port}/")
    assert server.connections == 1
    assert all("cookie" not in asked.headers for asked in server.asked)


async def test_compressed_answers_come_back_as_they_were_meant(server: Server) -> None:
    server.says("/", gzip.compress(b"hello" * 1000), headers=["Content-Encoding: gzip"])
    async with web("127.0.0.1:*") as call:
        assert (await call.get(f"http://127.0.0.1:{server.port}/"))["content"] == b"hello" * 1000


# What is granted -------------------------------------------------------------------------------------------------


async def test_a_place_must_be_in_the_manifest_and_in_the_policy(server: Server) -> None:
    here = f"127.0.0.1:{server.port}"
    url = f"http://{here}/"
    server.says("/")
    for rules, uses, message in (
        ((rule(network=[here]),), ["api.example.com:443"], f'uses: {{network: ["api.example.com:443", "{here}"]}}'),
        ((), [here], f'powers: [{{network: ["{here}"], owner: "git:main", tools: ["orders.refund"]}}]'),
        ((rule(network=[f"127.0.0.1:{server.port + 1}"]),), [here], "grants orders.refund of git:main no network"),
        ((rule(network=[here], actions=("post",)),), [here], "for post alone, not for get"),
    ):
        call = Web(*rules, uses=uses)
        with pytest.raises(PowerRefused) as refused:
            await call.get(url)
        assert message in str(refused.value)
        assert call.network.connected == []
    assert server.asked == []


async def test_the_port_of_the_scheme_is_the_one_that_is_not_written() -> None:
    for url, place in (
        ("https://api.example.com/", "api.example.com:443"),
        ("http://API.example.com./x", "api.example.com:80"),
    ):
        call = Web(uses=["other:1"])
        with pytest.raises(PowerRefused, match=f"uses network {place}"):
            await call.get(url)


async def test_reading_and_writing_are_told_apart(server: Server) -> None:
    async with web("127.0.0.1:*") as call:
        for method in ("get", "head", "options"):
            await call.ask("http", method, f"http://127.0.0.1:{server.port}/")
        assert not call.powers.has_written
        await call.ask("http", "delete", f"http://127.0.0.1:{server.port}/")
        assert call.powers.has_written


async def test_what_is_told_of_a_request_is_where_it_went_and_nothing_of_its_path(server: Server) -> None:
    place = f"127.0.0.1:{server.port}"
    server.redirects("/hooks/secret", "http://127.0.0.2:9/")
    async with web("127.0.0.1:*") as call:
        await call.get(f"http://{place}/?token=secret")
        with pytest.raises(PowerRefused):
            await call.get(f"http://{place}/hooks/secret")
    row = {"power": "http", "method": "get", "target": place, "count": 2, "refused": 0, "failed": 0}
    hop = {**row, "method": "redirect", "target": "127.0.0.2:9", "count": 1, "refused": 1}
    assert call.told() == [row, hop]
    assert call.seen == [("http", "ok"), ("http", "refused")]


# Redirects -------------------------------------------------------------------------------------------------------


async def test_a_redirect_is_followed_with_what_its_status_means_for_the_method(server: Server) -> None:
    server.says("/there", b"here")
    async with web("127.0.0.1:*") as call:
        for status, method, comes_as in (
            ("301", "post", "GET"), ("302", "post", "GET"), ("303", "put", "GET"), ("307", "post", "POST"),
            ("308", "patch", "PATCH"), ("302", "delete", "DELETE"), ("303", "head", "HEAD"),
        ):  # fmt: skip
            server.asked.clear()
            server.redirects("/from", "there", f"{status} Elsewhere")
            url = f"http://127.0.0.1:{server.port}/from"
            answer = await call.ask("http", method, url, content=b"body", headers={"Content-Type": "a/b", "X-Key": "k"})
            last = server.asked[-1]
            assert (last.method, last.body) == (comes_as, b"body" if comes_as == method.upper() else b"")
            assert last.headers["x-key"] == "k"
            assert ("content-type" in last.headers) == bool(last.body)
            assert answer["url"].endswith("/there")


async def test_a_redirect_is_an_answer_where_the_tool_wants_it_so(server: Server) -> None:
    server.redirects("/from", "/there")
    async with web("127.0.0.1:*") as call:
        answer = await call.get(f"http://127.0.0.1:{server.port}/from", follow_redirects=False)
    assert answer["status"] == 302
    assert ("location", "/there") in answer["headers"]


async def test_credentials_do_not_go_along_to_another_origin(server: Server) -> None:
    async with serving() as other:
        other.says("/")
        server.redirects("/from", f"http://127.0.0.1:{other.port}/")
        headers = {"Authorization": "Bearer t", "Cookie": "a=b", "X-Api-Key": "k", "Accept": "a/b"}
        async with web("127.0.0.1:*") as call:
            await call.get(f"http://127.0.0.1:{server.port}/from", headers=headers)
        [asked] = other.asked
    assert {"authorization", "cookie", "x-api-key"}.isdisjoint(asked.headers)
    assert asked.headers["accept"] == "a/b"


async def test_a_redirect_goes_nowhere_that_the_first_request_may_not(server: Server) -> None:
    async with serving() as other, web(f"127.0.0.1:{server.port}") as call:
        for location, message in (
            (f"http://127.0.0.1:{other.port}/", "does not say in its manifest"),
            (f"http://localhost:{server.port}/", "does not say in its manifest"),
            ("http://169.254.169.254/latest/meta-data/", "does not say in its manifest"),
            ("//169.254.169.254/", "does not say in its manifest"),
            ("file:///etc/passwd", "cannot be asked. Only http"),
            ("gopher://127.0.0.1/", "cannot be asked. Only http"),
            (f"http://user:pw@127.0.0.1:{server.port}/", "names a user or a password"),
            ("http://[::1", "is not a URL"),
            ("\\\\evil\\x", "a backslash"),
        ):
            server.redirects("/from", location)
            with pytest.raises(PowerRefused, match=message.replace(".", r"\.")):
                await call.get(f"http://127.0.0.1:{server.port}/from")
        assert other.asked == []
    assert {asked.target for asked in server.asked} == {"/from"}


async def test_a_circle_of_redirects_has_an_end(server: Server) -> None:
    server.redirects("/a", "/b")
    server.redirects("/b", "/a")
    async with web("127.0.0.1:*") as call:
        with pytest.raises(PowerError, match=f"redirected more than {MOST_REDIRECTS} times"):
            await call.get(f"http://127.0.0.1:{server.port}/a")
    assert len(server.asked) == MOST_REDIRECTS + 1


# What cannot be asked --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://api.example.com/", "Only http:// and https://"),
        ("file:///etc/passwd", "Only http:// and https://"),
        ("unix:///run/docker.sock", "Only http:// and https://"),
        ("api.example.com/x", "Only http:// and https://"),
        ("http://", "is not a host's name"),
        ("http:///etc/passwd", "is not a host's name"),
        ("http://user@api.example.com/", "names a user or a password"),
        ("http://api.example.com:443@127.0.0.1/", "names a user or a password"),
        ("http://api.example.com\\@127.0.0.1/", "a backslash"),
        ("http://api.example.com#@127.0.0.1/", "does not say in its manifest that it uses network api.example.com:80"),
        ("http://api.example.com/\r\nX-Injected: 1", "a control character"),
        ("http://api.example.com/\tx", "a control character"),
        ("http://api.example.com%2f@127.0.0.1/", "names a user or a password"),
        ("http://api.example.com%00.evil.org/", "is not a host's name"),
        ("http://127.0.0.1%23.example.com/", "is not a host's name"),
        ("http://[fe80::1%25eth0]/", "names a network interface|cannot be read"),
        ("http://api.example.com:99999/", "cannot be read|ports are 1 to 65535"),
        ("http://api.example.com:443/", "write https://"),
        ("http://api.example.com:0/", "ports are 1 to 65535"),
        ("http://api.example.com:-1/", "cannot be read|ports are 1 to 65535"),
        ("http://" + "a" * 9000, "at most 8,192"),
        ("http://a" + "." * 300 + "b/", "is not a host's name"),
    ],
)
async def test_a_url_that_cannot_be_asked_is_told_why(url: str, message: str) -> None:
    call = Web(rule(network=["*:*"]), uses=["other.example.com:443"])
    with pytest.raises(PowerRefused, match=message):
        await call.get(url)
    assert call.network.looked_up == call.network.connected == []


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://2130706433/", "127.0.0.1:80"),
        ("http://0x7f.1/", "127.0.0.1:80"),
        ("http://0177.0.0.01:81/", "127.0.0.1:81"),
        ("http://127.1/", "127.0.0.1:80"),
        ("http://[::ffff:127.0.0.1]/", "127.0.0.1:80"),
        ("http://[::ffff:a9fe:a9fe]/", "169.254.169.254:80"),
        ("http://[::1]:8080/", r"\[::1\]:8080"),
        ("http://127\u30020\u30020\u30021/", "127.0.0.1:80"),
    ],
)
async def test_an_address_in_disguise_is_looked_at_as_what_it_is(url: str, place: str) -> None:
    call = Web(rule(network=["*:*"], private=True), uses=["*:*"])
    with pytest.raises(PowerRefused, match=f"uses network {place}|cannot be read: Invalid IPv4 address"):
        await call.get(url)
    assert call.network.looked_up == call.network.connected == []


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"X-A": "1\r\nX-Injected: 2"}, "such as a line's end"),
        ({"X-A": "1\nX"}, "such as a line's end"),
        ({"X-A": "a\0b"}, "such as a line's end"),
        ({"X-A": "\u2028"}, "such as a line's end"),
        ({"X-A\r\nHost": "x"}, "cannot be a header's name"),
        ({"X A": "x"}, "cannot be a header's name"),
        ({"": "x"}, "cannot be a header's name"),
        *(({name: "x"}, "made of the request itself") for name in ("Host", "content-length", "Transfer-Encoding",
          "CONNECTION", "Upgrade", "TE", "Expect", "Proxy-Authorization", "Keep-Alive", "Trailer")),
        ({"Authorization": "NTLM TlRMTVNT"}, "connections are shared"),
        ({"authorization": "negotiate YII"}, "connections are shared"),
        ({f"x-{number}": "1" for number in range(101)}, "too many"),
        ({"x": "1" * 40_000}, "too many"),
        ({"x": 5}, "a name and a text"),
        ("x: y", "must be a mapping"),
        (5, "must be a mapping"),
        ([["a", "b", "c"]], "a name and a text"),
    ],
)  # fmt: skip
async def test_headers_that_would_change_the_request_are_refused(headers: Any, message: str) -> None:
    call = Web(rule(network=["*:*"]), uses=["*:*"])
    with pytest.raises(PowerRefused, match=message):
        await call.get("http://api.example.com/", headers=headers)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"content": b"x" * (MOST_REQUEST + 1)}, "at most 1 MiB"),
        ({"content": {"a": 1}}, "must be bytes or a text"),
        ({"timeout": 0}, "number of seconds"),
        ({"timeout": 1e9}, "number of seconds"),
        ({"timeout": True}, "number of seconds"),
        ({"proxy": "http://x"}, "unexpected keyword argument 'proxy'"),
    ],
)
async def test_what_a_request_cannot_have_is_told(arguments: dict[str, Any], message: str) -> None:
    call = Web(rule(network=["*:*"]), uses=["*:*"])
    with pytest.raises(PowerRefused, match=message):
        await call.ask("http", "post", "http://api.example.com/", **arguments)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats()
    | st.text(max_size=12)
    | st.binary(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
HOSTILE_URLS = st.one_of(
    VALUES,
    st.text(alphabet="htps:/.@#?%[]0127xaf\\\r\n é。", max_size=30),
    st.text(max_size=20).map(lambda text: f"http://{text}/"),
    st.ip_addresses().map(lambda address: f"http://[{address}]:80/"),
)


@given(
    HOSTILE_URLS, st.dictionaries(st.sampled_from(["headers", "content", "timeout", "follow_redirects", "x"]), VALUES)
)
def test_whatever_is_handed_over_is_a_request_or_is_refused(url: Any, more: dict[str, Any]) -> None:
    try:
        request = read_request("get", [url], more)
    except PowerRefused:
        return
    assert request.url.scheme in ("http", "https")
    assert str(place_of(str(request.place))) == str(request.place)
    assert request.url.raw_host.decode() == str(request.place.host)
    assert not request.url.userinfo


async def test_only_the_methods_that_there_are_can_be_asked() -> None:
    call = Web(rule(network=["*:*"]), uses=["*:*"])
    for method in ("connect", "trace", "GET", "_send", "gett"):
        with pytest.raises(PowerRefused, match="http has no function"):
            await call.ask("http", method, "http://api.example.com/")
    with pytest.raises(PowerRefused, match="must be a text"):
        await call.ask("http", "get", 5)


# What comes back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [[], ["Transfer-Encoding: chunked"]], ids=["with its length", "in chunks"])
async def test_an_answer_that_is_too_large_is_cut_off_and_told(server: Server, headers: list[str]) -> None:
    body = b"x" * (MOST_RESPONSE + 1)
    server.says("/", b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n" if headers else body, headers=headers)
    async with web("127.0.0.1:*") as call:
        with pytest.raises(PowerError, match="answered with more than 8 MiB"):
            await call.get(f"http://127.0.0.1:{server.port}/")


async def test_a_small_answer_does_not_become_a_large_one(server: Server) -> None:
    once = bomb(16)
    twice = gzip.compress(once, 9)
    assert len(once) < 100_000
    async with web("127.0.0.1:*") as call:
        for body, encoding, message in (
            (once, "gzip", "answered with more than 8 MiB"),
            (twice, "gzip, gzip", "compressed 2 times over, and once is taken"),
        ):
            server.says("/", body, headers=[f"Content-Encoding: {encoding}"])
            with pytest.raises(PowerError, match=message):
                await call.get(f"http://127.0.0.1:{server.port}/")


async def test_an_answer_that_drips_ends_with_its_time(server: Server) -> None:
    async def drip(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    async def hang(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    server.routes = {"/drip": drip, "/hang": hang}
    async with web("127.0.0.1:*") as call:
        for path in ("/drip", "/hang"):
            with pytest.raises(PowerError, match=r"no whole answer within 0\.2 s.*timeout=…"):
                await call.get(f"http://127.0.0.1:{server.port}{path}", timeout=0.2)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "got no whole answer: Server disconnected"),
        (b"SSH-2.0-OpenSSH\r\n", "got no whole answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "got no whole answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n", "got no whole answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello", "got no whole answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", "cannot be decompressed"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "got no whole answer"),
    ],
)
async def test_an_answer_that_is_none_is_an_error_of_the_request_alone(
    server: Server, answer: bytes, message: str
) -> None:
    async def handler(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.close()

    server.routes["/"] = handler
    server.says("/good", b"good")
    async with web("127.0.0.1:*") as call:
        with pytest.raises(PowerError, match=message):
            await call.get(f"http://127.0.0.1:{server.port}/")
        assert (await call.get(f"http://127.0.0.1:{server.port}/good"))["content"] == b"good"


async def test_a_server_that_is_not_there_is_a_clear_error(server: Server) -> None:
    async with serving() as gone:
        port = gone.port
    async with web("127.0.0.1:*", "gone.example.com:80") as call:
        with pytest.raises(PowerError, match=f"GET http://127.0.0.1:{port} cannot connect"):
            await call.get(f"http://127.0.0.1:{port}/secret")
        with pytest.raises(PowerError, match="cannot connect: its name cannot be resolved: Name or service not known"):
            await call.get("http://gone.example.com/")
