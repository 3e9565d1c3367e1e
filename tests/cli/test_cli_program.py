"""Commands that need no server, how commands fail, and how quickly they start."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from portoser.identity.tokens import TokenFile

Run = Callable[..., Any]


def test_a_server_that_is_not_there_is_a_sentence(portoser: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("PORTOSER_URL", url)
        said = portoser("status")
    assert said.code == 3
    assert said.err == f"portoser: cannot reach {url}: is `portoser serve` running?\n"


def test_another_program_that_answers_is_told_apart(portoser: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        monkeypatch.setenv("PORTOSER_URL", f"http://127.0.0.1:{other.server_port}")
        said = portoser("whoami")
        other.shutdown()
        thread.join()
    assert said.code == 1
    assert "is this a Portoser server?" in said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tol"], "Did you mean 'tool'?"),
        (["tool", "add", "nowhere.py"], "cannot read nowhere.py"),
        (["--url", "ftp://x", "status"], "is not a server's URL"),
        (["bridge", "localhost:8000"], "is not a server's URL"),
        (["token", "new", "x", "--expires", "soon"], "is not a date"),
        (["plan", "--markdown"], "--markdown needs DIR"),
        (["serve", "--port", "x"], "--port: 'x' is not a port"),
    ],
)
def test_a_command_that_is_written_wrongly_exits_with_2_and_says_why(
    portoser: Run, home: Path, arguments: list[str], said: str
) -> None:
    (home / "tools.d").mkdir()
    done = portoser(*arguments)
    assert done.code == 2, done.err
    assert said in done.err


def test_wrong_settings_stop_the_start_all_at_once(portoser: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTOSER_SANDBOX", "loose")
    done = portoser("serve", "--port", "99999")
    assert done.code == 2
    assert "wrong in 3 places" in done.err
    for told in ("PORTOSER_TOOLS: there is no directory", "--port: 99999", "PORTOSER_SANDBOX: choose"):
        assert told in done.err


def test_serve_has_a_flag_for_each_setting_but_secrets(portoser: Run) -> None:
    said = portoser("serve", "--help").out
    for flag in ("--tools", "--port", "--public-url", "--insecure", "--tokens", "--sandbox", "PORTOSER_ADMIN_GROUPS"):
        assert flag in said
    assert "database" not in said.replace("embedded database", "")


def test_a_new_token_is_shown_once_and_its_entry_is_taken(portoser: Run, home: Path) -> None:
    said = portoser("token", "new", "ci", "--group", "operator", "-g", "authors", "--expires", "2999-01-31")
    token = next(line.strip() for line in said.out.splitlines() if line.strip().startswith("ptk_"))
    entry = said.out[said.out.index("- name:") :]
    assert token not in entry
    file = home / "tokens.yml"
    file.write_text(entry)
    caller = TokenFile(file).verify(token)
    assert caller is not None
    assert caller.groups == {"operator", "authors"}
    told = portoser("token", "new", "ci", "--json").json
    assert yaml.safe_load(yaml.safe_dump([told["entry"]]))[0]["name"] == "ci"


def test_validate_tells_every_problem_with_its_place_like_a_compiler(portoser: Run, home: Path) -> None:
    tools = home / "tools.d"
    (tools / "sub").mkdir(parents=True)
    (tools / "a.yaml").write_text("kind: Tool\nnmae: a\n")
    (tools / "a.py").write_text("def a() -> int:\n    return 1\n")
    (tools / "sub" / "b.yaml").write_text("kind: Tool\n")
    (tools / "sub" / "b.py").write_text("import nowhere\n\ndef b() -> int:\n    return 1\n")
    (tools / "c.yaml").write_text("kind: Tool\nexamples: [{expect: 2}]\n")
    (tools / "c.py").write_text('def c() -> int:\n    """C."""\n    return 1\n')
    said = portoser("validate", "tools.d")
    assert said.code == 1
    lines = said.out.splitlines()
    assert any(line.startswith("tools.d/a.yaml:2:1: error: 'nmae' is not known") for line in lines)
    assert any(line.startswith("tools.d/sub/b.py:1") and "nowhere" in line for line in lines)
    assert any(line.startswith("tools.d/c.yaml:2") and "expects 2" in line for line in lines)
    assert "3 errors" in lines[-1]
    told = portoser("validate", "--json").json
    assert {problem["path"] for problem in told["problems"]} >= {"a.yaml", "sub/b.py", "c.yaml"}


def test_validate_of_a_sound_folder_exits_with_0(portoser: Run, home: Path) -> None:
    (home / "tools.d").mkdir()
    (home / "tools.d" / "c.yaml").write_text("kind: Tool\nexamples: [{expect: 1}]\n")
    (home / "tools.d" / "c.py").write_text('def c() -> int:\n    """C."""\n    return 1\n')
    said = portoser("validate")
    assert said.code == 0, said.out + said.err
    assert "1 tool, 0 groups: 0 errors" in said.out


@pytest.mark.parametrize("command", ["validate", "plan"])
def test_a_folder_that_is_not_there_is_told_of_the_argument(portoser: Run, home: Path, command: str) -> None:
    said = portoser(command, "nosuchdir")
    assert said.code == 1
    assert "DIR: there is no directory 'nosuchdir'" in said.err
    assert "--tools" not in said.err


def test_validate_runs_no_code_without_a_sandbox_but_reads(
    portoser: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTOSER_TESTING_LAYERS_OFF", "seccomp")
    (home / "tools.d").mkdir()
    (home / "tools.d" / "c.yaml").write_text("kind: Tool\n")
    (home / "tools.d" / "c.py").write_text("open('ran', 'w')\n\ndef c() -> int:\n    return 1\n")
    refused = portoser("validate")
    assert refused.code == 1
    assert "PORTOSER_SANDBOX=off" in refused.err
    assert "--no-run" in refused.err
    read = portoser("validate", "--no-run")
    assert read.code == 0
    assert "Nothing was imported" in read.err
    assert not list(home.rglob("ran"))


def test_doctor_says_what_is_missing_and_the_next_step(
    portoser: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "tools.d").mkdir()
    monkeypatch.setenv("PORTOSER_TESTING_LAYERS_OFF", "seccomp")
    strict = portoser("doctor", "--json")
    found = {finding["subject"]: finding for finding in strict.json}
    assert set(found) >= {"Python", "git", "settings", "tools", "data", "port", "database", "sandbox", "clock"}
    assert found["sandbox"]["good"] is False
    assert found["seccomp"]["message"] == "off: PORTOSER_TESTING_LAYERS_OFF leaves it out"
    assert (found["seccomp"]["good"], found["rlimits"]["good"]) == (False, True)
    assert "PORTOSER_SANDBOX=off" in found["sandbox"]["next_step"]
    assert strict.code == 1
    monkeypatch.setenv("PORTOSER_SANDBOX", "off")
    assert "! sandbox" in portoser("doctor").out
    monkeypatch.delenv("PORTOSER_SANDBOX")
    monkeypatch.delenv("PORTOSER_TESTING_LAYERS_OFF")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("PORTOSER_PORT", str(taken.getsockname()[1]))
        said = portoser("doctor")
    assert said.code == 1
    assert "✗ port" in said.out
    monkeypatch.setenv("PORTOSER_PORT", "0")
    assert portoser("doctor").code == 0
    (home / "registry.yml").write_text("hosts:\n  a: {address: 10.0.0.1}\nservices:\n  web: {host: b}\n")
    said = portoser("doctor")
    assert said.code == 1
    assert "registry.yml:4:15: services.web.host: There is no host 'b' in hosts." in " ".join(said.out.split())
    (home / "registry.yml").write_text("hosts: {a: {address: 10.0.0.1}}\n")
    assert "hosts 1, services 0" in portoser("doctor").out
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/x")
    assert "✗ database" in portoser("doctor").out
    monkeypatch.setenv("PORTOSER_PORT", "x")
    assert "✗ settings" in portoser("doctor").out


def test_help_starts_without_what_is_heavy() -> None:
    code = (
        "import sys, portoser.cli\n"
        "heavy = {'fastmcp', 'mcp', 'sqlalchemy', 'fastapi', 'uvicorn', 'httpx', 'asyncpg', 'pydantic_settings'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"


def test_what_a_start_does_first_waits_for_nothing_heavy() -> None:
    """Postgres and the zygote come up while the rest is imported; what begins them must not import it first."""
    code = (
        "import sys, portoser.cli.serve, portoser.beginning\n"
        "heavy = {'fastmcp', 'mcp', 'mcp_types', 'sqlalchemy', 'alembic', 'fastapi', 'uvicorn', 'watchfiles'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"


def test_a_start_whose_database_is_at_home_imports_no_migrations() -> None:
    code = "import sys, portoser.app\nprint(sorted({'alembic', 'sqlalchemy', 'sqlmodel'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"


def refused_start(home: Path) -> str:
    """What `portoser serve` says where it cannot start with ``home/data``."""
    (home / "tools.d").mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PORTOSER_", "DATABASE"))}
    environment |= {"PORTOSER_DATA": str(home / "data"), "LOG_LEVEL": "error"}
    command = [sys.executable, "-m", "portoser", "serve", "--port", "0", "--tools", str(home / "tools.d")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=home, env=environment, timeout=60)
    assert done.returncode == 1
    [said] = done.stderr.splitlines()
    return said


def test_a_start_whose_postgres_cannot_be_had_is_one_sentence(tmp_path: Path) -> None:
    cluster = tmp_path / "data" / "postgres" / "cluster"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("18\n")
    said = refused_start(tmp_path)
    assert said.startswith(f"portoser: The cluster {cluster} exists, but its passwords cannot be read: ")
    assert said.endswith("Run as the user who made it, or restore the file.")


def test_a_data_directory_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    said = refused_start(tmp_path)
    assert "cannot be used" in said
    assert str(tmp_path / "data") in said
