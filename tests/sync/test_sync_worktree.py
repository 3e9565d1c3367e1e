"""A watched working tree: real files, real git, real events."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from portoser.catalog.revision import KIB
from sync.manifest import read
from sync.sources.base import SourceUnreadable
from sync.sources.folder import Folder
from sync.sources.git_command import GitFailed, run
from sync.sources.worktree import Worktree


async def test_only_what_can_declare_something_is_read(tmp_path: Path) -> None:
    for path in ("a.yaml", "b/c.py", "README.md", ".hidden/x.py", "b/.x.py", "__pycache__/y.py", "node_modules/z.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("x")
    scan = await Worktree(tmp_path).scan()
    assert dict(scan.files) == {"a.yaml": b"x", "b/c.py": b"x"}
    assert (scan.commit, scan.author, dict(scan.refused)) == (None, None, {})
    assert scan.provenance(["a.yaml"]) == (None, None)


async def test_a_scan_without_a_change_is_the_same_object(repo: Any) -> None:
    repo.tool("one")
    repo.commit()
    source = Worktree(repo.tools)
    first = await source.scan()
    assert await source.scan() is first
    assert await source.scan(thorough=True) is first
    repo.tool("one", answer="2")
    second = await source.scan(thorough=True)
    assert second.files["one.py"] != first.files["one.py"]
    assert second.tree != first.tree
    repo.tool("one")
    assert (await source.scan(thorough=True)).tree == first.tree


@pytest.mark.parametrize("is_committed", [False, True])
async def test_what_a_cancelled_scan_has_seen_is_in_the_next_one(repo: Any, is_committed: bool) -> None:
    """A retry that comes due cancels the look that asks whether there is anything new."""
    repo.tool("one")
    repo.commit()
    source = Worktree(repo.tools, settle=0.2)
    first = await source.scan()
    repo.tool("one", answer="2")
    if is_committed:
        repo.commit("Second")
    cancelled = asyncio.create_task(source.scan(thorough=True))
    await asyncio.sleep(0.15)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    second = await source.scan(thorough=True)
    assert second.files["one.py"] != first.files["one.py"]
    assert (second.commit != first.commit) is is_committed


async def test_provenance_is_that_of_the_newest_commit_that_touched_any_file(repo: Any) -> None:
    repo.tool("one")
    repo.tool("two")
    first = repo.commit("First")
    repo.tool("one", answer="2")
    second = repo.commit("Second")
    repo.git("commit", "-q", "--allow-empty", "-m", "Third")
    head = repo.git("rev-parse", "HEAD")
    source = Worktree(repo.tools)
    scan = await source.scan()
    assert (scan.commit, scan.author) == (head, "Ada <ada@example.com>")
    assert scan.provenance(["one.yaml", "one.py"]) == (second, "Ada <ada@example.com>")
    assert scan.provenance(["two.yaml", "two.py"]) == (first, "Ada <ada@example.com>")
    repo.tool("three")
    repo.tool("two", answer="9")
    scan = await source.scan(thorough=True)
    assert scan.provenance(["two.yaml", "two.py"])[0] == f"{first}+dirty"
    assert scan.provenance(["three.yaml", "three.py"]) == (f"{head}+dirty", None)
    fourth = repo.commit("Fourth")
    scan = await source.scan()
    assert scan.dirty == frozenset()
    assert scan.provenance(["two.yaml", "two.py"])[0] == fourth
    assert scan.provenance(["one.yaml", "one.py"])[0] == second


async def test_history_that_is_rewritten_is_walked_anew(repo: Any) -> None:
    repo.tool("one")
    repo.commit("First")
    repo.tool("two")
    repo.commit("Second")
    source = Worktree(repo.tools)
    await source.scan()
    repo.git("reset", "-q", "--soft", "HEAD~1")
    repo.git("commit", "-q", "-m", "Other")
    other = repo.git("rev-parse", "HEAD")
    assert (await source.scan()).provenance(["two.py"])[0] == other


async def test_files_with_unusual_names_have_their_commits(repo: Any) -> None:
    repo.write('ä "quoted".py', "x = 1\n")
    repo.write("tab\tname.py", "x = 1\n")
    commit = repo.commit()
    scan = await Worktree(repo.tools).scan()
    assert {path: scan.provenance([path])[0] for path in scan.files} == {
        'ä "quoted".py': commit,
        "tab\tname.py": commit,
    }


async def test_other_line_ends_than_the_blobs_are_not_dirt(repo: Any) -> None:
    repo.git("config", "core.autocrlf", "true")
    repo.write("a.py", "x = 1\r\n")
    repo.commit()
    assert (await Worktree(repo.tools).scan()).dirty == frozenset()


async def test_a_repository_without_a_commit_and_one_that_comes_later(repo: Any) -> None:
    repo.tool("one")
    source = Worktree(repo.tools)
    assert (await source.scan()).commit is None
    commit = repo.commit()
    scan = await source.scan()
    assert (scan.commit, scan.dirty) == (commit, frozenset())


async def test_a_missing_folder_is_unreadable_and_not_empty(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match="There is no directory"):
        await Worktree(tmp_path / "nowhere").scan()
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceUnreadable, match="is not a directory"):
        await Worktree(tmp_path / "file").scan()


async def test_what_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "tools.d"
    (root / "in").mkdir(parents=True)
    (tmp_path / "secret.py").write_text("password = 1\n")
    (root / "in" / "real.py").write_text("x = 1\n")
    (root / "out.py").symlink_to("../secret.py")
    (root / "out").symlink_to(tmp_path)
    (root / "inside").symlink_to("in")
    (root / "good.py").symlink_to("in/real.py")
    (root / "lost.py").symlink_to("nowhere.py")
    (root / "loop.py").symlink_to("loop.py")
    scan = await Worktree(root).scan()
    assert dict(scan.files) == {"in/real.py": b"x = 1\n", "good.py": b"x = 1\n"}
    told = {path: problem.message for path, problem in scan.refused.items()}
    assert told == {
        "out.py": "This symlink leaves the folder.",
        "out": "This symlink leaves the folder.",
        "inside": "A folder that is a symlink is not followed.",
        "lost.py": "This symlink leads nowhere.",
        "loop.py": "This symlink leads to itself.",
    }
    assert len(read(scan.files, refused=scan.refused).errors) == 5


async def test_submodules_pipes_and_large_files_are_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / ".git").write_text("gitdir: ../.git/modules/sub\n")
    (tmp_path / "sub" / "x.yaml").write_text("kind: Tool\n")
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "large.py").write_bytes(b"#" * (256 * KIB + 1))
    source = Worktree(tmp_path)
    scan = await source.scan()
    assert dict(scan.files) == {}
    assert [scan.refused[path].message.split(" ")[0] for path in ("sub", "pipe.py", "large.py")] == [
        "Submodules",
        "This",
        "The",
    ]
    (tmp_path / "sub" / ".git").unlink()
    assert list((await source.scan(thorough=True)).files) == ["sub/x.yaml"]


def test_a_folder_of_which_only_some_paths_are_looked_at_is_as_one_looked_at_whole(tmp_path: Path) -> None:
    """Whatever happens to files and folders, the hints of events lead to the same content as a full look."""
    folder = Folder(tmp_path)
    folder.update()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.py").write_text("1")
    (tmp_path / "d" / "b.py").write_text("1")
    folder.update(["d"])
    (tmp_path / "d" / "a.py").write_text("2")
    folder.update(["d/a.py"])
    assert folder.files() == {"d/a.py": b"2", "d/b.py": b"1"}
    (tmp_path / "d").rename(tmp_path / "e")
    folder.update(["d", "e"])
    assert folder.files() == {"e/a.py": b"2", "e/b.py": b"1"}
    (tmp_path / "e" / "b.py").unlink()
    (tmp_path / "e" / "b.py").mkdir()
    (tmp_path / "e" / "b.py" / "c.py").write_text("3")
    folder.update(["e/b.py"])
    assert folder.files() == {"e/a.py": b"2", "e/b.py/c.py": b"3"}
    whole = Folder(tmp_path)
    whole.update()
    assert (whole.files(), whole.tree) == (folder.files(), folder.tree)


def test_a_second_write_within_one_tick_of_the_clock_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("1")
    told = path.stat()
    folder = Folder(tmp_path)
    folder.update()
    path.write_text("2")
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))
    assert folder.update() == {"a.py"}


async def test_a_change_waits_for_git_to_be_done(repo: Any) -> None:
    repo.tool("one")
    repo.commit()
    source = Worktree(repo.tools)
    await source.scan()
    lock = repo.home / ".git" / "index.lock"
    lock.touch()
    repo.tool("one", answer="2")
    scanning = asyncio.create_task(source.scan(thorough=True))
    await asyncio.wait({scanning}, timeout=0.2)
    assert not scanning.done()
    lock.unlink()
    assert "one.py" in (await asyncio.wait_for(scanning, 5)).dirty


async def test_a_lock_that_a_dead_git_left_holds_nothing_up(repo: Any) -> None:
    repo.tool("one")
    repo.commit()
    lock = repo.home / ".git" / "index.lock"
    lock.touch()
    os.utime(lock, (time.time() - 3600,) * 2)
    assert len((await asyncio.wait_for(Worktree(repo.tools).scan(), 5)).files) == 2


class Woken:
    """Counts what a source's watch yields."""

    def __init__(self, source: Worktree) -> None:
        self.source = source
        self.event = asyncio.Event()
        self.task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        async for _ in self.source.watch():
            self.event.set()

    async def until(self, holds: Any) -> None:
        async with asyncio.timeout(15):
            while not holds(await self.source.scan()):
                await self.event.wait()
                self.event.clear()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_events_tell_of_writes_renames_new_folders_and_deletes(repo: Any) -> None:
    repo.tool("one")
    source = Worktree(repo.tools, poll=3600)
    await source.scan()
    woken = Woken(source)
    try:
        await woken.until(lambda scan: len(scan.files) == 2)
        repo.tool("deep/er/two")
        await woken.until(lambda scan: "deep/er/two.py" in scan.files)
        aside = repo.write("three.tmp", "x = 3\n")
        aside.rename(repo.tools / "one.py")
        await woken.until(lambda scan: scan.files["one.py"] == b"x = 3\n")
        (repo.tools / "deep").rename(repo.home / "away")
        await woken.until(lambda scan: len(scan.files) == 2)
    finally:
        await woken.stop()


