"""What is required becomes a lock once, and a folder that nobody changes. Real uv, wheels of this disk."""

import asyncio
import io
import os
import shutil
import stat
import tarfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from tiny_wheels import TinyIndex

from portoser.catalog.errors import PortoserError, Unavailable
from portoser.catalog.requirement import Lock
from portoser.runtime.environments.environments import Environments, Preparing
from portoser.runtime.environments.files import LockFiles
from portoser.runtime.environments.folders import Folders
from portoser.runtime.environments.uv import Unresolvable, Uv


class Place:
    """A data directory with its environments, and the only index that they come from."""

    def __init__(self, home: Path, **options: Any) -> None:
        self.home = home
        self.index = TinyIndex(home / "wheels")
        self.folders = Folders(home / "environments")
        self.locks = LockFiles(home / "sets")
        self.uv = Uv(home / "cache", environ=options.pop("environ", self.index.environ), **options)
        self.environments = self.another()

    def another(self, folders: Folders | None = None, **options: Any) -> Environments:
        return Environments(folders or self.folders, self.locks, self.uv, **options)

    async def resolve(self, *requires: str) -> Lock | PortoserError:
        return (await self.environments.resolve([requires]))[requires]

    async def lock(self, *requires: str) -> Lock:
        lock = await self.resolve(*requires)
        assert isinstance(lock, Lock), lock
        return lock

    async def installed(self, *requires: str) -> Path:
        lock = await self.lock(*requires)
        failed = await self.environments.install([lock])
        assert failed == {lock.digest: None}
        folder = self.folders.find(lock.digest)
        assert folder is not None
        return folder


@asynccontextmanager
async def a_place(home: Path, **options: Any) -> AsyncIterator[Place]:
    place = Place(home, **options)
    try:
        yield place
    finally:
        await place.environments.aclose()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with a_place(tmp_path) as made:
        yield made


# Locks -------------------------------------------------------------------------------------------------------


async def test_a_lock_names_every_package_with_its_hashes(place: Place) -> None:
    place.index.add("tiny-one", "1.0", needs=("tiny-two>=2",))
    place.index.add("tiny-two", "2.5")
    lock = await place.lock("tiny-one==1.0")
    assert lock.packages == ("tiny-one==1.0", "tiny-two==2.5")
    assert lock.text.count("--hash=sha256:") == 2


async def test_a_set_that_was_resolved_once_stays_as_it_is(place: Place) -> None:
    place.index.add("tiny-one", "1.0")
    first = await place.lock("tiny-one")
    place.index.add("tiny-one", "1.1")
    assert await place.lock("tiny-one") == first
    assert (await place.lock("tiny-one>=1")).packages == ("tiny-one==1.1",)  # another set


async def test_what_every_worker_has_is_no_part_of_a_lock_and_holds_versions_back(place: Place) -> None:
    import pydantic

    place.index.add("pydantic", "1.0")  # and not the server's
    place.index.add("tiny-one", "1.0", needs=("pydantic",))
    assert (await place.lock("tiny-one", "pydantic>=2", "msgspec")).packages == ("tiny-one==1.0",)
    error = await place.resolve("pydantic==1.0")
    assert isinstance(error, Unresolvable)
    assert f"Every tool runs with this server's pydantic=={pydantic.VERSION}" in error.advice


async def test_a_set_that_cannot_be_met_is_told_with_uvs_reason(place: Place) -> None:
    place.index.add("tiny-one", "1.0", needs=("tiny-two>=2",))
    place.index.add("tiny-two", "1.0")
    error = await place.resolve("tiny-one==1.0")
    assert isinstance(error, Unresolvable)
    assert "only tiny-two==1.0 is available" in str(error)
    assert str(error).isprintable()  # no frames, no colours, one line


