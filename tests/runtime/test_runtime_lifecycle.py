"""Processes: bounded, replaced when they die, and gone when they should be."""

import asyncio
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from runtime_bench import Bench, host_pid

from portoser.catalog.caller import Caller
from portoser.catalog.errors import PortoserError, Unavailable
from portoser.catalog.revision import Isolation
from portoser.runtime.runtime import Runtime, warm_workers

PID = "import os\ndef tool(): return {'pid': os.getpid()}"
SLEEP = "import time\ndef tool(n: int, seconds: float = 0.2):\n    time.sleep(seconds)\n    return {'n': n}"


@pytest_asyncio.fixture
async def small(tmp_path: Path) -> AsyncIterator[Bench]:
    """Two calls at once, three in the queue, three processes, no spares."""
    runtime = Runtime(workers=2, scratch=tmp_path / "scratch", queue=3, warm=3, spares=0, calls_per_worker=5)
    await runtime.start()
    try:
        yield Bench(runtime)
    finally:
        await runtime.aclose()


@pytest_asyncio.fixture
async def open_bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """One whose tools are not isolated."""
    runtime = Runtime(workers=4, scratch=tmp_path / "scratch", sandbox="off")
    await runtime.start()
    try:
        yield Bench(runtime)
    finally:
        await runtime.aclose()


async def test_status_tells_the_truth(bench: Bench, until: Any) -> None:
    task = asyncio.create_task(bench.run(SLEEP, {"n": 1, "seconds": 0.5}))
    await until(lambda: bench.runtime.status().busy == 1, "a call runs")
    status = bench.runtime.status()
    assert status.zygotes == 1
    assert status.sandbox == "strict"
    assert status.workers >= 1
    assert status.layers["seccomp"].startswith("on")
    assert status.layers["rlimits"].startswith("on")
    await task
    assert bench.runtime.status().busy == 0


async def test_calls_run_at_once_up_to_the_slots_and_then_wait_in_line(small: Bench) -> None:
    done: list[int] = []

    async def call(n: int) -> None:
        execution = await small.run(SLEEP, {"n": n})
        assert execution.structured == {"n": n}
        done.append(n)

    async with asyncio.TaskGroup() as group:
        for n in range(5):
            group.create_task(call(n))
            await asyncio.sleep(0.01)
    assert [sorted(done[:2]), sorted(done[2:4]), done[4:]] == [[0, 1], [2, 3], [4]]


async def test_beyond_the_queue_a_call_is_turned_away_and_told_when_to_come_back(small: Bench, until: Any) -> None:
    tasks = [asyncio.create_task(small.run(SLEEP, {"n": n})) for n in range(5)]
    await until(lambda: small.runtime.status().queued == 3, "the queue is full")
    with pytest.raises(Unavailable, match=r"busy, try again in \d+ s") as raised:
        await small.run(SLEEP, {"n": 9})
    assert raised.value.retry_after >= 1
    assert [execution.outcome for execution in await asyncio.gather(*tasks)] == ["ok"] * 5
    assert small.runtime.status().queued == 0


async def test_a_call_that_is_cancelled_while_it_waits_gives_its_place_up(small: Bench, until: Any) -> None:
    tasks = [asyncio.create_task(small.run(SLEEP, {"n": n})) for n in range(5)]
    await until(lambda: small.runtime.status().queued == 3, "the queue is full")
    tasks[3].cancel()
    await until(lambda: small.runtime.status().queued == 2, "the place is free")
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[3], asyncio.CancelledError)
    assert [getattr(result, "outcome", None) for result in results] == ["ok", "ok", "ok", None, "ok"]
    assert small.runtime.status().busy == 0


async def test_idle_workers_make_room_for_another(small: Bench, until: Any) -> None:
    pids = {}
    for name in "abcd":
        done = await small.run(PID, caller=Caller(subject=name))
        assert done.outcome == "ok", done
        pids[name] = host_pid(done.structured["pid"])
    await until(lambda: not all(map(psutil.pid_exists, pids.values())), "one of them has made room")
    assert psutil.pid_exists(pids["d"])
    assert small.runtime.status().workers <= 3


