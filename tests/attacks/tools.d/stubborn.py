"""Does not want to end."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

from trying import libc


def stubborn(target: dict[str, Any]) -> dict[str, Any]:
    """Ignores every signal, asks not to die with its parent, closes what could tell it of the end, and stays."""
    for number in range(1, 65):
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)
    libc.prctl(1, 0, 0, 0, 0)
    with contextlib.suppress(OSError):
        os.setsid()
    with contextlib.suppress(OSError):
        if os.fork() == 0:
            os.closerange(0, 64)
    print("stubborn", flush=True)
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(1)


def fills(target: dict[str, Any]) -> dict[str, Any]:
    """Writes into its folder until no more goes in."""
    with Path("full").open("wb", buffering=0) as file:
        for _ in range(target["mib"]):
            file.write(bytes(1 << 20))
    return {"got": []}
