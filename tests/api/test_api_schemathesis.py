"""Whatever the OpenAPI document allows or forbids is sent to every operation; each answer is one of those it names."""

import subprocess
import sys
from pathlib import Path

import pytest
from live_server import Guarded, Holder, LiveServer

pytestmark = pytest.mark.timeout(300)  # some 1,500 requests, on a machine that may be busy
CONFIG = Path(__file__).with_name("schemathesis.toml")


def tried_out(server: LiveServer, by: Holder | None = None, *more: str) -> str:
    """Schemathesis in a process of its own: what it draws does not depend on the other tests."""
    command = [str(Path(sys.executable).parent / "st"), "--no-color", "--config-file", str(CONFIG), "run", *more]
    if by is not None:
        command += ["--header", f"Authorization: {by.headers['Authorization']}"]
    command.append(f"{server.url}/openapi.json")
    done = subprocess.run(command, cwd=server.home, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    return done.stdout


def test_no_request_of_any_type_is_answered_otherwise_than_documented(server: LiveServer) -> None:
    said = tried_out(server)
    assert "Operations:       24 selected / 24 total" in said
    assert server.api("GET", "/ready").status_code == 200


def test_with_auth_on_every_operation_asks_for_a_token_and_keeps_to_the_document(guarded: Guarded) -> None:
    tried_out(guarded.server, guarded.editor, "--phases=examples,fuzzing", "--max-examples=3")
    assert guarded.server.api("GET", "/ready").status_code == 200
