"""Much of what is small: results, logs and requests of very many values, from honest and from hostile tools."""

from typing import Any

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = """
    import socket, struct, sys
    import msgspec
    from portoser.runtime.protocol import HEADER
    from portoser.runtime.worker.channel import RunningCall
    def tool():
        from portoser.tool import wire
        call = wire.running
        def send(kind, *fields):
            body = msgspec.msgpack.encode(fields)
            call._channel._sock.sendall(HEADER.pack(len(body), kind) + body)
        {body}
        import time
        time.sleep(60)
"""


@pytest.mark.parametrize(
    ("value", "count"),
    [
        ("[[]] * 1_000_000", "2,000,013"),
        ("[{} for _ in range(60_000)]", "120,013"),
        ("[1] * 200_000", "200,013"),
        ("{str(n): n for n in range(60_000)}", "120,013"),
    ],
)
async def test_a_result_of_too_many_values_says_how_many_it_has(shared_bench: Any, value: str, count: str) -> None:
    execution = await shared_bench.run(f"def tool(): return {{'x': {value}}}")
    assert (execution.outcome, execution.reason) == ("error", "result_too_large")
    assert f"holds {count} values" in execution.message
    assert "the limit is 100,000" in execution.message
    assert (await shared_bench.run("def tool(): return {'alive': True}")).outcome == "ok"


async def test_a_result_of_as_many_values_as_may_be_arrives(shared_bench: Any) -> None:
    execution = await shared_bench.run("def tool(): return {'x': [[] for _ in range(49_990)]}")
    assert execution.outcome == "ok"
    assert len(execution.structured["x"]) == 49_990


async def test_a_result_of_too_many_blocks_says_how_many_it_has(shared_bench: Any) -> None:
    code = "from portoser.tool import Image\ndef tool(n: int): return [Image(data=b'x', format='png')] * n"
    execution = await shared_bench.run(code, {"n": 1001})
    assert (execution.outcome, execution.reason) == ("error", "result_too_large")
    assert "1,001 content blocks; the limit is 1,000" in execution.message
    assert len((await shared_bench.run(code, {"n": 1000})).content) == 1000


@pytest.mark.parametrize(
    "body",
    [
        "send(16, call._id, call._nonce, None, None, None, [], {'x': [[]] * 1_000_000}, False)",
        "send(16, call._id, call._nonce, None, None, None, [{'type': 'text', 'text': 'a'}] * 2_000, None, False)",
        "send(18, call._id, call._nonce, 'info', 'x', {'x': [[]] * 500_000})",
        "send(17, call._id, call._nonce, 1, 'registry', 'services', [[]] * 500_000, {})",
    ],
)
async def test_a_hostile_worker_that_sends_too_many_values_is_ended(shared_bench: Any, body: str) -> None:
    execution = await shared_bench.run(HOSTILE.replace("{body}", body), timeout=20)
    assert (execution.outcome, execution.reason) == ("error", "protocol_error"), execution
    assert (await shared_bench.run("def tool(): return {'alive': True}")).outcome == "ok"


async def test_log_data_and_messages_that_are_too_much_are_shortened(shared_bench: Any) -> None:
    heard: list[tuple[str, Any]] = []

    class Heard:
        def log(self, level: str, message: str, data: dict[str, Any] | None) -> None:
            heard.append((message, data))

        def progress(self, done: float, total: float | None, message: str | None) -> None:
            raise AssertionError("nothing is reported")

    code = "def tool():\n    ctx.info('many', data={'x': [[]] * 50_000})\n    ctx.info('y' * 2_000_000)\n    return {}"
    assert (await shared_bench.run(code, events=Heard())).outcome == "ok"
    (many, data), (long, nothing) = heard
    assert many == "many"
    assert data is not None
    assert len(data["data"]) <= 1000
    assert (len(long), nothing) == (100_000, None)


async def test_a_power_that_is_asked_with_too_much_refuses_and_answers_the_next(shared_bench: Any) -> None:
    class Answers:
        async def call(self, power: str, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
            return len(args[0])

    code = """
        from portoser.tool import PowerError
        def tool():
            said = []
            for given in ([[]] * 50_000, "z" * 2_000_000, [1, 2]):
                try:
                    said.append(registry.service(given))
                except PowerError as error:
                    said.append(str(error))
            return {"said": said}
    """
    execution = await shared_bench.run(code, powers=Answers())
    assert execution.outcome == "ok", execution
    said = execution.structured["said"]
    assert "10,000 values" in said[0]
    assert "1,048,576 can be sent" in said[1]
    assert said[2] == 2
