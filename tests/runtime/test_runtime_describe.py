"""Code that cannot be described says where and why."""

from typing import Any

import pytest

from portoser.runtime.types import CodeError

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("code", "line", "message", "advice"),
    [
        ("x = 1\ndef tool(:\n    ...", 2, "invalid syntax", ""),
        ("def tool():\n  a\n    b", 3, "unexpected indent", ""),
        ("x = 1\n\nimport nothing_of_that_name", 3, "nothing_of_that_name", "in 'requires'"),
        ("x = 1\nraise ValueError('at import')", 2, "ValueError: at import", ""),
        ("x = undefined", 1, "undefined", "ctx, registry"),
        ("import sys\nsys.exit(1)", 2, "exit code 1", "__main__"),
        ("def other(): ...\ndef _private(): ...", 0, "no function 'tool'", "Its functions are other."),
        ("tool = 5", 0, "not a function but int", "no public function"),
        ("\nclass tool: ...", 0, "is a class", "Name a function"),
        ("\ndef tool(a, /): ...", 2, "'a' of tool is positional-only", "by name"),
        ("def tool(*args): ...", 1, "'args'", "by name"),
        ("def tool(**kwargs): ...", 1, "'kwargs'", "by name"),
        (
            "class Odd: ...\ndef tool(a: int, b: Odd): ...",
            2,
            "The parameter 'b' of tool has no JSON Schema: main.Odd",
            "",
        ),
        ("def tool(a: 'Nothing'): ...", 1, "annotations of tool cannot be resolved", ""),
        (
            "from typing import TypedDict\nclass M(TypedDict):\n    a: int\ndef tool(m: M): ...",
            4,
            "typing_extensions",
            "",
        ),
        ("import os\nos._exit(3)", 0, "exit code 3", ""),
        ("import ctypes\nprint('last words')\nctypes.string_at(0)", 0, "SIGSEGV", "last words"),
    ],
)
async def test_each_problem_names_its_place(shared_bench: Any, code: str, line: int, message: str, advice: str) -> None:
    with pytest.raises(CodeError) as raised:
        await shared_bench.describe(code)
    error = raised.value
    assert error.path == "main.py"
    assert error.line == line
    assert message in error.message
    assert advice in error.advice


async def test_a_problem_in_another_file_names_that_file(shared_bench: Any) -> None:
    files = {"money.py": "a = 1\nb = a / 0\n", "main.py": "import money\ndef tool(): ..."}
    with pytest.raises(CodeError) as raised:
        await shared_bench.describe(files)
    assert (raised.value.path, raised.value.line) == ("money.py", 2)


async def test_an_entrypoint_in_no_file_is_told(shared_bench: Any) -> None:
    with pytest.raises(CodeError, match=r"not one of the tool's files"):
        await shared_bench.describe("def tool(): ...", entrypoint="other.py:tool")


async def test_an_import_that_takes_too_long_is_ended(shared_bench: Any) -> None:
    with pytest.raises(CodeError, match=r"longer than the 0.3 s"):
        await shared_bench.describe("while True: pass", timeout=0.3)


async def test_warnings_tell_what_the_model_will_miss(shared_bench: Any) -> None:
    description = await shared_bench.describe({"json.py": "A = 1", "main.py": "def tool(a, b: int): ..."})
    assert description.description == ""
    assert len(description.warnings) == 3
    assert "docstring" in description.warnings[0]
    assert "type of a:" in description.warnings[1]
    assert "json.py" in description.warnings[2]


async def test_declarations_do_not_see_each_other(shared_bench: Any) -> None:
    await shared_bench.describe("import builtins\nbuiltins.leak = 1\ndef tool(): ...")
    with pytest.raises(CodeError, match="leak"):
        await shared_bench.describe("leak\ndef tool(): ...")


async def test_a_printed_line_or_a_forged_frame_is_no_description(shared_bench: Any) -> None:
    with pytest.raises(CodeError, match="broke the protocol"):
        await shared_bench.describe(
            "import os\nos.write(3, b'\\xff' * 100)\nimport time; time.sleep(5)\ndef tool(): ..."
        )


async def test_schemas_may_be_large_and_not_without_end(shared_bench: Any) -> None:
    code = "from typing import Literal\ndef tool(a: Literal[tuple(f'{n:x}' for n in range(COUNT))]):\n    'It.'\n"
    described = await shared_bench.describe(code.replace("COUNT", "20_000"))
    assert len(described.input_schema["properties"]["a"]["enum"]) == 20_000
    with pytest.raises(CodeError, match="The description of tool cannot be sent: more than the 50,000 values"):
        await shared_bench.describe(code.replace("COUNT", "60_000"))