async def test_calls_that_go_around_more_programs_than_stay_warm_find_many_of_them_warm(small: Bench) -> None:
    """Where the one used longest ago made room always, such calls would find none."""
    seen: set[int] = set()
    warm = 0
    for number in range(80):
        pid = (await small.run(PID, caller=Caller(subject="abcd"[number % 4]))).structured["pid"]
        warm += pid in seen
        seen.add(pid)
    assert warm > 4


async def test_a_worker_is_retired_after_its_number_of_calls(small: Bench) -> None:
    pids = [(await small.run(PID)).structured["pid"] for _ in range(10)]
    assert len(set(pids[:5])) == 1
    assert len(set(pids[5:])) == 1
    assert pids[0] != pids[5]


async def test_a_worker_that_was_killed_between_calls_is_replaced(small: Bench, until: Any) -> None:
    pid = (await small.run(PID)).structured["pid"]
    os.kill(host_pid(pid), signal.SIGKILL)
    await until(lambda: small.runtime.status().workers == 0, "its end was noticed")
    execution = await small.run(PID)
    assert execution.outcome == "ok"
    assert execution.structured["pid"] != pid


async def test_a_zygote_that_died_is_replaced_and_its_workers_end(bench: Bench, descendants: Any, until: Any) -> None:
    running = asyncio.create_task(bench.run(SLEEP, {"n": 1, "seconds": 30}))
    await until(lambda: bench.runtime.status().busy == 1, "a call runs")
    await bench.run(PID)
    zygote = next(child for child in psutil.Process().children() if "zygote" in " ".join(child.cmdline()))
    before = descendants()
    zygote.kill()
    execution = await running
    assert (execution.outcome, execution.reason) == ("error", "crashed")
    assert (await bench.run(PID)).outcome == "ok"
    await until(lambda: not any(psutil.pid_exists(pid) for pid in before), "the old processes are gone")


async def test_what_a_tool_started_ends_with_its_worker(open_bench: Bench, until: Any) -> None:
    code = """
        import os, subprocess
        def tool():
            child = subprocess.Popen(["/bin/sleep", "300"])
            read, write = os.pipe()
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.write(write, str(os.getpid()).encode())
                    os.execv("/bin/sleep", ["sleep", "300"])
                os._exit(0)
            return {"child": child.pid, "daemon": int(os.read(read, 20))}
    """
    execution = await open_bench.run(code, isolation=Isolation.FRESH)
    for name, pid in execution.structured.items():
        await until(lambda pid=pid: not psutil.pid_exists(pid), f"the {name} is gone")


async def test_three_hundred_calls_leave_no_process_and_no_descriptor(
    bench: Bench, descendants: Any, until: Any
) -> None:
    async def some(times: int) -> None:
        for n in range(times):
            caller = Caller(subject=str(n % 7))
            await bench.run("def tool(): return 1", caller=caller)
            await bench.run("def tool(): raise ValueError", caller=caller)
            if n % 10 == 0:
                await bench.run("import os\ndef tool(): os._exit(1)")
                await bench.run("def tool(): open('left', 'w').write('x')", isolation=Isolation.FRESH)
                await bench.run("import time\ndef tool(): time.sleep(60)", timeout=0.01)
                cancelled = asyncio.create_task(bench.run(SLEEP, {"n": 1, "seconds": 60}))
                await asyncio.sleep(0.01)
                cancelled.cancel()
                await asyncio.wait([cancelled])

    def beside_workers() -> tuple[int, int]:
        """Descriptors and processes, but for the three descriptors and the process of each worker."""
        workers = bench.runtime.status().workers
        return len(os.listdir("/proc/self/fd")) - 3 * workers, len(descendants()) - workers  # noqa: PTH208

    await some(40)
    others = 2 if bench.runtime.status().layers["namespaces"].startswith("on") else 1
    await until(
        lambda: beside_workers()[1] == others, "there are the workers, the zygote, its namespace's first process"
    )
    before = beside_workers()
    await some(150)
    await until(lambda: bench.runtime.status().workers <= 16, "those that made room are gone")
    await until(lambda: beside_workers() == before, lambda: f"{beside_workers()} is {before} again")


