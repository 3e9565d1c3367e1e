"""What a team's clients do all day: the callers, the tools besides those that add, and the mixture of requests.

Every request has an answer that is expected, errors too: whatever else comes is counted as wrong.
"""

import itertools
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.http import Connection, bearer, get, post
from benchmarks.protocol import Message, Session, WrongAnswer, check_sum, result_of, shown
from benchmarks.toolset import READ_WRITE, tool_name

SPECIAL = {
    "soak_fail": "def soak_fail(n: int) -> int:\n    raise ValueError(f'number {n} is not wanted')\n",
    "soak_logs": (
        "from portoser.tool import ctx\n\n\n"
        "def soak_logs(n: int) -> int:\n"
        "    for line in range(20):\n        print('line', line, 'of', n)\n"
        "    ctx.info(f'half of {n}')\n    return n\n"
    ),
    "soak_large": "def soak_large(n: int) -> str:\n    return str(n % 10) * 100_000\n",
    "soak_slow": "import time\n\n\ndef soak_slow(n: int) -> int:\n    time.sleep(20)\n    return n\n",
    "soak_late": "import time\n\n\ndef soak_late(n: int) -> int:\n    time.sleep(20)\n    return n\n",
}
"""The other tools. ``soak_late`` has a short limit; calls of ``soak_slow`` are taken back."""

HOT = 6
"""How many tools a caller uses nearly always."""

_OTHERS = 0.02
"""How many of a caller's calls go to any tool at all: each finds no worker that has loaded it."""


@dataclass(frozen=True)
class Caller:
    """Somebody with a token. ``hot`` are the tools that they use most."""

    name: str
    groups: tuple[str, ...]
    token: str = field(default_factory=lambda: "ptk_" + secrets.token_urlsafe(32), repr=False)
    hot: tuple[str, ...] = ()

    @property
    def entry(self) -> str:
        """Their line of the token file."""
        digest = sha256(self.token.encode()).hexdigest()
        return f'- {{name: {self.name}, hash: "sha256:{digest}", groups: [{", ".join(self.groups)}]}}\n'


def callers(count: int) -> list[Caller]:
    """People who call tools, each with tools of their own choice."""
    return [
        Caller(f"caller-{n}", ("staff",), hot=tuple(tool_name(n * HOT + each) for each in range(HOT)))
        for n in range(count)
    ]


