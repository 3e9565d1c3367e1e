"""Stopped, killed and started again: nothing is lost and nothing is left over."""

import asyncio
import signal
from collections.abc import Callable

import psutil

from e2e_server import Server, sdk_sse, text_of, until

GREET = 'def greet(name: str) -> str:\n    """Greet somebody."""\n    return f"Hello, {name}!"\n'


def children_of(server: Server) -> list[psutil.Process]:
    assert server.process is not None
    return psutil.Process(server.process.pid).children(recursive=True)


async def test_a_killed_server_leaves_no_tool_process_and_starts_again_with_everything(
    own_server: Callable[..., Server],
) -> None:
    server = own_server()
    server.write("greet.py", GREET)
    server.write("greet.yaml", "kind: Tool\n")
    server.start()
    server.api("POST", "/api/mcp/tools", json={"name": "mine", "code": "def mine() -> int:\n    return 1\n"})
    async with sdk_sse(server) as (client, _):
        await client.call_tool("greet", {"name": "Ada"})
        workers = [child for child in children_of(server) if "postgres" not in child.name()]
        assert workers
        server.stop(signal.SIGKILL)

    async def gone() -> bool:
        return not [worker for worker in workers if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE]

    await until(gone)
    server.start()
    names = {tool["name"] for tool in server.api("GET", "/api/mcp/tools").json()["tools"]}
    assert names == {"greet", "mine"}
    entries = server.api("GET", "/api/mcp/audit/logs", params={"tool": "greet", "event": "tool.call"}).json()["entries"]
    assert len(entries) == 1
    async with sdk_sse(server) as (client, _):
        assert text_of(await client.call_tool("greet", {"name": "Ada"})) == "Hello, Ada!"
    assert server.stop() == 0, server.output()


async def test_a_stopped_server_leaves_no_process_and_no_traceback(own_server: Callable[..., Server]) -> None:
    server = own_server(examples=True)
    server.start()
    async with sdk_sse(server) as (client, _):
        await client.call_tool("examples.hello", {"name": "Ada"})
        left = children_of(server)
        assert server.stop(signal.SIGINT) == 0, server.output()

    async def gone() -> bool:
        return not [child for child in left if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]

    await until(gone)
    assert "Traceback" not in server.output()
    assert (server.home / ".portoser").exists()


async def test_a_start_that_is_told_to_end_leaves_no_process_and_no_folder(own_server: Callable[..., Server]) -> None:
    server = own_server()
    server.start()
    assert server.stop() == 0
    data = server.home / ".portoser"
    pid_file = data / "postgres" / "cluster" / "postmaster.pid"
    assert not pid_file.exists()
    server.begin()

    async def begun() -> bool:
        return pid_file.exists()

    await until(begun, 60)
    begins = children_of(server)
    assert server.stop() in (0, 128 + signal.SIGTERM), server.output()
    assert not pid_file.exists()
    assert not [child for child in begins if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert not list((data / "scratch").iterdir())
    assert "Traceback" not in server.output()


async def test_a_postgres_that_dies_is_started_again_and_calls_work_again(own_server: Callable[..., Server]) -> None:
    server = own_server()
    server.write("greet.py", GREET)
    server.write("greet.yaml", "kind: Tool\n")
    server.start()
    server.stop_postgres()

    async def greeted() -> bool:
        answer = server.api("POST", "/api/mcp/tools/greet/call", json={"arguments": {"name": "Ada"}})
        return answer.status_code == 200

    await until(greeted, 20)
    server.api("POST", "/api/mcp/tools", json={"name": "mine", "code": "def mine() -> int:\n    return 1\n"})
    assert server.api("GET", "/api/mcp/tools").json()["total"] == 2
    assert server.stop() == 0, server.output()
    assert "postgres.restarted" in server.output()


async def test_a_long_call_of_a_server_that_is_stopped_gets_an_answer(own_server: Callable[..., Server]) -> None:
    server = own_server()
    server.write("slow.py", 'import time\n\n\ndef slow() -> int:\n    """Sleep."""\n    time.sleep(60)\n    return 1\n')
    server.write("slow.yaml", "kind: Tool\nlimits:\n  timeout: 90\n")
    server.start()
    call = asyncio.create_task(asyncio.to_thread(server.api, "POST", "/api/mcp/tools/slow/call", json={}))

    await asyncio.sleep(2)
    assert await asyncio.to_thread(server.stop) == 0, server.output()
    answer = await call
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "cancelled"
    assert "Traceback" not in server.output()
    server.start()
    entries = server.api("GET", "/api/mcp/audit/logs", params={"tool": "slow", "event": "tool.call"}).json()["entries"]
    assert [entry["outcome"] for entry in entries] == ["cancelled"]


async def test_a_removed_folder_deletes_nothing(own_server: Callable[..., Server]) -> None:
    server = own_server()
    server.write("greet.py", GREET)
    server.write("greet.yaml", "kind: Tool\n")
    server.start()
    server.tools.rename(server.home / "elsewhere")

    async def told() -> bool:
        return (
            "tools.d" in server.api("GET", "/api/mcp/sync").text
            and "Stalled" in server.api("GET", "/api/mcp/sync").text
        )

    await until(told, 20)
    assert server.api("GET", "/api/mcp/tools").json()["total"] == 1
    (server.home / "elsewhere").rename(server.tools)

    async def well() -> bool:
        return "Idle" in server.api("GET", "/api/mcp/sync").text

    await until(well, 30)


async def test_more_deletes_than_the_guard_allows_wait_for_a_person(own_server: Callable[..., Server]) -> None:
    server = own_server()
    for number in range(12):
        server.write(f"greet{number}.py", GREET.replace("greet", f"greet{number}"))
        server.write(f"greet{number}.yaml", "kind: Tool\n")
    server.start()
    assert server.api("GET", "/api/mcp/tools").json()["total"] == 12
    for number in range(10):
        (server.tools / f"greet{number}.yaml").unlink()

    async def held() -> bool:
        return "AwaitingApproval" in server.api("GET", "/api/mcp/sync").text

    await until(held)
    assert server.api("GET", "/api/mcp/tools").json()["total"] == 12


async def test_provenance_names_the_commit_and_says_dirty(own_server: Callable[..., Server]) -> None:
    server = own_server()
    server.write("greet.py", GREET)
    server.write("greet.yaml", "kind: Tool\n")
    commit = server.commit("Add greet")
    server.start()

    async def provenance() -> dict[str, str]:
        said: dict[str, str] = server.api("GET", "/api/mcp/tools/greet").json()["provenance"]
        return said

    assert (await provenance())["commit"] == commit
    assert "Ada" in (await provenance())["author"]
    server.write("greet.py", GREET.replace("Hello", "Hi"))

    async def dirty() -> bool:
        return (await provenance())["commit"] == f"{commit}+dirty"

    await until(dirty)
    after = server.commit("Say hi")

    async def clean() -> bool:
        return (await provenance())["commit"] == after

    await until(clean, 20)
    server.api("POST", "/api/mcp/tools/greet/call", json={"arguments": {"name": "x"}})
    entry = server.api("GET", "/api/mcp/audit/logs", params={"tool": "greet", "event": "tool.call"}).json()["entries"][
        0
    ]
    assert entry["commit"] == after
    assert entry["path"] == "greet.yaml"
