"""Calling tools over REST is the same invocation as over MCP; how it ended decides the status."""

import threading
import time

import httpx
import pytest
from live_server import LiveServer


def test_a_call_answers_what_the_tool_returned_with_version_and_request(server: LiveServer) -> None:
    answer = server.call("hello", name="Ada", times=2)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert said["outcome"] == "ok"
    assert not said["isError"]
    assert said["content"] == [{"type": "text", "text": "Hello, Ada! Hello, Ada!"}]
    assert said["structuredContent"] == {"result": "Hello, Ada! Hello, Ada!"}
    assert said["tool"] == "hello"
    assert said["version"] == 1
    assert said["durationMs"] > 0
    assert answer.headers["portoser-request-id"] == said["requestId"]
    [entry] = server.api("GET", "/api/mcp/audit/logs", params={"request_id": said["requestId"]}).json()["entries"]
    assert entry["digest"] == said["digest"]
    assert entry["ip"] == "127.0.0.1"


def test_a_tool_that_fails_is_an_answer_not_a_refusal(server: LiveServer) -> None:
    server.add("shaky", "def shaky(n: int) -> float:\n    print('trying')\n    return 1 / n\n")
    answer = server.call("shaky", n=0)
    assert answer.status_code == 200
    said = answer.json()
    assert said["isError"]
    assert said["outcome"] == "error"
    assert "ZeroDivisionError" in said["message"]
    assert "trying" in said["logs"]


def test_a_call_without_a_body_has_no_arguments(server: LiveServer) -> None:
    server.add("plain", "def plain() -> str:\n    return 'x'\n")
    assert server.api("POST", "/api/mcp/tools/plain/call").json()["content"] == [{"type": "text", "text": "x"}]


@pytest.mark.parametrize(
    ("tool", "arguments", "status", "outcome", "told"),
    [
        ("hello", {"name": 7}, 422, "invalid", "name"),
        ("hello", {}, 422, "invalid", "name"),
        ("helo", {"name": "Ada"}, 404, "denied", "Did you mean 'hello'?"),
    ],
)
def test_what_cannot_be_called_is_a_problem_with_its_outcome(
    server: LiveServer, tool: str, arguments: dict[str, object], status: int, outcome: str, told: str
) -> None:
    answer = server.call(tool, **arguments)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["outcome"] == outcome
    assert told in answer.json()["detail"]
    assert answer.headers["portoser-request-id"]


def test_a_tool_that_runs_too_long_is_a_gateway_timeout(server: LiveServer) -> None:
    server.add("slow", "import time\n\ndef slow() -> None:\n    time.sleep(60)\n", limits={"timeout": "300ms"})
    answer = server.call("slow")
    assert answer.status_code == 504
    assert answer.json()["outcome"] == "timeout"


def test_too_many_calls_are_told_to_wait(server: LiveServer) -> None:
    server.add("rare", "def rare() -> int:\n    return 1\n", limits={"rate": "1/h"})
    assert server.call("rare").status_code == 200
    answer = server.call("rare")
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1


def test_a_tool_that_asks_first_runs_once_somebody_agreed(server: LiveServer) -> None:
    asked = server.call("orders.refund", order="A1")
    assert asked.status_code == 409
    assert asked.json()["outcome"] == "input_required"
    assert "Refund A1?" in asked.json()["detail"]
    done = server.api(
        "POST", "/api/mcp/tools/orders.refund/call", json={"arguments": {"order": "A1"}, "confirmed": True}
    )
    assert done.json()["structuredContent"] == {"refunded": "A1"}


def test_a_client_that_leaves_ends_its_call(server: LiveServer) -> None:
    server.add("endless", "import time\n\ndef endless() -> None:\n    time.sleep(25)\n")

    def call_and_leave() -> None:
        with pytest.raises(httpx.TimeoutException):
            httpx.post(f"{server.url}/api/mcp/tools/endless/call", json={}, timeout=0.7)

    thread = threading.Thread(target=call_and_leave)
    thread.start()
    thread.join()
    deadline = time.monotonic() + 10
    while True:
        query = {"tool": "endless", "event": "tool.call"}
        entries = server.api("GET", "/api/mcp/audit/logs", params=query).json()["entries"]
        if entries:
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert entries[0]["outcome"] == "cancelled"
