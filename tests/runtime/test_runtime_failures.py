"""Calls that go wrong: each ends with one outcome and one reason, and costs nothing but itself."""

import asyncio
import os
import signal
import textwrap
from typing import Any

import psutil
import pytest
from runtime_bench import Bench

from portoser.catalog.revision import KIB, MIB
from portoser.runtime.runtime import Runtime

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def survives(bench: Any) -> None:
    assert (await bench.run("def tool(): return {'alive': True}")).structured == {"alive": True}


async def test_the_message_of_a_tool_error_is_verbatim(shared_bench: Any) -> None:
    code = "from portoser.tool import ToolError\ndef tool(): raise ToolError('No order A1.\\nTry A2.')"
    execution = await shared_bench.run(code)
    assert (execution.outcome, execution.reason, execution.message) == ("error", "tool_error", "No order A1.\nTry A2.")
    assert execution.content == []
    assert execution.structured is None


async def test_a_traceback_shows_the_tools_own_files_alone_with_their_source(shared_bench: Any) -> None:
    files = {
        "deep.py": "import json\ndef parse(text):\n    return json.loads(text)  # here\n",
        "main.py": "from deep import parse\ndef tool(text: str):\n    return parse(text)\n",
    }
    execution = await shared_bench.run(files, {"text": "{"})
    assert (execution.outcome, execution.reason) == ("error", "exception")
    assert execution.message.startswith("JSONDecodeError: Expecting property name")
    assert execution.message.endswith("(deep.py, line 3, in parse)")
    assert 'File "main.py", line 3, in tool' in execution.traceback
    assert "return json.loads(text)  # here" in execution.traceback
    for strange in ("json/decoder.py", "portoser", "site-packages", "entry.py"):
        assert strange not in execution.traceback


async def test_the_cause_of_an_exception_is_shown(shared_bench: Any) -> None:
    code = """
        def tool():
            try:
                {}["key"]
            except KeyError as error:
                raise RuntimeError("outer") from error
    """
    execution = await shared_bench.run(code)
    assert "KeyError: 'key'" in execution.traceback
    assert "RuntimeError: outer" in execution.traceback


async def test_a_pydantic_error_of_the_tools_own_code_is_an_exception(shared_bench: Any) -> None:
    code = "from pydantic import TypeAdapter\ndef tool(a: int): return TypeAdapter(int).validate_python('x')"
    assert (await shared_bench.run(code, {"a": 1})).reason == "exception"


@pytest.mark.parametrize(
    "raised",
    [
        "class E(Exception):\n        def __str__(self): raise ValueError('no')\n    raise E()",
        "class E(Exception):\n        def __str__(self): return 5\n    raise E()",
        "raise Exception('x' * 10_000_000)",
        "raise Exception('\\udc80 lone')",
        "class E(BaseException): pass\n    raise E('base')",
        "raise KeyboardInterrupt",
        "raise GeneratorExit",
        "import asyncio; raise asyncio.CancelledError",
        "raise StopIteration",
        "def f(): f()\n    f()",
        "raise ExceptionGroup('many', [ValueError(1), TypeError(2)])",
        "try:\n        raise ValueError\n    except ValueError as e:\n        e.__cause__ = e\n        raise",
    ],
)
async def test_hostile_exceptions_are_ordinary_failures(shared_bench: Any, raised: str) -> None:
    execution = await shared_bench.run(f"def tool():\n    {raised}")
    assert (execution.outcome, execution.reason) == ("error", "exception")
    assert 0 < len(execution.message) < 50_000
    assert len(execution.traceback) < 100_000
    await survives(shared_bench)


async def test_a_call_that_takes_too_long_is_killed_at_its_limit(shared_bench: Any) -> None:
    for body in ("while True: pass", "import time; time.sleep(60)", "import asyncio; asyncio.run(asyncio.sleep(60))"):
        execution = await shared_bench.run(f"def tool():\n    print('begun')\n    {body}", timeout=0.3)
        assert (execution.outcome, execution.reason) == ("timeout", "timeout")
        assert "0.3 s" in execution.message
        assert execution.logs == "begun\n"
        assert 0.29 < execution.duration < 5


