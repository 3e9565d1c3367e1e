"""What a call may ask of its powers: by its manifest, by the policy in force, and as its caller."""

import contextlib
from typing import Any

import pytest
from powers_world import Call, rule

from portoser.catalog.errors import PowerError
from portoser.powers.base import Power, PowerRefused, Use
from portoser.powers.tally import MOST_ROWS


class Echo(Power):
    """Answers what it was asked, for what is granted; ``open`` grants everything."""

    def __init__(self, name: str, *, is_open: bool = False) -> None:
        self.name = self.word = name
        self.is_open = is_open

    async def call(self, method: str, args: list[Any], kwargs: dict[str, Any], use: Use) -> Any:
        if not self.is_open:
            use.granted(args[0], method)
        if method == "fail":
            raise PowerError("It is away.")
        return [self.name, method, args, kwargs, use.context.tool]


def call(*rules: Any, **uses: list[str]) -> Call:
    return Call(Echo("registry", is_open=True), Echo("vault"), rules=rules, **uses)


async def test_what_the_manifest_asks_for_and_the_policy_grants_is_answered() -> None:
    asked = call(rule(vault=["orders/*"]), vault=["orders/key"])
    answer = await asked.ask("vault", "get", "orders/key", deep=True)
    assert answer == ["vault", "get", ["orders/key"], {"deep": True}, "orders.refund"]


async def test_every_tool_may_read_the_registry_without_a_word_in_manifest_and_policy() -> None:
    assert (await call().ask("registry", "services"))[0] == "registry"


async def test_a_power_that_the_manifest_does_not_name_is_refused_with_advice() -> None:
    with pytest.raises(PowerRefused, match=r"orders\.refund uses the power vault.*`uses: \{vault: \[…\]\}`"):
        await call(rule(vault=["*"])).ask("vault", "get", "orders/key")


async def test_what_the_manifest_does_not_ask_of_a_power_is_refused_though_the_policy_grants_it() -> None:
    with pytest.raises(PowerRefused, match=r'write there: uses: \{vault: \["orders/key", "hr/pay"\]\}'):
        await call(rule(vault=["*"]), vault=["orders/key"]).ask("vault", "get", "hr/pay")


@pytest.mark.parametrize(
    "rules",
    [
        (),
        (rule(vault=["hr/*"]),),
        (rule(vault=["orders/*"], owner="rest:*"),),
        (rule(vault=["orders/*"], tools=("invoices.*",)),),
        (rule(network=["orders/key:443"]),),
    ],
    ids=["no rule", "another secret", "another owner", "another tool", "another power"],
)
async def test_what_no_rule_grants_is_refused_with_the_rule_to_add(rules: tuple[Any, ...]) -> None:
    with pytest.raises(PowerRefused) as refused:
        await call(*rules, vault=["orders/*"]).ask("vault", "get", "orders/key")
    assert 'powers: [{vault: ["orders/key"], owner: "git:main", tools: ["orders.refund"]}]' in str(refused.value)


async def test_a_rule_grants_the_actions_that_it_names_and_no_others() -> None:
    asked = call(rule(vault=["orders/*"], actions=("get", "list")), vault=["orders/*"])
    await asked.ask("vault", "get", "orders/key")
    with pytest.raises(PowerRefused, match=r"for get, list alone, not for put.*add put to the rule's actions"):
        await asked.ask("vault", "put", "orders/key")


async def test_what_the_policy_takes_back_counts_from_the_next_use_on() -> None:
    asked = call(rule(vault=["orders/*"]), vault=["orders/*"])
    await asked.ask("vault", "get", "orders/key")
    asked.rules = ()
    with pytest.raises(PowerRefused, match=r"grants orders\.refund of git:main no vault"):
        await asked.ask("vault", "get", "orders/key")


async def test_a_caller_who_may_not_call_the_tool_any_more_is_refused_every_power() -> None:
    asked = call(rule(vault=["*"]), vault=["*"])
    asked.refusal = "You may not call 'orders.refund'."
    for power in ("vault", "registry"):
        with pytest.raises(PowerRefused, match=r"taken back since it began\. You may not call"):
            await asked.ask(power, "get", "orders/key")


async def test_a_power_that_is_not_there_is_refused_with_the_close_one() -> None:
    with pytest.raises(PowerRefused, match=r"no power 'registri'\. Did you mean registry\?"):
        await call().ask("registri", "services")


async def test_uses_are_counted_by_power_function_and_target_with_what_was_refused_and_what_failed() -> None:
    asked = call(rule(vault=["orders/*"]), vault=["orders/*"])
    for method, path in (("get", "orders/a"), ("get", "orders/a"), ("fail", "orders/a"), ("get", "hr/pay")):
        with contextlib.suppress(PowerError):
            await asked.ask("vault", method, path)
    with pytest.raises(PowerRefused):
        await asked.ask("nothing", "get")
    row = {"power": "vault", "method": "get", "target": "orders/a", "count": 2, "refused": 0, "failed": 0}
    assert asked.told() == [
        row,
        {**row, "method": "fail", "count": 1, "failed": 1},
        {**row, "target": "hr/pay", "count": 1, "refused": 1},
        {**row, "power": "nothing", "target": "", "count": 1, "refused": 1},
    ]
    assert asked.seen == [
        ("vault", "ok"),
        ("vault", "ok"),
        ("vault", "failed"),
        ("vault", "refused"),
        ("unknown", "refused"),
    ]


async def test_what_is_told_of_a_call_that_asks_for_everything_stays_small() -> None:
    asked = call(rule(vault=["*"]), vault=["*"])
    for number in range(200):
        await asked.ask("vault", "get", f"{number} {'x' * 1000}")
    told = asked.told()
    assert len(told) == MOST_ROWS
    assert sum(row["count"] for row in told) == 200
    assert (told[-1]["power"], told[-1]["count"]) == ("…", 200 - MOST_ROWS + 1)
    assert len(str(told)) < 10_000


async def test_a_power_that_fails_itself_is_an_error_of_the_use_alone() -> None:
    class Broken(Echo):
        async def call(self, method: str, args: list[Any], kwargs: dict[str, Any], use: Use) -> Any:
            raise RuntimeError("a secret of the server")

    asked = Call(Broken("registry", is_open=True))
    with pytest.raises(PowerError, match=r"registry\.get\(\) failed in the server \(RuntimeError\); its log") as told:
        await asked.ask("registry", "get")
    assert "secret" not in str(told.value)
    assert asked.told()[0]["failed"] == 1


async def test_it_is_known_whether_a_power_may_have_changed_something() -> None:
    asked = call(rule(vault=["orders/*"]), vault=["orders/*"])
    await asked.ask("registry", "services")
    with pytest.raises(PowerRefused):
        await asked.ask("vault", "put", "hr/pay")
    assert not asked.powers.has_written
    with pytest.raises(PowerError):
        await asked.ask("vault", "fail", "orders/a")
    assert asked.powers.has_written
