"""Health, status, metrics, sync and the audit log of an open server, and how errors look."""

import csv
import io
import json
import re
import sys
from pathlib import Path

import httpx
import pytest
from live_server import LiveServer


def test_health_ready_and_status_answer(server: LiveServer) -> None:
    assert server.api("GET", "/health").json()["status"] == "ok"
    ready = server.api("GET", "/ready")
    assert ready.status_code == 200, ready.text
    status = server.api("GET", "/api/mcp/status").json()
    assert status["auth"] == "off"
    assert status["generation"] == ready.json()["generation"]
    assert status["tools"]["Synced"] >= 2
    assert status["database"] == {"kind": "external", "answers": True}
    assert status["runtime"]["sandbox"] == "strict"
    assert status["runtime"]["layers"]["seccomp"].startswith("on: ")
    assert [source["phase"] for source in status["sources"]] == ["Idle"]
    assert any("Auth is off" in warning for warning in status["warnings"])
    assert not any("sandbox" in warning for warning in status["warnings"])


def test_metrics_count_calls_by_outcome(server: LiveServer) -> None:
    def count(outcome: str) -> float:
        answer = server.api("GET", "/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        [line] = [
            line
            for line in answer.text.splitlines()
            if line.startswith(f'portoser_tool_calls_total{{outcome="{outcome}"}}')
        ]
        return float(line.split()[-1])

    ok, invalid = count("ok"), count("invalid")
    server.call("hello", name="Ada")
    server.call("hello", name=7)
    assert (count("ok"), count("invalid")) == (ok + 1, invalid + 1)
    text = server.api("GET", "/metrics").text
    for name in (
        "generation",
        'tools{status="Synced"}',
        'workers{state="idle"}',
        'source_phase{phase="Idle"}',
        "audit_owed",
    ):
        assert f"\nportoser_{name}" in text


def test_the_operators_page_names_every_metric_and_no_other(server: LiveServer) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operators.md").read_text(encoding="utf-8")
    there = set(re.findall(r"^# TYPE (portoser_\w+)", server.api("GET", "/metrics").text, re.MULTILINE))
    assert set(re.findall(r"portoser_[a-z_]+", page)) - {"portoser_owner", "portoser_server"} == {
        name for name in there if not name.endswith("_created")
    }


def test_sync_tells_how_the_source_stands_and_its_runs(server: LiveServer) -> None:
    [source] = server.api("GET", "/api/mcp/sync").json()["sources"]
    assert source["source"] == "main"
    assert source["location"] == str(server.tools)
    assert {condition["name"] for condition in source["conditions"]} >= {"Ready", "Applied"}
    runs = server.api("GET", "/api/mcp/sync/runs", params={"limit": 1}).json()
    assert runs["total"] >= 1
    [run] = runs["runs"]
    assert run["outcome"] == "applied"
    detail = server.api("GET", f"/api/mcp/sync/runs/{run['id']}").json()
    assert {change["name"] for change in detail["plan"]["changes"]} >= {"hello", "orders.refund"}
    assert run["plan_id"] == detail["plan_id"] == detail["plan"]["plan_id"]
    assert server.api("GET", f"/api/mcp/sync/runs/{'0' * 8}-0000-0000-0000-{'0' * 12}").status_code == 404


def test_snippets_name_the_installation_only_to_its_own_machine(server: LiveServer) -> None:
    def command(headers: dict[str, str]) -> str:
        told = server.api("GET", "/api/mcp/config", headers=headers).json()["clients"]["claude-desktop"]
        return str(told["content"]["mcpServers"]["portoser"]["command"])

    assert command({}) == str(Path(sys.executable).parent / "portoser")
    assert command({"X-Forwarded-For": "192.0.2.7"}) == "portoser"


def test_sync_now_waits_for_its_end_unless_told_not_to(server: LiveServer) -> None:
    done = server.api("POST", "/api/mcp/sync")
    assert done.status_code == 200, done.text
    assert done.json()["run"]["outcome"] == "unchanged"
    assert done.json()["run"]["cause"] == "asked for by anonymous"
    asked = server.api("POST", "/api/mcp/sync", params={"wait": "false"})
    assert asked.status_code == 202
    assert asked.json()["run"] is None
    plan = server.api("GET", "/api/mcp/sync/plan").json()
    assert plan["changes"] == []
    assert "unchanged" in plan["text"]


