"""Good and hostile calls all at once: each has one outcome, which is in the audit log, and nothing is left."""

import asyncio
import os
import random
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import pytest
from attacks import ATTACKS
from attacks_batch import entries
from attacks_siege import State, impossible
from attacks_world import PROFILES, World, attacked

from e2e_server import sdk_http

CALLS = int(os.environ.get("PORTOSER_TESTING_STORM", "600"))
IN_FLIGHT = 250
"""So many calls are waited for at once; a server's line has room for 1,000."""
MIB = 1024 * 1024
CHOSEN = (
    "files.accounts", "files.symlinks", "processes.forks", "processes.programs", "kernel.new_interfaces", "network.tcp",
    "network.every_family", "resources.memory_at_once", "resources.sleeps_in_c", "resources.hears_no_signal",
    "resources.a_gigabyte_of_output", "resources.folders_that_are_hard_to_remove", "protocol.garbage",
    "protocol.wrong_nonce", "protocol.two_results", "protocol.closed_channel", "protocol.descriptors_for_the_server",
    "protocol.flood_of_powers", "results.exits", "results.aborts", "results.segfaults", "results.circle",
    "results.unprintable_exception", "results.many_blocks", "left_behind.environment", "left_behind.threads",
    "left_behind.lies_about_results",
)  # fmt: skip
HOSTILE = [attack for attack in ATTACKS if attack.name in CHOSEN]
PROFILE = PROFILES["root" if os.geteuid() == 0 else "user"]


class Storm:
    """Calls, numbered, and what their clients were told."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = random.Random(4)
        self._turns = asyncio.Semaphore(IN_FLIGHT)
        self.allowed: dict[int, set[str]] = {}
        self.failed: dict[int, bool] = {}

    async def blow(self, calls: int) -> None:
        async with AsyncExitStack() as stack:
            clients = []
            for holder in (self._world.attacker, self._world.other):
                client, _ = await stack.enter_async_context(sdk_http(self._world.server, "2026-07-28", holder.token))
                await client.list_tools()
                clients.append(client)
            async with asyncio.TaskGroup() as tasks:
                for _ in range(calls):
                    number = len(self.allowed)
                    self.allowed[number] = set()
                    tasks.create_task(self._call(self._chance.choice(clients), number))

    async def _call(self, client: Any, number: int) -> None:
        target = {
            "n": number,
            "port": 1,
            "key": "/etc/shadow",
            "private": ["/etc/passwd"],
            "marker": self._world.marker,
        }
        async with self._turns:
            if self._chance.random() < 0.7:
                self.allowed[number] = {"ok"}
                answer = await client.call_tool("harmless", {"n": number})
                assert answer.structured_content["n"] == number + 1
            else:
                attack = self._chance.choice(HOSTILE)
                self.allowed[number] = set(attack.ends)
                tool = attack.name + self._chance.choice(("", ".fresh"))
                try:
                    answer = await client.call_tool(tool, {"target": target})
                except RuntimeError:  # the client refuses a forged result that does not fit the output schema
                    self.failed[number] = False
                    return
            self.failed[number] = answer.is_error


@pytest.mark.timeout(60 + CALLS // 4)
def test_each_call_of_a_storm_has_one_outcome_in_the_audit_log_and_nothing_is_left() -> None:
    why_not = impossible(PROFILE)
    if why_not:
        pytest.skip(why_not)
    with attacked(PROFILE, HOSTILE) as world:
        storm = Storm(world)
        asyncio.run(storm.blow(CALLS // 10))
        state = State(world)
        memory = world.process.memory_info().rss
        asyncio.run(storm.blow(CALLS))
        rows: dict[int, dict[str, Any]] = {}
        for row in entries(world):
            number = row["arguments"].get("n", row["arguments"].get("target", {}).get("n"))
            assert number not in rows, "a call is in the log twice"
            rows[number] = row
        assert rows.keys() == storm.allowed.keys() == storm.failed.keys()
        wrong = {
            number: (row["tool"], row["reason"], row["error"])
            for number, row in rows.items()
            if (row["reason"] or row["outcome"]) not in storm.allowed[number]
            or (row["outcome"] != "ok") != storm.failed[number]
        }
        assert not wrong, (Counter(str(each[:2]) for each in wrong.values()), list(wrong.values())[:3])
        assert state.left() == []
        assert world.process.memory_info().rss - memory < 64 * MIB + CALLS * 4096
