"""Whose turn it is: a line for each caller, and the lines are served by turns.

A caller with many calls waits behind itself: another one's first call is at most one round of the callers away.
Joining, giving up and being served each cost the same however many wait.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeAlias

from portoser.catalog.errors import Unavailable

Turn: TypeAlias = asyncio.Future[None]


class Turns:
    """At most ``room`` turns that are waited for.

    Where there is no room, the caller with the longest line gives up its latest place for one whose line is shorter,
    so that nobody keeps the others out by coming in great number. ``busy`` is what those hear who are turned away.
    """

    def __init__(self, room: int, busy: Callable[[], Unavailable]) -> None:
        self._room = room
        self._busy = busy
        self._lines: OrderedDict[Hashable, OrderedDict[Turn, None]] = OrderedDict()
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def join(self, who: Hashable) -> Turn:
        """A place at the end of the line of ``who``: await it, and ``give_up`` where that is cancelled.

        Raises:
            Unavailable: there is no room. Awaiting the place raises it where it went to a caller that had fewer.
        """
        if self._waiting >= self._room:
            self._make_room(who)
        turn: Turn = asyncio.get_running_loop().create_future()
        self._lines.setdefault(who, OrderedDict())[turn] = None
        self._waiting += 1
        return turn

    def give_up(self, who: Hashable, turn: Turn) -> None:
        """Leave the line."""
        line = self._lines.get(who)
        if line is None or turn not in line:
            return
        del line[turn]
        self._waiting -= 1
        if not line:
            del self._lines[who]

    def next(self) -> Turn | None:
        """Whoever's turn it is, of those who still wait."""
        while self._lines:
            who, line = self._lines.popitem(last=False)
            turn, _ = line.popitem(last=False)
            self._waiting -= 1
            if line:
                self._lines[who] = line
            if not turn.done():
                turn.set_result(None)
                return turn
        return None

    def turn_away(self, why: Callable[[], Unavailable]) -> None:
        """Turn away everybody who waits."""
        for line in self._lines.values():
            for turn in line:
                if not turn.done():
                    turn.set_exception(why())
        self._lines.clear()
        self._waiting = 0

    def _make_room(self, who: Hashable) -> None:
        longest = max(self._lines, key=lambda each: len(self._lines[each]), default=None)
        if longest is None or len(self._lines[longest]) <= len(self._lines.get(who, ())) + 1:
            raise self._busy()
        turn = next(reversed(self._lines[longest]))
        self.give_up(longest, turn)
        if not turn.done():
            turn.set_exception(self._busy())
