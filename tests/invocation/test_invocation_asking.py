"""What a call asks its caller's user: the manifest's question, and the code's, over several rounds."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from invocation_world import ANN, World, text, tool, until

from portoser.audit.entry import Outcome
from portoser.audit.redaction import PLACEHOLDER
from portoser.audit.writer import AuditWriter
from portoser.catalog.errors import PowerError, Unavailable
from portoser.catalog.policy import Policy, PowerRule
from portoser.catalog.question import Action, Answer, Question
from portoser.catalog.revision import Limits
from portoser.catalog.units import Rate
from portoser.invocation import CallResult
from portoser.invocation.asks import CannotAsk, Later, Live, Nobody
from portoser.invocation.nonces import OwnNonces, SharedNonces
from portoser.powers.base import Power, Use
from portoser.powers.host import Powers
from portoser.runtime.types import Call, Execution, PowerHost, Program
from portoser.store.database import Database

ORDER = {"order_id": "A1", "amount": 5}
SIZE: dict[str, Any] = {
    "type": "object",
    "properties": {"size": {"type": "string", "enum": ["S", "L"]}},
    "required": ["size"],
}
NOTE: dict[str, Any] = {"type": "object", "properties": {"note": {"type": "string"}, "api_key": {"type": "string"}}}
YES = Answer(Action.ACCEPT)

Ask = Callable[[str, dict[str, Any], str | None], Awaitable[dict[str, Any]]]


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    audit = AuditWriter(database, replica="test", patience=5)
    await audit.start()
    made = World(database, audit)
    made.serve(tool())
    yield made
    await audit.aclose()


def asking(body: Callable[[Ask], Awaitable[str]]) -> Callable[[Program, Call, PowerHost], Awaitable[Execution]]:
    """A tool's code that asks as a worker would for it: it ends where the answer comes with a later run."""

    async def run(program: Program, call: Call, powers: PowerHost) -> Execution:
        async def ask(message: str, schema: dict[str, Any], key: str | None = None) -> dict[str, Any]:
            reply: dict[str, Any] = await powers.call("ctx", "elicit", [message, schema, key], {})
            if reply["action"] == "later":
                raise asyncio.CancelledError
            return reply

        try:
            return text(await body(ask))
        except PowerError as error:
            return Execution(outcome="error", reason="tool_error", message=str(error))
        except asyncio.CancelledError:
            return Execution(outcome="error", reason="exception", message="it was asked")

    return run


async def two_questions(ask: Ask) -> str:
    size = await ask("Which size?", SIZE, "size")
    if size["action"] != "accept":
        return f"no size: {size['action']}"
    note = await ask(f"A note for {size['content']['size']}?", NOTE, None)
    return f"{size['content']['size']}, {note['content']}"


async def call(world: World, asks: Any = None, **options: Any) -> CallResult:
    arguments = options.pop("arguments", ORDER)
    caller = options.pop("caller", ANN)
    return await world.invocation.invoke("refund", arguments, caller, asks=asks or Later(), **options)


def answered(asked: CallResult, **content: Any) -> Later:
    """The answers to the only question of a call."""
    assert asked.questions is not None, asked
    [key] = asked.questions
    return Later(state=asked.state, answers={key: Answer(Action.ACCEPT, content)})


async def told(world: World) -> list[tuple[str, str | None]]:
    return [(row["outcome"], row["reason"]) for row in await world.rows()]


# Several rounds -------------------------------------------------------------------------------------------------


async def test_a_call_that_asks_twice_takes_three_rounds_and_leaves_an_entry_for_each(world: World) -> None:
    world.body = asking(two_questions)
    first = await call(world)
    assert (first.outcome, first.reason, first.message) == (Outcome.INPUT_REQUIRED, "question", "Which size?")
    assert first.questions == {"size": Question(key="size", message="Which size?", schema=SIZE)}
    second = await call(world, answered(first, size="L"))
    assert second.questions is not None
    assert [each.message for each in second.questions.values()] == ["A note for L?"]
    done = await call(world, answered(second, note="gift", api_key="sk-do-not-tell"))
    assert done.outcome is Outcome.OK
    assert done.content[0]["text"] == "L, {'note': 'gift', 'api_key': 'sk-do-not-tell'}"
    assert await told(world) == [("input_required", "question"), ("input_required", "question"), ("ok", None)]
    last = (await world.rows())[-1]
    assert last["arguments"] == {
        **ORDER,
        "$answers": {"2": {"action": "accept", "content": {"note": "gift", "api_key": PLACEHOLDER}}},
    }
    assert "sk-do-not-tell" not in str(dict(last))
    assert await world.intents() == []


