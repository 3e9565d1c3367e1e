"""What a running call asks of its powers, checked, counted and told of before and after any power sees it."""

import difflib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from portoser.catalog.errors import PowerError
from portoser.powers.base import Power, PowerContext, PowerRefused, Use
from portoser.powers.tally import Tally

log = structlog.get_logger(__name__)

Observe = Callable[[str, str], None]
"""Told of each use: the power's name, ``unknown`` for one that is not there, and ``ok``, ``refused`` or ``failed``."""


class Powers:
    """The powers of this server."""

    def __init__(self, powers: Sequence[Power], *, observe: Observe | None = None) -> None:
        self._powers: Mapping[str, Power] = {power.name: power for power in powers}
        self._observe = observe

    def for_call(self, context: PowerContext) -> "CallPowers":
        """What one call of a tool may ask; to be used for that call alone."""
        return CallPowers(self._powers, context, self._observe)

    async def aclose(self) -> None:
        """Give back what the powers hold."""
        for power in self._powers.values():
            await power.aclose()


class CallPowers:
    """The powers as one call sees them. ``tally`` counts what it used of them."""

    def __init__(self, powers: Mapping[str, Power], context: PowerContext, observe: Observe | None = None) -> None:
        self._powers = powers
        self._context = context
        self._observe = observe
        self.tally = Tally()
        self.has_written = False
        """Whether a power was asked that may have changed something by it."""

    async def call(self, power: str, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Ask a power.

        Raises:
            PowerError: where the power is not there, not declared, not granted, was asked too often, or refuses.
        """
        found = self._powers.get(power)
        use = Use(found, self._context) if found is not None else None
        began = time.perf_counter()
        outcome = "failed"
        try:
            answer = await self._ask(power, method, args, kwargs, use)
            outcome = "ok"
            return answer
        except PowerRefused:
            outcome = "refused"
            raise
        except PowerError:
            raise
        except Exception as error:
            log.exception("power.failed", power=power, tool=self._context.tool)
            told = f"{power[:64]}.{method[:64]}() failed in the server ({type(error).__name__}); its log says more."
            raise PowerError(told) from error
        finally:
            self._count(power, method, use, outcome, time.perf_counter() - began)

    async def _ask(self, power: str, method: str, args: list[Any], kwargs: dict[str, Any], use: Use | None) -> Any:
        if use is None:
            raise PowerRefused(self._unknown(power))
        asked = use.power
        if not asked.is_open and asked.word not in self._context.uses:
            raise PowerRefused(
                f"{self._context.tool} uses the power {power}, but its manifest does not say so. "
                f"Name what it needs under `uses: {{{asked.word}: […]}}`."
            )
        refusal = self._context.standing().refusal
        if refusal is not None:
            raise PowerRefused(f"What this call may do has been taken back since it began. {refusal}")
        held_back = self._context.held_back() if asked.writes(method) else None
        if held_back is not None:
            raise PowerRefused(held_back)
        return await asked.call(method, args, kwargs, use)

    def _count(self, power: str, method: str, use: Use | None, outcome: str, seconds: float) -> None:
        first, *others = (use.targets if use is not None else []) or [""]
        on_way = bool(others)
        refused, failed = outcome == "refused", outcome == "failed"
        if use is not None and use.power.writes(method) and (not refused or on_way):
            self.has_written = True
        self.tally.add(power, method, first, refused=refused and not on_way, failed=failed, seconds=seconds)
        for at, target in enumerate(others, 1):
            self.tally.add(power, "redirect", target, refused=refused and at == len(others))
        if self._observe is not None:
            self._observe(power if use is not None else "unknown", outcome)

    def _unknown(self, power: str) -> str:
        close = difflib.get_close_matches(power[:64], self._powers, n=1)
        here = ", ".join(sorted(self._powers)) or "none"
        hint = f" Did you mean {close[0]}?" if close else ""
        return f"This server has no power {power[:64]!r}.{hint} It has: {here}."
