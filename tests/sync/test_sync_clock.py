"""A clock that is set back, or is another one than Postgres's: nothing waits for it, and no guard is led astray."""

import asyncio
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sync_world import Repo

from sync.sources.worktree import Worktree


def clock(shift: timedelta) -> type[datetime]:
    """``datetime`` as on a machine whose clock is off by that much."""

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + shift

    return Shifted


async def test_a_retry_comes_when_it_is_due_though_the_clock_was_set_back(
    repo: Repo, start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.tool("one")
    world = await start()
    await world.until(lambda: world.names == ["one"])
    monkeypatch.setattr("sync.reconciler.datetime", clock(timedelta(days=1)))
    aside = repo.tools.rename(repo.home / "aside")
    await world.until(lambda: world.reconciler.status.phase == "Stalled")
    monkeypatch.setattr("sync.reconciler.datetime", clock(timedelta(days=-1)))
    aside.rename(repo.tools)
    repo.tool("two")
    await world.until(lambda: world.names == ["one", "two"] and world.reconciler.status.phase == "Idle")


async def test_a_lock_that_git_left_before_the_clock_was_set_back_holds_nothing_up(repo: Repo) -> None:
    repo.tool("one")
    repo.commit()
    lock = repo.home / ".git" / "index.lock"
    lock.touch()
    os.utime(lock, (time.time() + 3600,) * 2)
    assert len((await asyncio.wait_for(Worktree(repo.tools).scan(), 5)).files) == 2


async def test_files_of_the_future_are_read_like_others(repo: Repo, start: Callable[..., Any]) -> None:
    """As they are after the clock was set back: each edit is older than the file was."""
    repo.tool("one")
    for path in repo.tools.iterdir():
        os.utime(path, (time.time() + 86_400,) * 2)
    world = await start()
    await world.until(lambda: world.names == ["one"])
    repo.tool("one", answer="2")
    await world.until(lambda: world.tool("one").version == 2)
    path = repo.write("one.py", "def one() -> int:\n    return 3\n")
    os.utime(path, (time.time() - 86_400,) * 2)
    await world.until(lambda: world.tool("one").version == 3)


@pytest.mark.parametrize("days", [-1, 1])
async def test_deleting_slowly_does_not_walk_around_the_guard_by_a_clock_that_is_off(
    repo: Repo, start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    for module in ("sync.reconciler", "sync.ledger", "portoser.registry.changes", "portoser.registry.snapshot"):
        monkeypatch.setattr(f"{module}.datetime", clock(timedelta(days=days)))
    for number in range(8):
        repo.tool(f"t{number}")
    world = await start()
    await world.until(lambda: len(world.names) == 8)
    for number in range(5):
        (repo.tools / f"t{number}.yaml").unlink()
        await world.until(lambda left=7 - number: len(world.names) == left)
    (repo.tools / "t5.yaml").unlink()
    await world.until(lambda: world.reconciler.status.phase == "AwaitingApproval")
    assert len(world.names) == 3
    [row] = await world.rows("SELECT max(deleted_at) AS at FROM mcp_tools")
    assert abs(row["at"] - datetime.now(UTC)) < timedelta(hours=1)
