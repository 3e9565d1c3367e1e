"""Calls that go well: arguments, results, modules, what the call is handed."""

# ruff: noqa: E501 - tables of code are read by the line

import asyncio
from typing import Any

import pytest

from portoser.catalog.caller import Caller, CallerKind
from portoser.catalog.errors import PowerError
from portoser.catalog.revision import Isolation

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Recorder:
    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def log(self, level: str, message: str, data: dict[str, Any] | None) -> None:
        self.events.append(("log", level, message, data))

    def progress(self, done: float, total: float | None, message: str | None) -> None:
        self.events.append(("progress", done, total, message))


class Answers:
    def __init__(self, answer: object = None, error: str | None = None) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self._answer = answer
        self._error = error

    async def call(self, power: str, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        self.asked.append((power, method, args, kwargs))
        await asyncio.sleep(0)
        if self._error is not None:
            raise PowerError(self._error)
        return self._answer


ALICE = Caller(subject="alice", name="Alice", groups=frozenset(("operator",)))
BOB = Caller(subject="bob")


async def test_a_dict_is_text_and_structured_content(shared_bench: Any) -> None:
    execution = await shared_bench.run("def tool(a: int, b: int = 2): return {'sum': a + b}", {"a": 1})
    assert execution.outcome == "ok"
    assert execution.reason is None
    assert execution.structured == {"sum": 3}
    assert execution.content == [{"type": "text", "text": '{"sum":3}'}]
    assert 0 < execution.duration < 10


async def test_arguments_become_what_the_signature_says(shared_bench: Any) -> None:
    code = """
        from __future__ import annotations
        from dataclasses import dataclass
        from datetime import datetime
        from decimal import Decimal
        from enum import Enum
        from typing import Annotated, Literal
        from pydantic import BaseModel, Field

        class Colour(Enum):
            RED = "red"

        @dataclass
        class Money:
            amount: Decimal
            currency: str = "EUR"

        class Order(BaseModel):
            id: str
            price: Money

        def tool(
            when: datetime, colour: Colour, order: Order, tags: set[str],
            mode: Literal["a", "b"] = "a", size: Annotated[int, Field(ge=1)] = 3, note: str | None = None,
            limit: int = Field(default=7, description="x"),
        ) -> dict:
            assert isinstance(when, datetime) and isinstance(colour, Colour)
            assert isinstance(order.price.amount, Decimal) and isinstance(tags, set)
            return {"year": when.year, "colour": colour.name, "price": str(order.price.amount), "currency":
                    order.price.currency, "tags": sorted(tags), "mode": mode, "size": size, "note": note, "limit": limit}
    """
    arguments = {
        "when": "2026-01-02T03:04:05Z",
        "colour": "red",
        "order": {"id": "A", "price": {"amount": "1.50"}},
        "tags": ["y", "x"],
    }
    execution = await shared_bench.run(code, arguments)
    assert execution.structured == {
        "year": 2026,
        "colour": "RED",
        "price": "1.50",
        "currency": "EUR",
        "tags": ["x", "y"],
        "mode": "a",
        "size": 3,
        "note": None,
        "limit": 7,
    }


async def test_arguments_that_do_not_fit_are_named(shared_bench: Any) -> None:
    code = "def tool(a: int, b: list[int]): return a"
    execution = await shared_bench.run(code, {"a": "x", "b": [1, "y"], "c": 1})
    assert (execution.outcome, execution.reason) == ("error", "invalid_arguments")
    for name in ("a: ", "b.1: ", "c: "):
        assert name in execution.message


async def test_an_integer_beyond_64_bits_is_an_invalid_argument(shared_bench: Any) -> None:
    execution = await shared_bench.run("def tool(a: int): return a", {"a": 2**70})
    assert execution.reason == "invalid_arguments"


async def test_async_functions_and_generators_run_to_their_end(shared_bench: Any) -> None:
    code = """
        import asyncio
        async def coroutine(n: int):
            await asyncio.sleep(0.001)
            return {"n": n}
        def generator(n: int):
            yield from range(n)
        async def agenerator(n: int):
            for i in range(n):
                await asyncio.sleep(0)
                yield i
        def own_loop(n: int):
            return asyncio.run(coroutine(n))
        def awaitable(n: int):
            return coroutine(n)
    """
    for name, text in (
        ("coroutine", '{"n":3}'),
        ("generator", "[0,1,2]"),
        ("agenerator", "[0,1,2]"),
        ("own_loop", '{"n":3}'),
        ("awaitable", '{"n":3}'),
    ):
        execution = await shared_bench.run(code, {"n": 3}, entrypoint=f"main.py:{name}")
        assert execution.content == [{"type": "text", "text": text}], name


async def test_tasks_that_a_call_leaves_do_not_see_the_next_one(shared_bench: Any) -> None:
    code = """
        import asyncio
        ends = []
        async def linger():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                ends.append("cancelled")
                raise
        async def tool():
            before = list(ends)
            asyncio.get_running_loop().create_task(linger())
            await asyncio.sleep(0)
            return {"before": before}
    """
    await shared_bench.run(code)
    assert (await shared_bench.run(code)).structured == {"before": ["cancelled"]}


async def test_files_import_each_other_by_name_and_in_their_order(shared_bench: Any) -> None:
    files = {
        "order.py": "seen = ['order']",
        "shop/tax.py": "import order\norder.seen.append('tax')\nRATE = 0.5\n",
        "shop/money.py": "from . import tax\nimport order\norder.seen.append('money')\ndef with_tax(x): return x * (1 + tax.RATE)",
        "main.py": """
            import order
            from shop.money import with_tax
            from shop import tax
            import shop.tax as again
            order.seen.append('main')
            def tool(x: float):
                import inspect
                return {"x": with_tax(x), "seen": order.seen, "same": again is tax, "source": inspect.getsource(with_tax)}
        """,
    }
    execution = await shared_bench.run(files, {"x": 2})
    assert execution.structured["x"] == 3
    assert execution.structured["seen"] == ["order", "tax", "money", "main"]
    assert execution.structured["same"] is True
    assert execution.structured["source"].startswith("def with_tax")


async def test_a_file_named_like_a_standard_module_does_not_stand_in_its_way(shared_bench: Any) -> None:
    code = {
        "calendar.py": """
            from datetime import datetime
            import calendar as standard
            def tool(): return [datetime.strptime("2026-02-03", "%Y-%m-%d").year, standard.isleap(2024)]
        """
    }
    execution = await shared_bench.run(code, entrypoint="calendar.py:tool")
    assert execution.content == [{"type": "text", "text": "[2026,true]"}]


async def test_nothing_is_written_to_disk_and_the_working_folder_is_empty(shared_bench: Any) -> None:
    code = """
        import os, tempfile
        def tool():
            return {"files": os.listdir("."), "cwd": os.getcwd() == os.environ["HOME"] == tempfile.gettempdir()}
    """
    assert (await shared_bench.run(code)).structured == {"files": [], "cwd": True}


async def test_the_environment_holds_nothing_of_the_servers(shared_bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "1")
    execution = await shared_bench.run("import os\ndef tool(): return dict(os.environ)")
    assert set(execution.structured) <= {
        "HOME", "TMPDIR", "PATH", "LC_ALL", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
    }  # fmt: skip


async def test_ctx_is_a_global_and_importable_and_the_same(shared_bench: Any) -> None:
    code = """
        import portoser.tool
        from portoser.tool import ctx as imported, registry as r
        def tool():
            assert imported is ctx and r is registry and portoser.tool.vault is vault
            return {"subject": ctx.caller.subject, "groups": sorted(ctx.caller.groups), "request": ctx.request_id}
    """
    execution = await shared_bench.run(code, caller=ALICE)
    assert execution.structured["subject"] == "alice"
    assert execution.structured["groups"] == ["operator"]
    assert execution.structured["request"].startswith("request-")


async def test_a_parameter_called_ctx_is_a_parameter(shared_bench: Any) -> None:
    assert (await shared_bench.run("def tool(ctx: str): return {'ctx': ctx}", {"ctx": "x"})).structured == {"ctx": "x"}


@pytest.mark.parametrize("form", ["sync", "async", "awaited"])
async def test_logs_and_progress_arrive_in_order(shared_bench: Any, form: str) -> None:
    wait = "await " if form == "awaited" else ""
    code = f"""
        {"def" if form == "sync" else "async def"} tool():
            {wait}ctx.info("one", count=1)
            {wait}ctx.report_progress(1, 2, "half")
            {wait}ctx.warning("two")
            {wait}ctx.report_progress(2)
            {wait}ctx.info("odd", thing=object())
    """
    recorder = Recorder()
    execution = await shared_bench.run(code, events=recorder)
    assert execution.outcome == "ok", execution
    assert recorder.events[:4] == [
        ("log", "info", "one", {"count": 1}),
        ("progress", 1.0, 2.0, "half"),
        ("log", "warning", "two", None),
        ("progress", 2.0, None, None),
    ]
    assert recorder.events[4][2] == "odd"


@pytest.mark.parametrize("form", ["sync", "async", "awaited"])
@pytest.mark.parametrize("answer", [[{"name": "web"}], {"name": "web"}, "text", 7, 1.5])
async def test_powers_answer_in_sync_and_async_code_awaited_or_not(
    shared_bench: Any, form: str, answer: object
) -> None:
    code = f"""
        {"def" if form == "sync" else "async def"} tool():
            found = {"await " if form == "awaited" else ""}registry.services()
            again = vault.get("x", deep=True)
            return {{"found": found, "plain": type(again).__name__}}
    """
    powers = Answers(answer)
    execution = await shared_bench.run(code, powers=powers)
    assert execution.structured["found"] == answer, execution
    if form == "sync":
        assert execution.structured["plain"] == type(answer).__name__
    assert powers.asked == [("registry", "services", [], {}), ("vault", "get", ["x"], {"deep": True})]


async def test_a_refused_power_is_an_error_in_the_tools_code_and_for_the_model(shared_bench: Any) -> None:
    code = """
        from portoser.tool import PowerError
        def tool(catch: bool):
            try:
                return registry.services()
            except PowerError as error:
                if catch:
                    return {"caught": str(error)}
                raise
    """
    powers = Answers(error="no such thing")
    assert (await shared_bench.run(code, {"catch": True}, powers=powers)).structured == {"caught": "no such thing"}
    execution = await shared_bench.run(code, {"catch": False}, powers=powers)
    assert (execution.reason, execution.message) == ("tool_error", "no such thing")
    assert (await shared_bench.run(code, {"catch": False})).reason == "tool_error"


async def test_threads_of_a_tool_may_ask_powers_at_once(shared_bench: Any) -> None:
    code = """
        from concurrent.futures import ThreadPoolExecutor
        def tool():
            with ThreadPoolExecutor(8) as pool:
                return {"n": sum(pool.map(lambda _: registry.read("x"), range(40)))}
    """
    assert (await shared_bench.run(code, powers=Answers(1))).structured == {"n": 40}


async def test_prints_are_captured_also_from_c(shared_bench: Any) -> None:
    code = """
        import ctypes, os, sys
        def tool():
            print("python")
            sys.stderr.write("error\\n")
            sys.stdout.write("no newline ")
            sys.stdout.flush()
            os.write(1, b"descriptor \\xff\\n")
            ctypes.CDLL(None).puts(b"from c")
    """
    logs = (await shared_bench.run(code)).logs
    for line in ("python\n", "error\n", "no newline descriptor \ufffd\n", "from c\n"):
        assert line in logs


async def test_a_worker_is_reused_by_its_caller_and_not_by_another(shared_bench: Any) -> None:
    code = "import os\nn = 0\ndef tool():\n    global n\n    n += 1\n    return {'pid': os.getpid(), 'n': n}"
    before = shared_bench.loads
    first = await shared_bench.run(code, caller=ALICE)
    again = await shared_bench.run(code, caller=ALICE)
    other = await shared_bench.run(code, caller=BOB)
    assert again.structured == {"pid": first.structured["pid"], "n": 2}
    assert other.structured["n"] == 1
    assert other.structured["pid"] != first.structured["pid"]
    assert shared_bench.loads == before + 2


async def test_a_caller_of_one_name_with_other_groups_has_a_worker_of_its_own(shared_bench: Any) -> None:
    code = "seen = []\nfrom portoser.tool import ctx\ndef tool():\n    seen.append(sorted(ctx.caller.groups))\n    return {'seen': seen}"
    for caller in (
        Caller(subject="same", groups=frozenset(("a", "b"))),
        Caller(subject="same", groups=frozenset(("a",))),
        Caller(subject="same", groups=frozenset(("a",)), kind=CallerKind.OIDC),
    ):
        assert (await shared_bench.run(code, caller=caller)).structured == {"seen": [sorted(caller.groups)]}


async def test_fresh_isolation_gives_each_call_a_worker_of_its_own(shared_bench: Any) -> None:
    code = "import os\ndef tool(): return {'pid': os.getpid()}"
    pids = [(await shared_bench.run(code, isolation=Isolation.FRESH)).structured["pid"] for _ in range(3)]
    assert len(set(pids)) == 3


async def test_large_arguments_and_results_go_through_whole(shared_bench: Any) -> None:
    text = "é" * 1_500_000
    execution = await shared_bench.run("def tool(t: str): return {'t': t[::-1], 'n': len(t)}", {"t": text})
    assert execution.structured == {"t": text, "n": len(text)}


async def test_random_numbers_differ_between_workers(shared_bench: Any) -> None:
    code = "import random, uuid\ndef tool(): return [random.random(), str(uuid.uuid4())]"
    results = [(await shared_bench.run(code, isolation=Isolation.FRESH)).content[0]["text"] for _ in range(3)]
    assert len(set(results)) == 3
