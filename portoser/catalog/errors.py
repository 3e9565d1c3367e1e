"""The root of our exceptions, and the problem: one thing that is wrong with what somebody declared."""

from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec


class PortoserError(Exception):
    """Anything that Portoser itself refuses or fails at. The message says what, where and what to do."""


class Severity(StrEnum):
    """How bad a problem is: an error holds the tool back, a warning is only told."""

    ERROR = "error"
    WARNING = "warning"


class Problem(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One thing that is wrong, where it is, and what would be right.

    ``path`` is relative to the source's folder (or the name of a REST field); ``line`` and ``column``
    count from 1, and are 0 where the problem has no place in a text.
    """

    path: str = ""
    line: int = 0
    column: int = 0
    message: str
    advice: str = ""
    tool: str | None = None
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        place = self.path
        if self.line:
            place += f":{self.line}:{self.column}" if self.column else f":{self.line}"
        text = f"{place}: {self.message}" if place else self.message
        return f"{text} {self.advice}".rstrip() if self.advice else text

    @property
    def is_error(self) -> bool:
        """Whether the problem holds the tool back."""
        return self.severity is Severity.ERROR


class Invalid(PortoserError):
    """What was declared cannot be taken. Carries every problem found, never the first alone."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: Sequence[Problem] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Conflict(PortoserError):
    """A name is taken by another owner, or the registry moved on since the change was computed."""


class NotFound(PortoserError):
    """There is nothing of that name."""


class Denied(PortoserError):
    """The caller may not do this. The message names what is missing, as far as the caller may know."""


class Unavailable(PortoserError):
    """Something Portoser needs is not to be had right now: the database, a free worker. Trying again may help."""

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class PowerError(PortoserError):
    """A power refused or failed. The message reaches the tool's code, and through it the model."""
