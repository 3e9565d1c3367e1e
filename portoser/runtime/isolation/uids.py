"""A user id for each worker, so that to the kernel they are strangers to each other and to the server.

Where the server is root, its zygotes give each worker the id of a slot: of all zygotes and workers that live on a
machine no two have the same. The ids lie above 2³¹, where neither distributions nor directories nor containers
give any to anybody.
"""

import os

from portoser.runtime.isolation import kernel

_FIRST = 0x8000_0000
SLOTS = 510
"""How many ids a zygote has. A pid has at most 22 bits, so that those of the last one end below the highest id."""
_SPAN = 512


class Slots:
    """The ids of one zygote's workers."""

    def __init__(self, zygote: int) -> None:
        self._first = _FIRST + zygote * _SPAN
        self._free = list(range(SLOTS))

    def take(self) -> int:
        """An id that no living worker has; beyond ``SLOTS`` of them they share the last."""
        return self._first + (self._free.pop() if self._free else SLOTS)

    def give_back(self, user: int) -> None:
        """The worker that had an id has ended."""
        slot = user - self._first
        if slot < SLOTS:
            self._free.append(slot)


def become(user: int) -> None:
    """Be ``user``, in no group but its own, for good: the capabilities of root go with it.

    Raises:
        OSError: this process may not.
    """
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def may_change() -> bool:
    """Whether this process may be another user."""
    return os.geteuid() == 0 and kernel.has_capability(kernel.CAP_SETUID)