async def test_no_source_distribution_is_built(place: Place) -> None:
    touched = place.home / "touched"
    code = f"open({str(touched)!r}, 'w').close()\nfrom setuptools import setup\nsetup(name='evil', version='1.0')\n"
    files = {"setup.py": code, "PKG-INFO": "Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n"}
    with tarfile.open(place.index.folder / "evil-1.0.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"evil-1.0/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    assert isinstance(await place.resolve("evil==1.0"), Unresolvable)
    assert not touched.exists()


async def test_an_index_that_cannot_be_reached_is_tried_again_and_its_password_is_told_to_nobody(
    tmp_path: Path,
) -> None:
    environ = {"UV_DEFAULT_INDEX": "http://robot:Sw0rdfish@127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}
    async with a_place(tmp_path, environ=environ) as place:
        error = await place.resolve("tiny-one==1.0")
    assert isinstance(error, Unavailable)
    assert "127.0.0.1:9" in str(error)
    assert "Sw0rdfish" not in str(error)
    assert "robot" not in str(error)


async def test_uv_ends_with_its_deadline(tmp_path: Path, until: Any) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    environ = {"UV_DEFAULT_INDEX": f"http://127.0.0.1:{port}/simple"}
    async with server, a_place(tmp_path, environ=environ, resolving=1.5) as place:
        error = await place.resolve("tiny-one==1.0")
        await until(lambda: not [child for child in psutil.Process().children(True) if _is_uv(child)], "uv ends")
        server.close()
    assert isinstance(error, Unavailable)
    assert "within 2 s" in str(error)


def _is_uv(process: psutil.Process) -> bool:
    try:
        return process.name() == "uv"
    except psutil.NoSuchProcess:
        return False


# Folders -----------------------------------------------------------------------------------------------------


async def test_packages_are_installed_once_for_all_sets_that_come_to_the_same(place: Place) -> None:
    place.index.add("tiny-one", "1.0")
    folder = await place.installed("tiny-one==1.0")
    assert (folder / "tiny_one.py").read_text().startswith('VERSION = "1.0"')
    assert list(folder.glob("__pycache__/tiny_one.*.pyc"))
    assert await place.installed("tiny-one>=1") == folder
    standing = await place.environments.standing()
    assert (standing.count, standing.preparing) == (1, ())
    assert standing.size > 0


async def test_nobody_may_write_into_an_environment_and_everybody_may_read_it(place: Place) -> None:
    place.index.add("tiny-one", "1.0")
    folder = await place.installed("tiny-one==1.0")
    modes = {path: path.stat().st_mode for path in (folder, *folder.rglob("*"))}
    assert not [path for path, mode in modes.items() if mode & 0o222]
    assert all(mode & 0o005 == (0o005 if stat.S_ISDIR(mode) else mode & 0o005 | 0o004) for mode in modes.values())
    assert all(parent.stat().st_mode & 0o005 == 0o005 for parent in (folder.parent, folder.parent.parent))


async def test_two_servers_that_want_the_same_install_it_once(place: Place) -> None:
    place.index.add("tiny-one", "1.0")
    lock = await place.lock("tiny-one==1.0")
    installs = []

    async def install(target: Path) -> None:
        installs.append(target)
        await asyncio.sleep(0.3)
        (target / "there").write_text("yes")

    other = Folders(place.folders.root)
    made = await asyncio.gather(place.folders.make(lock, install), other.make(lock, install))
    other.release()
    assert len(installs) == 1
    assert made[0] == made[1]


async def test_what_a_killed_server_left_half_made_is_made_again(place: Place) -> None:
    place.index.add("tiny-one", "1.0")
    lock = await place.lock("tiny-one==1.0")

    async def fails(target: Path) -> None:
        (target / "half").write_text("")
        raise Unavailable("killed")

    with pytest.raises(Unavailable, match="killed"):
        await place.folders.make(lock, fails)
    assert place.folders.find(lock.digest) is None
    name = (await place.installed("tiny-one==1.0")).parent.name
    place.folders.release()
    (place.folders.root / f".making-{name}" / "packages").mkdir(parents=True)
    (place.folders.root / name / "environment.json").unlink()
    assert (await place.installed("tiny-one==1.0") / "tiny_one.py").is_file()
    assert not list(place.folders.root.glob(".*"))


async def test_a_wheel_that_is_not_what_the_lock_says_is_not_installed(place: Place) -> None:
    place.index.add("tiny-one", "1.0")
    lock = await place.lock("tiny-one==1.0")
    shutil.rmtree(place.home / "cache")
    place.index.add("tiny-one", "1.0", tiny_one="import os  # somebody else's")
    [error] = (await place.environments.install([lock])).values()
    assert isinstance(error, Unresolvable)
    assert "Hash mismatch" in str(error)
    assert place.folders.find(lock.digest) is None


async def test_who_does_not_wait_is_told_that_it_is_on_its_way_and_finds_it_later(place: Place) -> None:
    place.index.add("tiny-one", "1.0")
    now = asyncio.get_running_loop().time()
    answers = await place.environments.resolve([("tiny-one",)], until=now)
    assert isinstance(answers["tiny-one",], Preparing)
    assert (await place.environments.standing()).preparing == ("tiny-one",)
    lock = await place.lock("tiny-one")
    assert isinstance((await place.environments.install([lock], until=now))[lock.digest], Preparing)
    assert await place.environments.install([lock]) == {lock.digest: None}


async def test_what_cannot_be_had_is_told_to_who_comes_back_for_it(place: Place) -> None:
    now = asyncio.get_running_loop().time()
    assert isinstance((await place.environments.resolve([("nothing",)], until=now))["nothing",], Preparing)
    assert isinstance(await place.resolve("nothing"), Unresolvable)


# What is not needed any more ---------------------------------------------------------------------------------


class Needed(LockFiles):
    """Locks, some of which something refers to."""

    def __init__(self, folder: Path, *digests: str) -> None:
        super().__init__(folder)
        self.digests = set(digests)

    async def needed(self) -> set[str]:
        return set(self.digests)


def _age(folder: Path, seconds: float) -> None:
    os.utime(folder.parent / "environment.json", times=(time.time() - seconds,) * 2)


async def test_environments_that_nothing_refers_to_go_after_a_grace_period(place: Place) -> None:
    for version in ("1.0", "1.1", "1.2", "1.3"):
        place.index.add("tiny-one", version)
    folders = {version: await place.installed(f"tiny-one=={version}") for version in ("1.0", "1.1", "1.2", "1.3")}
    digests = {version: (await place.lock(f"tiny-one=={version}")).digest for version in folders}
    place.locks = Needed(place.home / "sets", digests["1.0"])
    environments = place.another(in_use=lambda: {digests["1.1"]}, grace=60)
    for version in ("1.0", "1.1", "1.2"):
        _age(folders[version], 120)
    assert [kept.packages for kept in await environments.tidy()] == [("tiny-one==1.2",)]
    assert {version for version, folder in folders.items() if folder.exists()} == {"1.0", "1.1", "1.3"}
    assert not (place.home / "cache").exists()
    assert (folders["1.0"] / "tiny_one.py").read_text()  # which the cache had, too


async def test_an_environment_that_another_server_uses_stays(place: Place) -> None:
    place.index.add("tiny-one", "1.0")
    folder = await place.installed("tiny-one==1.0")
    lock = await place.lock("tiny-one==1.0")
    other = Folders(place.folders.root)
    assert other.find(lock.digest) == folder
    _age(folder, 120)
    place.locks = Needed(place.home / "sets")
    environments = place.another(grace=60)
    assert await environments.tidy() == []
    other.release()
    assert len(await environments.tidy()) == 1
    assert place.folders.find(lock.digest) is None


async def test_what_is_missing_on_a_disk_is_installed_from_its_lock_without_being_resolved(
    place: Place, until: Callable[..., Any]
) -> None:
    place.index.add("tiny-one", "1.0")
    folder = await place.installed("tiny-one==1.0")
    lock = await place.lock("tiny-one==1.0")
    place.index.add("tiny-one", "2.0")
    empty = Folders(place.home / "another")
    environments = place.another(empty)
    running = asyncio.create_task(environments.run())
    await until(lambda: empty.find(lock.digest) is not None, "installed again")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await environments.aclose()
    again = empty.root / folder.parent.name / "packages"
    assert (again / "tiny_one.py").read_text() == (folder / "tiny_one.py").read_text()
