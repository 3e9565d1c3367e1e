"""Servers for the tests of REST: one that is open, and one where callers say who they are."""

from collections.abc import Iterator
from typing import Any

import pytest
from live_server import Guarded, Holder, LiveServer, database_of, serving


@pytest.fixture(scope="module")
def server(postgres: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server for a module's tests, auth off."""
    with database_of(postgres) as dsn, serving(tmp_path_factory.mktemp("open"), dsn) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(postgres: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server for a module's tests, auth on."""
    holders = (
        Holder("boss", "admins"),
        Holder("ada", "authors"),
        Holder("eve", "security"),
        Holder("olga", "operator"),
        Holder("nemo"),
    )
    home = tmp_path_factory.mktemp("guarded")
    with database_of(postgres) as dsn, serving(home, dsn, holders) as running:
        yield Guarded(running, *holders)
