"""Tools over REST: added, shown, replaced, rolled back and deleted, beside those that git owns."""

import subprocess

from live_server import HELLO, LiveServer

DOUBLE = 'def double(n: int) -> int:\n    """Twice the number."""\n    return 2 * n\n'


def test_an_added_tool_is_answered_with_its_schema_and_its_version_tag(server: LiveServer) -> None:
    answer = server.api(
        "POST",
        "/api/mcp/tools",
        json={"name": "double", "code": DOUBLE, "permissions": ["operator"], "group": "orders"},
    )
    assert answer.status_code == 201, answer.text
    tool = answer.json()
    assert tool["owner"] == "rest:anonymous"
    assert tool["version"] == 1
    assert tool["description"] == "Twice the number."
    assert tool["input_schema"]["properties"] == {"n": {"type": "integer"}}
    assert tool["permissions"] == tool["own_permissions"] == ["operator"]
    assert tool["files"] == [{"path": "double.py", "content": DOUBLE}]
    assert tool["provenance"]["source"] == "rest"
    assert answer.headers["etag"] == server.api("GET", "/api/mcp/tools/double").headers["etag"]
    assert server.call("double", n=4).json()["structuredContent"] == {"result": 8}


def test_several_modules_are_imported_in_their_order(server: LiveServer) -> None:
    files = [
        {"path": "rates.py", "content": "RATE = 0.5\n"},
        {
            "filename": "tax.py",
            "content": "from rates import RATE\n\ndef tax(net: float) -> float:\n    return net * RATE\n",
        },
    ]
    answer = server.api("POST", "/api/mcp/tools", json={"name": "tax", "files": files})
    assert answer.status_code == 201, answer.text
    assert [file["path"] for file in answer.json()["files"]] == ["rates.py", "tax.py"]
    assert server.call("tax", net=8).json()["structuredContent"] == {"result": 4.0}


def test_a_taken_name_is_refused_unless_it_is_to_be_replaced(server: LiveServer) -> None:
    server.add("taken", "def taken() -> int:\n    return 1\n")
    body = {"name": "taken", "code": "def taken() -> int:\n    return 2\n"}
    refused = server.api("POST", "/api/mcp/tools", json=body)
    assert refused.status_code == 409
    assert "replace_existing" in refused.json()["detail"]
    replaced = server.api("POST", "/api/mcp/tools", json={**body, "replace_existing": True})
    assert replaced.status_code == 201, replaced.text
    assert replaced.json()["version"] == 2
    assert server.call("taken").json()["structuredContent"] == {"result": 2}


def test_what_git_owns_is_changed_in_git_and_the_answer_says_where(server: LiveServer) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=server.home, capture_output=True, text=True, check=True
    ).stdout.strip()
    body = {"name": "hello", "code": HELLO}
    for method, path, given in (
        ("POST", "/api/mcp/tools", {**body, "replace_existing": True}),
        ("PUT", "/api/mcp/tools/hello", body),
        ("DELETE", "/api/mcp/tools/hello", None),
        ("POST", "/api/mcp/tools/hello/rollback", {"version": 1}),
    ):
        answer = server.api(method, path, json=given)
        assert answer.status_code == 409, (method, answer.text)
        for told in ("git:main", "hello.yaml", str(server.tools), commit):
            assert told in answer.json()["detail"]


def test_put_makes_and_replaces_and_if_match_refuses_what_comes_too_late(server: LiveServer) -> None:
    path = "/api/mcp/tools/counter"
    made = server.api("PUT", path, json={"code": "def counter() -> int:\n    return 1\n"})
    assert made.status_code == 201, made.text
    first = made.headers["etag"]
    again = server.api("PUT", path, json={"code": "def counter() -> int:\n    return 2\n"}, headers={"If-Match": first})
    assert again.status_code == 200, again.text
    assert again.json()["version"] == 2
    late = server.api("PUT", path, json={"code": "def counter() -> int:\n    return 3\n"}, headers={"If-Match": first})
    assert late.status_code == 412
    assert again.headers["etag"] in late.json()["detail"]
    assert server.api("DELETE", path, headers={"If-Match": first}).status_code == 412
    other = server.api("PUT", path, json={"name": "other", "code": "def counter(): ...\n"})
    assert other.status_code == 422
    assert (
        server.api(
            "PUT", "/api/mcp/tools/nothing", json={"code": "def nothing(): ...\n"}, headers={"If-Match": "*"}
        ).status_code
        == 412
    )


def test_if_match_also_refuses_who_did_not_see_that_permissions_were_narrowed(server: LiveServer) -> None:
    path = "/api/mcp/tools/narrowed"
    body = {"code": "def narrowed() -> int:\n    return 1\n", "permissions": ["everyone"]}
    seen = server.api("PUT", path, json=body).headers["etag"]
    tightened = server.api("PUT", path, json={**body, "permissions": ["admins"]}, headers={"If-Match": seen})
    assert tightened.json()["version"] == 1
    assert server.api("PUT", path, json=body, headers={"If-Match": seen}).status_code == 412
    assert server.api("GET", path).json()["permissions"] == ["admins"]