def write_special(root: Path) -> int:
    """Write the other tools and who may do what below ``root``; how many tools."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "group.yaml").write_text("kind: Group\nname: everything\nenabled: true\npermissions: [staff]\n")
    (root / "policy.yaml").write_text("kind: Policy\nroles: {admin: [admins]}\n")
    for name, code in SPECIAL.items():
        (root / f"{name}.py").write_text(code)
        limits = "limits: {timeout: 300ms}\n" if name == "soak_late" else ""
        (root / f"{name}.yaml").write_text(f"kind: Tool\nname: {name}\ndescription: For the soak.\n{limits}")
    return len(SPECIAL)


class Mix:
    """Chooses requests at random, always the same ones in the same order, and makes them."""

    def __init__(self, port: int, tools: int, admin: Caller) -> None:
        self._port = port
        self._tools = tools
        self._admin = admin
        self._random = random.Random(20260728)
        self._numbers = itertools.count(1)
        shares: dict[str, tuple[float, Callable[[Session, Caller], Awaitable[None]]]] = {
            "add": (73, self._add),
            "write": (15, self._write),
            "logs": (3, self._logs),
            "fail": (3, self._fail),
            "REST call": (2, self._rest_call),
            "100 KB": (1, self._large),
            "wrong arguments": (1, self._wrong_arguments),
            "no such tool": (0.6, self._no_such_tool),
            "timeout": (0.3, self._late),
            "cancelled": (0.4, self._cancelled),
            "list": (0.3, self._list),
            "audit": (0.4, self._audit),
        }
        self._makers = {name: make for name, (_, make) in shares.items()}
        self._weights = [weight for weight, _ in shares.values()]
        self.cancelled = 0

    def choose(self) -> str:
        """The kind of the next request."""
        return self._random.choices(list(self._makers), self._weights)[0]

    async def make(self, kind: str, session: Session, caller: Caller) -> None:
        """Make one request and check its answer.

        Raises:
            WrongAnswer: it is not what was expected.
        """
        await self._makers[kind](session, caller)

    async def _add(self, session: Session, caller: Caller) -> None:
        hot = self._random.random() >= _OTHERS
        tool = self._random.choice(caller.hot) if hot else tool_name(self._random.randrange(self._tools))
        await session.call_add(tool, next(self._numbers), 1_000_003)

    async def _write(self, session: Session, _: Caller) -> None:
        await session.call_add(READ_WRITE, next(self._numbers), 1_000_003)

    async def _logs(self, session: Session, _: Caller) -> None:
        number = next(self._numbers)
        check_sum(await session.call("soak_logs", {"n": number}), number)

    async def _fail(self, session: Session, _: Caller) -> None:
        number = next(self._numbers)
        _expect_error(await session.call("soak_fail", {"n": number}), f"number {number} is not wanted")

    async def _large(self, session: Session, _: Caller) -> None:
        number = next(self._numbers)
        text = result_of(await session.call("soak_large", {"n": number}))["content"][0]["text"]
        if text != str(number % 10) * 100_000:
            raise WrongAnswer(f"Expected 100,000 × {number % 10}, got {text[:200]!r}…")

    async def _wrong_arguments(self, session: Session, caller: Caller) -> None:
        _expect_error(await session.call(caller.hot[0], {"a": "one", "b": 2}), "a")

    async def _no_such_tool(self, session: Session, _: Caller) -> None:
        answer = await session.call("tool_of_nobody", {})
        if answer.error is None or "tool_of_nobody" not in shown(answer):
            raise WrongAnswer(f"Expected an error that names the tool, got {shown(answer)}")

    async def _late(self, session: Session, _: Caller) -> None:
        _expect_error(await session.call("soak_late", {"n": next(self._numbers)}), "0.3 s", "300")

    async def _cancelled(self, session: Session, _: Caller) -> None:
        self.cancelled += 1
        await session.call_and_cancel("soak_slow", {"n": next(self._numbers)}, 0.25)

    async def _list(self, session: Session, _: Caller) -> None:
        count = await listed(session)
        if count < self._tools:
            raise WrongAnswer(f"tools/list gave {count} tools, expected {self._tools} at least")

    async def _audit(self, _: Session, caller: Caller) -> None:
        outcome = self._random.choice(("", "&outcome=error", "&outcome=timeout", f"&caller={caller.name}"))
        page = await rest(self._port, self._admin, "GET", f"/api/mcp/audit/logs?limit=100{outcome}")
        if not isinstance(page.get("entries"), list):
            raise WrongAnswer(f"Expected entries of the audit log, got {str(page)[:300]}")

    async def _rest_call(self, _: Session, caller: Caller) -> None:
        number = next(self._numbers)
        path = f"/api/mcp/tools/{self._random.choice(caller.hot)}/call"
        answer = await rest(self._port, caller, "POST", path, {"arguments": {"a": number, "b": 1}})
        if answer.get("structuredContent", answer.get("structured")) != {"result": number + 1}:
            raise WrongAnswer(f"Expected the sum {number + 1}, got {str(answer)[:300]}")


async def listed(session: Session) -> int:
    """How many tools a session lists, following the pages."""
    count = 0
    params: dict[str, Any] = {}
    while True:
        page = await session.request("tools/list", params)
        count += len(page["tools"])
        if not page.get("nextCursor"):
            return count
        params = {"cursor": page["nextCursor"]}


async def rest(
    port: int, caller: Caller, method: str, path: str, body: Mapping[str, Any] | None = None, *, expect: int = 0
) -> dict[str, Any]:
    """One request over REST on a connection of its own; the JSON of the answer, which must be a good one."""
    connection = await Connection.open(port)
    try:
        data = msgspec.json.encode(body) if body is not None else b""
        asked = (
            get(port, path, bearer(caller.token))
            if method == "GET"
            else post(port, path, data, bearer(caller.token), method=method)
        )
        response = await connection.request(asked)
    finally:
        connection.close()
    if not (response.status == expect if expect else 200 <= response.status < 300):
        raise WrongAnswer(f"{method} {path}: HTTP {response.status}: {response.body[:300]!r}")
    found: dict[str, Any] = msgspec.json.decode(response.body) if response.body else {}
    return found


def _expect_error(answer: Message, *any_of: str) -> None:
    result = answer.result
    text = "".join(block.get("text", "") for block in result["content"]) if result is not None else ""
    if result is None or not result.get("isError") or not any(part in text for part in any_of):
        raise WrongAnswer(f"Expected an error with {any_of[0]!r}, got {shown(answer)}")
