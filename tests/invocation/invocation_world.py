"""An invocation over a real audit log and real access decisions, with a runtime that the test steers.

The runtime and the snapshot are stand-ins: they prove nothing of worker processes and of the registry.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, cast

import asyncpg
import msgspec

from portoser.audit.writer import AuditWriter
from portoser.catalog.caller import Caller
from portoser.catalog.group import RegisteredGroup
from portoser.catalog.policy import Policy
from portoser.catalog.revision import Annotations, Revision, SourceFile
from portoser.catalog.tool import Provenance, RegisteredTool
from portoser.invocation import Invocation
from portoser.invocation.nonces import OwnNonces
from portoser.powers.host import Powers
from portoser.registry.access import Access
from portoser.registry.code import CodeCache
from portoser.registry.follower import Follower
from portoser.registry.snapshot import ServedTool, Snapshot
from portoser.runtime.runtime import Runtime
from portoser.runtime.types import Call, Execution, FilesLoader, PowerHost, Program
from portoser.store.database import Database

ANN = Caller(subject="ann", name="Ann", groups=frozenset({"operator"}), address="10.0.0.1", session="s")
NOW = datetime(2026, 11, 22, tzinfo=UTC)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"order_id": {"type": "string"}, "amount": {"type": "number"}, "card_number": {"type": "string"}},
    "required": ["order_id"],
    "additionalProperties": False,
}

Body = Callable[[Program, Call, PowerHost], Awaitable[Execution]]


def tool(
    name: str = "refund", *, read_only: bool = False, permissions: tuple[str, ...] = ("operator",), **fields: Any
) -> ServedTool:
    revision = Revision(
        **{
            "digest": f"digest-of-{name}",
            "files": (),
            "entrypoint": f"{name}.py:{name}",
            "description": "",
            "input_schema": SCHEMA,
            "annotations": Annotations(read_only=read_only),
            **fields,
        }
    )
    registered = RegisteredTool(
        id="5b6f1c3e-0000-4000-8000-000000000000",
        name=name,
        owner="git:main",
        revision=revision,
        version=3,
        provenance=Provenance(source="main", path=f"{name}.yaml", commit="c0ffee+dirty"),
        generation=1,
        created_at=NOW,
        updated_at=NOW,
    )
    return ServedTool(registered=registered, permissions=permissions, enabled=True, listing_digest="l")


def text(value: str, **fields: Any) -> Execution:
    return Execution(**{"outcome": "ok", "content": [{"type": "text", "text": value}], **fields})


class World:
    """What the test steers (``body``, ``tools``) and what it sees (``programs``, ``observed``, ``rows``)."""

    def __init__(self, database: Database, audit: AuditWriter) -> None:
        self.database = database
        self.audit = audit
        self.snapshot = Snapshot(
            generation=1, tools=MappingProxyType({}), groups=cast("dict[str, RegisteredGroup]", {}), policy=Policy()
        )
        self.body: Body = self._ok
        self.programs: list[Program] = []
        self.running = asyncio.Event()
        self.observed: list[str] = []
        self.now = 1000.0
        self.invocation = Invocation(
            cast("Follower", self),
            Access(),
            cast("CodeCache", self),
            cast("Runtime", self),
            Powers([]),
            audit,
            OwnNonces(),
            observe=lambda outcome, _: self.observed.append(outcome.value),
            clock=lambda: self.now,
        )

    def serve(self, *tools: ServedTool) -> None:
        served = MappingProxyType({each.name: each for each in tools})
        self.snapshot = msgspec.structs.replace(self.snapshot, tools=served)

    async def files(self, digest: str) -> tuple[SourceFile, ...]:
        return (SourceFile("refund.py", "…"),)

    async def execute(
        self, program: Program, files: FilesLoader, call: Call, *, events: object, powers: PowerHost
    ) -> Execution:
        self.programs.append(program)
        self.running.set()
        await files()
        return await self.body(program, call, powers)

    async def _ok(self, program: Program, call: Call, powers: PowerHost) -> Execution:
        return text("done", structured={"result": "done"})

    async def rows(self) -> list[asyncpg.Record]:
        async with self.database.acquire() as connection:
            return list(await connection.fetch("SELECT * FROM mcp_audit_logs ORDER BY seq"))

    async def row(self) -> asyncpg.Record:
        [row] = await self.rows()
        return row

    async def intents(self) -> list[asyncpg.Record]:
        async with self.database.acquire() as connection:
            return list(await connection.fetch("SELECT * FROM mcp_audit_intents"))


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)
