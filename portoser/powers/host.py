"""What a running call asks of its powers, checked and counted before any power sees it."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from portoser.catalog.errors import PowerError
from portoser.powers.base import Power, PowerContext

MOST_CALLS = 1000
"""How often one call of a tool may ask powers."""

OPEN_POWERS = frozenset(("registry",))
"""What every tool may use without saying so in its manifest."""


class Powers:
    """The powers of this server."""

    def __init__(self, powers: Sequence[Power]) -> None:
        self._powers: Mapping[str, Power] = {power.name: power for power in powers}

    def for_call(self, context: PowerContext) -> "CallPowers":
        """What one call of a tool may ask; to be used for that call alone."""
        return CallPowers(self._powers, context)


class CallPowers:
    """The powers as one call sees them."""

    def __init__(self, powers: Mapping[str, Power], context: PowerContext) -> None:
        self._powers = powers
        self._context = context
        self._asked = 0

    async def call(self, power: str, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Ask a power.

        Raises:
            PowerError: where the power is not there, not declared, was asked too often, or refuses.
        """
        self._asked += 1
        if self._asked > MOST_CALLS:
            raise PowerError(f"The call has asked powers {MOST_CALLS} times, and may not any more.")
        found = self._powers.get(power)
        if found is None:
            raise PowerError(self._unknown(power))
        if power not in OPEN_POWERS and power not in self._context.uses:
            raise PowerError(
                f"{self._context.tool} uses the power {power}, but its manifest does not say so. "
                f"Name what it needs under `uses: {{{power}: […]}}`."
            )
        return await found.call(method, args, kwargs, self._context)

    def _unknown(self, power: str) -> str:
        close = difflib.get_close_matches(power, self._powers, n=1)
        here = ", ".join(sorted(self._powers)) or "none"
        hint = f" Did you mean {close[0]}?" if close else ""
        return f"This server has no power {power[:64]!r}.{hint} It has: {here}."


def unknown_method(power: str, method: str, methods: Sequence[str]) -> PowerError:
    """The error for a method that a power does not have."""
    close = difflib.get_close_matches(method, methods, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return PowerError(f"{power} has no function {method[:64]!r}.{hint} It has: {', '.join(methods)}.")
