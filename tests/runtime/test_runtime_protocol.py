"""A worker that breaks the protocol costs itself and its call, and nothing else."""

# ruff: noqa: E501 - tables of code are read by the line

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portoser.runtime import protocol

# What a hostile tool can do at most: write to its worker's own channel, knowing everything that the worker knows.
PRELUDE = """
import os, struct, msgspec, gc, time
from portoser.runtime import protocol
from portoser import tool as portoser_tool
def send(kind, body):
    os.write(3, struct.pack("<IB", len(body), kind) + body)
def pack(*values):
    return msgspec.msgpack.encode(values)
def current():
    running = portoser_tool.wire.running
    return running._id, running._nonce
def forge(content, structured=None, id=None, nonce=None, reason=None):
    mine = current()
    raw = msgspec.msgpack.encode
    send(16, pack(id if id is not None else mine[0], nonce if nonce is not None else mine[1], reason, None, None,
                  msgspec.Raw(raw(content)), msgspec.Raw(raw(structured)), False))
"""

HOSTILE = {
    "garbage": "os.write(3, b'\\xff' * 100)",
    "unknown type": "send(99, b'')",
    "a server's frame": "send(3, b'')",
    "empty result": "send(16, b'')",
    "not msgpack": "send(16, b'\\xc1\\xc1')",
    "wrong shape": "send(16, pack(1, 2, 3))",
    "too many fields": "send(18, pack(*current(), 'info', 'x', None, 1))",
    "too large": "os.write(3, struct.pack('<IB', 0xFFFFFFFF, 16))",
    "too large for a log": "os.write(3, struct.pack('<IB', 2_000_000, 18))",
    "wrong call": "forge([], id='other')",
    "wrong nonce": "forge([], nonce=current()[1] ^ 1)",
    "log of another call": "send(18, pack('other', current()[1], 'info', 'x', None))",
    "no level": "send(18, pack(*current(), 'shout', 'x', None))",
    "description": "send(20, pack('d', {}, None, False, []))",
    "rpc out of turn": "send(17, pack(*current(), 5, 'registry', 'services', [], {})); time.sleep(5)",
    "two rpcs": "b = pack(*current(), 1, 'registry', 'services', [], {}); send(17, b); send(17, b); time.sleep(5)",
    "invented reason": "forge([], reason='timeout')",
    "long message": "send(16, pack(*current(), 'exception', 'x' * 300_000, None, None, None, False))",
    "content of no kind": "forge([{'type': 'alien', 'x': 1}])",
    "content that lacks": "forge([{'type': 'image', 'data': 'x'}])",
    "content with more": "forge([{'type': 'text', 'text': 'x', 'evil': 1}])",
    "content no list": "forge({'a': 1})",
    "structured no object": "forge([], [1])",
    "more than the limit": "forge([{'type': 'text', 'text': 'x' * 200_000}])",
    "deep": "send(18, pack(*current(), 'info', 'x')[:-0 or None][:1] + b'\\x91' * 100000)",
    "deep data": "send(18, b'\\x95' + b''.join(map(msgspec.msgpack.encode, (*current(), 'info', 'x'))) + b'\\x81\\xa1a' * 50000)",
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_frame_is_a_protocol_error_and_ends_that_worker_alone(shared_bench: Any, name: str) -> None:
    code = f"{PRELUDE}\ndef tool():\n    {HOSTILE[name]}\n    time.sleep(20)\n"
    neighbour = "import os\ndef tool(): return {'pid': os.getpid()}"
    pid = (await shared_bench.run(neighbour)).structured

    class Slow:
        async def call(self, power: str, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
            import asyncio

            await asyncio.sleep(3)

    execution = await shared_bench.run(code, timeout=10, result=100_000, powers=Slow())
    assert (execution.outcome, execution.reason) == ("error", "protocol_error"), execution
    assert (await shared_bench.run(neighbour)).structured == pid


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("share", [1, 4])
async def test_who_asks_on_without_reading_the_answers_is_ended(shared_bench: Any, share: int) -> None:
    asks = "send(17, pack(*current(), number, 'registry', 'services', [], {}))"
    code = f"{PRELUDE}\nasync def tool():\n    for number in range(1, 50):\n        {asks}\n        time.sleep(0.1)\n"
    answered = 0

    class Generous:
        async def call(self, power: str, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
            nonlocal answered
            answered += 1
            return "x" * 1_000_000

    execution = await shared_bench.run(code, timeout=20, share=share, powers=Generous())
    assert (execution.reason, answered) == ("protocol_error", 1), execution
    assert "a power was asked" in execution.message
    asking = "from portoser.tool import registry\nasync def tool():\n    for _ in range(9): assert len(await registry.services()) == 1_000_000\n"
    honest = asking if share > 1 else asking.replace("await ", "")
    assert (await shared_bench.run(honest, share=share, powers=Generous())).outcome == "ok"


@pytest.mark.asyncio(loop_scope="module")
async def test_half_a_frame_waits_for_the_timeout(shared_bench: Any) -> None:
    code = f"{PRELUDE}\ndef tool():\n    os.write(3, struct.pack('<IB', 100, 16) + b'x' * 50)\n    time.sleep(20)\n"
    assert (await shared_bench.run(code, timeout=0.3)).reason == "timeout"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_second_result_does_not_reach_the_next_call(shared_bench: Any) -> None:
    code = f"{PRELUDE}\ndef tool(n: int):\n    forge([{{'type': 'text', 'text': 'forged'}}])\n    return {{'n': n}}\n"
    first = await shared_bench.run(code, {"n": 1})
    second = await shared_bench.run(code, {"n": 2})
    assert first.content == [{"type": "text", "text": "forged"}] or first.reason == "protocol_error"
    assert second.structured != {"n": 1}


@pytest.mark.parametrize("kind", [protocol.Log.TYPE, protocol.Described.TYPE])
def test_a_frame_of_very_many_values_is_not_decoded(kind: int) -> None:
    with pytest.raises(protocol.ProtocolViolation, match=f"holds more than {protocol.most_values(kind)} values"):
        protocol.decode_from_worker(kind, b"\x95" + b"\x80" * 1_000_000)


@given(st.integers(0, 255), st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_a_violation(kind: int, body: bytes) -> None:
    try:
        frame = protocol.decode_from_worker(kind, body)
    except protocol.ProtocolViolation:
        return
    assert kind == frame.TYPE


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_values_come_back_as_they_went(value: object) -> None:
    encoded = protocol.encode(protocol.RpcResult("call", 1, value, None))
    length, kind = protocol.HEADER.unpack_from(encoded)
    assert length == len(encoded) - protocol.HEADER.size
    back = protocol.FROM_SERVER[kind].decode(bytes(encoded[protocol.HEADER.size :]))
    assert back == protocol.RpcResult("call", 1, value, None)
    assert isinstance(back, msgspec.Struct)
