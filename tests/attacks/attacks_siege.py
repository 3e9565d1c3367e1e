"""A siege: all attacks on a server of one profile, and what is left of them when they are over."""

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from attacks import ATTACKS, Attack
from attacks_batch import Tried, listen_and_run
from attacks_world import OPEN, PLAIN_USER, Profile, World, attacked

_OF_A_WORKER = 3
"""The descriptors that the server has for each worker: a channel, a pipe, the process."""
_SLACK = 12
"""Descriptors that come and go: connections of clients and to the database."""
_NAMESPACES = "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x10000000 | 0x20000))"


class Siege(NamedTuple):
    """How a siege went."""

    tried: dict[str, Tried]
    layers: dict[str, str]
    left: list[str]


def besiege(profile: Profile, attacks: list[Attack] = ATTACKS) -> Siege:
    """Run the attacks; skips the test where this machine cannot have the profile."""
    why_not = impossible(profile)
    if why_not:
        pytest.skip(why_not)
    with attacked(profile) as world:
        state = State(world)
        tried = listen_and_run(world, attacks, describing=profile is not OPEN)
        status = world.server.api(
            "GET", "/api/mcp/status", headers={"Authorization": f"Bearer {world.attacker.token}"}
        ).json()
        left = state.left()
    return Siege({each.attack.name: each for each in tried}, status["runtime"]["layers"], left)


def impossible(profile: Profile) -> str | None:
    """Why this machine cannot have a profile; None where it can."""
    if not profile.plain and os.geteuid() != 0:
        return f"{profile.title}: these tests do not run as root"
    if profile is OPEN:
        return None
    command = [*(PLAIN_USER if profile.plain and os.geteuid() == 0 else []), sys.executable, "-c", _NAMESPACES]
    has_namespaces = subprocess.run(command, check=False, capture_output=True).returncode == 0
    if not profile.env and not has_namespaces:
        return f"{profile.title}: this machine allows no user namespaces"
    if profile.env and ctypes.CDLL(None).syscall(444, None, 0, 1) < 1:
        return f"{profile.title}: this kernel has no Landlock"
    return None


class State:
    """What there is of a server and of the machine before the attacks."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._descriptors = self._own_descriptors()
        self._machine = _machine()

    def _own_descriptors(self) -> int:
        """The server's descriptors, without those that it has for its workers."""
        return self._world.process.num_fds() - _OF_A_WORKER * len(self._world.workers())

    def left(self) -> list[str]:
        """What the attacks have left, of what should be gone in a moment."""
        world = self._world
        found = [f"written outside: {path}" for path in world.left_outside()]
        scratch = world.server.home / ".portoser" / "scratch"
        looks: dict[str, Callable[[], Any]] = {
            "descriptors": lambda: max(0, self._own_descriptors() - self._descriptors - _SLACK),
            "folders": lambda: max(0, sum(1 for _ in scratch.glob("*/*")) - len(world.workers())),
            "zombies": lambda: [each for each in _descendants(world) if each.status() == psutil.STATUS_ZOMBIE],
            "strangers": lambda: [each for each in world.workers() if each.name() != "portoser-worker"],
        }
        for what, look in looks.items():
            seen = _in_a_moment(look)
            if seen:
                found.append(f"{what}: {seen}")
        machine = _machine()
        found += [f"{what}: {machine[what]}" for what in machine if machine[what] != self._machine[what]]
        return found


def _descendants(world: World) -> list[psutil.Process]:
    return world.process.children(recursive=True)


def _in_a_moment(look: Callable[[], Any], seconds: float = 10) -> Any:
    """What ``look`` sees when it sees nothing any more, or when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            seen = look()
        except psutil.NoSuchProcess:
            seen = True
        if not seen or time.monotonic() > deadline:
            return seen
        time.sleep(0.05)


def _machine() -> dict[str, str]:
    """What of the machine no tool may change."""
    found = {path: Path(path).read_text() for path in ("/proc/self/mountinfo", "/proc/sys/kernel/hostname")}
    for kind in ("shm", "sem", "msg"):  # those that an attack makes: each Postgres of this machine has some, too
        rows = [line.split() for line in Path(f"/proc/sysvipc/{kind}").read_text().splitlines()]
        found[kind] = str([row for row in rows if row[2].endswith("666")])
    return found


def assert_contained(siege: Siege, attack: Attack, profile: Profile) -> None:
    """An attack has got nothing; or, where it says that it is open here, it has."""
    tried = siege.tried[attack.name]
    why = attack.open.get(profile.name)
    if why is None:
        assert tried.contained, "\n".join(tried.problems)
    else:
        assert not tried.contained, f"{attack.name} is contained now: take its line about {profile.name} away ({why})"
