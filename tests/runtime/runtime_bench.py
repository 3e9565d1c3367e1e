"""A short way to run a text as a tool, in real worker processes."""

import asyncio
import itertools
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from portoser.catalog.caller import ANONYMOUS, Caller
from portoser.catalog.revision import Declaration, Isolation, JsonSchema, Limits, SourceFile, digest_of
from portoser.runtime.runtime import Runtime
from portoser.runtime.types import Call, Description, Events, Execution, PowerHost, Program


def host_pid(pid: int) -> int:
    """What this process calls the worker that calls itself ``pid``, in a namespace of its zygote's."""
    for child in psutil.Process().children(recursive=True):
        try:
            status = Path(f"/proc/{child.pid}/status").read_text(encoding="ascii")
        except OSError:  # it has just ended
            continue
        known = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
        if int(known[-1]) == pid and "portoser-worker" in status:
            return child.pid
    raise AssertionError(f"there is no worker that calls itself {pid}")


class Bench:
    """Runs texts as tools."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.loads = 0
        self._ids = itertools.count()

    async def run(
        self,
        code: str | dict[str, str],
        arguments: dict[str, Any] | None = None,
        *,
        entrypoint: str = "main.py:tool",
        caller: Caller = ANONYMOUS,
        isolation: Isolation = Isolation.REUSE,
        output_schema: JsonSchema | None = None,
        events: Events | None = None,
        powers: PowerHost | None = None,
        asks: int | None = None,
        **limits: Any,
    ) -> Execution:
        files = sources(code)
        number = next(self._ids)
        program = Program(
            digest=digest_of({"files": files, "entrypoint": entrypoint, "limits": limits, "schema": output_schema}),
            entrypoint=entrypoint,
            limits=Limits(**limits, powers=asks),
            isolation=isolation,
            output_schema=output_schema,
        )

        async def load() -> tuple[SourceFile, ...]:
            self.loads += 1
            return files

        call = Call(id=f"call-{number}", arguments=arguments or {}, caller=caller, request_id=f"request-{number}")
        return await self.runtime.execute(program, load, call, events=events, powers=powers)

    async def describe(
        self, code: str | dict[str, str], entrypoint: str = "main.py:tool", **limits: Any
    ) -> Description:
        return await self.runtime.describe(
            Declaration(files=sources(code), entrypoint=entrypoint, limits=Limits(**limits))
        )


def sources(code: str | dict[str, str]) -> tuple[SourceFile, ...]:
    texts = {"main.py": code} if isinstance(code, str) else code
    return tuple(SourceFile(path, textwrap.dedent(text)) for path, text in texts.items())


async def until(condition: Callable[[], object], what: str | Callable[[], str], seconds: float = 10.0) -> None:
    """Wait for a condition, with a deadline."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"{what if isinstance(what, str) else what()}: not within {seconds} s")


def descendants(pid: int | None = None) -> set[int]:
    return {child.pid for child in psutil.Process(pid).children(recursive=True)}
