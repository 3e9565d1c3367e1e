"""The command line, as a person and as a script use it."""

import json

from e2e_server import Server


def test_status_list_call_and_audit(server: Server) -> None:
    assert "Synced" in server.cli("tool", "list").stdout
    said = server.cli("call", "examples.hello", "name=Ada")
    assert said.returncode == 0, said.stderr
    assert "Ada" in said.stdout
    tail = server.cli("audit", "tail", "--json")
    assert any("examples.hello" in line for line in tail.stdout.splitlines())
    assert "git:main" in server.cli("status").stdout or "main" in server.cli("status").stdout
    assert json.loads(server.cli("whoami", "--json").stdout)["subject"] == "anonymous"


def test_a_tool_is_added_shown_and_removed(server: Server) -> None:
    file = server.home / "double.py"
    file.write_text("def double(n: int) -> int:\n    return 2 * n\n")
    added = server.cli("tool", "add", str(file), "--name", "double")
    assert added.returncode == 0, added.stderr + added.stdout
    assert "4" in server.cli("call", "double", "n=2").stdout
    assert "rest:" in server.cli("tool", "show", "double").stdout
    assert server.cli("tool", "rm", "double").returncode == 0
    assert server.cli("call", "double", "n=2").returncode != 0


def test_validate_says_file_line_and_column(server: Server) -> None:
    bad = server.home / "bad" / "tools.d"
    bad.mkdir(parents=True)
    (bad / "a.yaml").write_text("kind: Tool\nnmae: a\n")
    (bad / "a.py").write_text("def a() -> int:\n    return 1\n")
    said = server.cli("validate", str(bad))
    assert said.returncode == 1
    assert "a.yaml:2:1" in said.stdout + said.stderr
    assert "name" in said.stdout + said.stderr
    assert server.cli("validate", str(server.tools)).returncode == 0


def test_a_server_that_is_not_there_is_a_sentence(server: Server) -> None:
    env = server.url
    try:
        server.url = "http://127.0.0.1:9"
        said = server.cli("status")
    finally:
        server.url = env
    assert said.returncode != 0
    assert "http://127.0.0.1:9" in said.stderr
    assert "Traceback" not in said.stderr


def test_doctor_reads_well(server: Server) -> None:
    said = server.cli("doctor")
    assert "Python" in said.stdout
    assert "Traceback" not in said.stderr
