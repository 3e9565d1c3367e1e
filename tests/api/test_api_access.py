"""Who sees, calls and changes what over REST, where callers say who they are."""

import httpx
import pytest
from live_server import Guarded, Holder

REST_TOOL = {"name": "mine", "code": "def mine() -> int:\n    return 1\n", "replace_existing": True}


def test_everybody_sees_what_they_may_call_and_editors_see_all(guarded: Guarded) -> None:
    def names(holder: object, **query: str) -> set[str]:
        answer = guarded.server.api("GET", "/api/mcp/tools", by=holder, params=query)  # type: ignore[arg-type]
        return {tool["name"] for tool in answer.json()["tools"]}

    guarded.server.api("POST", "/api/mcp/tools", json=REST_TOOL, by=guarded.editor).raise_for_status()
    assert names(guarded.operator) == {"hello", "orders.refund"}
    assert names(guarded.nobody) == set()
    assert names(guarded.editor) >= {"hello", "orders.refund", "mine"}
    assert names(guarded.editor, all="false") == set()
    assert names(guarded.admin) >= {"hello", "orders.refund", "mine"}
    refused = guarded.server.api("GET", "/api/mcp/tools", by=guarded.operator, params={"all": "true"})
    assert refused.status_code == 403


def test_code_is_for_editors(guarded: Guarded) -> None:
    assert guarded.server.api("GET", "/api/mcp/tools/hello", by=guarded.operator).json()["files"] is None
    assert guarded.server.api("GET", "/api/mcp/tools/hello", by=guarded.editor).json()["files"]


def test_a_tool_that_one_may_not_call_is_forbidden_and_says_why(guarded: Guarded) -> None:
    for answer in (
        guarded.server.api("GET", "/api/mcp/tools/hello", by=guarded.nobody),
        guarded.server.call("hello", by=guarded.nobody, name="x"),
    ):
        assert answer.status_code == 403
        assert "operator" in answer.json()["detail"]
    assert guarded.server.call("hello", by=guarded.operator, name="x").status_code == 200


@pytest.mark.parametrize("who", ["operator", "auditor", "nobody"])
def test_changing_takes_the_editors_role(guarded: Guarded, who: str) -> None:
    by = getattr(guarded, who)
    for method, path, body in (
        ("POST", "/api/mcp/tools", REST_TOOL),
        ("PUT", "/api/mcp/tools/mine", REST_TOOL),
        ("DELETE", "/api/mcp/tools/mine", None),
        ("POST", "/api/mcp/sync", None),
        ("GET", "/api/mcp/sync/plan", None),
    ):
        answer = guarded.server.api(method, path, json=body, by=by)
        assert answer.status_code == 403, (method, path, answer.text)
        assert "editor" in answer.json()["detail"]


def test_problems_runs_and_plans_are_for_those_who_may_see_every_tool(guarded: Guarded) -> None:
    runs = guarded.server.api("GET", "/api/mcp/sync/runs", by=guarded.editor).json()["runs"]
    for path in ("/api/mcp/sync/runs", f"/api/mcp/sync/runs/{runs[0]['id']}"):
        for by in (guarded.editor, guarded.auditor, guarded.admin):
            assert guarded.server.api("GET", path, by=by).status_code == 200
        for by in (guarded.operator, guarded.nobody):
            assert guarded.server.api("GET", path, by=by).status_code == 403
    bad = guarded.server.tools / "secret_plans.yaml"
    bad.write_text("kind: Tool\nnonsense: 1\n")
    try:
        guarded.server.api("POST", "/api/mcp/sync", by=guarded.editor).raise_for_status()
        for path in ("/api/mcp/sync", "/api/mcp/status"):
            for by in (guarded.editor, guarded.auditor, guarded.admin):
                assert "secret_plans" in guarded.server.api("GET", path, by=by).text
            told = guarded.server.api("GET", path, by=guarded.nobody)
            assert told.status_code == 200
            assert "secret_plans" not in told.text
            [source] = told.json()["sources"]
            assert source["phase"] == "Idle"
            assert source["problem_count"] >= 1
            assert {c["name"]: c["status"] for c in source["conditions"]}["Ready"] == "False"
            assert (source["problems"], source["last_run"], source["location"]) == ([], None, "")
    finally:
        bad.unlink()
        guarded.server.api("POST", "/api/mcp/sync", by=guarded.editor).raise_for_status()


def test_who_may_call_a_group_is_told_to_editors_and_auditors(guarded: Guarded) -> None:
    def permissions(by: Holder) -> list[object]:
        groups = guarded.server.api("GET", "/api/mcp/groups", by=by).json()["groups"]
        return [group["permissions"] for group in groups if group["name"] == "orders"]

    assert permissions(guarded.editor) == permissions(guarded.auditor) == permissions(guarded.admin) == [["operator"]]
    assert permissions(guarded.operator) == permissions(guarded.nobody) == [None]


def test_a_refused_change_is_in_the_audit_log(guarded: Guarded) -> None:
    guarded.server.api("DELETE", "/api/mcp/tools/hello", by=guarded.operator)
    [entry, *_] = guarded.server.api(
        "GET", "/api/mcp/audit/logs", params={"event": "refused", "caller": "olga"}, by=guarded.auditor
    ).json()["entries"]
    assert entry["path"] == "DELETE /api/mcp/tools/hello"
    assert entry["tool"] == "hello"
    assert entry["outcome"] == "denied"


