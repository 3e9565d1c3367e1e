"""The README's curl commands, run by curl as they are written, against a server of the test."""

import asyncio
import json
import shlex
import subprocess

import pytest

from e2e_server import Server, sdk_sse, text_of

CONFIG = "curl http://localhost:8000/api/mcp/config"
ADD = (
    'curl -X POST http://localhost:8000/api/mcp/tools -H "Content-Type: application/json" '
    '-d \'{"name": "list_services", "description": "List all services in the registry", '
    '"code": "def list_services():\\n return registry.services()\\n", "permissions": ["operator"]}\''
)
LIST = "curl http://localhost:8000/api/mcp/tools | jq"
AUDIT = "curl http://localhost:8000/api/mcp/audit/logs?limit=50 | jq"


def shell(server: Server, command: str) -> object:
    """What a shell prints for the command, with the port of the test's server."""
    command = command.replace("http://localhost:8000", server.url).replace("curl ", "curl -sS ")
    first, _, _ = command.partition(" | jq")
    done = subprocess.run(shlex.split(first), capture_output=True, text=True, timeout=30, check=True)
    return json.loads(done.stdout)


def test_the_config_answers_with_urls_transport_and_headers(server: Server) -> None:
    said = shell(server, CONFIG)
    assert isinstance(said, dict)
    assert said["sse_url"] == f"{server.url}/mcp/sse"
    assert said["transport"] == "sse"
    assert said["headers"] == {}
    assert said["http_url"] == f"{server.url}/mcp"


async def test_a_tool_added_by_curl_is_announced_listed_called_and_audited(server: Server) -> None:
    async with sdk_sse(server) as (client, notes):
        assert "list_services" not in {tool.name for tool in (await client.list_tools()).tools}
        seen = notes.changed
        added = await asyncio.to_thread(shell, server, ADD)
        assert isinstance(added, dict)
        assert added["name"] == "list_services"
        await notes.more_than(seen)
        assert "list_services" in {tool.name for tool in (await client.list_tools()).tools}
        result = await client.call_tool("list_services", {})
        assert not result.is_error, text_of(result)
        services = json.loads(text_of(result))
        assert services
        assert {"name", "host"} <= set(services[0])

    listed = shell(server, LIST)
    assert isinstance(listed, dict)
    assert listed["total"] == len(listed["tools"])
    assert "list_services" in {tool["name"] for tool in listed["tools"]}

    audit = shell(server, AUDIT)
    assert isinstance(audit, dict)
    call = next(
        entry for entry in audit["entries"] if entry["tool"] == "list_services" and entry["event"] == "tool.call"
    )
    assert call["caller"]["subject"] == "anonymous"
    assert call["arguments"] == {}
    assert call["outcome"] == "ok"
    assert call["result"]
    assert call["ip"] == "127.0.0.1"
    assert call["at"]
    made = next(
        entry for entry in audit["entries"] if entry["tool"] == "list_services" and entry["event"] == "tool.created"
    )
    assert made["owner"].startswith("rest:")


async def test_a_tool_of_several_files_is_added_over_rest(server: Server) -> None:
    body = {
        "name": "vat",
        "description": "A price with tax.",
        "files": [
            {"path": "rates.py", "content": "RATE = 0.2\n"},
            {
                "filename": "vat.py",
                "content": "from rates import RATE\n\ndef vat(net: float) -> float:\n    return net * (1 + RATE)\n",
            },
        ],
    }
    answer = server.api("POST", "/api/mcp/tools", json=body)
    assert answer.status_code == 201, answer.text
    async with sdk_sse(server) as (client, _):
        result = await client.call_tool("vat", {"net": 10})
        assert result.structured_content == {"result": 12.0}
    again = server.api("POST", "/api/mcp/tools", json=body)
    assert again.status_code == 409
    assert "replace_existing" in again.text


async def test_secrets_in_arguments_do_not_reach_the_audit_log(server: Server) -> None:
    code = "def login(user: str, password: str) -> str:\n    return f'{user} said {password}'\n"
    server.api("POST", "/api/mcp/tools", json={"name": "login", "code": code}).raise_for_status()
    answer = server.api(
        "POST", "/api/mcp/tools/login/call", json={"arguments": {"user": "ada", "password": "correct horse"}}
    )
    assert "correct horse" in answer.text
    logs = server.api("GET", "/api/mcp/audit/logs", params={"tool": "login"})
    assert "ada" in logs.text
    assert "correct horse" not in logs.text


def test_a_name_that_git_owns_is_refused_with_its_place(server: Server) -> None:
    answer = server.api("POST", "/api/mcp/tools", json={"name": "examples.hello", "code": "def hello(): ...\n"})
    assert answer.status_code == 409
    assert answer.headers["content-type"].startswith("application/problem+json")
    said = answer.text
    assert server.git("rev-parse", "HEAD") in said
    assert "hello" in said


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}], ids=["host", "origin"]
)
def test_a_foreign_host_or_origin_is_refused_everywhere(server: Server, headers: dict[str, str]) -> None:
    for path in ("/api/mcp/tools", "/mcp", "/mcp/sse"):
        assert server.api("GET", path, headers=headers).status_code in {403, 421}
