"""Requests of a tool in a worker of its own: what its author writes, and what comes of it."""

import asyncio
import textwrap
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from http_world import Asked, Network, Server, Web
from powers_world import rule

from portoser.catalog.caller import ANONYMOUS
from portoser.catalog.revision import Limits, SourceFile
from portoser.runtime.runtime import Runtime
from portoser.runtime.types import Call, Execution, Program


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    made = Runtime(workers=1, scratch=tmp_path / "scratch", spares=0)
    await made.start()
    yield made
    await made.aclose()


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    made = Web(rule(network=["127.0.0.1:*"]), uses=["127.0.0.1:*"], network=Network())
    yield made
    await made.power.aclose()


async def run(
    runtime: Runtime, web: Web, code: str, *, timeout: float = 60.0, share: int = 1, **arguments: Any
) -> Execution:
    text = textwrap.dedent(code)

    async def files() -> tuple[SourceFile, ...]:
        return (SourceFile("t.py", text),)

    program = Program(digest=str(hash(text)), entrypoint="t.py:t", limits=Limits(timeout=timeout, share=share))
    call = Call(id=uuid.uuid4().hex, arguments=arguments, caller=ANONYMOUS, request_id="r")
    return await runtime.execute(program, files, call, events=None, powers=web.powers)


async def test_a_tool_asks_a_server_and_reads_what_it_answers(runtime: Runtime, web: Web, server: Server) -> None:
    server.says(
        "/v1", b'{"id": "\xc3\xbc"}', status="201 Created", headers=["Content-Type: application/json", "X-A: 1"]
    )
    code = """
    async def t(base: str) -> dict:
        made = await http.post(base + "/v1?a=1", params={"b": [1, 2], "c": None, "d": True}, json={"name": "ü"})
        same = http.request("put", base + "/v1", data={"a": "b c"}, headers={"X-Key": "k"})
        gone = http.get(base + "/gone")
        try:
            gone.raise_for_status()
        except PowerError as error:
            told = str(error)
        return {
            "made": [made.status_code, made.json(), made.text, made.headers["x-a"], made.is_success, made.url],
            "same": same.reason_phrase, "gone": [gone.status_code, gone.is_success, told],
        }
    from portoser.tool import PowerError
    """
    base = f"http://127.0.0.1:{server.port}"
    execution = await run(runtime, web, code, base=base)
    assert execution.outcome == "ok", execution.message
    assert execution.structured == {
        "made": [201, {"id": "ü"}, '{"id": "ü"}', "1", True, f"{base}/v1?a=1&b=1&b=2&d=true"],
        "same": "Created",
        "gone": [404, False, f"{base}/gone answered 404 Not Found"],
    }
    posted, put, _ = server.asked
    assert (posted.method, posted.target, posted.body) == ("POST", "/v1?a=1&b=1&b=2&d=true", '{"name": "ü"}'.encode())
    assert posted.headers["content-type"] == "application/json"
    assert (put.method, put.body, put.headers["x-key"]) == ("PUT", b"a=b+c", "k")
    assert put.headers["content-type"] == "application/x-www-form-urlencoded"


async def test_what_is_refused_is_an_error_that_the_tool_can_catch_and_the_model_can_read(
    runtime: Runtime, web: Web, server: Server
) -> None:
    code = """
    def t(url: str) -> str:
        return http.get(url).text
    """
    for url, message in (
        ("http://169.254.169.254/latest/meta-data/", "uses network 169.254.169.254:80"),
        ("http://2130706433:99999/", "The URL"),
        (f"http://127.0.0.1@169.254.169.254:{server.port}/", "names a user or a password"),
    ):
        execution = await run(runtime, web, code, url=url)
        assert (execution.outcome, execution.reason) == ("error", "tool_error")
        assert message in (execution.message or "")
    assert server.asked == web.network.connected == []


async def test_calls_that_share_a_worker_await_their_answers(runtime: Runtime, web: Web, server: Server) -> None:
    server.says("/", b"said")
    code = """
    async def t(url: str) -> str:
        early = http.get(url)
        try:
            early.text
        except Exception as error:
            told = str(error)
        return (await early).text + " " + (await http.get(url)).text + ": " + told
    """
    execution = await run(runtime, web, code, share=4, url=f"http://127.0.0.1:{server.port}/")
    assert execution.outcome == "ok", execution.message
    assert execution.content[0]["text"].startswith("said said: http.get() has not been answered yet")


async def test_a_request_ends_with_its_call(runtime: Runtime, web: Web, server: Server) -> None:
    came = asyncio.Event()

    async def hang(asked: Asked, writer: asyncio.StreamWriter) -> None:
        came.set()
        await asyncio.sleep(600)

    server.routes["/"] = hang
    code = "def t(url: str) -> str:\n    return http.get(url).text\n"
    running = asyncio.create_task(run(runtime, web, code, url=f"http://127.0.0.1:{server.port}/"))
    await came.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert web.told()[0]["failed"] == 1