async def test_without_events_the_slow_look_finds_the_change(repo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network mount: no event ever comes."""

    async def silence(*_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()
        yield

    monkeypatch.setattr("sync.sources.worktree.awatch", silence)
    repo.tool("one")
    source = Worktree(repo.tools, poll=0.05)
    await source.scan()
    woken = Woken(source)
    try:
        repo.tool("two")
        await woken.until(lambda scan: "two.py" in scan.files)
    finally:
        await woken.stop()


async def test_a_folder_that_is_replaced_is_watched_again(repo: Any) -> None:
    """As `git stash` or a new mount does it: the old folder's events come no more."""
    repo.tool("one")
    source = Worktree(repo.tools, poll=0.2)
    await source.scan()
    woken = Woken(source)
    try:
        repo.tools.rename(repo.home / "old")
        repo.tools.mkdir()
        repo.tool("two")
        await woken.until(lambda scan: set(scan.files) == {"two.py", "two.yaml"})
        repo.tool("three")
        await woken.until(lambda scan: "three.py" in scan.files)
    finally:
        await woken.stop()


def test_git_runs_no_program_of_the_repositorys_choice(repo: Any) -> None:
    marker = repo.home / "marker"
    script = repo.home / "evil"
    script.write_text(f"#!/bin/sh\ntouch {marker}\n")
    script.chmod(0o755)
    for name in ("core.fsmonitor", "core.pager", "core.sshCommand", "gpg.program", "core.editor", "diff.external"):
        repo.git("config", name, str(script))
    repo.git("config", "log.showSignature", "true")
    (repo.home / ".git" / "hooks" / "reference-transaction").symlink_to(script)
    repo.git("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "commit", "-q", "--allow-empty", "-m", "x")
    marker.unlink(missing_ok=True)
    run(repo.home, "log", "-1", "--name-only", "HEAD")
    run(repo.home, "ls-tree", "-r", "HEAD")
    assert not marker.exists()


def test_a_git_that_takes_too_long_is_ended(repo: Any) -> None:
    with pytest.raises(GitFailed, match=r"did not end within 0\.1 s"):
        run(repo.home, "-c", "alias.slow=!sleep 5", "slow", deadline=0.1)


def test_the_environment_of_a_hook_does_not_lead_git_astray(repo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert run(repo.home, "rev-parse", "--show-toplevel").decode().strip() == str(repo.home.resolve())