@pytest.mark.parametrize("action", [Action.DECLINE, Action.CANCEL])
async def test_the_code_is_told_that_its_question_was_not_accepted(world: World, action: Action) -> None:
    world.body = asking(two_questions)
    asked = await call(world)
    done = await call(world, Later(state=asked.state, answers={"size": Answer(action, {"size": "L"})}))
    assert done.content[0]["text"] == f"no size: {action.value}"


async def test_an_answer_that_does_not_fit_may_be_given_again(world: World) -> None:
    world.body = asking(two_questions)
    asked = await call(world)
    for content, problem in (({"size": "M"}, "does not fit: size:"), ({}, '"size" is a required property')):
        wrong = await call(world, answered(asked, **content))
        assert (wrong.outcome, wrong.reason) == (Outcome.INVALID, "invalid_answer")
        assert problem in (wrong.message or "")
    missing = await call(world, Later(state=asked.state, answers={"other": YES}))
    assert missing.message == "The question 'size' is not answered."
    assert (await call(world, answered(asked, size="S"))).reason == "question"


async def test_rounds_of_one_call_count_once_against_its_rate(world: World) -> None:
    world.serve(tool(limits=Limits(rate=Rate(1, 60.0))))
    world.body = asking(two_questions)
    asked = await call(world)
    again = await call(world, answered(asked, size="L"))
    assert again.reason == "question"
    assert (await call(world, answered(again))).outcome is Outcome.OK
    assert (await call(world)).reason == "rate_limited"


async def test_a_question_that_says_something_else_is_asked_again(world: World) -> None:
    numbers = iter(range(100))

    async def undecided(ask: Ask) -> str:
        return str(await ask(f"Number {next(numbers)}?", SIZE, None))

    world.body = asking(undecided)
    first = await call(world)
    second = await call(world, answered(first, size="L"))
    assert (second.reason, second.message) == ("question", "Number 1?")


async def test_agreeing_to_one_message_is_not_agreeing_to_another_under_its_key(world: World) -> None:
    amounts = iter((5, 5_000))

    async def careless(ask: Ask) -> str:
        return (await ask(f"Pay {next(amounts)}?", {"type": "object", "properties": {}}, "pay"))["action"]

    world.body = asking(careless)
    second = await call(world, answered(await call(world)))
    assert (second.reason, second.message) == ("question", "Pay 5000?")


# States ---------------------------------------------------------------------------------------------------------


async def test_a_state_counts_once(world: World) -> None:
    world.body = asking(two_questions)
    asked = await call(world)
    answer = answered(asked, size="L")
    assert (await call(world, answer)).reason == "question"
    replayed = await call(world, answer)
    assert (replayed.outcome, replayed.reason) == (Outcome.INVALID, "spent_state")
    assert len(world.programs) == 2


async def test_of_two_answers_at_once_one_runs(world: World) -> None:
    world.body = asking(two_questions)
    asked = await call(world)
    answer = answered(asked, size="L")
    results = await asyncio.gather(*(call(world, answer) for _ in range(5)))
    assert sorted(each.reason or "" for each in results) == ["question", *["spent_state"] * 4]


async def test_a_state_counts_once_on_all_servers_of_a_database(world: World, database: Database) -> None:
    one, other = SharedNonces(database), SharedNonces(database)
    assert await one.key() == await other.key()
    assert await one.spend("n", 4e9)
    assert not await other.spend("n", 4e9)
    assert await other.spend("m", 1.0)
    assert await one.spend("o", 4e9)  # forgets what has expired
    async with database.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM mcp_spent_nonces WHERE nonce = 'm'") == 0


async def test_a_changed_state_is_refused(world: World) -> None:
    world.body = asking(two_questions)
    state = (await call(world)).state or ""
    body, _, seal = state.partition(".")[2].partition(".")
    for changed in (f"p1.{body[:-2]}AA.{seal}", f"p1.{body}.{seal[:-2]}AA", "p1.x", "", "p1..", state + "A", "é" * 9):
        refused = await call(world, Later(state=changed, answers={"size": YES}))
        assert (refused.outcome, refused.reason) == (Outcome.INVALID, "invalid_state"), changed
    assert len(world.programs) == 1


