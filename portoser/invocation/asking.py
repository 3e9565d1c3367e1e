"""What a call asks its caller's user: the manifest's `confirm`, and what its code asks by `ctx.elicit`."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from portoser.audit.entry import Entry, Outcome
from portoser.audit.fitting import RESULT_LIMIT, fit
from portoser.audit.redaction import Redactor
from portoser.catalog.errors import Unavailable
from portoser.catalog.question import (
    LONGEST_KEY,
    NOTHING,
    Action,
    Answer,
    BadAnswer,
    BadQuestion,
    Question,
    checked_answer,
    question_of,
)
from portoser.catalog.tool import RegisteredTool
from portoser.invocation.asks import Asks, CannotAsk, Later, Live, Nobody, Refused
from portoser.invocation.attempt import Attempt
from portoser.invocation.nonces import Nonces
from portoser.invocation.prepared import Prepared
from portoser.invocation.state import (
    LONGEST,
    BadState,
    Given,
    Pending,
    State,
    digest_of_arguments,
    digest_of_caller,
    opened,
    sealed,
)

ANSWER_SECONDS: Final = 300.0
"""How long a person has to answer."""
MOST_QUESTIONS: Final = 20
"""How many questions one call may ask, and so in how many rounds."""
MOST_OPEN: Final = 64
"""How many calls may wait for people at the same time: each holds a worker meanwhile."""
MOST_OPEN_OF_ONE: Final = 16

CONFIRM: Final = "confirm"
"""The key of the manifest's question."""

_UNCHECKED = "What is asked, and which answers were used, cannot be recorded right now. Try again in a moment."
_ONCE = (
    "It would be changed again with each round of questions: a tool that changes something does so after its last "
    "ctx.elicit()."
)


class Questions:
    """What tools of this server ask. ``seconds`` is how long a person has to answer one question."""

    def __init__(
        self, nonces: Nonces, note: Callable[[Entry], None], *, seconds: float, clock: Callable[[], float] = time.time
    ) -> None:
        self.nonces = nonces
        self.note = note
        self.seconds = seconds
        self.clock = clock
        self._open: Counter[Hashable] = Counter()

    @contextmanager
    def waiting(self, who: Hashable) -> Iterator[None]:
        """Count a person who is waited for.

        Raises:
            CannotAsk: too many are already.
        """
        if self._open[who] >= MOST_OPEN_OF_ONE or self._open.total() >= MOST_OPEN:
            raise CannotAsk("Too many questions wait for an answer already. Try again once some are answered.")
        self._open[who] += 1
        try:
            yield
        finally:
            self._open[who] -= 1
            if not self._open[who]:
                del self._open[who]

    async def resumed(
        self,
        asks: Asks,
        attempt: Attempt,
        tool: RegisteredTool,
        prepared: Prepared,
        arguments: dict[str, Any],
        *,
        confirmed: bool,
    ) -> "Asking":
        """What a call has asked and will ask, with the answers that came with it.

        Raises:
            Refused: its state or its answers cannot be used, or the manifest's question was not agreed to.
        """
        asking = Asking(self, asks, attempt, tool, prepared, arguments, confirmed=confirmed)
        if isinstance(asks, Later) and (asks.state is not None or asks.answers):
            await asking.resume(asks)
        return asking


