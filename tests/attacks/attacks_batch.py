"""All attacks on one server: each called in a reused and in a new worker, and tried while its tool is described."""

import asyncio
import json
from collections import defaultdict
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import httpx
from attacks import ATTACKS, SHARED, TOOLS, Attack
from attacks_world import Holder, Listeners, World
from mcp_types import CallToolResult, TextContent

from e2e_server import sdk_http, text_of

AT_ONCE = 6
_TRIED_TO_THE_END = ("files", "processes", "kernel", "network")
"""What does not need a call that runs, and so must come to its end while a tool is described, too."""
DESCRIBING = """\
import json
from {module} import {function}

def described() -> None: ...

described.__doc__ = json.dumps({function}(json.loads({target!r})))
"""


class Told(NamedTuple):
    """What came of one call, as its client and the audit log know it. ``got`` is what the attack says it got."""

    reason: str
    got: list[str]
    message: str


class Tried(NamedTuple):
    """What came of an attack: in its own words, and what is wrong with that."""

    attack: Attack
    told: dict[str, Told]
    problems: list[str]

    @property
    def contained(self) -> bool:
        return not self.problems


class Batch:
    """Runs attacks, with a harmless call of somebody else beside each."""

    def __init__(self, world: World, target: dict[str, Any]) -> None:
        self.world = world
        self.target = target
        self.asked: list[tuple[str, str, str, Any]] = []
        """Tool, caller, what for, and the answer: in the order in which they were asked for."""
        self.described: dict[str, Told] = {}
        self.harmless = 0
        self._clients: dict[str, Any] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def run(self, attacks: list[Attack], *, describing: bool = True) -> list[Tried]:
        async with AsyncExitStack() as stack:
            for holder in (self.world.attacker, self.world.other):
                way = sdk_http(self.world.server, "2026-07-28", holder.token)
                self._clients[holder.name], _ = await stack.enter_async_context(way)
            http = await stack.enter_async_context(httpx.AsyncClient(timeout=60))
            async with asyncio.TaskGroup() as tasks:
                for attack in attacks:
                    for suffix in ("", ".fresh"):
                        tasks.create_task(self._attack(attack, suffix))
                    if (
                        describing and not attack.looks and "memory" not in attack.limits
                    ):  # describing has a limit of its own
                        tasks.create_task(self._describe(attack, http))
        recorded = self.recorded()
        return [self._judged(attack, recorded) for attack in attacks]

    async def _attack(self, attack: Attack, suffix: str) -> None:
        async with self._turns:
            tool = attack.name + suffix
            await asyncio.gather(self._ask(tool, self.world.attacker, "attack"), self.harmless_call())
            if attack.looks:
                await self._ask(tool, self.world.attacker, "same caller", look=True)
                await self._ask(tool, self.world.other, "another caller", look=True)

    async def _ask(self, tool: str, holder: Holder, what: str, **more: Any) -> None:
        try:
            answer = await self._clients[holder.name].call_tool(tool, {"target": self.target, **more})
        except RuntimeError as error:  # the client refuses what does not fit the tool's output schema
            answer = CallToolResult(content=[TextContent(type="text", text=str(error))], is_error=False)
        self.asked.append((tool, holder.name, what, answer))

    async def harmless_call(self) -> None:
        """A call of somebody else, which is answered as if there were no attacks."""
        self.harmless += 1
        n = self.harmless
        answer = await self._clients[self.world.other.name].call_tool("harmless", {"n": n, "word": self.world.word})
        assert answer.structured_content is not None, text_of(answer)
        assert answer.structured_content["n"] == n + 1

    async def _describe(self, attack: Attack, http: httpx.AsyncClient) -> None:
        """Register a tool that attacks while its code is imported, and tells in its docstring what it got."""
        files = [SHARED, attack.file]
        contents = [{"path": name, "content": (TOOLS / name).read_text(encoding="utf-8")} for name in files]
        code = DESCRIBING.format(module=attack.subject, function=attack.function, target=json.dumps(self.target))
        async with self._turns:
            response = await http.post(
                f"{self.world.server.url}/api/mcp/tools",
                headers={"Authorization": f"Bearer {self.world.attacker.token}"},
                json={
                    "name": f"{attack.name}.described",
                    "files": [*contents, {"path": "describing.py", "content": code}],
                    "entrypoint": "describing.py:described",
                    "limits": {"timeout": "20s" if attack.ends == ("ok",) else "1s"},
                },
            )
        body = response.json()
        if response.status_code == 201:
            got = json.loads(body["description"] or "{}")
            found = got.get("got", []) if isinstance(got, dict) else []
            self.described[attack.name] = Told("ok", found, "")
        else:
            reasons = [each["message"] for each in body.get("errors", [])] or [body.get("detail", "")]
            self.described[attack.name] = Told(f"refused ({response.status_code})", [], " ".join(reasons))

    def recorded(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """The audit log's calls by tool and caller, the oldest first."""
        found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for entry in entries(self.world):
            found[entry["tool"], entry["caller"]["name"]].insert(0, entry)
        return found

    def _judged(self, attack: Attack, recorded: dict[tuple[str, str], list[dict[str, Any]]]) -> Tried:
        told: dict[str, Told] = {}
        problems = []
        for suffix in ("", ".fresh"):
            tool, way = attack.name + suffix, "fresh" if suffix else "reused"
            for name in (self.world.attacker.name, self.world.other.name):
                asked = [each for each in self.asked if each[:2] == (tool, name)]
                rows = recorded[tool, name]
                if len(rows) != len(asked):
                    problems.append(f"{way}: {len(asked)} calls, but {len(rows)} in the audit log")
                for (_, _, what, answer), row in zip(asked, rows, strict=False):
                    reason = row["reason"] or row["outcome"]
                    structured = answer.structured_content if isinstance(answer.structured_content, dict) else {}
                    one = Told(reason, list(structured.get("got", [])), text_of(answer) if answer.is_error else "")
                    if answer.is_error != (row["outcome"] != "ok"):
                        problems.append(f"{way}: the log says {row['outcome']}, the client was told otherwise")
                    told[f"{way}: {what}"] = one
        if attack.name in self.described:
            told["described: attack"] = self.described[attack.name]
        for label, one in told.items():
            problems += [f"{label} {problem}" for problem in problems_of(attack, label, one)]
        return Tried(attack, told, problems)


def problems_of(attack: Attack, label: str, told: Told) -> list[str]:
    """What of one call's outcome is not as it must be where an attack is contained."""
    way, _, what = label.partition(": ")
    if what == "attack":
        if way == "described":
            untried = attack.subject in _TRIED_TO_THE_END and attack.ends == ("ok",) and told.reason != "ok"
            return [f"was {told.reason}: {told.message[:300]}"] if untried else [f"got {told.got}"] if told.got else []
        if told.reason not in attack.ends:
            return [f"ended with {told.reason}: {told.message[:300]}"]
        return [f"got {told.got}"] if told.got and not attack.looks else []
    if what == "same caller" and way == "reused" and attack.keeps:
        return []
    if told.reason != "ok":
        return [f"ended with {told.reason}: {told.message[:300]}"]
    return [f"found {told.got}"] if told.got else []


def entries(world: World, **filters: str) -> list[dict[str, Any]]:
    """The audit log's entries of calls, the latest first."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        more = {"cursor": cursor} if cursor else {}
        page = world.server.api(
            "GET",
            "/api/mcp/audit/logs",
            params={"event": "tool.call", "limit": 500, **filters, **more},
            headers={"Authorization": f"Bearer {world.attacker.token}"},
        ).json()
        found += page["entries"]
        cursor = page.get("next_cursor")
        if not cursor:
            return found


def listen_and_run(world: World, attacks: list[Attack] = ATTACKS, *, describing: bool = True) -> list[Tried]:
    """Run attacks on a server that has somebody else's warm worker, and has settled."""
    listeners = Listeners(world)
    try:
        return asyncio.run(_run(world, attacks, listeners, describing=describing))
    finally:
        listeners.close()


async def _run(world: World, attacks: list[Attack], listeners: Listeners, *, describing: bool) -> list[Tried]:
    async with sdk_http(world.server, "2026-07-28", world.other.token) as (client, _):
        answer = await client.call_tool("harmless", {"n": 0, "word": world.word})
        assert not answer.is_error, text_of(answer)
    return await Batch(world, world.target(listeners)).run(attacks, describing=describing)
