"""Who runs next where more calls come than may run: callers by turns, and none kept out by another's number."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from runtime_bench import Bench

from portoser.catalog.caller import Caller, CallerKind
from portoser.catalog.errors import Unavailable
from portoser.runtime.runtime import Runtime
from portoser.runtime.turns import Turns

NAP = "import time\ndef tool(n: int, seconds: float = 0.005):\n    time.sleep(seconds)\n    return {'n': n}"
MANY = Caller(subject="many")
FEW = Caller(subject="few")


@pytest_asyncio.fixture
async def line(tmp_path: Path) -> AsyncIterator[Bench]:
    """Four calls at once, 500 in the queue."""
    runtime = Runtime(workers=4, scratch=tmp_path / "scratch", queue=500, spares=0)
    await runtime.start()
    try:
        yield Bench(runtime)
    finally:
        await runtime.aclose()


async def test_a_caller_with_450_calls_does_not_keep_one_with_five_waiting(line: Bench, until: Any) -> None:
    done: list[str] = []

    async def call(caller: Caller, n: int) -> None:
        execution = await line.run(NAP, {"n": n}, caller=caller)
        assert execution.structured == {"n": n}
        done.append(caller.subject)

    async with asyncio.TaskGroup() as group:
        for n in range(450):
            group.create_task(call(MANY, n))
        await until(lambda: line.runtime.status().queued == 446, "all but four wait")
        already = len(done)
        for n in range(5):
            group.create_task(call(FEW, n))
    assert len(done) == 455
    last_of_few = len(done) - 1 - done[::-1].index("few")
    assert last_of_few - already < 40
    status = line.runtime.status()
    assert (status.busy, status.queued) == (0, 0)


async def test_anonymous_callers_take_turns_by_their_address(line: Bench, until: Any) -> None:
    done: list[str | None] = []

    async def call(address: str, n: int) -> None:
        caller = Caller(subject="anonymous", kind=CallerKind.ANONYMOUS, address=address)
        await line.run(NAP, {"n": n}, caller=caller)
        done.append(address)

    async with asyncio.TaskGroup() as group:
        for n in range(100):
            group.create_task(call("10.0.0.1", n))
        await until(lambda: line.runtime.status().queued == 96, "they wait")
        group.create_task(call("10.0.0.2", 0))
    assert done.index("10.0.0.2") < 30


async def test_a_full_line_takes_a_caller_with_fewer_and_turns_the_latest_of_the_longest_away(line: Bench) -> None:
    calls = [asyncio.create_task(line.run(NAP, {"n": n, "seconds": 0.02}, caller=MANY)) for n in range(504)]
    await asyncio.sleep(0)  # in which each of them joins
    assert line.runtime.status().queued == 500
    with pytest.raises(Unavailable, match="busy"):
        await line.run(NAP, {"n": 0}, caller=MANY)
    assert (await line.run(NAP, {"n": 1}, caller=FEW)).structured == {"n": 1}
    results = await asyncio.gather(*calls, return_exceptions=True)
    turned_away = [n for n, result in enumerate(results) if isinstance(result, Unavailable)]
    assert turned_away == [503]


async def test_who_comes_back_when_told_finds_room(line: Bench) -> None:
    for n in range(40):  # so that it is known how long a call takes
        await line.run(NAP, {"n": n, "seconds": 0.01}, caller=MANY)
    calls = [asyncio.create_task(line.run(NAP, {"n": n, "seconds": 0.01}, caller=MANY)) for n in range(504)]
    await asyncio.sleep(0)  # in which each of them joins
    assert line.runtime.status().queued == 500
    with pytest.raises(Unavailable) as raised:
        await line.run(NAP, {"n": 0}, caller=MANY)
    told = re.fullmatch(r"busy, try again in (\d+) s", str(raised.value))
    assert told is not None
    assert raised.value.retry_after == int(told[1]) >= 1
    await asyncio.sleep(raised.value.retry_after)
    assert (await line.run(NAP, {"n": 0}, caller=MANY)).outcome == "ok"
    assert {execution.outcome for execution in await asyncio.gather(*calls)} == {"ok"}


async def test_who_gives_up_leaves_nothing_behind() -> None:
    turns = Turns(2, lambda: Unavailable("busy"))
    first, second = turns.join("a"), turns.join("b")
    with pytest.raises(Unavailable):
        turns.join("c")
    first.cancel()
    turns.give_up("a", first)
    turns.give_up("a", first)
    assert len(turns) == 1
    assert turns.next() is second
    assert turns.next() is None
    assert len(turns) == 0
