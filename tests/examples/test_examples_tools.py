"""The tools that the product ships: they read without an error, and answer what their manifests say."""

import base64
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from portoser.admission import Admission
from portoser.catalog.caller import Caller
from portoser.catalog.revision import Revision
from portoser.powers.base import PowerContext
from portoser.powers.host import Powers
from portoser.powers.registry import EXAMPLE, RegistryPower
from portoser.runtime.runtime import Runtime
from portoser.runtime.types import Call, Execution, Program
from sync.linking import DeclaredTool
from sync.manifest import Reading, read

TOOLS = Path(__file__).parents[2] / "tools.d"
ADA = Caller(subject="ada", groups=frozenset({"developers", "platform-admins"}))


class Recorded:
    """What a call logged, and how far it said it was."""

    def __init__(self) -> None:
        self.logs: list[str] = []
        self.steps: list[tuple[float, float | None]] = []

    def log(self, level: str, message: str, data: dict[str, Any] | None) -> None:
        self.logs.append(message)

    def progress(self, done: float, total: float | None, message: str | None) -> None:
        self.steps.append((done, total))


REGISTRY = """\
hosts: {atlas: {address: 10.0.0.1}, borea: {address: 10.0.0.2}}
services: {grafana: {host: atlas, port: 3000}, postgres: {host: borea, port: 5432}}
"""


@pytest.fixture(scope="module")
def reading() -> Reading:
    files = [path for path in TOOLS.rglob("*") if path.suffix in {".py", ".yaml"}]
    return read({path.relative_to(TOOLS).as_posix(): path.read_bytes() for path in files})


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    runtime = Runtime(workers=1, scratch=tmp_path, spares=0)
    await runtime.start()
    yield runtime
    await runtime.aclose()


def the_tool(reading: Reading, name: str) -> DeclaredTool:
    return next(tool for tool in reading.tools if tool.name == name)


async def run(
    runtime: Runtime,
    tool: DeclaredTool,
    arguments: dict[str, Any],
    *,
    events: Recorded | None = None,
    registry: Path = EXAMPLE,
) -> Execution:
    described = await runtime.describe(tool.declaration)

    async def files() -> Any:
        return tool.declaration.files

    powers = Powers([RegistryPower(registry)]).for_call(PowerContext(tool=tool.name, owner="git:main", caller=ADA))
    program = Program(
        digest=tool.declaration.key(), entrypoint=tool.declaration.entrypoint, output_schema=described.output_schema
    )
    call = Call(id="1", arguments=arguments, caller=ADA, request_id="request-1")
    return await runtime.execute(program, files, call, events=events, powers=powers)


def test_the_shipped_tools_read_without_an_error(reading: Reading) -> None:
    assert not reading.errors
    assert {tool.name for tool in reading.tools} == {
        f"examples.{name}" for name in ("chart", "convert", "countdown", "hello", "restricted", "services")
    }
    assert {tool.group for tool in reading.tools} == {"examples"}


def test_the_shipped_policy_gives_each_role_to_somebody(reading: Reading) -> None:
    assert reading.policy is not None
    assert set(reading.policy.roles) == {"admin", "editor", "auditor"}


def test_only_one_example_is_for_fewer_callers_than_its_group(reading: Reading) -> None:
    own = {tool.name: tool.permissions for tool in reading.tools if tool.permissions is not None}
    assert own == {"examples.restricted": ("platform-admins",)}
    assert [group.permissions for group in reading.groups] == [("developers",)]


async def test_every_tool_has_examples_that_hold_and_describes_its_parameters(
    reading: Reading, runtime: Runtime
) -> None:
    admission = Admission(None, runtime)
    for tool in reading.tools:
        assert tool.declaration.examples, tool.name
        revision = (await admission.look_at(tool.name, tool.declaration)).verdict
        assert isinstance(revision, Revision), revision
        assert revision.description.endswith("."), tool.name
        for name, schema in revision.input_schema["properties"].items():
            assert schema.get("description"), (tool.name, name)


async def test_the_chart_is_a_whole_png_of_the_size_asked_for(reading: Reading, runtime: Runtime) -> None:
    done = await run(runtime, the_tool(reading, "examples.chart"), {"values": [2, -1, 0], "width": 30, "height": 20})
    (block,) = done.content
    assert block["mimeType"] == "image/png"
    data = base64.b64decode(block["data"])
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    chunks: dict[bytes, bytes] = {}
    rest = data[8:]
    while rest:
        (size,) = struct.unpack(">I", rest[:4])
        kind, body = rest[4:8], rest[8 : 8 + size]
        assert struct.unpack(">I", rest[8 + size : 12 + size]) == (zlib.crc32(kind + body),)
        chunks[kind] = body
        rest = rest[12 + size :]
    assert struct.unpack(">II", chunks[b"IHDR"][:8]) == (30, 20)
    pixels = zlib.decompress(chunks[b"IDAT"])
    assert len(pixels) == 20 * (1 + 30)
    assert set(pixels) == {0, 1, 2, 3}
    assert b"IEND" in chunks


async def test_the_countdown_tells_how_far_it_is(reading: Reading, runtime: Runtime) -> None:
    events = Recorded()
    done = await run(runtime, the_tool(reading, "examples.countdown"), {"start": 3, "pause": 0}, events=events)
    assert done.structured == {"result": [3, 2, 1]}
    assert events.steps == [(1, 3), (2, 3), (3, 3)]
    assert events.logs == ["Counting down from 3.", "Lift-off!"]


async def test_units_that_do_not_fit_are_told_to_the_model(reading: Reading, runtime: Runtime) -> None:
    done = await run(runtime, the_tool(reading, "examples.convert"), {"value": 1, "from_unit": "km", "to_unit": "kg"})
    assert done.reason == "tool_error"
    assert done.message == "km measures length, but kg measures mass."


async def test_services_are_found_by_text(reading: Reading, runtime: Runtime, tmp_path: Path) -> None:
    registry = tmp_path / "registry.yml"
    registry.write_text(REGISTRY)
    done = await run(runtime, the_tool(reading, "examples.services"), {"text": "ATLAS"}, registry=registry)
    assert done.structured == {"result": [{"name": "grafana", "host": "atlas", "port": 3000}]}


async def test_the_restricted_tool_tells_who_called(reading: Reading, runtime: Runtime) -> None:
    done = await run(runtime, the_tool(reading, "examples.restricted"), {})
    assert done.structured == {
        "subject": "ada",
        "groups": ["developers", "platform-admins"],
        "request": "request-1",
    }
