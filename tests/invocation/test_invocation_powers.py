"""What a call may use of its powers while it runs, and what the log is told of it."""

from collections.abc import AsyncIterator
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from invocation_world import ANN, World, text, tool

from portoser.audit.writer import AuditWriter
from portoser.catalog.errors import PowerError
from portoser.catalog.policy import Policy, PowerRule
from portoser.powers.base import Power, Use
from portoser.powers.host import Powers
from portoser.runtime.types import Call, Execution, PowerHost, Program
from portoser.store.database import Database


class Shelf(Power):
    """Gives what is granted, and fails where it is asked for what is lost."""

    name = word = "vault"

    async def call(self, method: str, args: list[Any], kwargs: dict[str, Any], use: Use) -> Any:
        use.granted(args[0], method)
        if args[0].endswith("lost"):
            raise PowerError("It is lost.")
        return "given"


@pytest.fixture
async def shelf(database: Database) -> AsyncIterator[World]:
    audit = AuditWriter(database, replica="r", patience=5.0)
    await audit.start()
    world = World(database, audit)
    world.invocation._powers = Powers([Shelf()])
    world.serve(tool(uses={"vault": ["orders/*"]}, redact=("card_number",)))
    grant(world, PowerRule(grants={"vault": ["orders/*"]}, owner="git:main", tools=("refund",)))
    yield world
    await audit.aclose()


def grant(world: World, *rules: PowerRule) -> None:
    world.snapshot = msgspec.structs.replace(world.snapshot, policy=Policy(powers=rules))


async def test_the_log_tells_what_a_call_used_and_how_often_without_what_is_hidden(shelf: World) -> None:
    async def body(program: Program, call: Call, powers: PowerHost) -> Execution:
        for path in ("orders/a", "orders/a", "orders/lost", "hr/pay", "orders/4111-1111"):
            try:
                await powers.call("vault", "get", [path], {})
            except PowerError:
                continue
        return text("done")

    shelf.body = body
    result = await shelf.invocation.invoke("refund", {"order_id": "A1", "card_number": "4111-1111"}, ANN)
    assert not result.is_error
    told = (await shelf.row())["powers"]
    assert [{key: value for key, value in row.items() if key != "ms"} for row in told] == [
        {"power": "vault", "method": "get", "target": "orders/a", "count": 2, "refused": 0, "failed": 0},
        {"power": "vault", "method": "get", "target": "orders/lost", "count": 1, "refused": 0, "failed": 1},
        {"power": "vault", "method": "get", "target": "hr/pay", "count": 1, "refused": 1, "failed": 0},
        {"power": "vault", "method": "get", "target": "orders/[REDACTED]", "count": 1, "refused": 0, "failed": 0},
    ]


async def test_a_call_that_uses_nothing_has_nothing_told_of_it(shelf: World) -> None:
    await shelf.invocation.invoke("refund", {"order_id": "A1"}, ANN)
    assert (await shelf.row())["powers"] is None


async def test_what_is_taken_back_while_a_call_runs_is_refused_to_it(shelf: World) -> None:
    said: list[str] = []

    async def body(program: Program, call: Call, powers: PowerHost) -> Execution:
        async def ask() -> None:
            try:
                said.append(await powers.call("vault", "get", ["orders/a"], {}))
            except PowerError as error:
                said.append(str(error))

        await ask()
        policy = shelf.snapshot.policy
        grant(shelf)
        await ask()
        served = shelf.snapshot.tools
        shelf.snapshot = msgspec.structs.replace(shelf.snapshot, policy=policy, tools=MappingProxyType({}))
        await ask()
        shelf.snapshot = msgspec.structs.replace(shelf.snapshot, tools=served)
        await ask()
        shelf.serve(tool(permissions=("somebody-else",)))
        await ask()
        return text("done")

    shelf.body = body
    await shelf.invocation.invoke("refund", {"order_id": "A1"}, ANN)
    assert said[0] == said[3] == "given"
    assert "grants refund of git:main no vault orders/a" in said[1]
    assert "taken back since it began. There is no tool 'refund'" in said[2]
    assert "taken back since it began. You may not call 'refund'" in said[4]
