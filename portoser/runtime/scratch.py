"""The folders that workers work in: one each, private, removed with the worker."""

import asyncio
import contextlib
import os
import secrets
from pathlib import Path

import psutil

from portoser.runtime.removal import remove_tree


class Scratch:
    """Makes and removes workers' folders below one folder of this process's own."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._own = root / f"{os.getpid()}-{secrets.token_hex(4)}"
        self._made = 0
        self._removals: set[asyncio.Future[None]] = set()

    @property
    def folder(self) -> Path:
        """This process's folder, which the workers' are in."""
        return self._own

    def open(self) -> None:
        """Make this process's folder, and remove those of processes that were killed."""
        self._root.mkdir(parents=True, exist_ok=True)
        for left in self._root.iterdir():
            pid = left.name.partition("-")[0]
            if pid.isdecimal() and not psutil.pid_exists(int(pid)):
                remove_tree(left)
        self._own.mkdir(mode=0o711)  # the folders in it belong to users of their own, where workers have some

    def make(self) -> Path:
        """A new folder."""
        self._made += 1
        folder = self._own / str(self._made)
        folder.mkdir(mode=0o700)
        return folder

    def remove(self, folder: Path) -> None:
        """Remove a folder, and whatever its worker left in it, off the event loop."""
        with contextlib.suppress(FileNotFoundError):
            try:
                folder.rmdir()
            except OSError:
                removal = asyncio.get_running_loop().run_in_executor(None, remove_tree, folder)
                self._removals.add(removal)
                removal.add_done_callback(self._removals.discard)

    def abandon(self) -> None:
        """Remove everything, where no event loop removes anything. Blocks."""
        remove_tree(self._own)

    async def aclose(self) -> None:
        """Remove everything."""
        if self._removals:
            await asyncio.wait(self._removals)
        await asyncio.to_thread(remove_tree, self._own)
