"""``limits.share``: several calls of one caller at once in one worker."""

import asyncio
from typing import Any

import pytest
from runtime_bench import Bench

from portoser.catalog.caller import Caller
from portoser.catalog.errors import PowerError
from portoser.runtime.types import CodeError

pytestmark = pytest.mark.asyncio(loop_scope="module")

SLEEPS = """
    import asyncio, os
    async def tool(n: int, seconds: float = 0.3):
        print("begun", n)
        await asyncio.sleep(seconds)
        print("ended", n)
        return {"n": n, "pid": os.getpid(), "subject": ctx.caller.subject, "request": ctx.request_id}
"""


class Slow:
    """Answers after a moment, and says how many questions were open at once."""

    def __init__(self) -> None:
        self.open = self.most = 0

    async def call(self, power: str, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        self.open += 1
        self.most = max(self.most, self.open)
        await asyncio.sleep(0.2)
        self.open -= 1
        if args == ["no"]:
            raise PowerError("There is no such service.")
        return {"name": args[0]}


class Recorder:
    def __init__(self) -> None:
        self.events: list[Any] = []

    def log(self, level: str, message: str, data: dict[str, Any] | None) -> None:
        self.events.append(message)

    def progress(self, done: float, total: float | None, message: str | None) -> None:
        self.events.append(done)


async def many(bench: Bench, code: str, count: int, *, share: int = 8, **more: Any) -> list[Any]:
    return await asyncio.gather(*(bench.run(code, {"n": n}, share=share, **more) for n in range(count)))


async def test_calls_run_at_once_in_one_worker_and_hold_one_slot(shared_bench: Any, until: Any) -> None:
    task = asyncio.create_task(many(shared_bench, SLEEPS, 8))
    await until(lambda: shared_bench.runtime.status().busy == 1, "one slot is taken")
    ended = await task
    assert {each.structured["pid"] for each in ended} == {ended[0].structured["pid"]}
    assert [each.structured["n"] for each in ended] == list(range(8))
    assert len({each.structured["request"] for each in ended}) == 8
    assert [each.logs for each in ended] == [f"begun {n}\nended {n}\n" for n in range(8)]
    assert max(each.duration for each in ended) < 2
    assert shared_bench.runtime.status().busy == 0


async def test_no_more_run_in_one_worker_than_may(shared_bench: Any) -> None:
    ended = await many(shared_bench, SLEEPS, 6, share=3)
    pids = [each.structured["pid"] for each in ended]
    assert len(set(pids)) >= 2
    assert max(map(pids.count, pids)) <= 3


async def test_callers_have_workers_of_their_own(shared_bench: Any) -> None:
    ended = await asyncio.gather(
        *(shared_bench.run(SLEEPS, {"n": n}, share=8, caller=Caller(subject=f"caller-{n % 2}")) for n in range(6))
    )
    assert [each.structured["subject"] for each in ended] == [f"caller-{n % 2}" for n in range(6)]
    by_caller = [{each.structured["pid"] for each in ended[which::2]} for which in (0, 1)]
    assert not by_caller[0] & by_caller[1]


async def test_a_worker_is_kept_for_the_next_calls(shared_bench: Any) -> None:
    first = (await shared_bench.run(SLEEPS, {"n": 1, "seconds": 0}, share=8)).structured["pid"]
    assert (await shared_bench.run(SLEEPS, {"n": 2, "seconds": 0}, share=8)).structured["pid"] == first


async def test_powers_are_asked_at_once_and_answers_find_their_call(shared_bench: Any) -> None:
    code = """
        import asyncio
        async def tool(n: int):
            first = await registry.service(f"first-{n}")
            both = await asyncio.gather(registry.service(f"a-{n}"), registry.service(f"b-{n}"))
            ctx.info(f"log {n}")
            try:
                await registry.service("no")
            except Exception as error:
                return {"n": n, "names": [first["name"], *(each["name"] for each in both)], "error": str(error)}
    """
    host = Slow()
    ended = await many(shared_bench, code, 4, powers=host)
    for n, each in enumerate(ended):
        assert each.structured == {
            "n": n,
            "names": [f"first-{n}", f"a-{n}", f"b-{n}"],
            "error": "There is no such service.",
        }
    assert host.most == 4


async def test_an_answer_that_is_not_awaited_says_so(shared_bench: Any) -> None:
    code = "async def tool(): return registry.service('web')['name']"
    execution = await shared_bench.run(code, share=4, powers=Slow())
    assert execution.reason == "tool_error"
    assert "await registry.service(…)" in execution.message


async def test_threads_and_tasks_of_a_call_are_its_own(shared_bench: Any) -> None:
    code = """
        import asyncio
        from concurrent.futures import ThreadPoolExecutor
        async def tool(n: int):
            def work():
                print("thread", n)
                return registry.service(f"thread-{n}")["name"]
            async def task():
                print("task", n)
            left = asyncio.create_task(asyncio.sleep(60))
            await asyncio.gather(asyncio.create_task(task()))
            return {"name": await asyncio.to_thread(work)}
    """
    recorder = Recorder()
    ended = await many(shared_bench, code, 3, powers=Slow(), events=recorder)
    assert [each.structured["name"] for each in ended] == [f"thread-{n}" for n in range(3)]
    assert [each.logs for each in ended] == [f"task {n}\nthread {n}\n" for n in range(3)]


async def test_one_that_takes_too_long_is_stopped_alone(shared_bench: Any) -> None:
    slow = asyncio.create_task(shared_bench.run(SLEEPS, {"n": 1, "seconds": 60}, share=8, timeout=0.6))
    await asyncio.sleep(0.4)
    quick = await shared_bench.run(SLEEPS, {"n": 2, "seconds": 0.4}, share=8, timeout=0.6)
    ended = await slow
    assert (ended.outcome, ended.reason) == ("timeout", "timeout")
    assert ended.logs == "begun 1\n"
    assert quick.structured["n"] == 2
    again = await shared_bench.run(SLEEPS, {"n": 3, "seconds": 0}, share=8, timeout=0.6)
    assert again.structured["pid"] == quick.structured["pid"]


async def test_one_that_is_cancelled_is_stopped_alone(shared_bench: Any) -> None:
    other = asyncio.create_task(shared_bench.run(SLEEPS, {"n": 1, "seconds": 0.5}, share=9))
    cancelled = asyncio.create_task(shared_bench.run(SLEEPS, {"n": 2, "seconds": 60}, share=9))
    await asyncio.sleep(0.3)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert (await other).structured["n"] == 1
    assert shared_bench.runtime.status().busy == 0


async def test_one_that_does_not_stop_costs_the_worker(shared_bench: Any) -> None:
    code = """
        import asyncio, time
        async def tool(n: int):
            if n == 0:
                await asyncio.sleep(0.2)
                time.sleep(60)
            await asyncio.sleep(30)
    """
    stuck = asyncio.create_task(shared_bench.run(code, {"n": 0}, share=4, timeout=0.5))
    await asyncio.sleep(0.3)
    other = await shared_bench.run(code, {"n": 1}, share=4, timeout=0.5)
    assert (await stuck).reason == "timeout"
    assert other.reason in {"crashed", "timeout"}
    assert shared_bench.runtime.status().busy == 0


async def test_a_crash_ends_each_with_an_outcome_of_its_own(shared_bench: Any) -> None:
    code = """
        import asyncio, os
        async def tool(n: int):
            await asyncio.sleep(0.3)
            os._exit(7) if n == 0 else await asyncio.sleep(20)
    """
    ended = await many(shared_bench, code, 4)
    assert [(each.outcome, each.reason) for each in ended] == [("error", "exited")] * 4


async def test_those_who_wait_for_a_worker_that_does_not_come_get_another(shared_bench: Any) -> None:
    first = asyncio.create_task(shared_bench.run(SLEEPS, {"n": 0}, share=5, caller=Caller(subject="vain")))
    second = asyncio.create_task(shared_bench.run(SLEEPS, {"n": 1}, share=5, caller=Caller(subject="vain")))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).structured["n"] == 1
    assert shared_bench.runtime.status().busy == 0