def test_the_log_is_paged_by_cursor_and_filtered(server: LiveServer) -> None:
    for number in range(5):
        server.call("hello", name=f"n{number}")
    query = {"tool": "hello", "event": "tool.call", "outcome": "ok", "limit": 2}
    first = server.api("GET", "/api/mcp/audit/logs", params=query).json()
    second = server.api("GET", "/api/mcp/audit/logs", params={**query, "cursor": first["next_cursor"]}).json()
    names = [entry["arguments"]["name"] for entry in (*first["entries"], *second["entries"])]
    assert names == ["n4", "n3", "n2", "n1"]
    entry = first["entries"][0]
    assert entry["caller"] == {"subject": "anonymous", "name": "anonymous", "groups": [], "kind": "anonymous"}
    assert entry["owner"] == "git:main"
    assert entry["path"] == "hello.yaml"
    assert entry["commit"]
    assert server.api("GET", "/api/mcp/audit/logs", params={"since": "2999-01-01T00:00:00Z"}).json()["entries"] == []
    wrong = server.api("GET", "/api/mcp/audit/logs", params={"cursor": "nonsense"})
    assert wrong.status_code == 422
    assert wrong.json()["errors"][0]["path"] == "cursor"


@pytest.mark.parametrize(
    "when", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "2026-01-01", "1", "-1e300"]
)
def test_any_moment_is_taken_or_refused(server: LiveServer, when: str) -> None:
    assert server.api("GET", "/api/mcp/audit/logs", params={"since": when}).status_code in {200, 422}


def test_an_export_holds_every_entry_as_json_lines_or_csv(server: LiveServer) -> None:
    server.call("hello", name="=HYPERLINK(1)")
    total = len(server.api("GET", "/api/mcp/audit/logs", params={"limit": 1000}).json()["entries"])
    lines = server.api("GET", "/api/mcp/audit/export").text.splitlines()
    assert len(lines) == total
    assert json.loads(lines[0])["arguments"] == {"name": "=HYPERLINK(1)"}
    answer = server.api("GET", "/api/mcp/audit/export", params={"format": "csv", "tool": "hello"})
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert rows[0]["caller"] == "anonymous"
    assert rows[0]["outcome"] == "ok"
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "@"))]


@pytest.mark.parametrize(
    ("method", "path", "content", "headers", "status"),
    [
        ("GET", "/api/mcp/nothing", None, {}, 404),
        ("PATCH", "/api/mcp/tools", None, {}, 405),
        ("POST", "/api/mcp/tools", b"{", {"Content-Type": "application/json"}, 400),
        ("POST", "/api/mcp/tools", b'{"a": NaN}', {"Content-Type": "application/json"}, 400),
        ("POST", "/api/mcp/tools", b'{"name": "\\ud800"}', {"Content-Type": "application/json"}, 400),
        ("POST", "/api/mcp/tools", b'{"name": "a\\u0000"}', {"Content-Type": "application/json"}, 400),
        ("POST", "/api/mcp/tools", b"[" * 20_000, {"Content-Type": "application/json"}, 400),
        ("POST", "/api/mcp/tools", b"[]", {"Content-Type": "application/json"}, 422),
        ("POST", "/api/mcp/tools", b"name=x", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ("POST", "/api/mcp/tools", b" " * 1_600_000, {"Content-Type": "application/json"}, 413),
        ("GET", "/api/mcp/tools?limit=0", None, {}, 422),
        ("GET", "/api/mcp/tools?status=Odd", None, {}, 422),
        ("GET", "/api/mcp/tools/%00", None, {}, 404),
        ("GET", "/api/mcp/tools/%ff%fe", None, {}, 404),
        ("GET", "/api/mcp/sync/runs/" + "0" * 31, None, {}, 422),
        ("GET", "/api/mcp/audit/logs?since=0.5", None, {}, 422),
    ],
)
def test_every_error_is_a_problem_document(
    server: LiveServer, method: str, path: str, content: bytes | None, headers: dict[str, str], status: int
) -> None:
    answer = server.api(method, path, content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert isinstance(problem["errors"], list)


def test_a_body_that_grows_without_saying_so_is_cut_off(server: LiveServer) -> None:
    def endless() -> object:
        for _ in range(100):
            yield b" " * 65536

    answer = httpx.post(
        f"{server.url}/api/mcp/tools", content=endless(), headers={"Content-Type": "application/json"}, timeout=30
    )
    assert answer.status_code == 413


def test_an_override_that_makes_no_sense_is_refused(server: LiveServer) -> None:
    for body in ({"enabled": True, "reason": ""}, {"enabled": True, "reason": "x", "ttl": "soon"}, {"reason": "x"}):
        answer = server.api("PUT", "/api/mcp/groups/orders", json=body)
        assert answer.status_code == 422, body
    unknown = server.api("PUT", "/api/mcp/groups/order", json={"enabled": True, "reason": "x"})
    assert unknown.status_code == 404
    assert "Did you mean 'orders'?" in unknown.json()["detail"]


def test_an_address_names_every_method_that_it_takes(server: LiveServer) -> None:
    answer = server.api("PATCH", "/api/mcp/tools/hello")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "DELETE, GET, HEAD, PUT"