async def test_after_aclose_nothing_is_left(tmp_path: Path, descendants: Any) -> None:
    before = descendants(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    runtime = Runtime(workers=4, scratch=tmp_path / "scratch")
    await runtime.start()
    bench = Bench(runtime)
    await bench.run("def tool(): open('left', 'w').write('x')")
    await bench.describe("def tool(): ...")
    running = [asyncio.create_task(bench.run(SLEEP, {"n": n, "seconds": 60})) for n in range(3)]
    hanging = asyncio.create_task(bench.describe("import time\ntime.sleep(60)\ndef tool(): ..."))
    await asyncio.sleep(0.3)
    await runtime.aclose()
    for execution in await asyncio.gather(*running):
        assert (execution.outcome, execution.reason) == ("cancelled", "cancelled")
    with pytest.raises(PortoserError):
        await hanging
    assert (descendants(), len(os.listdir("/proc/self/fd"))) == before  # noqa: PTH208
    assert list((tmp_path / "scratch").iterdir()) == []
    with pytest.raises(Unavailable):
        await bench.run(PID)


SERVER = """
import asyncio, json, sys
sys.path[:0] = json.loads(sys.argv[1])
from pathlib import Path
from runtime_bench import Bench, host_pid
from portoser.runtime.runtime import Runtime

async def main():
    runtime = Runtime(workers=4, scratch=Path(sys.argv[2]))
    await runtime.start()
    bench = Bench(runtime)
    await bench.run("def tool(): ...")
    await bench.describe("def tool(): ...")
    busy = asyncio.create_task(bench.run("def tool():\\n    while True: pass"))
    asleep = asyncio.create_task(bench.run("import time\\ndef tool(): time.sleep(300)"))
    await asyncio.sleep(0.5)
    print("up", flush=True)
    await asyncio.gather(busy, asleep)

asyncio.run(main())
"""


async def test_after_sigkill_of_the_server_nothing_is_left(tmp_path: Path, descendants: Any, until: Any) -> None:
    paths = json.dumps([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", textwrap.dedent(SERVER), paths, str(tmp_path / "scratch")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as server:
        assert server.stdout is not None
        while await asyncio.to_thread(server.stdout.readline) != b"up\n":
            assert server.poll() is None
        family = descendants(server.pid)
        assert len(family) >= 6
        server.kill()
    await until(lambda: not any(psutil.pid_exists(pid) for pid in family), "all its processes are gone")

    # What the killed server left in the scratch folder is removed by the next.
    runtime = Runtime(workers=1, scratch=tmp_path / "scratch")
    await runtime.start()
    await runtime.aclose()
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_a_scratch_folder_that_is_gone_is_a_clear_error(open_bench: Bench, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "scratch")
    with pytest.raises(Unavailable, match="folder to work in: No such file"):
        await open_bench.run(PID)


async def test_running_out_of_descriptors_is_a_clear_error_and_passes(bench: Bench) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 1, limits[1]))  # noqa: PTH208
    try:
        with pytest.raises(Unavailable, match="Too many open files"):
            await asyncio.gather(*(bench.run(PID, caller=Caller(subject=str(n))) for n in range(5)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert (await bench.run(PID)).outcome == "ok"


async def test_many_callers_at_once_each_get_their_own_answer(bench: Bench) -> None:
    code = "async def tool(n: int): return {'n': n, 's': ctx.caller.subject}"
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(bench.run(code, {"n": n}, caller=Caller(subject=str(n % 9)))) for n in range(200)]
    assert [task.result().structured for task in tasks] == [{"n": n, "s": str(n % 9)} for n in range(200)]


async def test_calls_that_are_stopped_end_as_cancelled_and_nobody_comes_after(small: Bench, until: Any) -> None:
    calls = [asyncio.create_task(small.run(SLEEP, {"n": n, "seconds": 30})) for n in range(4)]
    await until(lambda: small.runtime.status().queued == 2, "two run and two wait")
    await asyncio.sleep(0.1)
    small.runtime.stop_calls()
    ended = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
    stopped = [(each.outcome, each.message) for each in ended if not isinstance(each, BaseException)]
    assert stopped == [("cancelled", "The server is stopping.")] * 2
    assert [str(each) for each in ended if isinstance(each, Unavailable)] == [
        "The server is stopping, and runs no more calls."
    ] * 2
    with pytest.raises(Unavailable, match="stopping"):
        await small.run(PID)
    with pytest.raises(Unavailable, match="stopping"):
        await small.describe(PID)


async def test_a_description_that_is_stopped_says_nothing_of_the_code(bench: Bench, until: Any) -> None:
    task = asyncio.create_task(bench.describe("import time\ntime.sleep(30)\ndef tool(): ..."))
    await until(lambda: bench.runtime.status().busy == 1, "it is described")
    await asyncio.sleep(0.2)
    bench.runtime.stop_calls()
    with pytest.raises(Unavailable, match="stopping"):
        await asyncio.wait_for(task, 30)


async def test_the_describers_are_warm_before_they_are_needed(bench: Bench) -> None:
    assert bench.runtime.status().zygotes == 1
    await bench.runtime.warm_up()
    assert bench.runtime.status().zygotes == 2
    await bench.runtime.warm_up()
    assert bench.runtime.status().zygotes == 2


async def test_a_warm_up_that_is_cut_short_does_not_hold_up_the_end(tmp_path: Path) -> None:
    runtime = Runtime(workers=1, scratch=tmp_path / "scratch")
    await runtime.start()
    task = asyncio.create_task(runtime.warm_up())
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.wait_for(runtime.aclose(), 10)
    assert runtime.status().zygotes == 0


async def test_workers_that_nobody_uses_end_and_those_in_use_stay(tmp_path: Path, until: Any) -> None:
    runtime = Runtime(workers=2, scratch=tmp_path / "scratch", spares=0, longest_rest=1.0)
    await runtime.start()
    bench = Bench(runtime)
    try:
        first = (await bench.run(PID)).structured
        await bench.run(PID + "\n# another")
        assert runtime.status().workers == 2
        for _ in range(8):
            await asyncio.sleep(0.2)
            assert (await bench.run(PID)).structured == first
        assert runtime.status().workers == 1
        await until(lambda: runtime.status().workers == 0, "the last one ended")
    finally:
        await runtime.aclose()


async def test_describers_that_nobody_needs_end_and_come_back(tmp_path: Path, until: Any) -> None:
    runtime = Runtime(workers=1, scratch=tmp_path / "scratch", spares=0, longest_rest=0.5)
    await runtime.start()
    bench = Bench(runtime)
    try:
        for _ in range(2):
            described = await bench.describe("def tool(a: int) -> int: ...")
            assert described.input_schema["required"] == ["a"]
            assert runtime.status().zygotes == 2
            await until(lambda: runtime.status().zygotes == 1, "the zygote for descriptions ended")
        assert (await bench.run(PID)).outcome == "ok"
    finally:
        await runtime.aclose()


async def test_a_zygote_that_was_begun_and_never_used_ends_with_the_runtime(tmp_path: Path) -> None:
    runtime = Runtime(workers=1, scratch=tmp_path / "scratch")
    runtime.begin(describing=True)
    await runtime.start()
    assert runtime.status().zygotes == 1
    await asyncio.wait_for(runtime.aclose(), 10)
    assert not [child.name() for child in psutil.Process().children() if "portoser-" in child.name()]


def test_warm_workers_are_many_but_fit_in_a_quarter_of_the_memory() -> None:
    gib = 1024**3
    assert warm_workers(4, 16 * gib) == 128
    assert warm_workers(32, 16 * gib) == 256
    assert warm_workers(4, gib) == 21
    assert warm_workers(4, gib // 16) == 4
