"""Tools that ask the user of their caller, by clients of each era, by REST and at a terminal."""

import asyncio
import contextlib
import os
import pty
import select
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import mcp_types
import pytest
from fastmcp.client.elicitation import ElicitResult
from mcp.client.client import Client as SDKClient
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from e2e_server import Server, fastmcp_client, httpx_client, text_of, until

ORDER = """
from dataclasses import dataclass
from typing import Literal

@dataclass
class Note:
    text: str
    gift: bool = False

def order(name: str) -> str:
    size = ctx.elicit(f"Which size, {name}?", Literal["S", "L"], key="size")
    if size.action != "accept":
        return f"no size: {size.action}"
    note = ctx.elicit("A note?", Note)
    return f"{name}: {size.content}, {note.content.text}, {note.content.gift}"
"""
LATER = """
async def later(day: str) -> dict:
    form = {"type": "object", "properties": {"hour": {"type": "integer", "minimum": 8}}, "required": ["hour"]}
    answer = await ctx.elicit("When?", form)
    return {"day": day, "action": answer.action, "content": answer.content}
"""
REFUND = "def refund(amount: int) -> str:\n    return f'refunded {amount}'\n"

WAYS = ["sse", "legacy", "2026-07-28"]

Reply = Callable[[str, Any], Any]
"""What a user answers to a message: an action and the filled-in form, at once or awaited."""


@pytest.fixture(scope="module", autouse=True)
def tools(server: Server) -> None:
    add(server)


def add(server: Server, **headers: str) -> None:
    for body in (
        {"name": "order", "code": ORDER},
        {"name": "later", "code": LATER, "limits": {"timeout": "1s"}},
        {"name": "refund", "code": REFUND, "confirm": "Refund {amount}?"},
    ):
        server.api("POST", "/api/mcp/tools", json=body, headers=headers).raise_for_status()


def buys(message: str, params: Any) -> tuple[str, dict[str, Any] | None]:
    """A user who answers everything."""
    return "accept", {
        "Which size, Ann?": {"value": "L"},
        "A note?": {"text": "hi", "gift": True},
        "When?": {"hour": 9},
    }.get(message, {})


def always(action: str) -> Reply:
    return lambda message, params: (action, None)


@asynccontextmanager
async def client_of(server: Server, way: str, reply: Reply | None) -> AsyncIterator[SDKClient]:
    """The SDK's client, whose user answers by ``reply``; without one it cannot ask."""

    async def ask(context: object, params: Any) -> mcp_types.ElicitResult:
        assert reply is not None
        answered = reply(params.message, params)
        action, content = await answered if asyncio.iscoroutine(answered) else answered
        return mcp_types.ElicitResult(action=action, content=content)

    callback = ask if reply is not None else None
    transport: Any = sse_client(f"{server.url}/mcp/sse")
    if way == "bridge":
        bridge = ["-m", "portoser", "bridge", f"{server.url}/mcp/sse"]
        transport = stdio_client(StdioServerParameters(command=sys.executable, args=bridge, env=server.env))
    if way in ("sse", "bridge"):
        async with SDKClient(transport, mode="legacy", elicitation_callback=callback, cache=None) as client:
            yield client
        return
    async with httpx_client({}) as http:
        transport = streamable_http_client(f"{server.url}/mcp", http_client=http)
        async with SDKClient(transport, mode=way, elicitation_callback=callback, cache=None) as client:
            yield client


def entries(server: Server, tool: str, **query: str) -> list[dict[str, Any]]:
    """The newest entries of a tool's calls."""
    listed: list[dict[str, Any]] = server.api(
        "GET", "/api/mcp/audit/logs", params={"tool": tool, "event": "tool.call", "limit": "3", **query}
    ).json()["entries"]
    return listed


@pytest.mark.parametrize("way", [*WAYS, "bridge"])
async def test_a_tool_that_asks_twice_has_its_answers(server: Server, way: str) -> None:
    async with client_of(server, way, buys) as client:
        result = await client.call_tool("order", {"name": "Ann"})
    assert text_of(result) == "Ann: L, hi, True"

    async def recorded() -> bool:
        told = sorted((each["outcome"], each["reason"]) for each in entries(server, "order"))
        return told == [("input_required", "question"), ("input_required", "question"), ("ok", None)]

    await until(recorded)
    done = next(each for each in entries(server, "order") if each["outcome"] == "ok")
    assert done["arguments"]["$answers"]["2"] == {"action": "accept", "content": {"text": "hi", "gift": True}}


@pytest.mark.parametrize("transport", ["sse", "http"])
async def test_fastmcps_client_answers_too(server: Server, transport: str) -> None:
    async def handler(message: str, kind: Any, params: Any, context: Any) -> Any:
        return ElicitResult(action="accept", content=buys(message, params)[1])

    async with fastmcp_client(server, transport, elicitation_handler=handler) as client:
        assert text_of(await client.call_tool("order", {"name": "Ann"})) == "Ann: L, hi, True"
        assert text_of(await client.call_tool("refund", {"amount": 5})) == "refunded 5"


