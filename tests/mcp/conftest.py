from collections.abc import AsyncIterator

import pytest
from mcp_world import NUMBERS, World, add, served


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A server with one tool, `add`, that everybody may call while auth is off."""
    made = World(served("add", description="Add two numbers.", input_schema=NUMBERS))
    made.invocation.bodies["add"] = add
    async with made.serving():
        yield made