def test_who_replaces_anothers_tool_takes_over_nothing_that_it_was_granted(guarded: Guarded) -> None:
    def put(by: Holder, **fields: object) -> httpx.Response:
        body = {"code": "def shared() -> int:\n    return 1\n", "description": "One.", **fields}
        return guarded.server.api("PUT", "/api/mcp/tools/shared", json=body, by=by)

    uses = {"network": ["api.example.com:443"]}
    assert put(guarded.admin).status_code == 201
    assert put(guarded.editor).status_code == 200
    answer = put(guarded.editor, uses=uses)
    assert answer.status_code == 403
    assert "is granted to that owner: replacing it takes the role 'admin'" in answer.json()["detail"]
    assert put(guarded.admin, uses=uses).status_code == 200
    assert put(guarded.editor).status_code == 403


def test_groups_are_switched_by_admins(guarded: Guarded) -> None:
    off = {"enabled": False, "reason": "incident 7"}
    assert guarded.server.api("PUT", "/api/mcp/groups/orders", json=off, by=guarded.editor).status_code == 403
    answer = guarded.server.api("PUT", "/api/mcp/groups/orders", json={**off, "ttl": "2h"}, by=guarded.admin)
    assert answer.status_code == 200, answer.text
    group = answer.json()
    assert not group["enabled"]
    assert group["declared_enabled"]
    assert group["override"]["reason"] == "incident 7"
    assert group["override"]["by"] == "boss"
    assert group["override"]["expires_at"]
    called = guarded.server.api(
        "POST", "/api/mcp/tools/orders.refund/call", json={"arguments": {"order": "1"}}, by=guarded.operator
    )
    assert called.status_code == 403
    assert "orders" in called.json()["detail"]
    back = {"enabled": None, "reason": "over"}
    answer = guarded.server.api("PUT", "/api/mcp/groups/orders", json=back, by=guarded.admin)
    assert answer.json()["enabled"]
    assert answer.json()["override"] is None


def test_the_audit_log_is_read_by_auditors(guarded: Guarded) -> None:
    for path in ("/api/mcp/audit/logs", "/api/mcp/audit/export"):
        assert guarded.server.api("GET", path, by=guarded.auditor).status_code == 200
        assert guarded.server.api("GET", path, by=guarded.admin).status_code == 200
        assert guarded.server.api("GET", path, by=guarded.operator).status_code == 403
        assert guarded.server.api("GET", path).status_code == 401


def test_whoami_tells_groups_roles_and_how_many_tools(guarded: Guarded) -> None:
    me = guarded.server.api("GET", "/api/mcp/whoami", by=guarded.operator).json()
    assert me["subject"] == "olga"
    assert me["groups"] == ["operator"]
    assert me["roles"] == []
    assert me["tools"] == 2
    boss = guarded.server.api("GET", "/api/mcp/whoami", by=guarded.admin).json()
    assert boss["roles"] == ["admin", "editor", "auditor"]


def test_explain_says_why_for_oneself_and_editors_may_ask_for_others(guarded: Guarded) -> None:
    def explained(by: object, tool: str = "hello", **query: str) -> dict[str, object]:
        path = f"/api/mcp/tools/{tool}/explain"
        answer = guarded.server.api("GET", path, by=by, params=query)  # type: ignore[arg-type]
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert explained(guarded.operator)["allowed"]
    mine = explained(guarded.nobody)
    assert not mine["allowed"]
    assert mine["reason"] == "forbidden"
    assert mine["permissions"] is None
    named = explained(guarded.editor, caller="nemo")
    assert (named["caller"], named["allowed"]) == ("nemo", False)
    other = explained(guarded.editor, as_groups="operator,x")
    assert other["allowed"]
    assert not explained(guarded.editor, as_groups="x")["allowed"]
    path = "/api/mcp/tools/hello/explain"
    assert guarded.server.api("GET", path, by=guarded.operator, params={"as_groups": "x"}).status_code == 403
    assert guarded.server.api("GET", "/api/mcp/tools/nope/explain", by=guarded.operator).status_code == 404


def test_client_snippets_hold_a_placeholder_and_never_a_token(guarded: Guarded) -> None:
    answer = guarded.server.api("GET", "/api/mcp/config", by=guarded.operator)
    said = answer.json()
    assert said["headers"] == {"Authorization": "Bearer <YOUR_TOKEN>"}
    assert said["sse_url"] == f"{guarded.server.url}/mcp/sse"
    assert set(said["clients"]) == {"claude-desktop", "claude-code", "cursor", "vscode", "continue", "generic"}
    assert guarded.operator.token not in answer.text
    only = guarded.server.api("GET", "/api/mcp/config", by=guarded.operator, params={"client": "cursor"}).json()
    assert list(only["clients"]) == ["cursor"]


def test_probes_need_no_token_and_everything_else_does(guarded: Guarded) -> None:
    assert guarded.server.api("GET", "/health").status_code == 200
    assert guarded.server.api("GET", "/ready").status_code == 200
    for path in ("/api/mcp/status", "/api/mcp/tools", "/api/mcp/config", "/api/mcp/sync", "/api/mcp/whoami"):
        assert guarded.server.api("GET", path).status_code == 401
