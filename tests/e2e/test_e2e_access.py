"""Static tokens turn auth on; what a token's groups allow is what its client sees, calls and reads."""

from collections.abc import Callable, Iterator

import httpx
import pytest

from e2e_server import Server, new_folder, new_home, sdk_http, sdk_sse, text_of
from portoser.identity.tokens import new_token

DEVELOPER, DEVELOPER_HASH = new_token()
ADMIN, ADMIN_HASH = new_token()
TOKENS = f"""\
- name: developer
  hash: "{DEVELOPER_HASH}"
  groups: [developers]
- name: boss
  hash: "{ADMIN_HASH}"
  groups: [platform-admins]
"""


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    with new_folder() as folder:
        home = new_home(folder / "home")
        (home / "tokens.yml").write_text(TOKENS)
        server = Server(home, PORTOSER_TOKENS="tokens.yml", PORTOSER_ADMIN_GROUPS="platform-admins")
        server.start()
        yield server
        assert server.stop() == 0, server.output()


@pytest.mark.parametrize("path", ["/api/mcp/tools", "/api/mcp/audit/logs", "/mcp/sse", "/mcp"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer ptk_wrong"}, {"Authorization": "Basic eDp5"}])
def test_without_a_good_token_nothing_is_answered(guarded: Server, path: str, headers: dict[str, str]) -> None:
    answer = guarded.api("GET", path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_client_lists_and_calls_what_its_groups_allow_and_no_more(guarded: Server) -> None:
    async with sdk_sse(guarded, DEVELOPER) as (client, _):
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert "examples.hello" in names
        assert "examples.restricted" not in names
        with pytest.raises(Exception, match="platform-admins"):
            await client.call_tool("examples.restricted", {})
    async with sdk_http(guarded, "2026-07-28", ADMIN) as (client, _):
        assert "examples.restricted" in {tool.name for tool in (await client.list_tools()).tools}
        assert not (await client.call_tool("examples.restricted", {})).is_error


async def test_a_refused_call_is_in_the_audit_log_which_only_auditors_and_admins_read(guarded: Server) -> None:
    async with sdk_sse(guarded, DEVELOPER) as (client, _):
        with pytest.raises(Exception, match="platform-admins"):
            await client.call_tool("examples.restricted", {})
    as_developer = {"Authorization": f"Bearer {DEVELOPER}"}
    as_admin = {"Authorization": f"Bearer {ADMIN}"}
    assert guarded.api("GET", "/api/mcp/audit/logs", headers=as_developer).status_code == 403
    logs = guarded.api(
        "GET", "/api/mcp/audit/logs", headers=as_admin, params={"outcome": "denied", "event": "tool.call"}
    ).json()
    assert logs["entries"][0]["caller"]["subject"] == "developer"
    assert logs["entries"][0]["tool"] == "examples.restricted"
    assert DEVELOPER not in str(logs)


def test_changing_tools_needs_the_editors_role(guarded: Server) -> None:
    body = {"name": "mine", "code": "def mine() -> int:\n    return 1\n"}
    refused = guarded.api("POST", "/api/mcp/tools", json=body, headers={"Authorization": f"Bearer {DEVELOPER}"})
    assert refused.status_code == 403
    made = guarded.api("POST", "/api/mcp/tools", json=body, headers={"Authorization": f"Bearer {ADMIN}"})
    assert made.status_code == 201, made.text
    listed = guarded.api("GET", "/api/mcp/tools", headers={"Authorization": f"Bearer {DEVELOPER}"}).json()
    assert "mine" not in {tool["name"] for tool in listed["tools"]}


def test_a_group_is_switched_off_and_on_with_a_reason(guarded: Server) -> None:
    admin = {"Authorization": f"Bearer {ADMIN}"}
    developer = {"Authorization": f"Bearer {DEVELOPER}"}
    off = guarded.api("PUT", "/api/mcp/groups/examples", json={"enabled": False, "reason": "incident 7"}, headers=admin)
    assert off.status_code == 200, off.text
    call = guarded.api(
        "POST", "/api/mcp/tools/examples.hello/call", json={"arguments": {"name": "x"}}, headers=developer
    )
    assert call.status_code == 403
    assert "examples" in call.text
    on = guarded.api("PUT", "/api/mcp/groups/examples", json={"enabled": True, "reason": "over"}, headers=admin)
    assert on.status_code == 200
    call = guarded.api(
        "POST", "/api/mcp/tools/examples.hello/call", json={"arguments": {"name": "x"}}, headers=developer
    )
    assert call.status_code == 200


async def test_a_connection_narrows_itself_to_groups(guarded: Server) -> None:
    async with sdk_sse(guarded, ADMIN, "?groups=none") as (client, _):
        assert not (await client.list_tools()).tools
    async with sdk_sse(guarded, ADMIN, "?groups=examples") as (client, _):
        assert (await client.list_tools()).tools
        assert "Ada" in text_of(await client.call_tool("examples.hello", {"name": "Ada"}))


async def test_one_users_session_is_not_anothers(guarded: Server) -> None:
    headers = {"Authorization": f"Bearer {DEVELOPER}"}
    async with (
        httpx.AsyncClient(base_url=guarded.url, timeout=10) as http,
        http.stream("GET", "/mcp/sse", headers=headers) as stream,
    ):
        endpoint = ""
        async for line in stream.aiter_lines():
            if line.startswith("data:"):
                endpoint = line.removeprefix("data:").strip()
                break
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        stolen = await http.post(endpoint, json=ping, headers={"Authorization": f"Bearer {ADMIN}"})
        assert stolen.status_code in {403, 404}


def test_open_auth_on_a_public_address_is_refused(own_server: Callable[..., Server]) -> None:
    server = own_server(PORTOSER_HOST="0.0.0.0")
    with pytest.raises(AssertionError, match="--insecure"):
        server.start()