@pytest.mark.parametrize("way", WAYS)
async def test_the_code_knows_that_its_user_declined_or_left_the_question(server: Server, way: str) -> None:
    for action in ("decline", "cancel"):
        async with client_of(server, way, always(action)) as client:
            assert text_of(await client.call_tool("order", {"name": "Ann"})) == f"no size: {action}"


@pytest.mark.parametrize("way", WAYS)
async def test_the_time_of_a_person_is_not_the_tools(server: Server, way: str) -> None:
    async def slowly(message: str, params: Any) -> tuple[str, dict[str, Any]]:
        await asyncio.sleep(1.5)  # longer than the tool may take
        return "accept", {"hour": 9}

    async with client_of(server, way, slowly) as client:
        result = await client.call_tool("later", {"day": "Monday"})
    assert result.structured_content == {"day": "Monday", "action": "accept", "content": {"hour": 9}}


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_cannot_ask_is_told_which_can(server: Server, way: str) -> None:
    async with client_of(server, way, None) as client:
        for tool, arguments in (("order", {"name": "Ann"}), ("refund", {"amount": 5})):
            result = await client.call_tool(tool, arguments)
            assert result.is_error
            assert "cannot ask its user" in text_of(result)
            assert "portoser call" in text_of(result)


@pytest.mark.parametrize("way", WAYS)
async def test_a_tool_runs_only_once_its_user_agreed(server: Server, way: str) -> None:
    async with client_of(server, way, always("accept")) as client:
        assert text_of(await client.call_tool("refund", {"amount": 5})) == "refunded 5"
    for action, did in (("decline", "did not agree"), ("cancel", "left the question unanswered")):
        async with client_of(server, way, always(action)) as client:
            result = await client.call_tool("refund", {"amount": 5})
        assert result.is_error
        assert f"The user {did}, so refund was not run." in text_of(result)
        entry = entries(server, "refund", outcome="denied")[0]
        assert (entry["outcome"], entry["reason"]) == ("denied", "declined")


async def test_what_a_client_sends_back_counts_once_and_for_this_call_alone(server: Server) -> None:
    yes = {"confirm": mcp_types.ElicitResult(action="accept")}

    async def call(client: SDKClient, amount: int, state: str | None) -> Any:
        return await client.session.call_tool(
            "refund",
            {"amount": amount},
            input_responses=yes if state is not None else None,
            request_state=state,
            allow_input_required=True,
        )

    async with client_of(server, "2026-07-28", buys) as client:
        asked = await call(client, 5, None)
        assert isinstance(asked, mcp_types.InputRequiredResult)
        state = asked.request_state
        assert state is not None
        for amount, sent, reason in (
            (500, state, "invalid_state"),
            (5, state[:-3] + "AAA", "invalid_state"),
            (5, "v1.AAAA", "invalid_state"),
        ):
            with pytest.raises(MCPError) as refused:
                await call(client, amount, sent)
            assert refused.value.error.data["reason"] == reason
        assert text_of(await call(client, 5, state)) == "refunded 5"
        with pytest.raises(MCPError, match="used before") as replayed:
            await call(client, 5, state)
        assert replayed.value.error.data["reason"] == "spent_state"


async def test_a_client_that_leaves_while_it_is_asked_ends_the_call(server: Server) -> None:
    asked = asyncio.Event()

    async def never(message: str, params: Any) -> tuple[str, None]:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    for way, outcome in (("sse", "cancelled"), ("legacy", "error")):
        asked.clear()

        async def call(way: str = way) -> None:
            async with client_of(server, way, never) as client:
                await client.call_tool("later", {"day": way})

        calling = asyncio.create_task(call())
        await asked.wait()
        calling.cancel()
        await asyncio.wait([calling])

        async def ended(way: str = way, outcome: str = outcome) -> bool:
            return any(
                each["outcome"] in (outcome, "cancelled") and each["arguments"]["day"] == way
                for each in entries(server, "later")
            )

        await until(ended)


async def test_nobody_who_answers_in_time_and_a_server_that_stops(own_server: Callable[..., Server]) -> None:
    server = own_server(PORTOSER_ANSWER_TIMEOUT="1s")
    server.start()
    add(server)
    asked = asyncio.Event()

    async def never(message: str, params: Any) -> tuple[str, None]:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async with client_of(server, "sse", never) as client:
        result = await client.call_tool("later", {"day": "Monday"})
        assert result.is_error
        assert "Nobody answered within 1 s" in text_of(result)
    asked_by_rest = server.api("POST", "/api/mcp/tools/refund/call", json={"arguments": {"amount": 5}}).json()
    await asyncio.sleep(1.1)  # until it has expired
    body = {
        "arguments": {"amount": 5},
        "answers": {"confirm": {"action": "accept"}},
        "state": asked_by_rest["state"],
    }
    late = server.api("POST", "/api/mcp/tools/refund/call", json=body)
    assert (late.status_code, late.json()["code"]) == (422, "expired_state")

    asked.clear()
    with contextlib.suppress(Exception, asyncio.CancelledError):
        async with client_of(server, "sse", never) as client:
            calling = asyncio.create_task(client.call_tool("later", {"day": "Tuesday"}))
            await asked.wait()
            assert await asyncio.to_thread(server.stop) == 0
            await asyncio.wait([calling])