async def test_a_cancelled_call_is_killed(shared_bench: Any, until: Any, host_pid: Any) -> None:
    begun: list[int] = []

    class Events:
        def progress(self, done: float, total: float | None, message: str | None) -> None:
            begun.append(host_pid(int(done)))

    code = """
        import os, time
        def tool():
            ctx.report_progress(os.getpid())
            time.sleep(60)
    """
    task = asyncio.create_task(shared_bench.run(code, events=Events()))
    await until(lambda: begun, "the call has begun")
    pid = begun[0]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not os.path.exists(f"/proc/{pid}"), "the worker is gone")  # noqa: PTH110
    await survives(shared_bench)


@pytest.mark.parametrize(
    ("body", "reason", "message"),
    [
        ("import sys; sys.exit(3)", "exited", "exit code 3"),
        ("raise SystemExit", "exited", "exit code 0"),
        ("import os; os._exit(7)", "exited", "exit code 7"),
        ("import ctypes; ctypes.string_at(0)", "crashed", "SIGSEGV"),
        ("import os; os.abort()", "crashed", "SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "crashed", "SIGKILL"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "crashed", "SIGTERM"),
        ("import os; os.close(3)", "protocol_error", "could not go on"),
        ("import os; os.closerange(3, 100); import time; time.sleep(60)", "protocol_error", "closed the channel"),
    ],
)
async def test_a_process_that_ends_says_how(shared_bench: Any, body: str, reason: str, message: str) -> None:
    execution = await shared_bench.run(f"def tool():\n    print('before')\n    {body}")
    assert (execution.outcome, execution.reason) == ("error", reason)
    assert message in execution.message
    assert execution.logs.startswith("before\n")
    await survives(shared_bench)


async def test_how_a_process_ended_is_told_though_its_zygote_is_behind(shared_bench: Any) -> None:
    await survives(shared_bench)
    [zygote] = [child for child in psutil.Process().children() if child.name() == "portoser-call"]
    code = "def tool():\n    import time, ctypes; time.sleep(0.2); ctypes.string_at(0)"
    call = asyncio.create_task(shared_bench.run(code))
    await asyncio.sleep(0.1)
    zygote.suspend()
    try:
        await asyncio.sleep(1)
        assert not call.done()
    finally:
        zygote.resume()
    assert (await call).reason == "crashed"
    await survives(shared_bench)


async def test_memory_has_a_limit(shared_bench: Any) -> None:
    for body in (
        "return len(bytearray(200 * 1024 * 1024))",
        "a = []\n    while True: a.append('x' * 100_000 + str(len(a)))",
        "import mmap; m = mmap.mmap(-1, 2 << 30); return 1",
    ):
        execution = await shared_bench.run(f"def tool():\n    {body}", memory=64 * MIB)
        assert execution.outcome == "error", body
        assert execution.reason in ("memory_limit", "disk_limit", "exception"), execution
    execution = await shared_bench.run("def tool(): return len(bytearray(200 * 1024 * 1024))", memory=64 * MIB)
    assert execution.reason == "memory_limit"
    assert "memory" in execution.message
    execution = await shared_bench.run("def tool(): return len(bytearray(32 * 1024 * 1024))", memory=64 * MIB)
    assert execution.outcome == "ok", execution
    await survives(shared_bench)


async def test_a_file_that_is_too_large_is_a_disk_limit(tmp_path: Any) -> None:
    runtime = Runtime(workers=1, scratch=tmp_path / "s")
    await runtime.start()
    try:
        code = "def tool(n: int):\n    with open('f', 'wb') as f:\n        f.write(b'x' * n)\n    return {'n': n}"
        bench = Bench(runtime)
        assert (await bench.run(code, {"n": 2 * MIB}, scratch=MIB)).reason == "disk_limit"
        assert (await bench.run(code, {"n": MIB // 2}, scratch=MIB)).structured == {"n": MIB // 2}
    finally:
        await runtime.aclose()
    assert list((tmp_path / "s").iterdir()) == []


async def test_processor_time_has_a_limit_for_each_call(tmp_path: Any) -> None:
    runtime = Runtime(workers=1, scratch=tmp_path / "s")
    await runtime.start()
    try:
        bench = Bench(runtime)
        code = """
            import time
            def tool(seconds: float):
                end = time.process_time() + seconds
                while time.process_time() < end: pass
                return {"n": 1}
        """
        for _ in range(4):
            assert (await bench.run(code, {"seconds": 0.7}, cpu=1)).outcome == "ok"
        execution = await bench.run(code, {"seconds": 60}, cpu=1)
        assert (execution.outcome, execution.reason) == ("error", "cpu_limit")
        lifted = f"import resource, signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\n{textwrap.dedent(code)}"
        execution = await bench.run(lifted, {"seconds": 60}, cpu=1)
        assert (execution.outcome, execution.reason) == ("error", "cpu_limit")
    finally:
        await runtime.aclose()


async def test_prints_beyond_the_logs_limit_are_counted_not_kept(shared_bench: Any) -> None:
    code = "def tool():\n    print('a' * 999)\n    for i in range(1000): print('b' * 999)\n    return {'n': 1}"
    execution = await shared_bench.run(code, logs=4 * KIB)
    assert execution.outcome == "ok"
    assert execution.logs.startswith("a" * 999)
    assert "truncated: 996904 bytes more" in execution.logs
    assert len(execution.logs) < 5 * KIB


@pytest.mark.parametrize(
    "body",
    [
        "for _ in range(100 * 1024): print('x' * 1023)",
        "import os\n    while True: os.write(2, b'x' * 65536)",
        "while True: ctx.info('x' * 1000)",
        "while True: ctx.report_progress(1)",
    ],
)
async def test_output_without_end_ends_the_call(shared_bench: Any, body: str) -> None:
    execution = await shared_bench.run(f"def tool():\n    {body}")
    assert (execution.outcome, execution.reason) == ("error", "output_limit")
    assert len(execution.logs) < 66 * KIB
    await survives(shared_bench)


async def test_a_result_that_is_too_large_says_so(shared_bench: Any) -> None:
    code = "def tool(n: int): return {'x': 'y' * n}"
    execution = await shared_bench.run(code, {"n": 200_000}, result=100 * KIB)
    assert (execution.outcome, execution.reason) == ("error", "result_too_large")
    assert "195.3 KiB; the limit is 100 KiB" in execution.message
    assert (await shared_bench.run(code, {"n": 90_000}, result=100 * KIB)).outcome == "ok"


@pytest.mark.parametrize(
    "value",
    ["2**70", "'\\udc80'", "a", "deep", "{'x': Bad()}", "Bad()"],
)
async def test_a_result_that_cannot_be_sent_says_so(shared_bench: Any, value: str) -> None:
    code = f"""
        class Bad:
            def __str__(self): raise ValueError("no text")
        def tool():
            a = {{}}
            a["a"] = a
            deep = []
            for _ in range(10_000): deep = [deep]
            return {value if value != "2**70" else "{'n': 2**70}"}
    """
    execution = await shared_bench.run(code)
    assert (execution.outcome, execution.reason) == ("error", "not_serializable"), execution
    await survives(shared_bench)


async def test_a_result_that_is_no_object_where_the_schema_says_object(shared_bench: Any) -> None:
    execution = await shared_bench.run("def tool(): return [1]", output_schema={"type": "object"})
    assert execution.reason == "not_serializable"
    assert "describes an object" in execution.message


async def test_an_image_that_is_not_there_is_the_tools_error(shared_bench: Any) -> None:
    code = "from portoser.tool import Image\ndef tool(): return Image('nowhere.png')"
    execution = await shared_bench.run(code)
    assert execution.reason == "exception"
    assert "nowhere.png" in execution.message


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def tool(:", "invalid syntax"),
        ("import nothing_of_that_name", "nothing_of_that_name"),
        ("1 / 0\ndef tool(): ...", "division by zero (main.py, line 1"),
        ("def other(): ...", "no function 'tool'"),
        ("tool = 5", "is not a function"),
    ],
)
async def test_code_that_cannot_be_loaded_says_why(shared_bench: Any, code: str, message: str) -> None:
    execution = await shared_bench.run(code)
    assert (execution.outcome, execution.reason) == ("error", "load_error")
    assert message in execution.message


async def test_code_that_ends_its_process_while_it_is_loaded_says_so(shared_bench: Any) -> None:
    assert (await shared_bench.run("raise SystemExit(2)")).reason == "exited"
    assert (await shared_bench.run("import os; os._exit(2)")).reason == "exited"
    assert (await shared_bench.run("while True: pass", timeout=0.3)).reason == "timeout"


async def test_a_power_that_is_waited_for_does_not_outlive_the_call(shared_bench: Any) -> None:
    ended = []

    class Slow:
        async def call(self, power: str, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(True)

    execution = await shared_bench.run("def tool(): registry.services()", powers=Slow(), timeout=0.3)
    assert execution.reason == "timeout"
    assert ended == [True]


class Person:
    """Answers ``ctx`` after a while, as a person who was asked does."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def call(self, power: str, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        await asyncio.sleep(self.seconds)
        return "yes"


ASKING = """
    import time
    from portoser import tool as portoser_tool
    def tool(after: float = 0):
        answer = portoser_tool.wire.running.ask("ctx", "elicit", ("Really?",), {})
        time.sleep(after)
        return {"answer": answer}
"""


async def test_the_time_in_which_a_person_is_waited_for_is_not_the_tools(shared_bench: Any) -> None:
    execution = await shared_bench.run(ASKING, powers=Person(0.6), timeout=0.4)
    assert execution.structured == {"answer": "yes"}, execution
    execution = await shared_bench.run(ASKING, {"after": 20}, powers=Person(0.3), timeout=0.4)
    assert execution.reason == "timeout"
    assert 0.6 < execution.duration < 5


async def test_calls_that_wait_for_a_person_hold_nobody_up(shared_bench: Any, until: Any) -> None:
    waiting = [asyncio.create_task(shared_bench.run(ASKING, powers=Person(60), timeout=90)) for _ in range(6)]
    await until(lambda: shared_bench.runtime.status().workers >= 6, "each of the six has a worker, where four may run")
    await survives(shared_bench)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert shared_bench.runtime.status().busy == 0


async def test_a_stopped_worker_is_killed_at_its_limit(shared_bench: Any) -> None:
    code = "import os, signal\ndef tool(): os.kill(os.getpid(), signal.SIGSTOP)"
    assert (await shared_bench.run(code, timeout=0.3)).reason == "timeout"
    assert signal.SIGSTOP
    await survives(shared_bench)


async def test_an_answer_of_a_power_that_cannot_be_sent_is_the_tools_error(shared_bench: Any) -> None:
    class Odd:
        async def call(self, power: str, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
            return object()

    execution = await shared_bench.run("def tool(): return registry.services()", powers=Odd())
    assert execution.reason == "tool_error"
    assert "cannot be sent" in execution.message


async def test_a_call_may_ask_its_powers_so_often(shared_bench: Any) -> None:
    class Ready:
        async def call(self, power: str, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
            return []

    code = "def tool(n: int):\n    for _ in range(n): registry.services()\n    return {'n': n}"
    assert (await shared_bench.run(code, {"n": 5}, powers=Ready(), asks=5)).structured == {"n": 5}
    execution = await shared_bench.run(code, {"n": 6}, powers=Ready(), asks=5)
    assert (execution.outcome, execution.reason) == ("error", "power_limit")
    assert "5 times" in execution.message
