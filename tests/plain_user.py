"""Runs a program of Python's as a user who is not root, also where Python lies in a folder that only root may enter.

    python tests/plain_user.py FILE [ARGUMENT …]

For root alone. The program runs in a mount namespace of its own, in which the folders on the way to Python and to this
repository let everybody pass, and show nothing but those.
"""

import ctypes
import os
import sys
from pathlib import Path

USER = 54321
_NEWNS, _PRIVATE, _BIND = 0x0002_0000, 1 << 18 | 16384, 4096 | 16384

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    texts = [None if text is None else text.encode() for text in (source, target, kind, options)]
    _check(_libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]), f"mount of {target}")


def _closed(path: Path) -> Path | None:
    """The outermost folder on the way to a path that other users may not enter."""
    return next((each for each in (*reversed(path.parents), path) if not each.stat().st_mode & 0o001), None)


def _open_the_way(needed: list[Path]) -> None:
    closed: dict[Path, list[Path]] = {}
    for path in needed:
        wall = _closed(path)
        if wall is not None:
            closed.setdefault(wall, []).append(path)
    if not closed:
        return
    _check(_libc.unshare(_NEWNS), "unshare")
    _mount(None, "/", None, _PRIVATE)
    for wall, paths in closed.items():
        kept = [(path, os.open(path, os.O_PATH)) for path in paths]
        _mount("wall", str(wall), "tmpfs", 0, "mode=755")
        for path, descriptor in kept:
            path.mkdir(parents=True, exist_ok=True)
            _mount(f"/proc/self/fd/{descriptor}", str(path), None, _BIND)
            os.close(descriptor)


def become_plain(home: str) -> None:
    """Be a user who is not root, with ``home`` for its own, for good."""
    repository = Path(__file__).resolve().parents[1]
    _open_the_way([Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), repository])
    os.chown(home, USER, USER)
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    os.environ["HOME"] = home
    os.chdir(home)


if __name__ == "__main__":
    import tempfile

    become_plain(tempfile.mkdtemp(prefix="plain-"))
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
