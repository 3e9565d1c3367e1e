"""A folder that is swapped, switched, taken away or closed while it is watched. Real git, real Postgres."""

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from sync_world import Repo, World, until

from portoser import faults
from sync.sources.base import SourceUnreadable
from sync.sources.folder import Folder

MANY = 250
"""Tools of two files each: 500 files."""


def fill(repo: Repo, letter: str, names: str = "t") -> None:
    """Everything that a branch holds: each tool's code and description say which branch they are of."""
    for number in range(MANY):
        name = f"{names}{number}"
        repo.write(f"{name}.py", f'def {name}() -> str:\n    return "{letter}"\n')
        repo.write(f"{name}.yaml", f"kind: Tool\ndescription: Of {letter}.\npermissions: [{letter}]\n")


async def standings(world: World) -> list[Any]:
    """Every snapshot from now on, the present one first."""
    seen = [world.follower.snapshot]
    world.follower.on_swap(lambda _, new: seen.append(new))
    return seen


async def letters_of(world: World, snapshot: Any) -> set[str]:
    """The branches that anything in a snapshot is of: descriptions, permissions and code."""
    served = [tool.registered for tool in snapshot.tools.values()]
    async with world.database.acquire() as connection:
        code = await connection.fetch(
            "SELECT DISTINCT right(split_part(content, '\"', 2), 1) AS letter FROM mcp_revision_files "
            "WHERE digest = ANY($1)",
            [tool.digest for tool in served],
        )
    told = {tool.revision.description[3] for tool in served} | {tool.permissions[0] for tool in served}
    return told | {record["letter"] for record in code}


async def test_a_checkout_of_another_branch_shows_the_one_or_the_other_whole(repo: Repo, start: Any) -> None:
    fill(repo, "A")
    repo.commit("A")
    repo.git("checkout", "-q", "-b", "other")
    fill(repo, "B")
    commit = repo.commit("B")
    repo.git("checkout", "-q", "main")
    world = await start()
    await world.until(lambda: len(world.names) == MANY)
    seen = await standings(world)
    for branch, letter in (("other", "B"), ("main", "A"), ("other", "B")):
        repo.git("checkout", "-q", branch)
        await world.until(lambda letter=letter: world.tool("t0").permissions == (letter,))
    await world.until(lambda: world.tool("t249").provenance.commit == commit)
    assert [len(await letters_of(world, snapshot)) for snapshot in seen] == [1] * len(seen)
    assert {len(snapshot.tools) for snapshot in seen} == {MANY}
    await world.until(lambda: world.reconciler.status.holds("Ready"))


async def test_a_checkout_that_would_delete_many_tools_waits_and_shows_the_old_branch_whole(
    repo: Repo, start: Any
) -> None:
    fill(repo, "A", "a")
    repo.commit("A")
    repo.git("checkout", "-q", "--orphan", "other")
    shutil.rmtree(repo.tools)
    fill(repo, "B", "b")
    repo.commit("B")
    repo.git("checkout", "-q", "main")
    world = await start()
    await world.until(lambda: len(world.names) == MANY)
    seen = await standings(world)
    repo.git("checkout", "-q", "other")
    await world.until(lambda: world.reconciler.status.held_plan)
    message = world.reconciler.status.condition("PruneBlocked").message
    assert "250 tools of 250 would be deleted (a0, a1, a10, a100, a101, …); at most 25 at once may" in message
    assert f"portoser sync --approve {world.reconciler.status.held_plan}" in message
    assert await letters_of(world, world.follower.snapshot) == {"A"}
    assert (await world.reconciler.sync_now(approve=world.reconciler.status.held_plan)).outcome == "applied"
    assert [len(await letters_of(world, snapshot)) for snapshot in seen] == [1] * len(seen)
    assert world.names == sorted(f"b{number}" for number in range(MANY))


