"""Removes a folder that somebody else has filled: as deep, as wide and as closed as they liked."""

import contextlib
import os
import secrets
from pathlib import Path


def remove_tree(folder: Path) -> None:
    """Remove a folder and everything in it; what the system does not let go stays. Blocks.

    Neither memory nor descriptors grow with the depth, and no path becomes long: what lies in a folder of the folder
    is brought up one level before that is removed. Symbolic links are never followed.
    """
    if folder.is_symlink():
        return
    with contextlib.suppress(OSError):
        folder.chmod(0o700)
    try:
        top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        _empty(top)
    finally:
        os.close(top)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _empty(top: int) -> None:
    brought_up = f"{secrets.token_hex(8)}-"
    count = 0
    stuck: set[str] = set()
    while True:
        folders = [name for name in _remove_files(top) if name not in stuck]
        if not folders:
            return
        for name in folders:
            try:
                os.chmod(name, 0o700, dir_fd=top)
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
            except OSError:
                stuck.add(name)
                continue
            try:
                for deeper in _remove_files(inner):
                    count += 1
                    with contextlib.suppress(OSError):
                        os.chmod(deeper, 0o700, dir_fd=inner)  # a folder that moves is written to
                        os.rename(deeper, f"{brought_up}{count}", src_dir_fd=inner, dst_dir_fd=top)
            finally:
                os.close(inner)
            try:
                os.rmdir(name, dir_fd=top)
            except OSError:
                stuck.add(name)


def _remove_files(folder: int) -> list[str]:
    """Remove what is no folder; the names of the folders."""
    folders = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
                continue
            with contextlib.suppress(OSError):
                os.unlink(entry.name, dir_fd=folder)
    return folders