# REST and the terminal ------------------------------------------------------------------------------------------


def test_rest_is_asked_by_a_problem_and_sends_the_answers_with_its_state(server: Server) -> None:
    path = "/api/mcp/tools/order/call"
    body: dict[str, Any] = {"arguments": {"name": "Ann"}}
    asked = server.api("POST", path, json=body)
    assert (asked.status_code, asked.json()["code"], asked.json()["outcome"]) == (409, "question", "input_required")
    [(key, question)] = asked.json()["questions"].items()
    assert (key, question["message"]) == ("size", "Which size, Ann?")
    assert question["schema"]["properties"]["value"]["enum"] == ["S", "L"]
    state = asked.json()["state"]
    wrong = server.api("POST", path, json={**body, "state": state, "answers": {"size": {"action": "accept"}}})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_answer")
    answers = {"size": {"action": "accept", "content": {"value": "S"}}}
    again = server.api("POST", path, json={**body, "state": state, "answers": answers}).json()
    assert list(again["questions"]) == ["2"]
    answers = {"2": {"action": "accept", "content": {"text": "hi"}}}
    done = server.api("POST", path, json={**body, "state": again["state"], "answers": answers})
    assert done.json()["content"][0]["text"] == "Ann: S, hi, False"


def test_rest_may_decline_and_may_not_change_its_mind(server: Server) -> None:
    path, body = "/api/mcp/tools/refund/call", {"arguments": {"amount": 5}}
    asked = server.api("POST", path, json=body).json()
    assert asked["questions"] == {"confirm": {"message": "Refund 5?", "schema": {"type": "object", "properties": {}}}}
    for action, status, reason in (("decline", 200, "declined"), ("accept", 422, "spent_state")):
        answers = {"confirm": {"action": action}}
        told = server.api("POST", path, json={**body, "state": asked["state"], "answers": answers})
        assert told.status_code == status
        assert told.json()["reason"] == reason


def test_the_command_line_answers_by_options(server: Server) -> None:
    done = server.cli("call", "order", "name=Ann", "--answer", "size=S", "--answer", '2={"text": "hi", "gift": true}')
    assert (done.returncode, done.stdout.strip()) == (0, "Ann: S, hi, True"), done.stderr
    declined = server.cli("call", "order", "name=Ann", "--answer", "size=decline")
    assert declined.stdout.strip() == "no size: decline"
    silent = server.cli("call", "order", "name=Ann", "--answer", "size=S")
    assert silent.returncode == 1
    assert "order asks: A note? Answer it with --answer 2=" in silent.stderr
    wrong = server.cli("call", "order", "name=Ann", "--answer", "size=XL")
    assert wrong.returncode == 2
    assert server.cli("call", "refund", "amount=5", "--yes").stdout.strip() == "refunded 5"


def test_a_person_at_a_terminal_fills_in_the_form(server: Server) -> None:
    said = at_terminal(
        server,
        ["call", "order", "name=Ann"],
        [("value (S, L): ", "M\n"), ("value (S, L): ", "L\n"), ("text: ", "hi\n"), ("gift (yes, no) [false]: ", "\n")],
    )
    assert "Which size, Ann?" in said
    assert '"M" is not one of' in said
    assert said.rstrip().endswith("Ann: L, hi, False")
    assert "refunded 5" in at_terminal(server, ["call", "refund", "amount=5"], [("Refund 5? [y/N] ", "y\n")])
    assert "was not run" in at_terminal(server, ["call", "refund", "amount=5"], [("Refund 5? [y/N] ", "\n")])
    assert "no size: decline" in at_terminal(server, ["call", "order", "name=Ann"], [("value (S, L): ", "\x04")])


def at_terminal(server: Server, command: list[str], typed: list[tuple[str, str]]) -> str:
    """What a command says to a person who types each text once its prompt is there."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(
            sys.executable,
            [sys.executable, "-m", "portoser", *command],
            {**server.env, "PORTOSER_URL": server.url, "TERM": "dumb"},
        )
    said, seen, deadline = "", 0, time.monotonic() + 60
    try:
        while True:
            assert time.monotonic() < deadline, said
            if typed and typed[0][0] in said[seen:]:
                prompt, text = typed.pop(0)
                seen = said.index(prompt, seen) + len(prompt)
                os.write(terminal, text.encode())
            if select.select([terminal], [], [], 0.1)[0]:
                try:
                    piece = os.read(terminal, 65536)
                except OSError:  # it has ended
                    piece = b""
                if not piece:
                    assert not typed, said
                    return said.replace("\r\n", "\n")
                said += piece.decode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)