def test_an_equal_declaration_is_no_new_version(server: LiveServer) -> None:
    body = {"name": "same", "code": "def same() -> int:\n    return 1\n", "replace_existing": True}
    first = server.api("POST", "/api/mcp/tools", json=body).json()
    second = server.api("POST", "/api/mcp/tools", json=body).json()
    assert second["version"] == first["version"] == 1
    assert second["generation"] == first["generation"]


def test_a_deleted_tool_is_gone_and_comes_back_with_its_history(server: LiveServer) -> None:
    server.add("phoenix", "def phoenix() -> int:\n    return 1\n")
    assert server.api("DELETE", "/api/mcp/tools/phoenix").status_code == 204
    assert server.api("GET", "/api/mcp/tools/phoenix").status_code == 404
    assert server.call("phoenix").status_code == 404
    assert server.api("DELETE", "/api/mcp/tools/phoenix").status_code == 404
    assert server.add("phoenix", "def phoenix() -> int:\n    return 2\n")["version"] == 2
    versions = server.api("GET", "/api/mcp/tools/phoenix/versions").json()
    assert [version["version"] for version in versions["versions"]] == [2, 1]
    assert versions["total"] == 2
    assert [version["current"] for version in versions["versions"]] == [True, False]


def test_rolling_back_makes_an_earlier_revision_the_newest_version(server: LiveServer) -> None:
    first = server.add("wheel", "def wheel() -> int:\n    return 1\n", permissions=["operator"])
    server.add("wheel", "def wheel() -> int:\n    return 2\n", permissions=["support"], replace_existing=True)
    answer = server.api("POST", "/api/mcp/tools/wheel/rollback", json={"version": 1})
    assert answer.status_code == 200, answer.text
    tool = answer.json()
    assert (tool["version"], tool["digest"]) == (3, first["digest"])
    assert tool["permissions"] == ["support"]
    assert server.call("wheel").json()["structuredContent"] == {"result": 1}
    unknown = server.api("POST", "/api/mcp/tools/wheel/rollback", json={"version": 9})
    assert unknown.status_code == 404
    assert "1 to 3" in unknown.json()["detail"]


def test_lists_are_paged_filtered_and_counted(server: LiveServer) -> None:
    for number in range(3):
        server.add(f"listed.a{number}", f"def a{number}() -> int:\n    return {number}\n", group="listed")
    page = server.api("GET", "/api/mcp/tools", params={"group": "listed", "skip": 1, "limit": 1}).json()
    assert (page["total"], page["skip"], page["limit"]) == (3, 1, 1)
    assert [tool["name"] for tool in page["tools"]] == ["listed.a1"]
    git = server.api("GET", "/api/mcp/tools", params={"owner": "git:main"}).json()
    assert [tool["name"] for tool in git["tools"]] == ["hello", "orders.refund"]
    assert server.api("GET", "/api/mcp/tools", params={"q": "GREET"}).json()["tools"][0]["name"] == "hello"
    assert server.api("GET", "/api/mcp/tools", params={"status": "Invalid"}).json()["total"] == 0


def test_everything_that_is_wrong_is_told_at_once_with_its_place(server: LiveServer) -> None:
    answer = server.api(
        "POST",
        "/api/mcp/tools",
        json={"name": "b@d", "descripton": "x", "code": "def f():\n    return 1", "limits": {"timeout": "soon"}},
    )
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert {error["path"] for error in problem["errors"]} >= {"name", "descripton", "limits.timeout"}
    assert any("description" in error["advice"] for error in problem["errors"])


def test_broken_code_is_told_with_line_and_column(server: LiveServer) -> None:
    answer = server.api("POST", "/api/mcp/tools", json={"name": "broken", "code": "def broken():\n    return 1 +\n"})
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert answer.json()["detail"].startswith("broken.py:2:")
    assert (error["path"], error["line"]) == ("broken.py", 2)
    assert error["column"] > 0


def test_code_that_fails_at_import_is_told_and_not_registered(server: LiveServer) -> None:
    answer = server.api(
        "POST",
        "/api/mcp/tools",
        json={"name": "fails", "code": "import nowhere\n\ndef fails() -> int:\n    return 1\n"},
    )
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["path"] == "fails.py"
    assert "nowhere" in error["message"]
    assert server.api("GET", "/api/mcp/tools/fails").status_code == 404


def test_an_example_that_fails_holds_the_tool_back(server: LiveServer) -> None:
    answer = server.api(
        "POST",
        "/api/mcp/tools",
        json={
            "name": "sample",
            "code": "def sample() -> int:\n    return 1\n",
            "examples": [{"call": {}, "expect": 2}],
        },
    )
    assert answer.status_code == 422
    assert "expects 2" in answer.json()["errors"][0]["message"]


def test_a_misspelt_name_is_answered_with_the_near_one(server: LiveServer) -> None:
    answer = server.api("GET", "/api/mcp/tools/helo")
    assert answer.status_code == 404
    assert "Did you mean 'hello'?" in answer.json()["detail"]


def test_what_an_author_should_know_is_told_with_the_tool(server: LiveServer) -> None:
    tool = server.add("dotted.name", "def name() -> int:\n    return 1\n")
    told = [warning["message"] for warning in tool["warnings"]]
    assert any("holds a dot" in message for message in told)
    assert any("docstring" in message for message in told)
    assert {warning["severity"] for warning in tool["warnings"]} == {"warning"}
