"""Locks on an author's disk, where there is no registry to keep them."""

import asyncio
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from portoser.catalog.errors import Unavailable
from portoser.catalog.requirement import Lock
from portoser.runtime.environments.environments import RequiredSet


class LockFiles:
    """One file for each set, in a folder that is made when it is needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def known(self, keys: Collection[str]) -> Mapping[str, Lock]:
        """The locks of these sets, by the sets' keys."""
        return await asyncio.to_thread(self._known, keys)

    async def by_digest(self, digests: Collection[str]) -> Mapping[str, Lock]:
        """The locks of these digests."""
        locks = await asyncio.to_thread(self._all)
        return {lock.digest: lock for lock in locks if lock.digest in digests}

    async def keep(self, key: str, requires: RequiredSet, lock: Lock) -> Lock:
        """Keep the lock of a set.

        Raises:
            Unavailable: the folder cannot be written to.
        """
        try:
            await asyncio.to_thread(self._write, key, lock)
        except OSError as error:
            raise Unavailable(f"{self._folder} cannot be written to: {error.strerror}.") from error
        return lock

    async def needed(self) -> set[str]:
        """Every lock: nobody knows what an author will run next."""
        return {lock.digest for lock in await asyncio.to_thread(self._all)}

    def _known(self, keys: Collection[str]) -> dict[str, Lock]:
        paths = {key: self._folder / f"{key}.txt" for key in keys}
        return {key: Lock(path.read_text(encoding="utf-8")) for key, path in paths.items() if path.is_file()}

    def _all(self) -> list[Lock]:
        return [Lock(path.read_text(encoding="utf-8")) for path in self._folder.glob("*.txt")]

    def _write(self, key: str, lock: Lock) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        aside = self._folder / f".{key}.{msgspec.json.encode(id(lock)).decode()}"
        aside.write_text(lock.text, encoding="utf-8")
        aside.rename(self._folder / f"{key}.txt")
