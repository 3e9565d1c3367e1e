"""A server for the commands to speak to, and a way to run them as `main` does."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog
from live_server import LiveServer, database_of, serving

from portoser.cli import main


class Said(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own, and an environment that says nothing."""
    for name in list(os.environ):
        if name.startswith("PORTOSER_") or name in {"DATABASE_URL", "DATABASE_URL_FILE", "LOG_LEVEL"}:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def portoser(home: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs a command: ``portoser("tool", "list")``."""

    def run(*arguments: object) -> Said:
        capfd.readouterr()
        # A command sets up logging for its process; this one goes on.
        root, handlers, level, config = (
            logging.getLogger(),
            logging.root.handlers[:],
            logging.root.level,
            structlog.get_config(),
        )
        try:
            with pytest.raises(SystemExit) as ended:
                main([str(argument) for argument in arguments])
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
            structlog.configure(**config)
        printed = capfd.readouterr()
        assert "Traceback (most recent call last)" not in printed.out + printed.err
        code = ended.value.code
        return Said(code if isinstance(code, int) else 0, printed.out, printed.err)

    return run


@pytest.fixture(scope="module")
def server(postgres: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server for a module's tests, auth off."""
    with database_of(postgres) as dsn, serving(tmp_path_factory.mktemp("cli"), dsn) as running:
        yield running


@pytest.fixture
def at(portoser: Callable[..., Said], server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Runs a command that speaks to the server."""
    monkeypatch.setenv("PORTOSER_URL", server.url)
    return portoser
