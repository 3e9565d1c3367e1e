"""How the user of a caller can be asked, which depends on how the call came in."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import msgspec

from portoser.audit.entry import Outcome
from portoser.catalog.errors import PortoserError, PowerError
from portoser.catalog.question import Answer, Question


class CannotAsk(PowerError):
    """The user cannot be asked, or did not answer. The message reaches the tool's code, and through it the model."""


class Live(msgspec.Struct, frozen=True):
    """The client is asked while the call waits: an MCP session of the handshake era.

    ``ask`` puts one question, and raises CannotAsk where the client refuses it or has left.
    """

    ask: Callable[[Question], Awaitable[Answer]]


class Later(msgspec.Struct, frozen=True, kw_only=True):
    """The call ends with the questions, and is made again with the answers: MCP's 2026-07-28, REST, and people.

    ``state`` is what came with the questions that ``answers`` answer.
    """

    state: str | None = None
    answers: Mapping[str, Answer] = msgspec.field(default_factory=dict)


class Nobody(msgspec.Struct, frozen=True):
    """There is nobody to ask; ``why``, and what would help, in a sentence or two."""

    why: str


Asks: TypeAlias = Live | Later | Nobody


class Refused(PortoserError):
    """The call does not run, or not yet: then ``questions`` are asked first, and ``state`` comes with the answers."""

    def __init__(
        self,
        outcome: Outcome,
        reason: str,
        message: str,
        *,
        questions: Mapping[str, Question] | None = None,
        state: str | None = None,
    ) -> None:
        self.outcome = outcome
        self.reason = reason
        self.questions = questions
        self.state = state
        super().__init__(message)
