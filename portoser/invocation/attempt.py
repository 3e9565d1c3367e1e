"""One call on its way: who made it, how far it came, and what the log and the caller are told of it."""

import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from portoser.audit.entry import Entry, Event, Outcome
from portoser.audit.redaction import Redactor, Taint
from portoser.catalog.caller import Caller
from portoser.catalog.tool import RegisteredTool
from portoser.invocation.asks import Refused
from portoser.invocation.result import CallResult
from portoser.invocation.told import new_id
from portoser.powers.tally import Tally

ANSWERS = "$answers"
"""Beside a call's arguments in the log: what its user answered. No argument of a Python function is called so."""

_LONGEST_NAME = 200


class Attempt:
    """One call on its way, and what is known of it so far."""

    __slots__ = (
        "_at", "_began", "answers", "arguments", "caller", "duration_ms", "has_intent", "id", "is_told", "name",
        "outcome", "reason", "redactor", "request_id", "taint", "tally", "tool",
    )  # fmt: skip

    def __init__(self, name: str, caller: Caller, request_id: str | None, redactor: Redactor) -> None:
        self._at = datetime.now(UTC)
        self._began = time.perf_counter()
        self.id = new_id()
        self.name = name
        self.caller = caller
        self.request_id = request_id or self.id
        self.redactor = redactor
        self.taint = Taint()
        self.tool: RegisteredTool | None = None
        self.arguments: Any = None
        self.answers: dict[str, Any] = {}
        """What its user answered, by question, as the log may hold it."""
        self.tally: Tally | None = None
        """What it used of its powers."""
        self.has_intent = False
        self.is_told = False
        self.outcome = Outcome.ERROR
        self.reason: str | None = None
        self.duration_ms: float | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it is known how it ended."""
        return self.duration_ms is not None

    def seconds(self) -> float:
        """How long ago it began."""
        return time.perf_counter() - self._began

    def end(self, outcome: Outcome, reason: str | None) -> None:
        """It ended so, now."""
        self.outcome = outcome
        self.reason = reason
        self.duration_ms = round(self.seconds() * 1000, 3)

    def entry(
        self,
        error: str | None,
        *,
        result: Any = None,
        result_digest: str | None = None,
        outcome: Outcome | None = None,
    ) -> Entry:
        """What the log is told. ``error`` may hold what the caller sent, so it is redacted like it."""
        tool = self.tool
        return Entry(
            id=self.id,
            at=self._at,
            event=Event.TOOL_CALL,
            caller=self.caller,
            outcome=outcome or self.outcome,
            tool=self.name[:_LONGEST_NAME] if tool is None else tool.name,
            digest=None if tool is None else tool.revision.digest,
            version=None if tool is None else tool.version,
            commit=None if tool is None else tool.provenance.commit,
            path=None if tool is None else tool.provenance.path,
            owner=None if tool is None else tool.owner,
            arguments=self._told_arguments(),
            result=result,
            result_digest=result_digest,
            reason=self.reason,
            error=self.redactor.redact_text(error, self.taint) if error else None,
            duration_ms=self.duration_ms,
            request_id=self.request_id,
            powers=self._used(),
        )

    def _used(self) -> list[dict[str, Any]] | None:
        """What it used of its powers, as the log may hold it."""
        told = self.tally.told() if self.tally is not None else None
        redacted = self.redactor.redact(told, self.taint) if told is not None else None
        return redacted if isinstance(redacted, list) else None

    def _told_arguments(self) -> Any:
        if not self.answers:
            return self.arguments
        told = self.arguments if isinstance(self.arguments, dict) else {"…": self.arguments}
        return {**told, ANSWERS: dict(self.answers)}

    def asked(self, message: str, reason: str) -> Entry:
        """What the log is told of a question that is asked while the call waits; the call has an entry of its own."""
        entry = self.entry(message, outcome=Outcome.INPUT_REQUIRED)
        return msgspec.structs.replace(entry, id=new_id(), at=datetime.now(UTC), reason=reason)

    def refused(self, outcome: Outcome, reason: str, message: str) -> CallResult:
        """The answer to a call that has no result to show."""
        self.end(outcome, reason)
        return self.result(outcome, message=message)

    def held_up(self, refused: Refused) -> CallResult:
        """The answer to a call that does not run, or not yet."""
        self.end(refused.outcome, refused.reason)
        told = self.result(refused.outcome, message=str(refused))
        return msgspec.structs.replace(told, questions=refused.questions, state=refused.state)

    def result(
        self,
        outcome: Outcome,
        *,
        message: str | None,
        content: list[dict[str, Any]] | None = None,
        structured: dict[str, Any] | None = None,
        logs: str = "",
    ) -> CallResult:
        """What the caller is answered."""
        is_foreign = outcome is Outcome.DENIED and self.reason != "declined"
        known = None if is_foreign else self.tool  # who may not call it is told no more of it
        return CallResult(
            outcome=outcome,
            reason=self.reason,
            message=message,
            is_error=outcome is not Outcome.OK,
            content=content or [],
            structured=structured,
            tool=self.name,
            digest=known.revision.digest if known is not None else None,
            version=known.version if known is not None else None,
            duration_ms=self.duration_ms or 0.0,
            request_id=self.request_id,
            logs=logs,
        )
