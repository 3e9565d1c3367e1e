"""Tools that run with the packages that they require: real workers, real uv, wheels of this disk."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from runtime_bench import sources
from tiny_wheels import TinyIndex

from portoser.catalog.caller import ANONYMOUS
from portoser.catalog.errors import Unavailable
from portoser.catalog.revision import Declaration, Isolation
from portoser.runtime.environments.environments import Environments
from portoser.runtime.environments.files import LockFiles
from portoser.runtime.environments.folders import Folders
from portoser.runtime.environments.uv import Uv
from portoser.runtime.runtime import Runtime
from portoser.runtime.types import Call, CodeError, Description, Execution, Program

VERSION = "import tiny_one\n\ndef tool() -> str:\n    return tiny_one.VERSION\n"

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Packed:
    """A runtime whose tools can require the wheels of one folder."""

    def __init__(self, home: Path) -> None:
        self.index = TinyIndex(home / "wheels")
        self.folders = Folders(home / "environments")
        uv = Uv(home / "cache", environ=self.index.environ)
        self.environments = Environments(self.folders, LockFiles(home / "sets"), uv)
        self.runtime = Runtime(workers=3, scratch=home / "scratch", folders=self.folders, zygotes=2, longest_rest=600)
        self._calls = 0

    async def lock(self, *requires: str, install: bool = True) -> str:
        lock = (await self.environments.resolve([requires]))[requires]
        assert not isinstance(lock, Exception), lock
        if install:
            assert await self.environments.install([lock]) == {lock.digest: None}
        return lock.digest

    async def answer(self, code: str, lock: str | None, **program: Any) -> str:
        execution = await self.run(code, lock, **program)
        assert execution.outcome == "ok", execution
        return str(execution.content[0]["text"])

    async def run(self, code: str, lock: str | None, **program: Any) -> Execution:
        files = sources(code)
        self._calls += 1
        entry = Program(digest=f"{lock} {code}", entrypoint="main.py:tool", environment=lock, **program)

        async def load() -> Any:
            return files

        call = Call(id=f"call-{self._calls}", arguments={}, caller=ANONYMOUS, request_id="request")
        return await self.runtime.execute(entry, load, call, events=None, powers=None)

    async def describe(self, code: str, lock: str | None) -> Description:
        declaration = Declaration(files=sources(code), entrypoint="main.py:tool")
        return await self.runtime.describe(declaration, environment=lock)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packed")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def packed(home: Path) -> AsyncIterator[Packed]:
    made = Packed(home)
    made.index.add("tiny-one", "1.0")
    made.index.add("tiny-one", "2.0")
    pair = "from pydantic import BaseModel\n\nclass Pair(BaseModel):\n    left: int\n"
    made.index.add("tiny-types", "1.0", tiny_types=pair)
    await made.runtime.start()
    try:
        yield made
    finally:
        await made.runtime.aclose()
        await made.environments.aclose()


async def test_tools_get_the_versions_that_they_require_side_by_side(packed: Packed) -> None:
    for version in ("1.0", "2.0", "1.0"):
        assert await packed.answer(VERSION, await packed.lock(f"tiny-one=={version}")) == version


async def test_what_a_tool_does_not_require_it_does_not_have(packed: Packed) -> None:
    await packed.lock("tiny-one==1.0")
    execution = await packed.run(VERSION, None)
    assert execution.reason == "load_error"
    assert "No module named 'tiny_one'" in (execution.message or "")


async def test_code_is_described_with_what_it_requires(packed: Packed) -> None:
    code = "from tiny_types import Pair\n\ndef tool(pair: Pair) -> int:\n    'Left.'\n    return pair.left\n"
    told = await packed.describe(code, await packed.lock("tiny-types"))
    assert told.input_schema["$defs"]["Pair"]["properties"] == {"left": {"type": "integer"}}
    with pytest.raises(CodeError, match="No module named 'tiny_types'") as caught:
        await packed.describe(code, None)
    assert "'requires'" in caught.value.advice


async def test_a_tool_gets_its_own_version_of_what_the_server_is_made_of(packed: Packed) -> None:
    """FastMCP, with which declarations are described, has imported its httpx by then."""
    packed.index.add("httpx", "0.1", httpx='VERSION = "0.1"\n\nclass Odd(int):\n    pass\n')
    lock = await packed.lock("httpx==0.1")
    code = "import httpx\n\ndef tool() -> str:\n    return httpx.VERSION\n"
    assert await packed.answer(code, lock) == "0.1"
    code = "from httpx import Odd\n\ndef tool(x: int = 1) -> int:\n    'Odd.'\n    return Odd(x)\n"
    assert (await packed.describe(code, lock)).description == "Odd."


async def test_no_package_stands_in_the_way_of_python_or_of_the_worker(packed: Packed) -> None:
    evil = "raise SystemExit('not me')\n"
    names = ("json", "pydantic", "msgspec", "portoser", "typing_extensions", "pydantic_core")
    packed.index.add("evil", "1.0", **dict.fromkeys(names, evil))
    code = (
        "import json, msgspec, portoser.tool, pydantic, pydantic_core, typing_extensions\n"
        "from pydantic.v1 import BaseModel\n\n"
        "def tool() -> list[str]:\n"
        "    return [json.__file__, msgspec.__file__, portoser.__file__, pydantic.__file__]\n"
    )
    assert "environments" not in await packed.answer(code, await packed.lock("evil"))


async def test_packages_cannot_be_changed_by_the_code_that_uses_them(packed: Packed) -> None:
    code = (
        "import os, tiny_one\n\n"
        "def tool() -> list[bool]:\n"
        "    folder = os.path.dirname(tiny_one.__file__)\n"
        "    return [bool(os.stat(path).st_mode & 0o222) for path in (folder, tiny_one.__file__)]\n"
    )
    assert await packed.answer(code, await packed.lock("tiny-one==1.0")) == "[false,false]"


async def test_a_folder_that_is_not_there_is_told_and_made_again_from_its_lock(packed: Packed, until: Any) -> None:
    packed.index.add("tiny-late", "1.0", tiny_one='VERSION = "late"')
    lock = await packed.lock("tiny-late", install=False)
    with pytest.raises(Unavailable, match="are being installed here"):
        await packed.run(VERSION, lock)
    filling = asyncio.create_task(packed.environments.run())
    await until(lambda: packed.folders.find(lock) is not None, "installed")
    filling.cancel()
    await asyncio.gather(filling, return_exceptions=True)
    assert await packed.answer(VERSION, lock) == "late"


async def test_no_more_zygotes_are_kept_than_may_be(packed: Packed, until: Any) -> None:
    for number in range(4):
        packed.index.add(f"tiny-n{number}", "1.0", tiny_one=f'VERSION = "n{number}"')
        lock = await packed.lock(f"tiny-n{number}")
        assert await packed.answer(VERSION, lock, isolation=Isolation.FRESH) == f"n{number}"
    describers = len(packed.runtime._describers.environments) + packed.runtime._describers.own.alive
    await until(lambda: packed.runtime.status().zygotes <= 1 + 2 + describers, "zygotes end")
    assert len(packed.runtime._callers.environments) == 2
