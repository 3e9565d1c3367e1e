"""Tools with packages of their own: committed, added over REST, and after a restart without an index."""

import asyncio
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_wheels import TinyIndex

from e2e_server import Server, sdk_sse, text_of, until

TOOL = 'import tiny_one\n\ndef {name}(text: str = "ab") -> str:\n    """Twice."""\n    return tiny_one.twice(text)\n'
POLICY = 'kind: Policy\npowers:\n  - {requires: ["tiny-*"], owner: "*", tools: ["*"]}\n'


@pytest.fixture
def index(tmp_path: Path) -> TinyIndex:
    made = TinyIndex(tmp_path / "wheels")
    made.add("tiny-one", "1.0")
    return made


def tool(server: Server, name: str) -> dict[str, Any] | None:
    answer = server.api("GET", f"/api/mcp/tools/{name}")
    return answer.json() if answer.status_code == 200 else None


def environments(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.api("GET", "/api/mcp/status").json()["environments"]
    return found


async def served(server: Server, name: str) -> dict[str, Any]:
    async def there() -> bool:
        return await asyncio.to_thread(tool, server, name) is not None

    await until(there, 60)
    found = tool(server, name)
    assert found is not None
    return found


async def test_a_committed_tool_has_what_it_requires_and_keeps_it_offline(
    own_server: Callable[..., Server], index: TinyIndex
) -> None:
    server = own_server(**index.environ)
    server.write("policy.yaml", POLICY)
    server.write("twice.py", TOOL.format(name="twice"))
    server.write("twice.yaml", 'kind: Tool\nrequires: ["tiny-one==1.0"]\nexamples: [{call: {text: x}, expect: xx}]\n')
    server.write("plain.py", "def plain() -> int:\n    return 1\n")
    server.write("plain.yaml", "kind: Tool\n")
    commit = server.commit("A tool with a package")

    # As long as no wheels are to be had the tool waits, and no other does.
    aside = index.folder.rename(index.folder.with_name("aside"))
    server.start()
    await served(server, "plain")
    [source] = server.api("GET", "/api/mcp/sync").json()["sources"]
    assert "cannot be resolved now" in source["problems"][0]["message"]
    assert tool(server, "twice") is None
    aside.rename(index.folder)
    server.api("POST", "/api/mcp/sync")
    found = await served(server, "twice")
    assert (found["requires"], found["provenance"]["commit"]) == (["tiny-one==1.0"], commit)
    async with sdk_sse(server) as (client, _):
        assert text_of(await client.call_tool("twice", {})) == "abab"
    assert environments(server)["count"] == 1
    assert re.search(r"packages +1 set, 0 MiB", server.cli("status").stdout)
    assert server.stop() == 0, server.output()

    # Another disk below the same registry, and no index any more: what is there is enough; what is not, is told.
    shutil.rmtree(index.folder)
    server.start()
    async with sdk_sse(server) as (client, _):
        assert text_of(await client.call_tool("twice", {})) == "abab"
        server.write("other.py", TOOL.format(name="other"))
        server.write("other.yaml", 'kind: Tool\nrequires: ["tiny-one==1.0"]\n')
        server.commit("Another one of the same set")
        await served(server, "other")
        assert text_of(await client.call_tool("other", {"text": "c"})) == "cc"
    assert environments(server)["count"] == 1
    assert server.stop() == 0, server.output()


async def test_a_set_that_cannot_be_met_holds_its_own_tool_back_and_no_other(
    own_server: Callable[..., Server], index: TinyIndex
) -> None:
    server = own_server(**index.environ)
    server.write("policy.yaml", POLICY)
    server.write("plain.py", "def plain() -> int:\n    return 1\n")
    server.write("plain.yaml", "kind: Tool\n")
    server.write("twice.py", TOOL.format(name="twice"))
    server.write("twice.yaml", 'kind: Tool\nrequires: ["tiny-one==9.9"]\n')
    server.write("numbers.py", "def numbers() -> int:\n    return 1\n")
    server.write("numbers.yaml", "kind: Tool\nrequires: [numpy]\n")
    server.commit()
    server.start()
    await served(server, "plain")

    def problems() -> dict[str, dict[str, Any]]:
        [source] = server.api("GET", "/api/mcp/sync").json()["sources"]
        return {problem["tool"]: problem for problem in source["problems"]}

    async def told() -> bool:
        return {"twice", "numbers"} <= (await asyncio.to_thread(problems)).keys()

    await until(told, 60)
    twice, numbers = problems()["twice"], problems()["numbers"]
    assert (twice["path"], twice["line"], twice["column"]) == ("twice.yaml", 2, 1)
    assert "there is no version of tiny-one==9.9" in twice["message"]
    assert (numbers["path"], numbers["line"]) == ("numbers.yaml", 2)
    assert "No rule of the policy lets numbers of git:main require numpy." in numbers["message"]
    assert 'powers: [{requires: ["numpy"], owner: "git:main", tools: ["numbers"]}]' in numbers["advice"]
    checked = server.cli("validate", "--json")
    messages = {found["tool"]: found["message"] for found in json.loads(checked.stdout)["problems"]}
    assert messages["twice"] == twice["message"]
    assert messages["numbers"] == numbers["message"]

    server.write("twice.yaml", 'kind: Tool\nrequires: ["tiny-one"]\n')
    await served(server, "twice")
    body = {"name": "mine", "code": TOOL.format(name="mine"), "requires": ["tiny-one"]}
    added = await asyncio.to_thread(server.api, "POST", "/api/mcp/tools", json=body)
    assert added.status_code == 201, added.text
    refused = server.api("POST", "/api/mcp/tools", json={**body, "name": "yours", "requires": ["numpy"]})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["path"] == "requires"
    answer = server.api("POST", "/api/mcp/tools/mine/call", json={"arguments": {}})
    assert (answer.json()["outcome"], answer.json()["content"][0]["text"]) == ("ok", "abab")

    # What the policy takes back is in no call's reach any more, whoever owns the tool.
    server.write("policy.yaml", "kind: Policy\nroles: {}\n")

    async def taken_back() -> bool:
        said = await asyncio.to_thread(server.api, "POST", "/api/mcp/tools/mine/call", json={"arguments": {}})
        return said.status_code == 403 and "require tiny-one any more" in said.text

    await until(taken_back, 60)
    assert server.stop() == 0, server.output()