async def test_a_state_is_good_for_its_call_alone(world: World) -> None:
    world.serve(tool(), tool("other"))
    world.body = asking(two_questions)
    asked = await call(world)
    answer = answered(asked, size="L")
    bob = msgspec.structs.replace(ANN, subject="bob")
    other_client = msgspec.structs.replace(ANN, client="cursor")
    for refused, problem in (
        (await call(world, answer, caller=bob), "another caller"),
        (await call(world, answer, caller=other_client), "another caller"),
        (await call(world, answer, arguments={**ORDER, "amount": 5000}), "other arguments"),
        (await world.invocation.invoke("other", ORDER, ANN, asks=answer), "another tool"),
        (await call(world, Later(answers=answer.answers)), "need the state"),
    ):
        assert (refused.outcome, refused.reason) == (Outcome.INVALID, "invalid_state")
        assert problem in (refused.message or "")
    world.serve(tool(digest="another"))
    changed = await call(world, answer)
    assert (changed.reason, "was changed since" in (changed.message or "")) == ("expired_state", True)


async def test_a_state_expires(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.body = asking(two_questions)
    asked = await call(world)
    questions = world.invocation._questions
    monkeypatch.setattr(questions, "clock", lambda: time.time() + questions.seconds + 1)
    late = await call(world, answered(asked, size="L"))
    assert (late.outcome, late.reason) == (Outcome.INVALID, "expired_state")
    assert "answers are taken for 5 min" in (late.message or "")


class NoNonces(OwnNonces):
    """What there is of nonces while Postgres is away."""

    async def spend(self, nonce: str, expires_at: float) -> bool:
        raise Unavailable("Postgres is away.")


async def test_where_nobody_can_tell_whether_an_answer_was_used_nothing_runs(world: World) -> None:
    world.serve(tool(confirm="Sure?"))
    asked = await call(world)
    agreed = Later(state=asked.state, answers={"confirm": YES})
    nonces, away = world.invocation._questions.nonces, NoNonces()
    away._key = await nonces.key()
    world.invocation._questions.nonces = away
    refused = await call(world, agreed)
    assert (refused.outcome, refused.reason) == (Outcome.ERROR, "unrecorded")
    assert world.programs == []
    world.invocation._questions.nonces = nonces
    assert (await call(world, agreed)).outcome is Outcome.OK


# What the code may ask ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "schema", "key", "problem"),
    [
        ("", SIZE, None, "needs a message"),
        ("?", {"type": "string"}, None, "must describe an object"),
        ("?", {"properties": {"a": {"type": "object"}}}, None, "has the type 'object'"),
        ("?", {"properties": {"a": {"type": "array", "items": {"type": "string"}}}}, None, "no other lists"),
        ("?", {"properties": {"a": {"type": "string", "format": "password"}}}, None, "asks for a password"),
        ("?", {"properties": {"a": {"type": "string", "pattern": "x"}}}, None, "'pattern'"),
        ("?", {"properties": {"a": {"type": "integer", "default": "x"}}}, None, "default of the field 'a'"),
        ("?", {"properties": {"a": {"type": "string", "enum": [1]}}}, None, "list of 1 to 500 texts"),
        ("?", {"properties": {}, "required": ["a"]}, None, "required fields"),
        ("?", {"$ref": "#/x"}, None, "'$ref'"),
        ("?", {1: 2, "x": 3}, None, "holds '1'"),
        ("?", {"properties": {"a": {"type": "string", 1: 2, "z": 3}}}, None, "says '1'"),
        ("?", {"properties": {}, "required": [[]]}, None, "required fields"),
        ("?", SIZE, "7", "is none"),
        ("?", SIZE, 7, "is none"),
    ],
)
async def test_a_question_without_a_form_is_an_error_of_the_code(
    world: World, message: str, schema: Any, key: Any, problem: str
) -> None:
    async def ask_it(ask: Ask) -> str:
        return str(await ask(message, schema, key))

    world.body = asking(ask_it)
    result = await call(world)
    assert (result.outcome, result.reason) == (Outcome.ERROR, "tool_error")
    assert problem in (result.message or "")


async def test_two_questions_need_two_keys_and_there_are_not_too_many(world: World) -> None:
    async def same(ask: Ask) -> str:
        await ask("A?", SIZE, "k")
        return str(await ask("B?", SIZE, "k"))

    async def many(ask: Ask) -> str:
        while True:
            await ask("?", SIZE, None)

    async def size(question: Question) -> Answer:
        return Answer(Action.ACCEPT, {"size": "S"})

    world.body = asking(same)
    assert "under the key 'k' already" in ((await call(world, Live(size))).message or "")
    world.body = asking(many)
    assert "has asked 20 questions" in ((await call(world, Live(size))).message or "")


