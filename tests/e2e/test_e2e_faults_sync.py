"""Killed at each step of a sync, the server or its Postgres: the registry is the old or the new one, whole."""

import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from e2e_registry import FaultyServer, gone, whole_chains

from e2e_server import new_folder, new_home
from portoser.faults import POINTS

STEPS = [point for point in POINTS if not point.startswith("folder.")]
COMMITTED = STEPS.index("registry.committed")
BEGUN = STEPS.index("sync.admit")
"""From this point on it is certain that the run's beginning is written down: it is, while it reads and admits."""


class Rounds:
    """One server, changed and struck again and again; each test begins with it well."""

    def __init__(self, server: FaultyServer) -> None:
        self.server = server
        self.number = 0

    async def begin(self) -> dict[str, Any]:
        """The registry before the next change, with the server running."""
        if self.server.process is None or self.server.process.poll() is not None:
            self.server.start()
        if not self.number:
            self.number = 1
            self.server.change(self.number)
        return await self.server.registered(self.number)

    def change(self) -> None:
        self.number += 1
        self.server.change(self.number)

    async def runs(self) -> list[str]:
        rows = await self.server.rows("SELECT outcome FROM mcp_sync_runs ORDER BY started_at, id")
        return [row["outcome"] for row in rows]


@pytest.fixture(scope="module")
def rounds() -> Iterator[Rounds]:
    with new_folder() as folder:
        server = FaultyServer(new_home(folder / "home", examples=False))
        yield Rounds(server)
        server.stop(signal.SIGKILL)
        server.stop_postgres()


@pytest.mark.parametrize("point", STEPS)
async def test_a_server_killed_at_a_step_of_a_sync_leaves_all_of_it_or_nothing(rounds: Rounds, point: str) -> None:
    server = rounds.server
    before, runs = await rounds.begin(), await rounds.runs()
    assert server.process is not None
    tools = [one for one in psutil.Process(server.process.pid).children(recursive=True) if "postgres" not in one.name()]
    server.arm(point, "kill")
    rounds.change()
    assert server.process.wait(20) == -signal.SIGKILL
    at_death = await server.registry()
    await gone(tools)

    server.start()
    after = await server.registered(rounds.number)
    assert at_death == (before if STEPS.index(point) < COMMITTED else after)
    assert after["generation"] == [{"generation": before["generation"][0]["generation"] + 1}]
    assert {file["content"] for file in after["files"]} >= {f"NUMBER = {rounds.number}\n"}
    told = (await rounds.runs())[len(runs) :]
    if STEPS.index(point) >= COMMITTED:
        assert told == ["applied"]
    elif STEPS.index(point) >= BEGUN:
        assert told == ["interrupted", "applied"]
    else:
        assert told in (["applied"], ["interrupted", "applied"])
    [entries] = await server.rows(
        "SELECT count(*) FILTER (WHERE outcome = 'ok') AS applied, count(*) FILTER (WHERE outcome = 'interrupted') AS "
        "interrupted FROM mcp_audit_logs WHERE event = 'sync.run'"
    )
    everything = await rounds.runs()
    assert entries == {"applied": everything.count("applied"), "interrupted": everything.count("interrupted")}
    await whole_chains(server)


@pytest.mark.parametrize("point", STEPS)
async def test_a_postgres_killed_at_a_step_of_a_sync_keeps_all_of_it_or_nothing(rounds: Rounds, point: str) -> None:
    server = rounds.server
    before = await rounds.begin()
    server.arm(point, "pause")
    rounds.change()
    async with server.standing_still():
        postgres = server.postmaster()
        assert postgres is not None
        family = [postgres, *postgres.children(recursive=True)]
        postgres.kill()
        await gone(family)
    after = await server.registered(rounds.number)
    assert after["generation"] == [{"generation": before["generation"][0]["generation"] + 1}]
    assert after["policy"] != before["policy"]
    assert "interrupted" not in (await rounds.runs())[-1:]
    assert not await server.rows("SELECT id FROM mcp_sync_runs WHERE outcome IS NULL")
    await whole_chains(server)
    assert server.process is not None
    assert server.process.poll() is None
