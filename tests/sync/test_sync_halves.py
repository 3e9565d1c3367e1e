"""Files that are read while somebody writes them: half of a file is never taken for the whole."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sync.sources import folder as folders
from sync.sources import writers
from sync.sources.folder import Folder
from sync.sources.worktree import Worktree
from sync.texts import MAX_FILE

pytestmark = pytest.mark.asyncio(loop_scope="module")

Start = Callable[..., Awaitable[Any]]


def seen_by(world: Any) -> list[Any]:
    """Every state of the tool `one` that clients were ever shown."""
    seen: list[Any] = []
    world.follower.on_swap(lambda _, new: seen.append(new.tools.get("one")))
    return seen


async def test_a_new_manifest_that_is_still_being_written_is_not_served_open(repo: Any, world: Start) -> None:
    repo.tool("two")
    w = await world()
    seen = seen_by(w)
    repo.write("one.py", "def one() -> int:\n    return 1\n")
    with (repo.tools / "one.yaml").open("w") as file:
        file.write("kind: Tool\ndescription: Whole\n")
        file.flush()
        repo.tool("two", answer="2")
        await w.until(lambda: w.tool("two").version == 2)
        await w.until(lambda: any("being written" in problem.message for problem in w.reconciler.status.problems))
        assert w.tool("one") is None
        file.write("permissions: [boss]\nconfirm: Sure?\n")
    await w.until(lambda: w.tool("one"))
    assert (w.tool("one").version, w.tool("one").permissions) == (1, ("boss",))
    assert all(served.permissions == ("boss",) for served in seen if served is not None)
    await w.until(lambda: w.reconciler.status.holds("Ready"))


async def test_new_code_that_is_still_being_written_is_not_served(repo: Any, world: Start) -> None:
    repo.tool("two")
    w = await world()
    with (repo.tools / "one.py").open("w") as file:
        file.write("def one() -> int:\n    x = 1\n")
        file.flush()
        repo.write("one.yaml", "kind: Tool\n")
        await w.until(lambda: w.reconciler.status.problem_count)
        file.write("    return x\n")
    await w.until(lambda: w.tool("one"))
    await w.until(lambda: w.reconciler.status.holds("Ready"))
    assert w.tool("one").version == 1
    [row] = await w.rows(f"SELECT content FROM mcp_revision_files WHERE digest = '{w.tool('one').digest}'")
    assert row["content"].endswith("return x\n")


async def test_code_that_is_written_anew_goes_on_as_it_was_until_it_is_whole(repo: Any, world: Start) -> None:
    repo.tool("one")
    repo.tool("two")
    w = await world()
    with (repo.tools / "one.py").open("w") as file:  # empties it
        file.flush()
        repo.tool("two", answer="2")
        await w.until(lambda: w.tool("two").version == 2)
        assert w.tool("one").status == "Synced"
        file.write("def one() -> int:\n    return 2\n")
    await w.until(lambda: w.tool("one").version == 2)
    assert [row["status"] for row in await w.rows("SELECT status FROM mcp_tools")] == ["Synced", "Synced"]


async def test_a_file_that_stays_open_counts_once_it_has_been_the_same_for_a_while(
    repo: Any, world: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "STILL", 0.7)
    w = await world()
    repo.write("one.py", "def one() -> int:\n    return 1\n")
    with (repo.tools / "one.yaml").open("w") as file:
        file.write("kind: Tool\n")
        file.flush()
        await w.until(lambda: w.tool("one"))


async def test_where_nobody_tells_of_writers_a_new_tool_waits_a_moment(
    repo: Any, world: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a network mount, or on another system than Linux."""
    repo.tool("two")
    w = await world()
    monkeypatch.setattr(writers, "has_writer", lambda _: None)
    seen = seen_by(w)
    repo.write("one.py", "def one() -> int:\n    return 1\n")
    repo.write("one.yaml", "kind: Tool\ndescription: Half\n")
    repo.tool("two", answer="2")
    await w.until(lambda: w.tool("two").version == 2)
    assert w.tool("one") is None
    repo.write("one.yaml", "kind: Tool\ndescription: Whole\npermissions: [boss]\n")
    await w.until(lambda: w.tool("one"))
    assert (w.tool("one").version, w.tool("one").permissions) == (1, ("boss",))
    assert all(served.permissions == ("boss",) for served in seen if served is not None)


