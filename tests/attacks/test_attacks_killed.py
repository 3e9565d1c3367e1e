"""Whatever is killed, and whoever does not want to end: no process stays behind."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from attacks_batch import entries
from attacks_siege import impossible
from attacks_world import PROFILES, Profile, World, attacked

from e2e_server import sdk_http, text_of

STUBBORN = 3


@pytest.fixture(scope="module", params=PROFILES.values(), ids=PROFILES)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    profile: Profile = request.param
    why_not = impossible(profile)
    if why_not:
        pytest.skip(why_not)
    with attacked(profile, []) as running:
        yield running


async def busy_with_stubborn_calls(world: World, client: Any) -> list["asyncio.Task[Any]"]:
    """Calls that do not want to end, once all of them run."""
    calls = [asyncio.create_task(client.call_tool("stubborn", {"target": {}})) for _ in range(STUBBORN)]
    deadline = time.monotonic() + 20
    while _busy(world) < STUBBORN:
        assert time.monotonic() < deadline, world.server.output()[-3000:]
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.3)  # until they have done what they do before they stay
    return calls


def _busy(world: World) -> int:
    status = world.server.api("GET", "/api/mcp/status", headers={"Authorization": f"Bearer {world.attacker.token}"})
    return int(status.json()["runtime"]["busy"])


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Who of them does not end."""
    _, left = psutil.wait_procs(processes, timeout=10)
    return [each for each in left if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    ("victims", "said"), [("zygote", "lost with the process that started it"), ("workers", "SIGKILL")]
)
async def test_who_is_killed_costs_the_running_calls_alone(world: World, victims: str, said: str) -> None:
    before = len(entries(world))
    async with sdk_http(world.server, "2026-07-28", world.attacker.token) as (client, _):
        calls = await busy_with_stubborn_calls(world, client)
        zygotes = [each for each in world.zygotes() if each.name() == "portoser-call"]
        family = [each for zygote in zygotes for each in zygote.children(recursive=True)]
        workers = [each for each in family if each.name() == "portoser-worker"]
        chosen = zygotes if victims == "zygote" else workers
        assert chosen
        for process in chosen:
            process.send_signal(signal.SIGKILL)
        told = [text_of(await call) for call in calls]
        assert all(said in each for each in told), told
        assert alive(family if victims == "zygote" else workers) == []
        answer = await client.call_tool("harmless", {"n": 1})
        assert answer.structured_content["n"] == 2
    assert len(entries(world)) - before == STUBBORN + 1


async def test_a_killed_server_takes_everything_along(world: World) -> None:
    family: list[psutil.Process] = []
    with contextlib.suppress(Exception):  # the client loses its server, and says so in its way
        async with sdk_http(world.server, "2026-07-28", world.attacker.token) as (client, _):
            calls = await busy_with_stubborn_calls(world, client)
            family = [*world.workers(), *world.zygotes()]
            world.process.kill()
            await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
    assert len(family) > STUBBORN
    assert alive(family) == []
