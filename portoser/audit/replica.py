"""What a server is called in the audit log: the same after a restart, and not what another one is called."""

import os
import re
import secrets
import tempfile
from pathlib import Path

from portoser.catalog.errors import PortoserError

_ID = re.compile(r"[0-9a-f]{8}")


def replica_name(data: Path, hostname: str, port: int) -> str:
    """``<hostname>:<port>/<id>``, where the id is random and kept in the file ``replica`` of the data directory.

    Two processes can still have one name, where they share a data directory or one is a copy of the other's; the
    audit log's chains are told apart by a lock besides.

    Raises:
        PortoserError: the file can be neither read nor made.
    """
    file = data / "replica"
    try:
        return f"{hostname}:{port}/{_kept(file) or _made(file)}"
    except OSError as error:
        raise PortoserError(f"The data directory {data} cannot be used: {error}.") from error


def _kept(file: Path) -> str | None:
    try:
        text = file.read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return text if _ID.fullmatch(text) else None


def _made(file: Path) -> str:
    """Make the file in one step; where another process was faster, its id counts."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix="replica.")
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as new:
            new.write(secrets.token_hex(4) + "\n")
            new.flush()
            os.fsync(descriptor)
        try:
            os.link(beside, file)
        except FileExistsError:
            if _kept(file) is None:
                beside.replace(file)  # what is there is of no use
    finally:
        beside.unlink(missing_ok=True)
    made = _kept(file)
    if made is None:
        raise OSError(f"{file} does not keep what is written to it")
    return made
