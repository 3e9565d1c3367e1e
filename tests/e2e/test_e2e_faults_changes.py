"""Changes that meet: two at once, one during a sync, one of a name that git owns. One wins, and the other is told."""

import asyncio
from collections.abc import Callable
from typing import Any

from e2e_server import Server, until

SLOW = 'import time\n\ntime.sleep(2)\n\n\ndef slow() -> int:\n    """Take long to import."""\n    return 1\n'


def code(name: str, answer: int = 1) -> str:
    return f'def {name}() -> int:\n    """Answer."""\n    return {answer}\n'


async def put(server: Server, name: str, answer: int, **headers: str) -> Any:
    body = {"code": code(name, answer)}
    return await asyncio.to_thread(server.api, "PUT", f"/api/mcp/tools/{name}", json=body, headers=headers)


async def test_changes_that_meet(own_server: Callable[..., Server]) -> None:
    server = own_server()
    server.write("owned.py", code("owned"))
    server.write("owned.yaml", "kind: Tool\n")
    commit = server.commit("Own it")
    server.start()

    # A name that git owns: who owns it, and where to change it.
    refused = await put(server, "owned", 2)
    assert refused.status_code == 409
    detail = refused.json()["detail"]
    assert detail == f"The tool 'owned' belongs to git:main: change owned.yaml in {server.tools} at commit {commit}."
    assert (await asyncio.to_thread(server.api, "DELETE", "/api/mcp/tools/owned")).status_code == 409

    # Two that saw the same state: one wins.
    assert (await put(server, "mine", 1)).status_code == 201
    etag = server.api("GET", "/api/mcp/tools/mine").headers["etag"]
    answers = await asyncio.gather(*(put(server, "mine", number, **{"If-Match": etag}) for number in range(2, 8)))
    won = [answer for answer in answers if answer.status_code == 200]
    lost = [answer for answer in answers if answer.status_code != 200]
    assert len(won) == 1
    assert {answer.status_code for answer in lost} <= {409, 412}
    assert all(answer.headers["content-type"] == "application/problem+json" for answer in lost)
    assert all("mine" in answer.json()["detail"] or "The tool is not at" in answer.json()["detail"] for answer in lost)
    now = server.api("GET", "/api/mcp/tools/mine").json()
    assert now["version"] == 2
    called = server.api("POST", "/api/mcp/tools/mine/call", json={})
    assert str(called.json()["structuredContent"]["result"]) in won[0].request.content.decode()

    # Two that make the same name at once.
    body = {"name": "both", "code": code("both")}
    made = await asyncio.gather(*(asyncio.to_thread(server.api, "POST", "/api/mcp/tools", json=body) for _ in range(4)))
    assert sorted(answer.status_code for answer in made) == [201, 409, 409, 409]

    # While a sync admits code that takes long: neither waits for the other.
    server.write("slow.py", SLOW)
    server.write("slow.yaml", "kind: Tool\n")
    server.write("late.py", SLOW.replace("slow", "late"))
    server.write("late.yaml", "kind: Tool\n")

    async def syncing() -> bool:
        [source] = server.api("GET", "/api/mcp/sync").json()["sources"]
        return bool(source["phase"] != "Idle")

    await until(syncing)
    assert (await put(server, "meanwhile", 1)).status_code == 201
    assert (await put(server, "late", 7)).status_code == 201
    names = {tool["name"] for tool in server.api("GET", "/api/mcp/tools").json()["tools"]}
    assert "slow" not in names

    async def synced() -> bool:
        tools = {tool["name"]: tool for tool in server.api("GET", "/api/mcp/tools").json()["tools"]}
        return "slow" in tools and tools["late"]["status"] == "Conflict"

    await until(synced, 30)
    late = server.api("GET", "/api/mcp/tools/late").json()
    assert late["owner"].startswith("rest:")
    assert "late.yaml:1" in late["problem"]
    runs = server.api("GET", "/api/mcp/sync/runs").json()["runs"]
    assert {run["outcome"] for run in runs} == {"applied"}
