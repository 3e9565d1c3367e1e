"""A web server on this machine."""

from collections.abc import AsyncIterator

import pytest
from http_world import Server, serving


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as made:
        yield made