async def test_once_it_has_asked_nothing_else_is_answered(world: World) -> None:
    async def stubborn(program: Program, call: Call, powers: PowerHost) -> Execution:
        await powers.call("ctx", "elicit", ["A?", SIZE, None], {})
        with pytest.raises(PowerError, match="waits for the answer"):
            await powers.call("ctx", "elicit", ["B?", SIZE, None], {})
        return text("it goes on as if nothing was asked")

    world.body = stubborn
    assert (await call(world)).message == "A?"


class Door(Power):
    """A power that may change something."""

    name = word = "door"

    async def call(self, method: str, args: list[Any], kwargs: dict[str, Any], use: Use) -> Any:
        if method == "break":
            raise PowerError("It is open now, and cannot be closed.")
        return "open"

    def writes(self, method: str) -> bool:
        return method != "look"


async def test_what_changes_something_comes_after_the_last_question(world: World) -> None:
    world.invocation._powers = Powers([Door()])
    world.serve(tool(uses={"door": ["*"]}))
    early = late = "look"

    async def body(program: Program, call: Call, powers: PowerHost) -> Execution:
        async def run(ask: Ask) -> str:
            await powers.call("door", early, [], {})
            size = await ask("Which size?", SIZE, "size")
            return f"{size['content']} {await powers.call('door', late, [], {})}"

        return await asking(run)(program, call, powers)

    world.body = body
    late = "open"
    asked = await call(world)
    assert (await call(world, answered(asked, size="L"))).content[0]["text"] == "{'size': 'L'} open"

    early = "open"
    changed = await call(world)
    assert (changed.outcome, changed.reason) == (Outcome.ERROR, "tool_error")
    assert "has changed something before it asked 'Which size?'" in (changed.message or "")

    early = "look"
    asked = await call(world)
    early = "open"  # what it does depends on something else: this would have happened twice
    again = await call(world, answered(asked, size="L"))
    assert "has not asked 'size' again yet" in (again.message or "")


# Asked while the call waits -------------------------------------------------------------------------------------


async def test_a_client_that_can_is_asked_at_once(world: World) -> None:
    seen: list[Question] = []

    async def ask(question: Question) -> Answer:
        seen.append(question)
        return Answer(Action.ACCEPT, {"size": "L"} if question.key == "size" else {"note": "x", "more": 1})

    world.body = asking(two_questions)
    done = await call(world, Live(ask))
    assert done.content[0]["text"] == "L, {'note': 'x'}"
    assert [question.key for question in seen] == ["size", "2"]
    await until_told(world, 3)
    assert sorted(await told(world)) == [("input_required", "question")] * 2 + [("ok", None)]
    ok = next(row for row in await world.rows() if row["outcome"] == "ok")
    assert ok["arguments"]["$answers"]["size"] == {"action": "accept", "content": {"size": "L"}}


async def until_told(world: World, count: int) -> None:
    async with asyncio.timeout(20):
        while len(await world.rows()) < count:  # noqa: ASYNC110 - rows tell of themselves by being there
            await asyncio.sleep(0.01)


async def test_a_client_that_refuses_or_is_silent_is_an_error_of_the_question(world: World) -> None:
    async def refuse(question: Question) -> Answer:
        raise CannotAsk("The client did not put the question to its user: no.")

    async def never(question: Question) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def wrong(question: Question) -> Answer:
        return Answer(Action.ACCEPT, {"size": "XXL"})

    world.body = asking(two_questions)
    world.invocation._questions.seconds = 0.05
    for ask, problem in ((refuse, "did not put"), (never, "Nobody answered within 0.05 s"), (wrong, "does not fit")):
        result = await call(world, Live(ask))
        assert (result.outcome, result.reason) == (Outcome.ERROR, "tool_error")
        assert problem in (result.message or "")
    nobody = await call(world, Nobody("There is nobody."))
    assert nobody.message == "There is nobody."


async def test_one_caller_does_not_take_all_places_of_those_who_wait(world: World) -> None:
    waiting = asyncio.Event()

    async def slow(question: Question) -> Answer:
        await waiting.wait()
        return Answer(Action.DECLINE)

    world.body = asking(two_questions)
    calls = [asyncio.create_task(call(world, Live(slow))) for _ in range(16)]
    await until(lambda: sum(world.invocation._questions._open.values()) == 16)
    refused = await call(world, Live(slow))
    assert "Too many questions wait" in (refused.message or "")
    waiting.set()
    assert {(await each).content[0]["text"] for each in calls} == {"no size: decline"}
    assert not world.invocation._questions._open