def exchange(one: Path, other: Path) -> None:
    """Swap two folders in one step, as a deployment does it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


async def test_a_folder_that_is_swapped_by_renaming_shows_the_one_or_the_other_whole(repo: Repo, start: Any) -> None:
    fill(repo, "A")
    world = await start()
    await world.until(lambda: len(world.names) == MANY)
    seen = await standings(world)
    other = Repo(repo.home)
    other.tools = repo.home / "other"
    fill(other, "B")
    exchange(repo.tools, other.tools)
    await world.until(lambda: world.tool("t0").permissions == ("B",))
    exchange(repo.tools, other.tools)
    await world.until(lambda: world.tool("t0").permissions == ("A",))
    assert [await letters_of(world, snapshot) for snapshot in seen] == [{"A"}, {"B"}, {"A"}]
    assert {len(snapshot.tools) for snapshot in seen} == {MANY}


def away(tools: Path) -> None:
    tools.rename(tools.with_name("aside"))


def a_file(tools: Path) -> None:
    away(tools)
    tools.write_text("not a folder")


def a_dangling_link(tools: Path) -> None:
    away(tools)
    tools.symlink_to("nowhere")


def a_link_to_itself(tools: Path) -> None:
    away(tools)
    tools.symlink_to(tools.name)


@pytest.mark.parametrize(
    ("happens", "told"),
    [
        (away, "There is no directory"),
        (a_file, "is not a directory"),
        (a_dangling_link, "There is no directory"),
        (a_link_to_itself, "Too many levels of symbolic links"),
    ],
)
async def test_a_folder_that_is_gone_deletes_nothing_and_is_read_again_when_it_is_back(
    repo: Repo, start: Any, happens: Any, told: str
) -> None:
    repo.tool("one")
    world = await start()
    await world.until(lambda: world.names == ["one"])
    happens(repo.tools)
    await world.until(lambda: world.reconciler.status.phase == "Stalled")
    message = world.reconciler.status.condition("Fetched").message
    assert told in message
    assert str(repo.tools) in message
    assert world.names == ["one"]
    repo.tools.unlink(missing_ok=True)
    repo.tools.with_name("aside").rename(repo.tools)
    repo.tool("two")
    await world.until(lambda: world.names == ["one", "two"] and world.reconciler.status.holds("Ready"))


@pytest.mark.parametrize(("name", "told"), [("EIO", "Input/output error"), ("ESTALE", "Stale file handle")])
async def test_a_disk_that_fails_deletes_nothing(
    repo: Repo, start: Any, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    repo.tool("one")
    world = await start()
    await world.until(lambda: world.names == ["one"])
    file = repo.home / "fault"
    monkeypatch.setattr(faults, "_FILE", str(file))
    file.write_text(f"folder.read {name}")
    repo.tool("two")
    await world.until(lambda: world.reconciler.status.phase == "Stalled")
    assert told in world.reconciler.status.condition("Fetched").message
    assert world.names == ["one"]
    await world.until(lambda: world.names == ["one", "two"] and world.reconciler.status.phase == "Idle")


@contextmanager
def somebody_else() -> Iterator[None]:
    """As a user who is not root, to whom closed folders are closed."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="portoser-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_folder_that_may_not_be_read_is_not_an_empty_one(open_folder: Path) -> None:
    root = open_folder / "tools.d"
    (root / "sub").mkdir(parents=True)
    (root / "one.yaml").write_text("kind: Tool\n")
    (root / "sub" / "two.yaml").write_text("kind: Tool\n")
    looked = Folder(root)
    with somebody_else():
        looked.update()
    assert set(looked.files()) == {"one.yaml", "sub/two.yaml"}
    (root / "sub").chmod(0)
    (root / "one.yaml").chmod(0)
    with somebody_else():
        looked.update()
    told = {path: str(problem) for path, problem in looked.refused().items()}
    assert set(told) == {"one.yaml", "sub"}
    assert all("permission denied" in problem and "Let the server read it" in problem for problem in told.values())
    root.chmod(0)
    with somebody_else(), pytest.raises(SourceUnreadable, match=r"cannot be read: Permission denied\. Nothing is ch"):
        looked.update()
    root.chmod(0o755)
    (root / "sub").chmod(0o755)
    (root / "one.yaml").chmod(0o644)
    with somebody_else():
        looked.update()
    assert (set(looked.files()), looked.refused()) == ({"one.yaml", "sub/two.yaml"}, {})


async def test_a_part_of_the_folder_that_may_not_be_read_keeps_its_tools(
    repo: Repo, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.tool("one")
    repo.tool("sub/two")
    world = await start()
    await world.until(lambda: world.names == ["one", "sub.two"])
    real = os.listdir

    def closed(path: Any = ".") -> Any:
        if str(path).endswith("/sub"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "listdir", closed)
    await world.reconciler.sync_now()
    assert world.names == ["one", "sub.two"]
    assert world.tool("sub.two").status == "Invalid"
    assert "permission denied" in world.tool("sub.two").problem
    monkeypatch.undo()
    await world.reconciler.sync_now()
    assert world.tool("sub.two").status == "Synced"
    await until(lambda: world.reconciler.status.holds("Ready"), lambda: str(world.reconciler.status))


def test_a_fault_that_there_is_not_makes_nothing_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "fault"
    monkeypatch.setattr(faults, "_FILE", str(file))
    file.write_text("folder.read burn")
    with capture_logs() as logs:
        faults.warn()
        faults.point("folder.read")
        faults.point("folder.read")
    assert [entry["event"] for entry in logs] == ["testing_faults", "testing_fault_unknown"]
    assert str(file) == logs[0]["file"]
