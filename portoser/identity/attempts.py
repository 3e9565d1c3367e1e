"""How many failed sign-ins are recorded: enough to see them, too few to fill a disk with."""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_MOST_ADDRESSES = 10_000


@dataclass(slots=True)
class _Window:
    started: float
    recorded: int = 0
    left_out: int = 0


class FailedSignIns:
    """Tells which failed sign-ins are recorded: in each minute a few from one address, and a bounded number in all.

    The addresses of an IPv6 network of 64 bits count as one, as one machine may have them all.
    """

    def __init__(
        self,
        *,
        per_address: int = 10,
        overall: int = 300,
        seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_address = per_address
        self._overall = overall
        self._seconds = seconds
        self._clock = clock
        self._all = _Window(clock())
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def left_out(self, address: str | None) -> int | None:
        """Count a failure from ``address``; None where it is not to be recorded.

        Else how many were not recorded since the entry before: from this address, and, where there were too many
        in all, from others.
        """
        now = self._clock()
        key = _network(address)
        window = self._windows.setdefault(key, _Window(now))
        self._windows.move_to_end(key)
        if len(self._windows) > _MOST_ADDRESSES:
            self._all.left_out += self._windows.popitem(last=False)[1].left_out
        self._renew(window, now)
        self._renew(self._all, now)
        if window.recorded >= self._per_address:
            window.left_out += 1
            return None
        if self._all.recorded >= self._overall:
            self._all.left_out += 1
            return None
        count = window.left_out + self._all.left_out
        for counted in (window, self._all):
            counted.recorded += 1
            counted.left_out = 0
        return count

    def _renew(self, window: _Window, now: float) -> None:
        if now - window.started >= self._seconds:
            window.started, window.recorded = now, 0


def _network(address: str | None) -> str:
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
