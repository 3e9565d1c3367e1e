"""How often, and how many at once: ``limits.rate`` and ``limits.concurrency`` of a tool, on this server."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable

from portoser.catalog.units import Rate

_EXACT_CALLS = 128
"""Up to so many calls in a window each is remembered for itself; of more, those close together count as one moment."""
_MAX_KEYS = 10_000


class RateLimiter:
    """At most ``rate.calls`` in any window of ``rate.seconds``, for each key.

    Of at most ``max_keys`` keys the calls are remembered; the one that was longest idle is forgotten first.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, max_keys: int = _MAX_KEYS) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self._windows: OrderedDict[Hashable, _Window] = OrderedDict()

    def wait(self, key: Hashable, rate: Rate) -> float:
        """In how many seconds a call would be let through, 0 for now. Counts nothing."""
        window = self._windows.get(key)
        return 0.0 if window is None else window.wait(self._clock(), rate)

    def take(self, key: Hashable, rate: Rate) -> float:
        """Let a call through and count it, with 0; else in how many seconds one would be."""
        now = self._clock()
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window()
            if len(self._windows) > self._max_keys:
                self._windows.popitem(last=False)
        else:
            self._windows.move_to_end(key)
        wait = window.wait(now, rate)
        if not wait:
            window.add(now, rate)
        return wait

    def __len__(self) -> int:
        return len(self._windows)


class _Moment:
    """Calls that were let through close together, as if all were as late as the last."""

    __slots__ = ("calls", "first", "last")

    def __init__(self, at: float) -> None:
        self.first = at
        self.last = at
        self.calls = 1


class _Window:
    __slots__ = ("_calls", "_moments")

    def __init__(self) -> None:
        self._moments: deque[_Moment] = deque()
        self._calls = 0

    def wait(self, now: float, rate: Rate) -> float:
        while self._moments and self._moments[0].last + rate.seconds <= now:
            self._calls -= self._moments.popleft().calls
        too_many = self._calls - rate.calls + 1
        if too_many <= 0:
            return 0.0
        for moment in self._moments:
            too_many -= moment.calls
            if too_many <= 0:
                return moment.last + rate.seconds - now
        return rate.seconds  # a rate of no calls at all

    def add(self, now: float, rate: Rate) -> None:
        self._calls += 1
        if rate.calls > _EXACT_CALLS and self._moments:
            moment = self._moments[-1]
            if now - moment.first < rate.seconds / _EXACT_CALLS:
                moment.last = now
                moment.calls += 1
                return
        self._moments.append(_Moment(now))


class Concurrency:
    """How many calls of each tool run now."""

    def __init__(self) -> None:
        self._running: dict[str, int] = {}

    def enter(self, tool: str, limit: int | None) -> bool:
        """Count a call that begins; False, and nothing counted, where ``limit`` run already."""
        running = self._running.get(tool, 0)
        if limit is not None and running >= limit:
            return False
        self._running[tool] = running + 1
        return True

    def leave(self, tool: str) -> None:
        """Count a call that ended."""
        running = self._running.get(tool, 0) - 1
        if running > 0:
            self._running[tool] = running
        else:
            self._running.pop(tool, None)

    def running(self, tool: str) -> int:
        """How many calls of a tool run now."""
        return self._running.get(tool, 0)
