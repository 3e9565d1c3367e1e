"""Every call, however it goes, is one entry of the log, and its caller is told what the log was told."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import anyio
import msgspec
import pytest
from invocation_world import ANN, World, text, tool, until

from portoser.audit.entry import Outcome
from portoser.audit.redaction import PLACEHOLDER
from portoser.audit.writer import AuditWriter
from portoser.catalog.caller import ANONYMOUS
from portoser.catalog.errors import Unavailable
from portoser.catalog.revision import Limits
from portoser.catalog.units import Rate
from portoser.powers.base import Power, Use
from portoser.powers.host import Powers
from portoser.runtime.types import Call, Execution, PowerHost, Program
from portoser.store.database import Database


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    audit = AuditWriter(database, replica="test", patience=0.5)
    await audit.start()
    world = World(database, audit)
    world.serve(tool())
    yield world
    await audit.aclose()


async def test_a_call_is_recorded_before_it_is_answered(world: World) -> None:
    async def body(program: Program, call: Call, powers: PowerHost) -> Execution:
        [intent] = await world.intents()
        assert str(intent["id"]) == call.id
        assert intent["entry"]["arguments"] == {"order_id": "A1", "amount": 5, "card_number": PLACEHOLDER}
        assert await world.rows() == []
        return text("paid with 4111-1111", structured={"status": "refunded"}, logs="printed")

    world.body = body
    world.serve(tool(redact=("card_number",)))
    result = await world.invocation.invoke(
        "refund", {"order_id": "A1", "amount": 5, "card_number": "4111-1111"}, ANN, request_id="r-7"
    )
    assert (result.outcome, result.is_error, result.structured) == (Outcome.OK, False, {"status": "refunded"})
    assert result.content == [{"type": "text", "text": "paid with 4111-1111"}]
    assert (result.tool, result.version, result.digest, result.request_id, result.logs) == (
        "refund",
        3,
        "digest-of-refund",
        "r-7",
        "printed",
    )
    row = await world.row()
    assert {
        name: row[name]
        for name in ("tool", "version", "commit", "path", "owner", "outcome", "reason", "error", "request_id", "ip")
    } == {
        "tool": "refund",
        "version": 3,
        "commit": "c0ffee+dirty",
        "path": "refund.yaml",
        "owner": "git:main",
        "outcome": "ok",
        "reason": None,
        "error": None,
        "request_id": "r-7",
        "ip": "10.0.0.1",
    }
    assert row["arguments"] == {"order_id": "A1", "amount": 5, "card_number": PLACEHOLDER}
    assert row["result"] == {"structured": {"status": "refunded"}}
    assert row["duration_ms"] == result.duration_ms
    assert await world.intents() == []
    assert world.observed == ["ok"]


@pytest.mark.parametrize("read_only", [True, False])
async def test_a_call_is_known_to_the_log_before_it_runs(world: World, read_only: bool) -> None:
    async def body(program: Program, call: Call, powers: PowerHost) -> Execution:
        assert [intent["id"] for intent in await world.intents()] == [call.id]
        return text("seen")

    world.body = body
    world.serve(tool(read_only=read_only))
    assert (await world.invocation.invoke("refund", {"order_id": "A1"}, ANN)).outcome is Outcome.OK
    assert (await world.row())["result"] == {"content": [{"type": "text", "text": "seen"}]}
    assert await world.intents() == []


async def test_a_refused_call_does_not_run_and_is_recorded(world: World) -> None:
    world.serve(tool(), tool("secret", permissions=("admins",)))
    unknown = await world.invocation.invoke("nothing" * 100, {"password": "hunter2"}, ANN)
    forbidden = await world.invocation.invoke("secret", {}, ANN)
    assert [(each.outcome, each.reason) for each in (unknown, forbidden)] == [
        (Outcome.DENIED, "unknown_tool"),
        (Outcome.DENIED, "forbidden"),
    ]
    assert forbidden.digest is None
    rows = await world.rows()
    assert [(row["outcome"], row["reason"]) for row in rows] == [("denied", "unknown_tool"), ("denied", "forbidden")]
    assert rows[0]["arguments"] == {"password": PLACEHOLDER}
    assert len(rows[0]["tool"]) == 200
    assert rows[1]["digest"] == "digest-of-secret"
    assert world.programs == []


async def test_invalid_arguments_are_named_and_their_secrets_are_not_told(world: World) -> None:
    world.serve(tool(redact=("card_number",)))
    result = await world.invocation.invoke(
        "refund", {"order_id": "A1", "amount": "4111-1111", "card_number": "4111-1111"}, ANN
    )
    assert (result.outcome, result.reason) == (Outcome.INVALID, "invalid_arguments")
    assert result.message == "amount must be a number, not the string '4111-1111'."
    row = await world.row()
    assert row["outcome"] == "invalid"
    assert row["error"] == f"amount must be a number, not the string '{PLACEHOLDER}'."
    assert "4111" not in str(row["arguments"])


@pytest.mark.parametrize("arguments", [[], "text", None, {"order_id": 2**80}, {"order_id": {"a": 1}}])
async def test_whatever_is_sent_is_an_outcome(world: World, arguments: Any) -> None:
    result = await world.invocation.invoke("refund", arguments, ANN)
    assert result.outcome is Outcome.INVALID
    assert (await world.row())["outcome"] == "invalid"


async def test_a_tool_whose_schema_cannot_be_used_says_so(world: World) -> None:
    world.serve(tool(input_schema={"type": "nonsense"}))
    result = await world.invocation.invoke("refund", {}, ANN)
    assert (result.outcome, result.reason) == (Outcome.ERROR, "invalid_schema")


async def test_a_failing_tool_is_recorded_with_its_traceback_and_without_its_secrets(world: World) -> None:
    async def body(program: Program, call: Call, powers: PowerHost) -> Execution:
        return Execution(
            outcome="error",
            reason="exception",
            message="ValueError: bad 4111-1111",
            traceback="refund.py, line 3: 4111-1111",
        )

    world.body = body
    world.serve(tool(redact=("card_number",)))
    result = await world.invocation.invoke("refund", {"order_id": "A1", "card_number": "4111-1111"}, ANN)
    assert (result.outcome, result.reason, result.is_error) == (Outcome.ERROR, "exception", True)
    assert result.message == "ValueError: bad 4111-1111\n\nrefund.py, line 3: 4111-1111"
    row = await world.row()
    assert row["error"] == f"ValueError: bad {PLACEHOLDER}\nrefund.py, line 3: {PLACEHOLDER}"
    assert (row["result"], row["reason"]) == (None, "exception")


async def test_what_the_vault_gave_is_told_to_nobody_by_accident(world: World) -> None:
    class Vault(Power):
        name = word = "vault"

        async def call(self, method: str, args: list[Any], kwargs: dict[str, Any], use: Use) -> Any:
            return {"key": "vault-value-1"}

    async def body(program: Program, call: Call, powers: PowerHost) -> Execution:
        given = await powers.call("vault", "get_secret", ["orders/key"], {})
        return Execution(outcome="error", reason="exception", message=f"no {given['key']}", logs=f"used {given['key']}")

    world.body = body
    world.invocation._powers = Powers([Vault()])
    world.serve(tool(uses={"vault": ["orders/key"]}))
    result = await world.invocation.invoke("refund", {"order_id": "A1"}, ANN)
    assert (result.message, result.logs) == (f"no {PLACEHOLDER}", f"used {PLACEHOLDER}")
    assert (await world.row())["error"] == f"no {PLACEHOLDER}"


@pytest.mark.parametrize(
    ("outcome", "reason"), [("timeout", "timeout"), ("cancelled", "cancelled"), ("error", "memory_limit")]
)
async def test_how_the_runtime_ended_a_call_is_told(world: World, outcome: str, reason: str) -> None:
    async def body(program: Program, call: Call, powers: PowerHost) -> Execution:
        return Execution(outcome=outcome, reason=reason, message="It ended.")  # type: ignore[arg-type]

    world.body = body
    result = await world.invocation.invoke("refund", {"order_id": "A1"}, ANN)
    row = await world.row()
    assert (result.outcome.value, result.reason) == (row["outcome"], row["reason"]) == (outcome, reason)
    assert await world.intents() == []


async def test_a_busy_server_says_so(world: World) -> None:
    async def body(program: Program, call: Call, powers: PowerHost) -> Execution:
        raise Unavailable("All workers are busy, try again in 2 s.")

    world.body = body
    result = await world.invocation.invoke("refund", {"order_id": "A1"}, ANN)
    assert (result.outcome, result.reason) == (Outcome.ERROR, "busy")
    assert (await world.row())["reason"] == "busy"
    assert await world.intents() == []


async def test_code_that_cannot_be_fetched_is_told_apart_from_a_busy_server(world: World) -> None:
    async def files(digest: str) -> Any:
        raise Unavailable("Postgres is not available.")

    world.files = files  # type: ignore[method-assign]
    result = await world.invocation.invoke("refund", {"order_id": "A1"}, ANN)
    assert (result.outcome, result.reason) == (Outcome.ERROR, "unavailable")


async def test_a_fault_of_the_server_is_an_outcome_too(world: World) -> None:
    async def body(program: Program, call: Call, powers: PowerHost) -> Execution:
        raise ZeroDivisionError("internals")

    world.body = body
    result = await world.invocation.invoke("refund", {"order_id": "A1"}, ANN)
    assert (result.outcome, result.reason) == (Outcome.ERROR, "internal")
    assert "internals" not in (result.message or "")
    assert (await world.row())["reason"] == "internal"
    assert await world.intents() == []


async def test_a_cancelled_call_is_recorded_before_its_cancellation_goes_on(world: World) -> None:
    ended = asyncio.Event()

    async def body(program: Program, call: Call, powers: PowerHost) -> Execution:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    world.body = body
    task = asyncio.ensure_future(world.invocation.invoke("refund", {"order_id": "A1"}, ANN))
    await world.running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    assert ((await world.row())["outcome"], (await world.row())["reason"]) == ("cancelled", "cancelled")
    assert await world.intents() == []
    assert world.observed == ["cancelled"]


async def test_a_cancelled_scope_of_anyio_lets_the_cancellation_be_recorded(world: World) -> None:
    async def body(program: Program, call: Call, powers: PowerHost) -> Execution:
        scope.cancel()
        await anyio.sleep_forever()
        raise AssertionError

    world.body = body
    with anyio.CancelScope() as scope:
        await world.invocation.invoke("refund", {"order_id": "A1"}, ANN)
    assert scope.cancelled_caught
    assert (await world.row())["outcome"] == "cancelled"


async def test_cancelled_at_whatever_moment_a_call_is_recorded_once(world: World) -> None:
    for turns in range(1, 40):
        task = asyncio.ensure_future(world.invocation.invoke("refund", {"order_id": "A1"}, ANN))
        for _ in range(turns):
            await asyncio.sleep(0)
        if turns % 3 == 0:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
    await world.audit.aclose()  # writes what nobody waited for
    rows = await world.rows()
    assert len(rows) == 39
    assert {row["outcome"] for row in rows} <= {"ok", "cancelled"}
    assert await world.intents() == []


async def test_a_tool_runs_as_often_at_once_as_it_may(world: World) -> None:
    gate = asyncio.Event()

    async def body(program: Program, call: Call, powers: PowerHost) -> Execution:
        await gate.wait()
        return text("done")

    world.body = body
    world.serve(tool(limits=Limits(concurrency=2)))
    tasks = [asyncio.ensure_future(world.invocation.invoke("refund", {"order_id": "A1"}, ANN)) for _ in range(2)]
    await until(lambda: len(world.programs) == 2)
    third = await world.invocation.invoke("refund", {"order_id": "A1"}, ANN)
    assert (third.outcome, third.reason) == (Outcome.ERROR, "concurrency")
    gate.set()
    assert [each.outcome for each in await asyncio.gather(*tasks)] == [Outcome.OK, Outcome.OK]
    assert (await world.invocation.invoke("refund", {"order_id": "A1"}, ANN)).outcome is Outcome.OK
    assert sorted(row["reason"] or "" for row in await world.rows()) == ["", "", "", "concurrency"]


async def test_a_caller_calls_a_tool_as_often_as_its_rate_allows(world: World) -> None:
    world.serve(tool(limits=Limits(rate=Rate(2, 60.0))))

    async def call(caller: Any = ANN) -> tuple[str, str | None]:
        result = await world.invocation.invoke("refund", {"order_id": "A1"}, caller)
        return result.outcome.value, result.reason

    assert [await call() for _ in range(3)] == [("ok", None), ("ok", None), ("error", "rate_limited")]
    assert await call(msgspec.structs.replace(ANN, subject="bob")) == ("ok", None)
    world.now += 59
    result = await world.invocation.invoke("refund", {"order_id": "A1"}, ANN)
    assert result.message == "refund may be called 2/min by each caller. Try again in 1.0 s."
    world.now += 1
    assert await call() == ("ok", None)


async def test_anonymous_callers_are_told_apart_by_address(world: World) -> None:
    world.serve(tool(limits=Limits(rate=Rate(1, 60.0))))
    for address, reason in (("10.0.0.1", None), ("10.0.0.2", None), ("10.0.0.1", "rate_limited")):
        caller = msgspec.structs.replace(ANONYMOUS, address=address)
        assert (await world.invocation.invoke("refund", {"order_id": "A1"}, caller)).reason == reason


async def test_a_tool_that_asks_first_runs_only_when_the_user_agreed(world: World) -> None:
    world.serve(tool(confirm="Refund {amount} for {order_id}?", limits=Limits(rate=Rate(1, 60.0))))
    asked = await world.invocation.invoke("refund", {"order_id": "A1", "amount": 5}, ANN)
    assert (asked.outcome, asked.reason, asked.message) == (
        Outcome.INPUT_REQUIRED,
        "confirmation_required",
        "Refund 5 for A1?",
    )
    assert world.programs == []
    done = await world.invocation.invoke("refund", {"order_id": "A1", "amount": 5}, ANN, confirmed=True)
    assert done.outcome is Outcome.OK
    again = await world.invocation.invoke("refund", {"order_id": "A1", "amount": 5}, ANN)
    assert again.reason == "rate_limited"
    assert [row["outcome"] for row in await world.rows()] == ["input_required", "ok", "error"]


async def test_without_postgres_no_tool_runs_and_nothing_is_forgotten(world: World, postgres: Any, dsns: Any) -> None:
    name = urlsplit(dsns.server).path[1:]
    world.serve(tool(), tool("look", read_only=True))
    started = asyncio.Event()
    away = asyncio.Event()

    async def body(program: Program, call: Call, powers: PowerHost) -> Execution:
        started.set()
        await away.wait()
        return text("done")

    world.body = body
    running = asyncio.ensure_future(world.invocation.invoke("refund", {"order_id": "A0"}, ANN))
    await started.wait()
    await postgres.admin(f"ALTER DATABASE {name} CONNECTION LIMIT 0")
    await postgres.admin(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    try:
        away.set()
        late = await running
        results = [await world.invocation.invoke(each, {"order_id": "A1"}, ANN) for each in ("refund", "look", "none")]
    finally:
        await postgres.admin(f"ALTER DATABASE {name} CONNECTION LIMIT -1")
    assert (late.outcome, late.reason, late.content) == (Outcome.ERROR, "unrecorded", [])
    assert "has run" in (late.message or "")
    assert [(each.outcome.value, each.reason) for each in results] == [
        ("error", "unrecorded"),
        ("error", "unrecorded"),
        ("denied", "unknown_tool"),
    ]
    assert "ry again" in (results[0].message or "")
    assert len(world.programs) == 1
    await until(lambda: world.audit.status.available and not world.audit.status.owed)
    rows = await world.rows()
    assert [(row["tool"], row["outcome"], row["reason"]) for row in rows] == [
        ("refund", "ok", None),
        ("refund", "error", "unrecorded"),
        ("look", "error", "unrecorded"),
        ("none", "denied", "unknown_tool"),
    ]
    assert [row["seq"] for row in rows] == [1, 2, 3, 4]
    assert await world.intents() == []


@pytest.mark.parametrize("size", [10, 2_000_000])
async def test_a_tool_that_ended_as_its_caller_left_is_recorded_once(world: World, size: int) -> None:
    async def body(program: Program, call: Call, powers: PowerHost) -> Execution:
        asyncio.get_running_loop().call_soon(task.cancel)
        return text("x" * size)

    world.body = body
    task = asyncio.ensure_future(world.invocation.invoke("refund", {"order_id": "A1"}, ANN))
    with pytest.raises(asyncio.CancelledError):
        await task
    await world.audit.aclose()
    assert (await world.row())["outcome"] == "ok"
    assert await world.intents() == []


async def test_a_large_result_is_recorded_without_its_bulk(world: World) -> None:
    async def body(program: Program, call: Call, powers: PowerHost) -> Execution:
        return text("x" * 2_000_000)

    world.body = body
    result = await world.invocation.invoke("refund", {"order_id": "A1"}, ANN)
    assert len(result.content[0]["text"]) == 2_000_000
    assert len(str((await world.row())["result"])) < 9000
