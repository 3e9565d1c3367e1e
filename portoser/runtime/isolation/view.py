"""What tool code may read of the machine: Python, the packages of the server, shared libraries, time zones."""

import os
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import portoser

_LIBRARIES = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/nix/store",
    "/etc/ld.so.cache",
)
_FACTS = ("/usr/share/zoneinfo", "/etc/localtime", "/etc/mime.types")

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
"""What a program may read and write that is no file."""


class View(NamedTuple):
    """Folders and files without links on the way, of which none lies in another; and the links that lead there."""

    paths: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    """Where each stands, and what it says."""


def view(packages: str | None) -> View:
    """What tool code may read here.

    ``packages`` is the folder of an environment's own. Of Portoser itself it is the package alone, not the
    repository that it may stand in.
    """
    python = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    sites = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages", "lib-dynload")]
    package = str(Path(portoser.__file__).parent)
    wanted = [f"{sys.base_prefix}/lib", *python, *sites, package, *_LIBRARIES, *_FACTS]
    if packages is not None:
        wanted.append(packages)
    there = [path for path in wanted if os.path.exists(path)]  # noqa: PTH110
    links: dict[str, str] = {}
    for path in there:
        _note_links(os.path.abspath(path), links)  # noqa: PTH100
    return View(_outermost(map(os.path.realpath, there)), tuple(links.items()))


def _note_links(path: str, links: dict[str, str]) -> None:
    at = ""
    parts = path.strip("/").split("/")
    for place, part in enumerate(parts, 1):
        at += f"/{part}"
        if at in links:
            return
        if os.path.islink(at):  # noqa: PTH114
            links[at] = os.readlink(at)  # noqa: PTH115
            _note_links(os.path.normpath(os.path.join(os.path.dirname(at), links[at], *parts[place:])), links)  # noqa: PTH118, PTH120
            return


def _outermost(paths: Iterable[str]) -> tuple[str, ...]:
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not any(path.startswith(f"{outer}/") for outer in kept):
            kept.append(path)
    return tuple(kept)
