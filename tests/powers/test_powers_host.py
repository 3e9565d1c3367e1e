"""What a call may ask of its powers."""

from typing import Any

import pytest

from portoser.catalog.caller import ANONYMOUS
from portoser.catalog.errors import PowerError
from portoser.powers.base import PowerContext
from portoser.powers.host import MOST_CALLS, Powers


class Echo:
    def __init__(self, name: str) -> None:
        self.name = name

    async def call(self, method: str, args: list[Any], kwargs: dict[str, Any], context: PowerContext) -> Any:
        return [self.name, method, args, kwargs, context.tool]


def call_powers(**uses: list[str]) -> Any:
    powers = Powers([Echo("registry"), Echo("vault")])
    return powers.for_call(PowerContext(tool="orders.refund", owner="git:main", uses=uses, caller=ANONYMOUS))


async def test_a_declared_power_answers_with_the_calls_context() -> None:
    answer = await call_powers(vault=["orders/key"]).call("vault", "get", ["orders/key"], {"deep": True})
    assert answer == ["vault", "get", ["orders/key"], {"deep": True}, "orders.refund"]


async def test_every_tool_may_read_the_registry() -> None:
    assert (await call_powers().call("registry", "services", [], {}))[0] == "registry"


async def test_a_power_that_the_manifest_does_not_name_is_refused_with_advice() -> None:
    with pytest.raises(PowerError, match=r"orders\.refund uses the power vault.*`uses: \{vault: \[…\]\}`"):
        await call_powers().call("vault", "get", [], {})


async def test_a_power_that_is_not_there_is_refused_with_the_close_one() -> None:
    with pytest.raises(PowerError, match=r"no power 'registri'\. Did you mean registry\?"):
        await call_powers().call("registri", "services", [], {})


async def test_a_call_may_ask_a_thousand_times_and_another_call_again() -> None:
    powers = call_powers()
    for _ in range(MOST_CALLS):
        await powers.call("registry", "services", [], {})
    with pytest.raises(PowerError, match="1000 times"):
        await powers.call("registry", "services", [], {})
    await call_powers().call("registry", "services", [], {})
