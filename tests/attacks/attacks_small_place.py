"""Runs a command where a folder is a small file system: ``python attacks_small_place.py FOLDER OPTIONS COMMAND…``.

``OPTIONS`` are tmpfs's; ``size=0`` stands for one without a free byte. The mount is the command's alone. For root.
"""

import os
import sys
from pathlib import Path

from attacks_plain_user import mount, own_mounts

FULL = "size=0"


def fill(folder: Path) -> None:
    """Leave no byte free."""
    with (folder / "full").open("wb", buffering=0) as file:
        for size in (65536, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


if __name__ == "__main__":
    folder, options = Path(sys.argv[1]), sys.argv[2]
    folder.mkdir(parents=True, exist_ok=True)
    own_mounts()
    mount("tmpfs", folder, "tmpfs", 0, f"mode=1777,{'size=256k' if options == FULL else options}")
    if options == FULL:
        fill(folder)
    os.execv(sys.argv[3], sys.argv[3:])
