"""The powers that there are, in one list.

A new power is a class in a file of its own here, a stub in `portoser.tool`, a fake in `fakes`, and a line in this list.
"""

from pathlib import Path
from typing import NamedTuple

from portoser.powers.base import Power


class Kept(NamedTuple):
    """What is known of a power without making it. ``word`` is the key in a manifest's ``uses`` and in the policy."""

    name: str
    word: str
    is_open: bool = False
    is_there: bool = True


KEPT = (
    Kept("registry", "registry", is_open=True),
    Kept("http", "network"),
    Kept("vault", "vault", is_there=False),
    Kept("cluster", "cluster", is_there=False),
)
"""Those that are not there yet can be declared, and faked in examples."""

WORDS = tuple(kept.word for kept in KEPT)
OPEN = frozenset(kept.word for kept in KEPT if kept.is_open)
"""What every tool may use without a word in its manifest or in the policy."""
PRESENT = frozenset(kept.word for kept in KEPT if kept.is_there)


def powers(*, registry: Path) -> list[Power]:
    """Every power, made; ``registry`` is the file that the power of this name reads."""
    # Here, because not everybody who asks for the list makes the powers.
    from portoser.powers.http import HttpPower
    from portoser.powers.registry import RegistryPower

    return [RegistryPower(registry), HttpPower()]
