"""Runs a tool for a caller: the one path that every call takes."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import anyio
import structlog

from portoser.audit.entry import Outcome
from portoser.audit.fitting import ARGUMENTS_LIMIT, fit
from portoser.audit.redaction import Redactor
from portoser.catalog.caller import Caller
from portoser.catalog.errors import NotFound, Unavailable
from portoser.catalog.tool import RegisteredTool
from portoser.invocation.asking import ANSWER_SECONDS, Asking, Questions
from portoser.invocation.asks import Asks, Later, Refused
from portoser.invocation.attempt import Attempt
from portoser.invocation.confirm import question
from portoser.invocation.granted import GrantedPackages
from portoser.invocation.lent import AskingPowers, Files, Tainting
from portoser.invocation.limits import Concurrency, RateLimiter
from portoser.invocation.needs import Code, Recorder, Registered
from portoser.invocation.nonces import Nonces
from portoser.invocation.prepared import Prepared, PreparedRevisions
from portoser.invocation.result import CallResult
from portoser.invocation.standing import CallStanding
from portoser.invocation.told import told_of
from portoser.powers.base import PowerContext
from portoser.powers.host import Powers
from portoser.registry.access import Access
from portoser.runtime.environments.nurseries import Absent
from portoser.runtime.runtime import Runtime
from portoser.runtime.types import Call, Events, Execution, PowerHost

log = structlog.get_logger(__name__)

_LARGE = 256 * 1024
"""From so many characters on, a result is looked through in a thread, so that other calls go on."""

_WITHOUT_ANSWERS = Later()

_NOT_GRANTED = "packages_not_granted"

_UNRECORDED = "The call cannot be recorded in the audit log right now, so {what}. Try again in a moment."


class Invocation:
    """Runs tools. ``observe`` is told the outcome of each call and how long it took, in seconds.

    ``answer_seconds`` is how long a person has to answer what a tool asks.
    """

    def __init__(
        self,
        follower: Registered,
        access: Access,
        code: Code,
        runtime: Runtime,
        powers: Powers,
        audit: Recorder,
        nonces: Nonces,
        *,
        answer_seconds: float = ANSWER_SECONDS,
        observe: Callable[[Outcome, float], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._follower = follower
        self._access = access
        self._code = code
        self._runtime = runtime
        self._powers = powers
        self._audit = audit
        self._questions = Questions(nonces, audit.note, seconds=answer_seconds)
        self._observe = observe
        self._rates = RateLimiter(clock=clock)
        self._concurrency = Concurrency()
        self._prepared = PreparedRevisions()
        self._packages = GrantedPackages()
        self._plain_redactor = Redactor.for_schema(None)

    async def invoke(
        self,
        name: str,
        arguments: dict[str, Any],
        caller: Caller,
        *,
        request_id: str | None = None,
        events: Events | None = None,
        confirmed: bool = False,
        asks: Asks = _WITHOUT_ANSWERS,
    ) -> CallResult:
        """Call a tool for a caller. Whatever the caller did wrong is an outcome, not an exception.

        ``asks`` is how the caller's user can be asked, and holds the answers to what an earlier call asked;
        ``confirmed`` says that the user agreed to the manifest's question already. Cancelling the awaiting task ends
        the call, which is recorded as cancelled first.
        """
        attempt = Attempt(name, caller, request_id, self._plain_redactor)
        try:
            return await self._attempt(attempt, arguments, events, asks, confirmed=confirmed)
        except Refused as refused:
            return await self._hold_up(attempt, refused)
        except asyncio.CancelledError:
            if not attempt.is_told:
                if not attempt.has_ended:
                    attempt.end(Outcome.CANCELLED, "cancelled")
                with anyio.CancelScope(shield=True):
                    await self._record(attempt, None)
            raise
        except Exception:
            log.exception("invocation.failed", tool=attempt.name, request_id=attempt.request_id)
            message = f"The server failed to run the tool. Its log says more, under {attempt.request_id}."
            return await self._refuse(attempt, Outcome.ERROR, "internal", message)
        finally:
            if self._observe is not None:
                self._observe(attempt.outcome, attempt.seconds())

    async def _attempt(
        self, attempt: Attempt, arguments: dict[str, Any], events: Events | None, asks: Asks, *, confirmed: bool
    ) -> CallResult:
        snapshot = self._follower.snapshot
        served = snapshot.tools.get(attempt.name)
        prepared = self._prepared.of(served.name, served.registered.revision) if served is not None else None
        attempt.tool = served.registered if served is not None else None
        if prepared is not None:
            attempt.redactor = prepared.redactor
        shown, attempt.taint = attempt.redactor.redact_arguments(arguments)
        attempt.arguments = fit(shown, ARGUMENTS_LIMIT)

        decision = self._access.decide(snapshot, attempt.name, attempt.caller)
        if not decision.allowed or prepared is None or served is None:
            return await self._refuse(attempt, Outcome.DENIED, decision.reason, decision.message)
        tool = served.registered
        taken_back = self._packages.refusal(snapshot.policy, tool)
        if taken_back is not None:
            return await self._refuse(attempt, Outcome.DENIED, _NOT_GRANTED, taken_back)
        if prepared.validator is None:
            return await self._refuse(attempt, Outcome.ERROR, "invalid_schema", prepared.bad_schema or "")
        problems = prepared.validator.problems(arguments)
        if problems:
            return await self._refuse(attempt, Outcome.INVALID, "invalid_arguments", " ".join(problems))
        asking = await self._questions.resumed(asks, attempt, tool, prepared, arguments, confirmed=confirmed)
        if tool.revision.confirm is not None and not asking.is_confirmed:
            wait = self._wait(attempt, tool, count=False)
            if wait:
                return await self._refuse_rate(attempt, tool, wait)
            await asking.confirm(question(tool.revision.confirm, arguments, shown, prepared.defaults))
            self._check_again(attempt, tool)
        return await self._run(attempt, tool, prepared, arguments, events, asking)

    def _check_again(self, attempt: Attempt, tool: RegisteredTool) -> None:
        """See that what a person agreed to is still there, and may still be called: people take their time.

        Raises:
            Refused: it is not.
        """
        snapshot = self._follower.snapshot
        decision = self._access.decide(snapshot, attempt.name, attempt.caller)
        if not decision.allowed:
            raise Refused(Outcome.DENIED, decision.reason, decision.message)
        taken_back = self._packages.refusal(snapshot.policy, tool)
        if taken_back is not None:
            raise Refused(Outcome.DENIED, _NOT_GRANTED, taken_back)
        if snapshot.tools[attempt.name].registered.revision.digest != tool.revision.digest:
            message = f"{tool.name} was changed while its question was asked, so it was not run. Call it again."
            raise Refused(Outcome.INVALID, "expired_state", message)

    async def _run(
        self,
        attempt: Attempt,
        tool: RegisteredTool,
        prepared: Prepared,
        arguments: dict[str, Any],
        events: Events | None,
        asking: Asking,
    ) -> CallResult:
        limits = tool.revision.limits
        if not self._concurrency.enter(tool.name, limits.concurrency):
            message = f"{tool.name} runs {limits.concurrency} times at once already, and may not more. Try again later."
            return await self._refuse(attempt, Outcome.ERROR, "concurrency", message)
        try:
            wait = 0.0 if asking.has_run else self._wait(attempt, tool, count=True)
            if wait:
                return await self._refuse_rate(attempt, tool, wait)
            await asking.spend()
            refusal = await self._begin(attempt)
            if refusal is not None:
                return refusal
            return await self._execute(attempt, tool, prepared, arguments, events, asking)
        finally:
            self._concurrency.leave(tool.name)

    async def _refuse_rate(self, attempt: Attempt, tool: RegisteredTool, wait: float) -> CallResult:
        rate = tool.revision.limits.rate
        message = f"{tool.name} may be called {rate} by each caller. Try again in {_seconds(wait)}."
        return await self._refuse(attempt, Outcome.ERROR, "rate_limited", message)

    def _wait(self, attempt: Attempt, tool: RegisteredTool, *, count: bool) -> float:
        rate = tool.revision.limits.rate
        if rate is None:
            return 0.0
        caller = attempt.caller
        key = (tool.name, caller.subject, caller.address if caller.is_anonymous else None)
        return self._rates.take(key, rate) if count else self._rates.wait(key, rate)

    async def _begin(self, attempt: Attempt) -> CallResult | None:
        """Record that the call begins, so that the log knows of it even if the server ends before the call does."""
        attempt.has_intent = True
        try:
            await self._audit.begin(attempt.entry(None, outcome=Outcome.INTERRUPTED))
        except Unavailable:
            refused = attempt.refused(Outcome.ERROR, "unrecorded", _UNRECORDED.format(what="the tool was not run"))
            attempt.is_told = True
            self._audit.note(attempt.entry(refused.message), had_intent=True)
            return refused
        return None

    async def _execute(
        self,
        attempt: Attempt,
        tool: RegisteredTool,
        prepared: Prepared,
        arguments: dict[str, Any],
        events: Events | None,
        asking: Asking,
    ) -> CallResult:
        call = Call(id=attempt.id, arguments=arguments, caller=attempt.caller, request_id=attempt.request_id)
        lent = self._powers.for_call(
            PowerContext(
                tool=tool.name,
                owner=tool.owner,
                uses=tool.revision.uses,
                caller=attempt.caller,
                standing=CallStanding(self._follower, self._access, tool.name, attempt.caller),
                held_back=asking.held_back,
            )
        )
        attempt.tally = lent.tally
        asking.has_written = lambda: lent.has_written
        powers: PowerHost = lent
        if prepared.lends_secrets:
            powers = Tainting(powers, attempt.taint)
        powers = AskingPowers(powers, asking)
        files = Files(self._code, prepared.program.digest)
        try:
            execution = await self._runtime.execute(prepared.program, files, call, events=events, powers=powers)
        except (Unavailable, NotFound) as error:
            reason = "unavailable" if files.failed or isinstance(error, Absent) else "busy"
            return await self._refuse(attempt, Outcome.ERROR, reason, str(error))
        if asking.pending is not None and execution.outcome in ("ok", "error"):
            # Whatever became of the run since it asked: it counts from the top, with the answer.
            return await self._hold_up(attempt, await asking.required())
        return await self._answer(attempt, prepared, execution)

    async def _answer(self, attempt: Attempt, prepared: Prepared, execution: Execution) -> CallResult:
        outcome = Outcome.INVALID if execution.reason == "invalid_arguments" else Outcome(execution.outcome)
        message, logs = execution.message, execution.logs
        attempt.end(outcome, execution.reason)
        told = digest = None
        if outcome is Outcome.OK:
            if execution.size < _LARGE:
                told, digest = told_of(execution, attempt.redactor, attempt.taint)
            else:
                told, digest = await asyncio.to_thread(told_of, execution, attempt.redactor, attempt.taint)
        error = "\n".join(filter(None, (message, execution.traceback))) if outcome is not Outcome.OK else None
        if message and execution.traceback:
            message = f"{message}\n\n{execution.traceback}"
        if prepared.lends_secrets:  # what the tool was lent does not reach the caller by a print or an exception
            message = message and attempt.redactor.redact_text(message, attempt.taint)
            logs = logs and attempt.redactor.redact_text(logs, attempt.taint, limit=prepared.program.limits.logs)
        if not await self._record(attempt, error, result=told, result_digest=digest):
            held_back = _UNRECORDED.format(what="its result is held back, though the tool has run")
            return attempt.refused(Outcome.ERROR, "unrecorded", held_back)
        return attempt.result(
            outcome, message=message, content=execution.content, structured=execution.structured, logs=logs
        )

    async def _hold_up(self, attempt: Attempt, refused: Refused) -> CallResult:
        """Record and tell what is asked before the tool runs, or why an answer does not let it run."""
        told = attempt.held_up(refused)
        await self._record(attempt, str(refused))
        return told

    async def _refuse(self, attempt: Attempt, outcome: Outcome, reason: str, message: str) -> CallResult:
        """Record and tell what kept the tool from running. Nothing ran: it is told even where it is recorded later."""
        refused = attempt.refused(outcome, reason, message)
        await self._record(attempt, message)
        return refused

    async def _record(
        self, attempt: Attempt, error: str | None, *, result: Any = None, result_digest: str | None = None
    ) -> bool:
        """Record how the call ended; whether it is durable. It is in the writer's hands before this first waits."""
        attempt.is_told = True
        entry = attempt.entry(error, result=result, result_digest=result_digest)
        try:
            await self._audit.finish(entry, had_intent=attempt.has_intent)
        except Unavailable as unavailable:
            log.warning("audit.recorded_later", tool=entry.tool, request_id=entry.request_id, error=str(unavailable))
            return False
        return True


def _seconds(wait: float) -> str:
    return f"{wait:.1f} s" if wait < 10 else f"{wait:.0f} s"
