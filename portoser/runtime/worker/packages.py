"""The packages of an environment, as the zygote and the workers of it see them."""

import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from portoser.runtime.worker.loader import TAKEN


def put_first(folder: Path) -> None:
    """Have ``folder`` searched after the standard library and before what Portoser itself is made of.

    What the worker needs itself stays what it is. Other packages that were imported already, and that the folder has
    too, are forgotten, so that tools get the folder's.
    """
    sys.path.insert(_place(), str(folder))
    theirs = frozenset(_top_level(folder)) - TAKEN
    for name in [name for name in sys.modules if name.partition(".")[0] in theirs]:
        del sys.modules[name]


def _place() -> int:
    """Where in ``sys.path`` the installed packages begin."""
    installed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    places = [at for at, path in enumerate(sys.path) if path in installed or path.endswith(("-packages",))]
    return min(places, default=len(sys.path))


def _top_level(folder: Path) -> Iterator[str]:
    """The names that the folder lets one import."""
    for entry in folder.iterdir():
        name = entry.name.partition(".")[0]
        if name.isidentifier() and (entry.is_dir() or entry.suffix in {".py", ".so"}):
            yield name