class Asking:
    """The questions of one call."""

    def __init__(
        self,
        questions: Questions,
        asks: Asks,
        attempt: Attempt,
        tool: RegisteredTool,
        prepared: Prepared,
        arguments: dict[str, Any],
        *,
        confirmed: bool,
    ) -> None:
        self._questions = questions
        self._asks = asks
        self._attempt = attempt
        self._tool = tool
        self._prepared = prepared
        self._arguments = arguments
        self._state: State | None = None
        self._given: dict[str, Given] = {}
        self._asked: set[str] = set()
        self.is_confirmed = confirmed
        self.pending: Question | None = None
        """What has to be answered before the function is run again."""
        self.has_written: Callable[[], bool] = bool
        """Whether the call has changed something."""

    @property
    def has_run(self) -> bool:
        """Whether the function ran in an earlier round: the call was counted then."""
        return self._state is not None and self._state.has_run

    # Between two rounds --------------------------------------------------------------------------------------

    async def resume(self, asks: Later) -> None:
        """Go on where an earlier round ended, with its answers."""
        if asks.state is None:
            raise _invalid("Answers need the state that came with their questions. Call without answers first.")
        try:
            state = opened(asks.state, await self._questions.nonces.key())
        except BadState as error:
            raise _invalid(f"{error} Call the tool again without it.") from None
        except Unavailable:
            raise Refused(Outcome.ERROR, "unrecorded", _UNCHECKED) from None
        self._check(state)
        answers = {}
        for key, pending in state.pending.items():
            if key not in asks.answers:
                raise Refused(Outcome.INVALID, "invalid_answer", f"The question {key!r} is not answered.")
            try:
                answers[key] = checked_answer(asks.answers[key], pending.schema)
            except BadAnswer as error:
                message = f"The answer to the question {key!r} does not fit: {error}"
                raise Refused(Outcome.INVALID, "invalid_answer", message) from None
            self._tell_answer(key, answers[key], pending.schema)
        self._state = state
        self._given = dict(state.given)
        self.is_confirmed = self.is_confirmed or state.is_confirmed
        if not state.is_confirming:
            for key, answer in answers.items():
                self._given[key] = Given(answer.action, answer.content, state.pending[key].mark)
        elif answers[CONFIRM].action is Action.ACCEPT:
            self.is_confirmed = True
        else:
            await self.spend()
            raise _declined(self._tool.name, answers[CONFIRM].action)

    def _check(self, state: State) -> None:
        again = "Call the tool again without it."
        if state.tool != self._tool.name or state.arguments != digest_of_arguments(self._arguments):
            raise _invalid(f"This state belongs to a call of another tool, or with other arguments. {again}")
        if state.caller != digest_of_caller(self._attempt.caller):
            raise _invalid(f"This state was given to another caller. {again}")
        if state.expires_at <= self._questions.clock():
            told = f"The question was asked too long ago: answers are taken for {_minutes(self._questions.seconds)}."
            raise Refused(Outcome.INVALID, "expired_state", f"{told} {again}")
        if state.digest != self._tool.revision.digest:
            message = f"{self._tool.name} was changed since the question was asked. {again}"
            raise Refused(Outcome.INVALID, "expired_state", message)

    async def spend(self) -> None:
        """Use the state that came with the call up. To be done right before the call runs, and before it is recorded.

        Raises:
            Refused: it was used before, or that cannot be told.
        """
        state = self._state
        if state is None:
            return
        try:
            is_ours = await self._questions.nonces.spend(state.nonce, state.expires_at)
        except Unavailable:
            raise Refused(Outcome.ERROR, "unrecorded", _UNCHECKED) from None
        if not is_ours:
            message = "This answer was used before, and counts once. Call the tool again, without a state."
            raise Refused(Outcome.INVALID, "spent_state", message)

    async def _sealed(self, question: Question, *, confirming: bool = False) -> str:
        """The state that comes with a question.

        Raises:
            Refused: what it is signed with cannot be had now, or the answers before it are too much to be kept.
        """
        state = State(
            nonce=secrets.token_urlsafe(18),
            expires_at=self._questions.clock() + self._questions.seconds,
            tool=self._tool.name,
            digest=self._tool.revision.digest,
            arguments=digest_of_arguments(self._arguments),
            caller=digest_of_caller(self._attempt.caller),
            is_confirmed=self.is_confirmed,
            is_confirming=confirming,
            has_run=self.has_run or not confirming,
            pending={question.key: Pending(question.schema, _mark(question))},
            given=self._given,
        )
        try:
            told = sealed(state, await self._questions.nonces.key())
        except Unavailable:
            raise Refused(Outcome.ERROR, "unrecorded", _UNCHECKED) from None
        if len(told) > LONGEST:
            message = (
                f"The answers to what {self._tool.name} has asked are too much to go on with. Answer in fewer words."
            )
            raise Refused(Outcome.ERROR, "cannot_ask", message)
        return told

    # The manifest's question ---------------------------------------------------------------------------------

    async def confirm(self, message: str) -> None:
        """Ask whether the tool may run; returns where it may.

        Raises:
            Refused: it may not, or the answer comes with a later call.
        """
        question = Question(key=CONFIRM, message=message, schema=NOTHING)
        if isinstance(self._asks, Later):
            state = await self._sealed(question, confirming=True)
            raise Refused(
                Outcome.INPUT_REQUIRED, "confirmation_required", message, questions={CONFIRM: question}, state=state
            )
        try:
            answer = await self._ask_now(question, "confirmation_required")
        except CannotAsk as error:
            told = f"{self._tool.name} asks a person before it runs: {message!r} {error}"
            raise Refused(Outcome.ERROR, "cannot_ask", told) from None
        if answer.action is not Action.ACCEPT:
            raise _declined(self._tool.name, answer.action)
        self.is_confirmed = True

    # The code's questions ------------------------------------------------------------------------------------

    async def elicit(self, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Answer ``ctx.elicit(message, schema, key)``, or say that the answer comes with a later run.

        Raises:
            CannotAsk: it cannot be asked; the message reaches the tool's code.
        """
        message, schema, key = [*args, None, None, None][:3]
        question = self._question(message, schema, key)
        if isinstance(self._asks, Nobody):
            raise CannotAsk(self._asks.why)
        given = self._given.get(question.key)
        if given is not None and given.mark == _mark(question):
            self._asked.add(question.key)
            return _reply(Answer(given.action, given.content))
        if self.has_written():
            raise CannotAsk(f"The call has changed something before it asked {question.message[:100]!r}. {_ONCE}")
        self._asked.add(question.key)
        if isinstance(self._asks, Live):
            answer = await self._ask_now(question, "question")
            return _reply(answer)
        self.pending = question
        return {"action": "later"}

    def _question(self, message: Any, schema: Any, key: Any) -> Question:
        if self.pending is not None:
            raise CannotAsk("The call waits for the answer to its question, and is run again with it.")
        number = len(self._asked) + 1
        if number > MOST_QUESTIONS:
            raise CannotAsk(f"The call has asked {MOST_QUESTIONS} questions, and may not ask more.")
        if key is None:
            key = f"{number}"
        elif not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY or not key.isprintable() or key.isdecimal():
            raise CannotAsk(f"The key {key!r:.80} is none: it is a short text, and no number.")
        if key in self._asked:
            raise CannotAsk(f"The call has asked a question under the key {key!r} already: give each its own.")
        try:
            return question_of(message, schema, key)
        except BadQuestion as error:
            raise CannotAsk(str(error)) from None

    def held_back(self) -> str | None:
        """Why nothing may be changed at this moment of the run; None where it may."""
        if self.pending is not None:
            return "The call waits for the answer to its question, and is run again with it."
        waiting = self._given.keys() - self._asked
        if not waiting:
            return None
        return f"The call has not asked {min(waiting)!r} again yet, which it asked in an earlier round. {_ONCE}"

    async def required(self) -> Refused:
        """How the call ends whose function has asked.

        Raises:
            Refused: it ends without a question, because that could not be answered.
        """
        question = self.pending
        if question is None:
            raise RuntimeError("Nothing was asked.")
        state = await self._sealed(question)
        question = self._shown(question)
        return Refused(
            Outcome.INPUT_REQUIRED, "question", question.message, questions={question.key: question}, state=state
        )

    # Asking now ----------------------------------------------------------------------------------------------

    async def _ask_now(self, question: Question, reason: str) -> Answer:
        if not isinstance(self._asks, Live):
            raise CannotAsk(self._asks.why if isinstance(self._asks, Nobody) else "Nobody waits for an answer.")
        caller = self._attempt.caller
        with self._questions.waiting((caller.subject, caller.address if caller.is_anonymous else None)):
            self._questions.note(self._attempt.asked(question.message, reason))
            try:
                async with asyncio.timeout(self._questions.seconds):
                    given = await self._asks.ask(self._shown(question))
            except TimeoutError:
                raise CannotAsk(f"Nobody answered within {_minutes(self._questions.seconds)}.") from None
        try:
            answer = checked_answer(given, question.schema)
        except BadAnswer as error:
            raise CannotAsk(f"The client's answer does not fit the question: {error}") from None
        self._tell_answer(question.key, answer, question.schema)
        return answer

    def _tell_answer(self, key: str, answer: Answer, schema: dict[str, Any]) -> None:
        """Have the log know of an answer, without what must not be seen."""
        redactor = Redactor.for_schema(schema, self._tool.revision.redact)
        told: dict[str, Any] = {"action": answer.action.value}
        if answer.content:
            shown, _ = redactor.redact_arguments(answer.content, self._attempt.taint)
            told["content"] = fit(shown, RESULT_LIMIT)
        self._attempt.answers[key] = told

    def _shown(self, question: Question) -> Question:
        """The question, without the secrets that the tool was lent."""
        if not self._prepared.lends_secrets:
            return question
        message = self._attempt.redactor.redact_text(question.message, self._attempt.taint)
        return Question(key=question.key, message=message, schema=question.schema)


def _mark(question: Question) -> str:
    # A question without a key of its own is known by its number, and by what it says. So is one without a form: its
    # answer says yes to the message and nothing else.
    has_form = bool(question.schema.get("properties"))
    return question.mark(with_message=question.key.isdecimal() or not has_form)


def _reply(answer: Answer) -> dict[str, Any]:
    return {"action": answer.action.value, "content": answer.content}


def _invalid(message: str) -> Refused:
    return Refused(Outcome.INVALID, "invalid_state", message)


def _declined(tool: str, action: Action) -> Refused:
    did = "did not agree" if action is Action.DECLINE else "left the question unanswered"
    return Refused(Outcome.DENIED, "declined", f"The user {did}, so {tool} was not run.")


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"
