"""A full disk, and a full /dev/shm: clear errors, and nobody else's call is in it."""

import os
import sys
from pathlib import Path

import pytest
from attacks_batch import entries
from attacks_siege import impossible
from attacks_world import PROFILES, attacked

from e2e_server import sdk_http, text_of

SMALL = [sys.executable, str(Path(__file__).with_name("attacks_small_place.py"))]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")


@needs_root
@pytest.mark.parametrize("name", ["root", "root-bare"])
async def test_a_full_disk_is_told_to_who_fills_it_and_to_nobody_else(name: str) -> None:
    why_not = impossible(PROFILES[name])
    if why_not:
        pytest.skip(why_not)
    with attacked(PROFILES[name], [], [*SMALL, "{home}/.portoser/scratch", "size=4m"]) as world:
        async with sdk_http(world.server, "2026-07-28", world.attacker.token) as (client, _):
            for number in range(2):
                filled = await client.call_tool("fills", {"target": {"mib": 100}})
                assert filled.is_error
                assert "No space left on device" in text_of(filled) or "File too large" in text_of(filled)
                answer = await client.call_tool("harmless", {"n": number})
                assert answer.structured_content["n"] == number + 1
        assert [row["reason"] for row in entries(world, tool="fills")] == ["disk_limit", "disk_limit"]


@needs_root
def test_a_full_shared_memory_is_told_at_the_start() -> None:
    why_not = impossible(PROFILES["root-bare"])
    if why_not:
        pytest.skip(why_not)
    with (
        pytest.raises(AssertionError) as refused,
        attacked(PROFILES["root-bare"], [], [*SMALL, "/dev/shm", "size=0"]),
    ):
        pass
    said = str(refused.value)
    assert "the server ended with 1" in said
    assert "could not resize shared memory segment" in said
    assert "No space left on device" in said
    assert "Set DATABASE_URL to use another Postgres." in said
    assert "Traceback" not in said
