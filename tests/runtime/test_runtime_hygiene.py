"""What a call leaves behind in its worker, the next one does not meet."""

# ruff: noqa: E501 - tables of code are read by the line

from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEFT_BEHIND = {
    "a builtin": ("import builtins; builtins.sorted = lambda x: 7", "sorted([])"),
    "a new builtin": ("import builtins; builtins.mine = 1", "hasattr(__import__('builtins'), 'mine')"),
    "json": ("import json; json.dumps = lambda *a, **k: 'evil'", "__import__('json').dumps(1)"),
    "Portoser's own": ("from portoser import tool as t; t.Context.info = None", "ctx.info is None"),
    "an object's attribute": ("ctx.mine = 1", "hasattr(ctx, 'mine')"),
    "environ": ("import os; os.environ['MINE'] = '1'", "__import__('os').environ.get('MINE')"),
    "environ itself": ("import os; os.environ = {}", "type(__import__('os').environ).__name__"),
    "the folder": ("import os; os.mkdir('x'); os.chdir('x')", "__import__('os').path.basename(os.getcwd()) == 'x'"),
    "umask": ("import os; os.umask(0)", "__import__('os').umask(0o077)"),
    "a thread": (
        "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        "__import__('threading').active_count()",
    ),
    "a signal's handler": (
        "import signal; signal.signal(signal.SIGUSR1, lambda *a: None)",
        "str(__import__('signal').getsignal(10))",
    ),
    "a blocked signal": (
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])",
        "len(__import__('signal').pthread_sigmask(0, []))",
    ),
    "an alarm": ("import signal; signal.setitimer(signal.ITIMER_REAL, 60)", "__import__('signal').getitimer(0)[0] > 0"),
    "sys.path": ("import sys; sys.path.insert(0, '/mine')", "__import__('sys').path[0]"),
    "a finder": ("import sys; sys.meta_path.insert(0, None)", "__import__('sys').meta_path[0] is None"),
    "an open file": ("import os; os.open('.', os.O_RDONLY)", "__import__('os').dup(0)"),
    "a trace function": ("import sys; sys.setprofile(lambda *a: None)", "__import__('sys').getprofile() is None"),
    "stdout": ("import sys, io; sys.stdout = io.StringIO()", "type(__import__('sys').stdout).__name__"),
    "the recursion limit": ("import sys; sys.setrecursionlimit(5000)", "__import__('sys').getrecursionlimit()"),
    "garbage collection": ("import gc; gc.disable()", "__import__('gc').isenabled()"),
    "a limit": (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (20, 64))",
        "__import__('resource').getrlimit(7)[0]",
    ),
}


@pytest.mark.parametrize("name", LEFT_BEHIND)
async def test_what_a_call_leaves_behind_retires_its_worker(shared_bench: Any, name: str) -> None:
    leave, look = LEFT_BEHIND[name]
    code = f"""
import os
def leave_behind():
    {leave}
def tool(leave: bool):
    if leave:
        leave_behind()
        return {{}}
    pid = os.getpid()
    return {{"pid": pid, "seen": {look}}}
"""
    before = await shared_bench.run(code, {"leave": False})
    assert (await shared_bench.run(code, {"leave": True})).outcome == "ok"
    after = await shared_bench.run(code, {"leave": False})
    assert after.structured["seen"] == before.structured["seen"]
    assert after.structured["pid"] != before.structured["pid"]


CLEAN = {
    "a module's globals": "global seen; seen = globals().get('seen', 0) + 1",
    "an import": "import fractions, colorsys",
    "a file": "open('left', 'w').write('x')",
    "a folder with files": "import os; os.makedirs('a/b'); open('a/b/c', 'w').close(); os.symlink('/etc', 'a/link')",
    "a context variable": "import decimal; decimal.getcontext().prec = 3",
    "logging": "import logging; logging.basicConfig(); logging.getLogger('mine').setLevel(10)",
    "a thread that ended": "import threading; t = threading.Thread(target=print); t.start(); t.join()",
    "threads of an executor": "from concurrent.futures import ThreadPoolExecutor\n    with ThreadPoolExecutor() as e: list(e.map(str, range(9)))",
    "an exception": "raise ValueError('x')",
}


@pytest.mark.parametrize("name", CLEAN)
async def test_what_may_stay_keeps_the_worker(shared_bench: Any, name: str) -> None:
    code = f"""
import decimal, os
def work():
    {CLEAN[name]}
def tool(look: bool = False):
    if look:
        return {{"pid": os.getpid(), "files": os.listdir(), "precision": decimal.getcontext().prec}}
    work()
"""
    before = (await shared_bench.run(code, {"look": True})).structured
    await shared_bench.run(code)
    assert (await shared_bench.run(code, {"look": True})).structured == before
    assert before["files"] == []


async def test_threads_of_an_event_loop_end_with_the_call(shared_bench: Any) -> None:
    code = """
        import asyncio, os, threading
        async def tool():
            await asyncio.gather(*(asyncio.to_thread(sorted, [2, 1]) for _ in range(5)))
            return {"pid": os.getpid()}
    """
    assert (await shared_bench.run(code)).structured == (await shared_bench.run(code)).structured


async def test_a_worker_that_works_on_between_calls_gets_no_other(shared_bench: Any, until: Any, host_pid: Any) -> None:
    code = """
        import _thread, os
        def burn():
            while True: pass
        def tool(leave: bool = False):
            if leave:
                _thread.start_new_thread(burn, ())
                _thread._count = lambda: 0
            return {"pid": os.getpid()}
    """
    pid = (await shared_bench.run(code)).structured["pid"]
    assert (await shared_bench.run(code, {"leave": True})).structured["pid"] == pid

    process = psutil.Process(host_pid(pid))
    used = process.cpu_times().user
    await until(lambda: process.cpu_times().user - used > 0.2, "it has worked on")
    assert (await shared_bench.run(code)).structured["pid"] != pid
