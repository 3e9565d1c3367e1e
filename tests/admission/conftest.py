"""A real runtime for admission."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from portoser.runtime.runtime import Runtime


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    made = Runtime(workers=2, scratch=tmp_path / "scratch", spares=0)
    await made.start()
    yield made
    await made.aclose()
