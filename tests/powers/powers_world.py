"""Powers asked as a call asks them, by a policy that the test holds in its hand."""

from typing import Any

from portoser.catalog.caller import ANONYMOUS
from portoser.catalog.policy import Policy, PowerRule
from portoser.powers.base import Power, PowerContext, Standing
from portoser.powers.host import CallPowers, Powers

TOOL = "orders.refund"
OWNER = "git:main"


def rule(*, owner: str = OWNER, tools: tuple[str, ...] = ("orders.*",), **fields: Any) -> PowerRule:
    grants = {key: fields.pop(key) for key in ("network", "vault", "cluster") if key in fields}
    return PowerRule(grants=grants, owner=owner, tools=tools, **fields)


class Call:
    """One call of a tool; ``rules`` and ``refusal`` may be changed under it. ``seen`` is what is counted of uses."""

    def __init__(self, *powers: Power, rules: tuple[PowerRule, ...] = (), **uses: list[str]) -> None:
        self.rules = rules
        self.refusal: str | None = None
        self.seen: list[tuple[str, str]] = []
        made = Powers(powers, observe=lambda *seen: self.seen.append(seen))
        self.powers: CallPowers = made.for_call(
            PowerContext(tool=TOOL, owner=OWNER, uses=uses, caller=ANONYMOUS, standing=self._standing)
        )

    def _standing(self) -> Standing:
        return Standing(Policy(powers=self.rules), self.refusal)

    async def ask(self, power: str, method: str, *args: Any, **kwargs: Any) -> Any:
        return await self.powers.call(power, method, list(args), kwargs)

    def told(self) -> list[dict[str, Any]]:
        return [{key: value for key, value in row.items() if key != "ms"} for row in self.powers.tally.told() or []]
