"""How commands end: the codes, and the error that carries one."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Self

from portoser.catalog.errors import PortoserError


class Exit(IntEnum):
    """Exit codes; `docs/cli.md` prints what each means."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Self:
        """A code with what it means."""
        made = int.__new__(cls, code)
        made._value_ = code
        made.meaning = meaning
        return made

    OK = 0, "It worked."
    FAILED = 1, "It did not work: the server refused it, the tool failed, or there are problems."
    USAGE = 2, "The command was written wrongly. `portoser plan` also ends so where there are changes."
    UNREACHABLE = 3, "The server cannot be reached, or is not ready."
    FORBIDDEN = 4, "The server does not know the caller, or the caller may not do this."
    NOT_FOUND = 5, "There is nothing of that name."
    INTERRUPTED = 130, "Ctrl-C."


class CommandError(PortoserError):
    """A command cannot do what was asked. ``problems`` are further lines, one for each thing that is wrong.

    ``document`` is the problem document that a server answered with.
    """

    def __init__(
        self,
        message: str,
        *,
        code: Exit = Exit.FAILED,
        problems: tuple[str, ...] = (),
        document: Mapping[str, Any] | None = None,
    ) -> None:
        self.code = code
        self.problems = problems
        self.document = document or {}
        super().__init__(message)
