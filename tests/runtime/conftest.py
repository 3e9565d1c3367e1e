"""A real runtime with real worker processes."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from runtime_bench import Bench, descendants, host_pid, until

from portoser.runtime.runtime import Runtime


@pytest.fixture(name="until")
def until_fixture() -> Any:
    return until


@pytest.fixture(name="descendants")
def descendants_fixture() -> Any:
    return descendants


@pytest.fixture(name="host_pid")
def host_pid_fixture() -> Any:
    return host_pid


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    runtime = Runtime(workers=4, scratch=tmp_path / "scratch")
    await runtime.start()
    try:
        yield Bench(runtime)
    finally:
        await runtime.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """One for all tests of a module that runs in one loop."""
    runtime = Runtime(workers=4, scratch=tmp_path_factory.mktemp("scratch"))
    await runtime.start()
    try:
        yield Bench(runtime)
    finally:
        await runtime.aclose()
