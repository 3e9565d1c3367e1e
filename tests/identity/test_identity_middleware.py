"""Every request has a caller, or an answer that says how to become one."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from portoser.audit.entry import Entry, Event, Outcome
from portoser.catalog.caller import Caller, CallerKind
from portoser.catalog.errors import PortoserError
from portoser.identity.authenticate import Authenticator
from portoser.identity.middleware import IdentityMiddleware, caller_of
from portoser.identity.tokens import TokenFile, new_token


async def whoami(request: Request) -> JSONResponse:
    caller = caller_of(request.scope)
    return JSONResponse(
        {
            "subject": caller.subject,
            "kind": caller.kind,
            "groups": sorted(caller.groups),
            "address": caller.address,
            "agent": caller.agent,
            "session": caller.session,
            "only": None if caller.only_groups is None else sorted(caller.only_groups),
        }
    )


class World:
    """An app behind the middleware, and what was told of failed sign-ins."""

    def __init__(self, tokens: TokenFile | None, *, proxies: tuple[str, ...] = (), peer: str = "10.0.0.9") -> None:
        self.failures: list[Entry] = []
        paths = ("/", "/health", "/ready", "/metrics", "/health/x", "/docs", "/docs/start.js", "/openapi.json")
        app = Starlette(routes=[Route(path, whoami) for path in paths])
        self.middleware = IdentityMiddleware(app, Authenticator(tokens, proxies), on_failure=self.failures.append)
        self.transport = httpx.ASGITransport(self.middleware, client=(peer, 1234))

    async def get(self, path: str = "/", headers: Any = None) -> httpx.Response:
        async with httpx.AsyncClient(transport=self.transport, base_url="http://test") as client:
            return await client.get(path, headers=headers)


@pytest.fixture
def token_and_file(tmp_path: Path) -> tuple[str, TokenFile]:
    token, digest = new_token()
    expired, expired_digest = new_token()
    path = tmp_path / "tokens.yaml"
    path.write_text(
        yaml.safe_dump(
            [
                {"name": "cursor", "hash": digest, "groups": ["operator"], "subject": "ann"},
                {"name": "old", "hash": expired_digest, "expires": "2020-01-01"},
            ]
        ),
        encoding="utf-8",
    )
    (tmp_path / "expired").write_text(expired, encoding="utf-8")
    return token, TokenFile(path)


async def test_with_auth_off_everybody_is_anonymous() -> None:
    response = await World(None).get(headers={"Authorization": "Bearer whatever", "User-Agent": "cursor/1"})
    assert response.json() == {
        "subject": "anonymous",
        "kind": "anonymous",
        "groups": [],
        "address": "10.0.0.9",
        "agent": "cursor/1",
        "session": None,
        "only": None,
    }


async def test_a_token_names_its_holder(token_and_file: tuple[str, TokenFile]) -> None:
    token, tokens = token_and_file
    response = await World(tokens).get(
        "/?groups=b,a&groups=%20c,&x=1", headers={"authorization": f"bearer  {token}", "Mcp-Session-Id": "s1"}
    )
    assert response.status_code == 200
    told = response.json()
    assert (told["subject"], told["kind"], told["groups"]) == ("ann", "token", ["operator"])
    assert (told["only"], told["session"]) == (["a", "b", "c"], "s1")


@pytest.mark.parametrize("query", ["", "?mygroups=a", "?mygroups=", "?x=groups"])
async def test_who_does_not_ask_for_groups_is_not_narrowed(query: str) -> None:
    assert (await World(None).get(f"/{query}")).json()["only"] is None


@pytest.mark.parametrize("query", ["?groups=", "?groups=,", "?groups=%20,,", "?groups", "?x=1&groups="])
async def test_an_empty_list_of_groups_narrows_to_nothing(query: str) -> None:
    assert (await World(None).get(f"/{query}")).json()["only"] == []


async def test_without_a_credential_the_answer_says_how(token_and_file: tuple[str, TokenFile]) -> None:
    world = World(token_and_file[1])
    response = await world.get()
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["www-authenticate"] == 'Bearer realm="portoser"'
    assert response.json()["code"] == "missing"
    assert "Authorization: Bearer" in response.json()["detail"]
    assert world.failures == []


@pytest.mark.parametrize(
    ("authorization", "reason", "error"),
    [
        ("Bearer ptk_wrong", "unknown_token", "invalid_token"),
        ("Basic dXNlcjpwYXNz", "malformed", "invalid_request"),
        ("Bearer", "malformed", "invalid_request"),
        ("Bearer \xff\xfe", "unknown_token", "invalid_token"),
        ("", "malformed", "invalid_request"),
    ],
)
async def test_a_wrong_credential_is_refused_and_told_without_the_credential(
    token_and_file: tuple[str, TokenFile], authorization: str, reason: str, error: str
) -> None:
    world = World(token_and_file[1])
    response = await world.get(headers=[(b"authorization", authorization.encode("latin-1"))])
    assert (response.status_code, response.json()["code"]) == (401, reason)
    assert f'error="{error}"' in response.headers["www-authenticate"]
    [entry] = world.failures
    assert (entry.event, entry.outcome, entry.reason, entry.path) == (Event.SIGNIN_FAILED, Outcome.DENIED, reason, "/")
    assert entry.caller.address == "10.0.0.9"
    assert not entry.caller.is_anonymous
    assert "ptk_wrong" not in repr(entry)


async def test_of_a_flood_of_wrong_credentials_a_part_is_told(token_and_file: tuple[str, TokenFile]) -> None:
    world = World(token_and_file[1])
    for _ in range(40):
        assert (await world.get(headers={"Authorization": "Bearer wrong"})).status_code == 401
    assert len(world.failures) == 10


@pytest.mark.parametrize("query", ["groups=a&" * 2000, "groups&" * 9000, "x=1&" * 5000 + "groups=a"])
async def test_a_query_of_too_many_fields_is_refused(token_and_file: tuple[str, TokenFile], query: str) -> None:
    token, tokens = token_and_file
    for world, headers in ((World(None), {}), (World(tokens), {"Authorization": f"Bearer {token}"})):
        response = await world.get(f"/?{query}", headers=headers)
        assert response.status_code == 400
        assert response.headers["content-type"] == "application/problem+json"
        assert "1,000 fields" in response.json()["detail"]


async def test_an_expired_token_is_told_that_it_is(token_and_file: tuple[str, TokenFile], tmp_path: Path) -> None:
    expired = (tmp_path / "expired").read_text(encoding="utf-8")
    response = await World(token_and_file[1]).get(headers={"Authorization": f"Bearer {expired}"})
    assert (response.status_code, response.json()["code"]) == (401, "expired")


async def test_two_credentials_are_refused(token_and_file: tuple[str, TokenFile]) -> None:
    token, tokens = token_and_file
    both = [(b"authorization", f"Bearer {token}".encode()), (b"authorization", b"Bearer other")]
    assert (await World(tokens).get(headers=both)).json()["code"] == "malformed"


async def test_probes_are_open_and_have_no_rights(token_and_file: tuple[str, TokenFile]) -> None:
    world = World(token_and_file[1])
    for path in ("/health", "/ready"):
        response = await world.get(path, headers={"Authorization": "Bearer wrong"})
        assert response.status_code == 200
        assert (response.json()["subject"], response.json()["kind"]) == ("nobody", CallerKind.TOKEN)
    for path in ("/health/x", "/health/", "/metrics", "//health"):
        assert (await world.get(path)).status_code == 401


async def test_what_tells_of_rest_is_open_as_a_browser_sends_no_token(token_and_file: tuple[str, TokenFile]) -> None:
    world = World(token_and_file[1])
    for path in ("/docs", "/docs/start.js", "/openapi.json"):
        assert (await world.get(path)).json()["subject"] == "nobody"
    for path in ("/docsx", "/openapi.json/x"):
        assert (await world.get(path)).status_code == 401


async def test_metrics_are_open_to_this_machine_alone(token_and_file: tuple[str, TokenFile]) -> None:
    local = World(token_and_file[1], peer="127.0.0.1")
    assert (await local.get("/metrics")).status_code == 200
    assert (await local.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1"})).status_code == 401
    assert (await local.get("/metrics", headers={"Forwarded": "for=1.2.3.4"})).status_code == 401
    assert (await World(token_and_file[1], peer="::1").get("/metrics")).status_code == 200


@pytest.mark.parametrize(
    ("peer", "proxies", "forwarded", "address"),
    [
        ("10.0.0.9", (), ["1.2.3.4"], "10.0.0.9"),
        ("10.0.0.9", ("10.0.0.0/8",), ["1.2.3.4"], "1.2.3.4"),
        ("10.0.0.9", ("10.0.0.0/8",), ["6.6.6.6, 1.2.3.4, 10.0.0.2"], "1.2.3.4"),
        ("10.0.0.9", ("10.0.0.0/8",), ["6.6.6.6", "1.2.3.4,10.0.0.2"], "1.2.3.4"),
        ("10.0.0.9", ("10.0.0.0/8",), ["made up, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.9", ("10.0.0.0/8",), ["10.0.0.1"], "10.0.0.1"),
        ("10.0.0.9", ("10.0.0.0/8",), ["1.2.3.4:5678"], "1.2.3.4"),
        ("10.0.0.9", ("10.0.0.0/8",), ["[2001:db8::1]:443"], "2001:db8::1"),
        ("::ffff:10.0.0.9", ("10.0.0.0/8",), ["2001:db8::1"], "2001:db8::1"),
        ("10.0.0.9", ("10.0.0.9",), [""], "10.0.0.9"),
        ("unix", ("10.0.0.0/8",), ["1.2.3.4"], "unix"),
    ],
)
async def test_the_address_is_the_last_hop_that_is_not_trusted(
    peer: str, proxies: tuple[str, ...], forwarded: list[str], address: str
) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    assert (await World(None, proxies=proxies, peer=peer).get(headers=headers)).json()["address"] == address


def test_a_request_that_came_another_way_has_no_caller() -> None:
    with pytest.raises(PortoserError, match="no caller"):
        caller_of({"type": "http"})
    with pytest.raises(PortoserError, match="no caller"):
        caller_of({"type": "http", "state": {"caller": "admin"}})
    assert caller_of({"state": {"caller": Caller(subject="a")}}).subject == "a"


async def test_a_websocket_without_a_credential_is_closed(token_and_file: tuple[str, TokenFile]) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    await World(token_and_file[1]).middleware({"type": "websocket", "path": "/", "headers": []}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert json.dumps(sent)