# The manifest's question ----------------------------------------------------------------------------------------


async def test_a_confirmation_counts_once(world: World) -> None:
    world.serve(tool(confirm="Refund {amount} for {order_id}?"))
    asked = await call(world)
    assert (asked.outcome, asked.reason) == (Outcome.INPUT_REQUIRED, "confirmation_required")
    assert asked.message == "Refund 5 for A1?"
    agreed = Later(state=asked.state, answers={"confirm": YES})
    assert (await call(world, agreed)).outcome is Outcome.OK
    assert (await call(world, agreed)).reason == "spent_state"
    assert len(world.programs) == 1
    assert await told(world) == [
        ("input_required", "confirmation_required"),
        ("ok", None),
        ("invalid", "spent_state"),
    ]


@pytest.mark.parametrize("action", [Action.DECLINE, Action.CANCEL])
async def test_what_was_declined_did_not_run_and_cannot_be_agreed_to_later(world: World, action: Action) -> None:
    world.serve(tool(confirm="Sure?"))
    asked = await call(world)
    declined = await call(world, Later(state=asked.state, answers={"confirm": Answer(action)}))
    assert (declined.outcome, declined.reason) == (Outcome.DENIED, "declined")
    assert declined.tool == "refund"
    assert (await call(world, Later(state=asked.state, answers={"confirm": YES}))).reason == "spent_state"
    assert world.programs == []
    assert ("denied", "declined") in await told(world)


async def test_a_session_is_asked_to_confirm_while_it_waits(world: World) -> None:
    world.serve(tool(confirm="Sure?"))
    answers = [Answer(Action.ACCEPT), Answer(Action.DECLINE)]

    async def ask(question: Question) -> Answer:
        assert (question.message, question.schema) == ("Sure?", {"type": "object", "properties": {}})
        return answers.pop(0)

    assert (await call(world, Live(ask))).outcome is Outcome.OK
    assert (await call(world, Live(ask))).reason == "declined"
    nobody = await call(world, Nobody("This client cannot ask."))
    assert (nobody.outcome, nobody.reason) == (Outcome.ERROR, "cannot_ask")
    assert nobody.message == "refund asks a person before it runs: 'Sure?' This client cannot ask."
    assert len(world.programs) == 1


async def test_what_was_changed_or_taken_away_while_it_was_asked_does_not_run(world: World) -> None:
    world.serve(tool(confirm="Sure?"))

    async def changed(question: Question) -> Answer:
        world.serve(tool(confirm="Sure?", digest="another"))
        return YES

    async def forbidden(question: Question) -> Answer:
        world.serve(tool(confirm="Sure?", permissions=("boss",)))
        return YES

    refused = await call(world, Live(changed))
    assert (refused.outcome, refused.reason) == (Outcome.INVALID, "expired_state")
    refused = await call(world, Live(forbidden))
    assert (refused.outcome, refused.reason) == (Outcome.DENIED, "forbidden")
    assert world.programs == []


async def test_packages_that_were_taken_back_keep_a_call_from_running_also_while_it_is_asked(world: World) -> None:
    def grant(*packages: str) -> None:
        rules = (PowerRule(grants={"requires": list(packages)}),)
        world.snapshot = msgspec.structs.replace(world.snapshot, policy=Policy(powers=rules))

    async def taken_back(question: Question) -> Answer:
        grant("httpx")
        return YES

    async def agreed(question: Question) -> Answer:
        return YES

    world.serve(tool(confirm="Sure?", requires=("tiny==1",)))
    grant("tiny")
    assert (await call(world, Live(agreed))).outcome is Outcome.OK
    for ask in (taken_back, agreed):
        refused = await call(world, Live(ask))
        assert (refused.outcome, refused.reason) == (Outcome.DENIED, "packages_not_granted")
        assert refused.message == "The policy does not let refund require tiny any more."
    assert len(world.programs) == 1


async def test_a_confirmed_call_that_asks_is_not_confirmed_again(world: World) -> None:
    world.serve(tool(confirm="Sure?"))
    world.body = asking(two_questions)
    asked = await call(world, confirmed=True)
    assert asked.reason == "question"
    again = await call(world, answered(asked, size="L"))
    assert again.reason == "question"
    assert (await call(world, answered(again))).outcome is Outcome.OK