async def test_a_new_group_that_nobody_tells_the_writer_of_holds_its_new_tools(
    repo: Any, world: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.tool("two")
    w = await world()
    monkeypatch.setattr(writers, "has_writer", lambda _: None)
    seen = seen_by(w)
    repo.write("one.py", "def one() -> int:\n    return 1\n")
    repo.write("one.yaml", "kind: Tool\ngroup: ops\npermissions: [boss]\n")
    repo.write("ops/group.yaml", "kind: Group\nname: ops\n")
    repo.tool("two", answer="2")
    await w.until(lambda: w.tool("two").version == 2)
    repo.write("ops/group.yaml", "kind: Group\nname: ops\nenabled: false\n")
    await w.until(lambda: w.tool("one"))
    assert not any(served.enabled for served in seen if served is not None)


async def test_who_writes_is_told_and_who_only_reads_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("x = 1\n")
    assert writers.read_whole(str(path)) == (b"x = 1\n", False)
    with path.open("rb"):
        assert writers.read_whole(str(path))[1] is False
    with path.open("ab"):
        assert writers.read_whole(str(path))[1] is True
    assert writers.read_whole(str(path))[1] is False


async def test_where_another_machine_may_write_nobody_can_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.py"
    path.write_text("x = 1\n")
    for kind in (0x65735546, 0x01021997, 0x6969, 0xFF534D42, None):  # FUSE (also virtiofs), 9p, NFS, CIFS, unknown
        monkeypatch.setattr(writers, "kind_of_file_system", lambda _, kind=kind: kind)
        assert writers.read_whole(str(path)) == (b"x = 1\n", None)


async def test_the_kind_of_file_system_is_the_one_that_the_system_tells() -> None:
    descriptor = os.open("/proc/self", os.O_RDONLY)
    assert writers.kind_of_file_system(descriptor) == 0x9FA0
    os.close(descriptor)
    assert writers.kind_of_file_system(-1) is None


async def test_of_a_file_that_is_too_large_no_more_is_read_than_shows_that(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(b"#" * (MAX_FILE + 1000))
    assert len(writers.read_whole(str(path))[0]) == MAX_FILE + 1


async def test_a_folder_in_the_place_of_a_file_is_not_left_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(IsADirectoryError):
        writers.read_whole(str(tmp_path))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_an_edit_with_an_older_time_stamp_is_seen(repo: Any) -> None:
    """As `cp -p`, `tar`, or a clock that was set back leave it."""
    repo.tool("one")
    source = Worktree(repo.tools)
    first = await source.scan()
    path = repo.write("one.py", "def one() -> int:\n    return 2\n")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    second = await source.scan(thorough=True)
    assert second.files["one.py"] != first.files["one.py"]
    os.utime(path, (4_000_000_000, 4_000_000_000))  # and one of the future
    assert (await source.scan(thorough=True)).files["one.py"] == second.files["one.py"]
    repo.write("one.py", "def one() -> int:\n    return 3\n")
    assert b"return 3" in (await source.scan(thorough=True)).files["one.py"]


async def test_a_file_that_is_taken_away_while_it_is_written_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    looked = Folder(tmp_path)
    looked.update()
    with path.open("w") as file:
        file.write("x")
        file.flush()
        assert looked.update() == {"a.py"}
        assert looked.written == {"a.py"}
        assert looked.files() == {}
        path.unlink()
        assert looked.update() == {"a.py"}
    assert (looked.written, looked.refused()) == (frozenset(), {})


async def test_saves_one_after_the_other_are_not_held_up(repo: Any, world: Start) -> None:
    repo.tool("one")
    w = await world()
    for number in range(2, 12):
        repo.tool("one", answer=str(number))
        await w.until(lambda number=number: w.tool("one").version == number)
        await asyncio.sleep(0)
    assert w.reconciler.status.holds("Ready")


def renamed_away(path: Path, text: str) -> Iterator[None]:
    """As Vim saves: the old file becomes the backup, then the new one is written, then the backup goes."""
    backup = path.with_name(f"{path.name}~")
    path.rename(backup)
    yield
    path.write_text(text)
    backup.unlink()


def written_aside(path: Path, text: str) -> Iterator[None]:
    """As JetBrains' editors, gedit and Kate save: the new file is written beside the old one and takes its place."""
    aside = path.with_name(f"{path.name}___jb_tmp___")
    aside.write_text(text)
    yield
    aside.replace(path)


def linked_and_emptied(path: Path, text: str) -> Iterator[None]:
    """As Emacs and Nano save: a lock that is a dangling link, and the file itself is emptied and written."""
    lock = path.with_name(f".#{path.name}")
    lock.symlink_to("ada@machine.1234:1700000000")
    with path.open("w") as file:
        yield
        file.write(text)
    lock.unlink()


@pytest.mark.parametrize("save", [renamed_away, written_aside, linked_and_emptied])
async def test_an_editor_that_takes_its_time_to_save_takes_no_tool_away(
    repo: Any, world: Start, save: Callable[[Path, str], Iterator[None]]
) -> None:
    repo.tool("one", permissions="[boss]")
    w = await world()
    seen = seen_by(w)
    for path, text in (
        (repo.tools / "one.yaml", "kind: Tool\ndescription: Saved\npermissions: [boss]\n"),
        (repo.tools / "one.py", "def one() -> int:\n    return 2\n"),
    ):
        for _ in save(path, text):
            await asyncio.sleep(0.03)

    async def saved() -> bool:
        code = await w.rows(f"SELECT content FROM mcp_revision_files WHERE digest = '{w.tool('one').digest}'")
        return w.tool("one").revision.description == "Saved" and "return 2" in code[0]["content"]

    await w.until(saved)
    await w.until(lambda: w.reconciler.status.holds("Ready"))
    assert all(served is not None and served.permissions == ("boss",) for served in seen)
    assert {served.registered.status.value for served in seen} == {"Synced"}
