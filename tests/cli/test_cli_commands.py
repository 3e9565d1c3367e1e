"""The commands against a whole server, as a person and as a script use them."""

import csv
import io
import json
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from live_server import LiveServer

from portoser.clients import Client

Run = Callable[..., Any]


def test_status_shows_the_source_its_conditions_and_what_is_open(at: Run, server: LiveServer) -> None:
    said = at("status")
    assert said.code == 0, said.err
    for told in (server.url, "main (worktree", "Idle", "Ready", "off"):
        assert told in said.out
    assert "Auth is off" in said.err
    assert at("status", "--json").json["sources"][0]["phase"] == "Idle"


def test_status_names_the_tools_that_are_not_synced_with_their_place(at: Run, server: LiveServer) -> None:
    file = server.tools / "hello.py"
    good = file.read_text()
    file.write_text("def hello(name: str) -> str:\n    return name +\n")
    try:
        server.api("POST", "/api/mcp/sync").raise_for_status()
        said = at("status")
        assert "hello.py:2" in said.out + said.err
        assert "Invalid" in said.out
        assert [tool["name"] for tool in at("status", "--json").json["not_synced"]] == ["hello"]
    finally:
        file.write_text(good)
        server.api("POST", "/api/mcp/sync").raise_for_status()


def test_a_narrow_terminal_breaks_neither_times_nor_names(
    at: Run, server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "a_rather_long_name_that_says_all_of_what_it_does"
    server.add(name, f"def {name}() -> int:\n    return 1\n", replace_existing=True)
    for columns in ("80", "40"):
        monkeypatch.setenv("COLUMNS", columns)
        assert name in at("tool", "list").out
        status = at("status").out
        assert re.search(r"Ready .* \d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", status), status
        assert "Applied " in status


def test_a_tool_is_added_called_replaced_rolled_back_and_removed(at: Run, home: Path) -> None:
    file = home / "double.py"
    file.write_text('def double(n: int) -> int:\n    """Twice."""\n    return 2 * n\n')
    added = at("tool", "add", file, "--permission", "operator", "--description", "Two times.")
    assert added.code == 0, added.err
    assert "double is version 1, of rest:anonymous" in added.out
    assert at("call", "double", "n=4").out == "8\n"
    again = at("tool", "add", file)
    assert again.code == 1
    assert "replace_existing" in again.err
    file.write_text("def double(n: int) -> int:\n    return 3 * n\n")
    assert at("tool", "add", file, "--replace", "--json").json["version"] == 2
    shown = at("tool", "show", "double")
    assert "return 3 * n" in shown.out
    assert "rest:anonymous" in shown.out
    assert [v["version"] for v in at("tool", "versions", "double", "--json").json["versions"]] == [2, 1]
    assert "current" in at("tool", "versions", "double").out
    assert "version 3" in at("tool", "rollback", "double", "1").out
    assert at("call", "double", "n=4").out == "8\n"
    assert at("tool", "rm", "double").code == 0
    gone = at("call", "double", "n=4")
    assert gone.code == 5
    assert "double" in gone.err


def test_what_git_owns_is_not_removed(at: Run) -> None:
    said = at("tool", "rm", "hello")
    assert said.code == 1
    assert "hello.yaml" in said.err


def test_tools_are_listed_and_filtered(at: Run) -> None:
    listed = at("tool", "list")
    assert "orders.refund" in listed.out
    assert "Synced" in listed.out
    assert "hello" not in at("tool", "list", "--group", "orders").out
    assert at("tool", "list", "--search", "greet", "--json").json["total"] == 1
    assert "No tool is like that." in at("tool", "list", "--owner", "rest:nobody").out


def test_a_call_prints_the_text_the_logs_and_fails_with_its_tool(at: Run, server: LiveServer) -> None:
    assert at("call", "hello", "name=Ada", "times=2").out == "Hello, Ada! Hello, Ada!\n"
    assert at("call", "hello", "--json-args", '{"name": "Ada"}').out == "Hello, Ada!\n"
    assert at("call", "hello", "name=Ada", "--json").json["structuredContent"] == {"result": "Hello, Ada!"}
    server.add("shaky", "def shaky(n: int) -> float:\n    print('trying')\n    return 1 / n\n", replace_existing=True)
    failed = at("call", "shaky", "n=0", "--logs")
    assert failed.code == 1
    assert "ZeroDivisionError" in failed.err
    assert "trying" in failed.err
    assert at("call", "shaky", "n=zero").code == 2
    assert "whole number" in at("call", "shaky", "n=zero").err
    assert at("call", "hello", "nmae=Ada").code == 2
    assert at("call", "hello", "name=Ada", "--json-args", "{}").code == 2
    assert at("call", "hello", "--json-args", "[").code == 2
    invalid = at("call", "hello", "--json-args", "{}")
    assert invalid.code == 1
    assert "name" in invalid.err


def test_a_tool_that_asks_first_runs_with_yes(at: Run) -> None:
    asked = at("call", "orders.refund", "order=A1")
    assert asked.code == 1
    assert "Refund A1?" in asked.err
    assert "A1" in at("call", "orders.refund", "order=A1", "--yes").out


def test_what_a_tool_prints_cannot_steer_the_terminal(at: Run, server: LiveServer) -> None:
    server.add("evil", "def evil() -> str:\n    return '\\x1b[2J[red]x'\n", replace_existing=True)
    assert at("call", "evil").out == "\ufffd[2J[red]x\n"


def test_groups_are_listed_and_switched(at: Run) -> None:
    assert "orders" in at("group", "list").out
    off = at("group", "disable", "orders", "--reason", "incident 7", "--ttl", "2h")
    assert "orders is off" in off.out
    assert "incident 7" in at("group", "list").out
    assert "orders is on" in at("group", "enable", "orders", "--reason", "over").out
    assert at("group", "reset", "orders", "--reason", "over", "--json").json["override"] is None
    told = [line for line in at("audit", "tail", "--event", "group.override").out.splitlines() if "  by " in line]
    for line, state in zip(told[-3:], ("orders off until 20", "orders on  by", "orders as declared  by"), strict=True):
        assert f"group.override  {state}" in line
    assert "group.put  orders on" in at("audit", "tail", "--event", "group.put").out
    unknown = at("group", "enable", "order", "--reason", "x")
    assert unknown.code == 5
    assert "Did you mean 'orders'?" in unknown.err
    assert at("group", "enable", "orders").code == 2


def test_the_audit_log_is_shown_and_exported(at: Run, home: Path) -> None:
    request = at("call", "hello", "name=Ada", "--json").json["requestId"]
    tail = at("audit", "tail", "--tool", "hello", "-n", "1")
    assert "hello" in tail.out
    assert "ok" in tail.out
    assert request in tail.out
    lines = [json.loads(line) for line in at("audit", "tail", "-n", "5", "--json").out.splitlines()]
    assert lines[-1]["request_id"] == request
    assert at("audit", "show", request, "--json").json[0]["arguments"] == {"name": "Ada"}
    assert "hello.yaml" in at("audit", "show", request).out
    assert at("audit", "show", "nothing").code == 5
    exported = at("audit", "export", "--tool", "hello")
    assert json.loads(exported.out.splitlines()[0])["request_id"] == request
    assert at("audit", "export", "--format", "csv", "-o", home / "log.csv").code == 0
    rows = list(csv.DictReader(io.StringIO((home / "log.csv").read_text())))
    assert rows[0]["tool"] == "hello"


def test_a_followed_log_goes_on_with_what_happens(
    at: Run, server: LiveServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from portoser.cli import audit

    shown: list[dict[str, Any]] = []

    def show(entry: dict[str, Any]) -> None:
        shown.append(entry)
        if entry["arguments"] == {"name": "later"}:
            raise KeyboardInterrupt

    monkeypatch.setattr(audit, "print_json_line", show)
    monkeypatch.setattr(audit, "POLL_SECONDS", 0.05)
    server.call("hello", name="before")
    timer = threading.Timer(0.3, lambda: server.call("hello", name="later"))
    timer.start()
    assert at("audit", "tail", "-n", "1", "--follow", "--json").code == 130
    timer.join()
    assert [entry["arguments"]["name"] for entry in shown if entry["event"] == "tool.call"] == ["before", "later"]


def test_config_and_whoami_tell_how_to_connect_and_as_whom(at: Run, server: LiveServer) -> None:
    assert f"{server.url}/mcp/sse" in at("config").out
    assert "mcpServers" in at("config", "--client", "cursor").out
    unknown = at("config", "--client", "emacs")
    assert unknown.code == 2
    assert unknown.err.count("emacs") == 1
    assert {client.value for client in Client} == set(at("config", "--json").json["clients"])
    desktop = at("config", "--client", "claude-desktop", "--json").json["clients"]["claude-desktop"]
    assert Path(desktop["content"]["mcpServers"]["portoser"]["command"]) == Path(sys.executable).parent / "portoser"
    assert at("whoami", "--json").json["subject"] == "anonymous"
    assert "anonymous" in at("whoami").out


def test_a_plan_of_a_folder_says_what_the_server_would_change(at: Run, server: LiveServer, home: Path) -> None:
    import shutil

    equal = at("plan")
    assert equal.code == 0, equal.err
    assert "unchanged" in equal.out
    copy = home / "tools.d"
    shutil.copytree(server.tools, copy)
    same = at("plan", copy)
    assert same.code == 0, same.out + same.err
    (copy / "hello.py").write_text('def hello(name: str, loud: bool) -> str:\n    """Greet."""\n    return name\n')
    (copy / "orders" / "refund.yaml").unlink()
    (copy / "new.yaml").write_text('kind: Tool\nuses: {network: ["api.example.com:443"]}\n')
    (copy / "new.py").write_text("def new() -> int:\n    return 1\n")
    changed = at("plan", copy)
    assert changed.code == 2, changed.out + changed.err
    assert "new.yaml:2:18: The policy grants the tool no network api.example.com:443" in changed.err
    assert "+ new" in changed.out
    assert "~ hello" in changed.out
    assert "a new argument 'loud' is required" in changed.out
    assert "- orders.refund" in changed.out
    assert {c["op"] for c in at("plan", copy, "--json").json["changes"]} == {"create", "update", "delete"}
    assert "| `+` |" in at("plan", copy, "--markdown").out
    (copy / "new.py").write_text("def new( -> int:\n")
    wrong = at("plan", copy)
    assert wrong.code == 1
    assert "new.py:1" in wrong.out


def test_sync_tells_what_came_of_it_and_lets_a_held_plan_through(at: Run, server: LiveServer) -> None:
    done = at("sync")
    assert done.code == 0, done.err
    assert "unchanged" in done.out
    assert at("sync", "--no-wait").code == 0
    files = [server.tools / f"many{number}.{end}" for number in range(6) for end in ("py", "yaml")]
    for file in files:
        file.write_text("kind: Tool\n" if file.suffix == ".yaml" else f"def {file.stem}() -> int:\n    return 1\n")
    assert at("sync", "--json").json["run"]["outcome"] in {"applied", "unchanged"}
    for file in files:
        file.unlink()
    held = at("sync")
    assert held.code == 1
    plan = server.api("GET", "/api/mcp/sync").json()["sources"][0]["held_plan"]
    assert f"portoser sync --approve {plan}" in held.err
    assert f"portoser sync --approve {plan}" in at("status").out
    assert at("sync", "--approve", "0" * 16).code == 1
    let = at("sync", "--approve", plan)
    assert let.code == 0, let.err
    assert "applied" in let.out
    run = server.api("GET", "/api/mcp/sync/runs", params={"limit": 1}).json()["runs"][0]
    assert run["cause"] == "approved by anonymous"
    assert "portoser sync --approve" not in at("status").out