async def test_who_shares_for_long_does_not_keep_others_waiting(
    shared_bench: Any, until: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("portoser.runtime.sharing._LONGEST", 0.2)
    stop = False

    async def overlap(who: str) -> None:
        while not stop:
            pair = [shared_bench.run(SLEEPS, {"n": n}, share=4, caller=Caller(subject=who)) for n in range(2)]
            await asyncio.wait([asyncio.create_task(each) for each in pair], timeout=0.1)

    crowd = [asyncio.create_task(overlap(f"crowd-{n}")) for n in range(4)]
    await until(lambda: shared_bench.runtime.status().busy == 4, "all slots are held")
    async with asyncio.timeout(10):
        assert (await shared_bench.run("def tool(): return {'n': 1}")).structured == {"n": 1}
    stop = True
    await asyncio.gather(*crowd)
    await until(lambda: shared_bench.runtime.status().busy == 0, "all have ended")


async def test_a_function_that_is_not_async_is_told_that_it_does_not_share(shared_bench: Any) -> None:
    described = await shared_bench.describe("def tool() -> int:\n    '''One.'''\n    return 1", share=4)
    assert described.warnings == ("'limits.share' is 4, but tool is not async: its calls run one after the other.",)
    assert (
        await shared_bench.describe("async def tool() -> int:\n    '''One.'''\n    return 1", share=4)
    ).warnings == ()


async def test_a_tool_that_asks_for_more_than_the_operator_gives_is_refused(shared_bench: Any) -> None:
    with pytest.raises(CodeError, match=r"'limits.memory' is 4 GiB; this server allows 2 GiB\..* PORTOSER_LIMITS"):
        await shared_bench.describe("def tool(): ...", memory=4 * 1024**3)
