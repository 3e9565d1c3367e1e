"""What a call is lent: the files of its program, and powers whose answers are not to be seen."""

from typing import Any

from portoser.audit.redaction import Taint
from portoser.catalog.errors import NotFound, Unavailable
from portoser.catalog.revision import SourceFile
from portoser.invocation.asking import Asking
from portoser.invocation.asks import CannotAsk
from portoser.invocation.needs import Code
from portoser.runtime.types import PowerHost


class Files:
    """Fetches a program's files, and remembers where that is what failed."""

    __slots__ = ("_code", "_digest", "failed")

    def __init__(self, code: Code, digest: str) -> None:
        self._code = code
        self._digest = digest
        self.failed = False

    async def __call__(self) -> tuple[SourceFile, ...]:
        """The files, in the order of their import."""
        try:
            return await self._code.files(self._digest)
        except (Unavailable, NotFound):
            self.failed = True
            raise


class Tainting:
    """Powers, of which what they give is hidden from the log."""

    def __init__(self, powers: PowerHost, taint: Taint) -> None:
        self._powers = powers
        self._taint = taint

    async def call(self, power: str, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Ask the power, and keep what it gives in mind."""
        given = await self._powers.call(power, method, args, kwargs)
        if power == "vault":
            self._taint.add(given)
        return given


class AskingPowers:
    """Powers, with `ctx` among them: the power to ask."""

    def __init__(self, powers: PowerHost, asking: Asking) -> None:
        self._powers = powers
        self._asking = asking

    async def call(self, power: str, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Ask the power, or the caller's user."""
        if power != "ctx":
            return await self._powers.call(power, method, args, kwargs)
        if method != "elicit":
            raise CannotAsk(f"ctx.{method[:64]}() does not exist.")
        return await self._asking.elicit(args, kwargs)
