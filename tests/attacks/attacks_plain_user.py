"""Runs a command as ``nobody``: ``python attacks_plain_user.py COMMAND…``; for root.

Where Python itself lies in a home that is closed to others, as pyenv's does, the command sees that home with nothing
in it but Python.
"""

import ctypes
import os
import sys
import tempfile
from pathlib import Path

NOBODY = 65534
_NEW_MOUNTS = 0x20000
_BIND, _MOVE, _PRIVATE = 0x1000, 0x2000, 0x44000

_libc = ctypes.CDLL(None, use_errno=True)


def own_mounts() -> None:
    """Let nobody else see what this process mounts from now on."""
    if _libc.unshare(_NEW_MOUNTS) != 0:
        raise OSError(ctypes.get_errno(), "no mounts of our own")
    mount("none", Path("/"), None, _PRIVATE)


def mount(source: str, target: Path, kind: str | None, flags: int, options: str | None = None) -> None:
    """Mount, or raise OSError."""
    encoded = [each.encode() if each is not None else None for each in (source, str(target), kind)]
    if _libc.mount(*encoded, ctypes.c_ulong(flags), options.encode() if options else None) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{os.strerror(code)}: mount {source} on {target}")


def open_the_way(python: Path) -> None:
    """Let everybody see the folder of Python, in mounts of our own."""
    closed = next((each for each in reversed(python.parents) if not each.stat().st_mode & 0o001), None)
    if closed is None:
        return
    own_mounts()
    aside = Path(tempfile.mkdtemp())
    mount(str(python), aside, None, _BIND)
    mount("tmpfs", closed, "tmpfs", 0, "mode=755,size=64k")
    python.mkdir(parents=True)
    mount(str(aside), python, None, _BIND)
    _libc.umount2(str(aside).encode(), 2)
    aside.rmdir()


if __name__ == "__main__":
    open_the_way(Path(sys.base_prefix).resolve())
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    os.execv(sys.argv[1], sys.argv[1:])
