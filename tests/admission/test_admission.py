"""New code becomes a revision, or everything that is wrong with it is told; real workers, real Postgres."""

import asyncio
from typing import Any

import msgspec
import pytest

from portoser.admission import Admission
from portoser.catalog.errors import Problem, Unavailable
from portoser.catalog.revision import Declaration, Example, Revision, SourceFile
from portoser.runtime.types import CodeError, Description


def declaration(code: str, function: str = "f", **fields: Any) -> Declaration:
    return Declaration(files=(SourceFile("x.py", code),), entrypoint=f"x.py:{function}", **fields)


GREET = 'def f(name: str) -> str:\n    """Greet."""\n    return "Hello " + name\n'
ASK = 'def f() -> list[str]:\n    """Ask."""\n    return [s["name"] for s in registry.services()]\n'


class Counting:
    """A runtime that counts, in front of a real one or of nothing."""

    def __init__(self, real: Any = None) -> None:
        self.real = real
        self.described: list[str] = []
        self.at_once = self.most_at_once = 0

    async def describe(self, declared: Declaration, *, environment: str | None = None) -> Description:
        self.described.append(declared.entrypoint)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.real is not None:
                return await self.real.describe(declared)
            await asyncio.sleep(0.001)
            if "broken" in declared.files[0].content:
                raise CodeError("It is broken.", path="x.py", line=3, column=4, advice="Mend it.")
            if "away" in declared.files[0].content:
                raise Unavailable("No worker is to be had.")
            return Description(description="d", input_schema={"type": "object", "properties": {}})
        finally:
            self.at_once -= 1

    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        return await self.real.execute(*args, **kwargs)


async def test_code_becomes_a_revision_with_its_schemas(database: Any, runtime: Any) -> None:
    [revision] = await Admission(database, runtime).admit([("greet", declaration(GREET))])
    assert isinstance(revision, Revision)
    assert revision.description == "Greet."
    assert revision.input_schema["required"] == ["name"]
    assert revision.output_schema is not None
    assert revision.files[0].content == GREET


async def test_what_is_declared_wins_over_what_the_code_says(database: Any, runtime: Any) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 9}}}
    declared = declaration(GREET, description="Mine.", input_schema=schema)
    [revision] = await Admission(database, runtime).admit([("greet", declared)])
    assert isinstance(revision, Revision)
    assert (revision.description, revision.input_schema) == ("Mine.", schema)


async def test_code_that_cannot_be_imported_is_told_with_its_place_and_the_others_go_on(
    database: Any, runtime: Any
) -> None:
    results = await Admission(database, runtime).admit(
        [("a", declaration(GREET)), ("b", declaration("x = 'ä'; import nowhere_at_all\ndef f(): pass\n"))]
    )
    assert isinstance(results[0], Revision)
    [problem] = results[1]  # type: ignore[misc]
    assert isinstance(problem, Problem)
    assert (problem.path, problem.line, problem.column, problem.tool) == ("x.py", 1, 10, "b")
    assert "nowhere_at_all" in problem.message


EXAMPLES = [
    (GREET, Example(call={"name": "Ada"}, expect="Hello Ada"), None),
    (GREET, Example(call={"name": "Ada"}), None),
    (GREET, Example(call={"name": "Ada"}, expect="Hi", line=7), 'expects "Hi", and the tool answers "Hello Ada".'),
    (GREET, Example(call={"nam": "Ada"}), "calls the tool with wrong arguments: "),
    (GREET, Example(call={"name": 5}), "calls the tool with wrong arguments: name: "),
    (ASK, Example(given={"registry": {"services": [{"name": "web"}]}}, expect=["web"]), None),
    (ASK, Example(), "The example gives no answer for registry.services()"),
    ("def f() -> dict:\n    return {'a': 1}\n", Example(expect={"a": 1}), None),
    ("def f():\n    return 5\n", Example(expect=5), None),
    ("def f() -> int:\n    return 5\n", Example(expect=5), None),
    ("def f() -> int:\n    raise ValueError('no')\n", Example(), "fails: ValueError: no (x.py, line 2, in f)"),
    (
        "from portoser.tool import ToolError\ndef f() -> int:\n    raise ToolError('no')\n",
        Example(),
        "fails: no (x.py, line 3)",
    ),
]


async def test_examples_are_run_with_fakes_and_compared(database: Any, runtime: Any) -> None:
    declared = [(f"t{at}", declaration(code, examples=(example,))) for at, (code, example, _) in enumerate(EXAMPLES)]
    results = await Admission(database, runtime).admit(declared)
    for result, (_, example, wrong) in zip(results, EXAMPLES, strict=True):
        if wrong is None:
            assert isinstance(result, Revision), result
            continue
        [problem] = result  # type: ignore[misc]
        assert isinstance(problem, Problem)
        assert problem.message.startswith("Example 1 ")
        assert wrong in problem.message
        assert problem.message.count("x.py") <= 1
        assert (problem.path, problem.line) == ("", example.line)


async def test_what_was_admitted_once_is_not_looked_at_again_by_anybody(database: Any) -> None:
    first, second = Counting(), Counting()
    declared = [(f"t{number}", declaration(f"x = {number}")) for number in range(200)]
    told: list[tuple[int, int]] = []
    revisions = await Admission(database, first).admit(declared, progress=lambda done, of: told.append((done, of)))
    assert len(first.described) == 200
    assert told[0] == (0, 200)
    assert told[-1] == (200, 200)
    assert await Admission(database, second).admit(declared) == revisions
    assert second.described == []
    await Admission(database, second).admit([*declared, ("new", declaration("x = 'new'"))])
    assert len(second.described) == 1


async def test_what_was_refused_is_looked_at_again(database: Any) -> None:
    runtime = Counting()
    for _ in range(2):
        [result] = await Admission(database, runtime).admit([("x", declaration("broken"))])
        assert result == (Problem(path="x.py", line=3, column=4, message="It is broken.", advice="Mend it.", tool="x"),)
    assert len(runtime.described) == 2


async def test_as_many_are_looked_at_at_once_as_may_be(database: Any) -> None:
    runtime = Counting()
    declared = [(f"t{number}", declaration(f"x = {number}")) for number in range(40)]
    await Admission(database, runtime, parallel=3).admit(declared)
    assert runtime.most_at_once == 3


async def test_a_runtime_that_goes_away_is_told_and_what_was_done_is_remembered(database: Any) -> None:
    declared = [(f"t{number}", declaration(f"x = {number}")) for number in range(10)]
    runtime = Counting()
    with pytest.raises(Unavailable, match="No worker"):
        await Admission(database, runtime, parallel=1).admit([*declared, ("z", declaration("away"))])
    again = Counting()
    await Admission(database, again).admit(declared)
    assert again.described == []


async def test_the_line_of_an_example_does_not_matter_to_what_is_remembered(database: Any) -> None:
    runtime = Counting()
    admission = Admission(database, runtime)
    for line in (3, 4):
        await admission.admit([("x", declaration("x = 1", redact=("a",), examples=()))])
        assert declaration("", examples=(Example(line=line),)).key() == declaration("", examples=(Example(),)).key()
    assert len(runtime.described) == 1


async def test_nothing_to_admit_is_nothing(database: Any) -> None:
    assert await Admission(database, Counting()).admit([]) == []


async def test_an_example_runs_with_fakes_and_finds_what_a_server_would_refuse(runtime: Any) -> None:
    code = """def f(city: str) -> dict:
    \"\"\"The weather.\"\"\"
    answer = http.get("https://api.example.com/v1", params={"q": city}, headers={"x-key": "k"})
    return {"told": answer.raise_for_status().json()["told"], "kind": answer.headers["Content-Type"]}
"""
    given = {"http": [{"url": "https://api.example.com/v1?q=Oslo", "json": {"told": "rain"}}]}
    example = Example(call={"city": "Oslo"}, given=given, expect={"told": "rain", "kind": "application/json"})
    uses = {"network": ["api.example.com:443"]}
    admission = Admission(None, runtime)
    declared = [
        ("good", declaration(code, uses=uses, examples=(example,))),
        ("undeclared", declaration(code, uses={"network": ["other.org:443"]}, examples=(example,))),
        ("unanswered", declaration(code, uses=uses, examples=(Example(call={"city": "Rome"}, given=given),))),
    ]
    good, undeclared, unanswered = await admission.admit(declared)
    assert isinstance(good, Revision)
    assert isinstance(undeclared, tuple)
    assert "does not say in its manifest that it uses network api.example.com:443" in undeclared[0].message
    assert isinstance(unanswered, tuple)
    assert 'url: "https://api.example.com/v1?q=Rome"' in unanswered[0].message


async def test_without_a_database_nothing_is_remembered() -> None:
    runtime = Counting()
    admission = Admission(None, runtime)
    for _ in range(2):
        [revision] = await admission.admit([("x", declaration("x = 1"))])
        assert isinstance(revision, Revision)
    assert len(runtime.described) == 2


async def test_what_its_author_should_know_of_code_is_told_each_time(database: Any, runtime: Any) -> None:
    admission = Admission(database, runtime)
    for _ in range(2):
        warnings: list[Problem] = []
        await admission.admit([("x", declaration("def f(): pass\n"))], on_warning=warnings.append)
        assert [(warning.path, warning.tool, warning.is_error) for warning in warnings] == [("x.py", "x", False)]
        assert "docstring" in warnings[0].message


async def test_a_schema_that_the_code_makes_up_is_refused_and_the_other_tools_are_admitted(
    database: Any, runtime: Any
) -> None:
    made_up = (
        "from typing import Annotated\nfrom pydantic import WithJsonSchema\n"
        "def f(a: Annotated[int, WithJsonSchema({SCHEMA})]) -> int:\n    return 1\n"
    )
    fetching = made_up.replace("{SCHEMA}", '{"$ref": "http://127.0.0.1:9/internal.json"}')
    no_schema = made_up.replace("{SCHEMA}", '{"type": "file"}')
    deep = made_up.replace("def f", "s = {'type': 'integer'}\nfor _ in range(200): s = {'anyOf': [s]}\ndef f").replace(
        "{SCHEMA}", "s"
    )
    answers = await Admission(database, runtime).admit(
        [
            ("fetching", declaration(fetching, examples=(Example(call={"a": 1}),))),
            ("no_schema", declaration(no_schema, examples=(Example(call={"a": 1}),))),
            ("deep", declaration(deep)),
            ("good", declaration(GREET)),
        ]
    )
    said = [str(answer[0]) if isinstance(answer, tuple) else "admitted" for answer in answers]
    assert "another document" in said[0]
    assert "not a JSON Schema" in said[1]
    assert said[2] != "admitted"
    assert said[3] == "admitted"


async def test_a_type_without_a_schema_is_told_in_words_for_its_author(database: Any, runtime: Any) -> None:
    imports = "import threading\nfrom collections.abc import Callable\n"
    lock, function = await Admission(database, runtime).admit(
        [
            ("lock", declaration(f"{imports}def f(x: threading.Thread): pass\n")),
            ("function", declaration(f"{imports}def f(x: Callable[[], int]): pass\n")),
        ]
    )
    advice = "Use JSON-like types, dataclasses, enums, dates or pydantic models."
    assert isinstance(lock, tuple)
    assert str(lock[0]) == f"x.py:3: The parameter 'x' of f has no JSON Schema: threading.Thread. {advice}"
    assert isinstance(function, tuple)
    assert str(function[0]).startswith("x.py:3: The parameter 'x' of f has no JSON Schema: ")
    assert str(function[0]).endswith(f"]. {advice}")


async def test_a_fault_of_ours_with_one_tool_leaves_the_others_alone(database: Any) -> None:
    class Faulty(Counting):
        async def describe(self, declared: Declaration, *, environment: str | None = None) -> Description:
            if "fault" in declared.files[0].content:
                raise ZeroDivisionError("a fault")
            return await super().describe(declared)

    bad, good = await Admission(database, Faulty()).admit([("bad", declaration("# fault")), ("good", declaration(""))])
    assert isinstance(bad, tuple)
    assert "ZeroDivisionError" in bad[0].message
    assert isinstance(good, Revision)


async def test_what_is_served_already_shares_its_schemas(database: Any, runtime: Any) -> None:
    admission = Admission(database, runtime)
    example = Example(call={"name": "Ada"}, expect="Hello Ada", line=3)
    [served] = await admission.admit([("greet", declaration(GREET, examples=(example,)))])
    assert isinstance(served, Revision)
    moved = declaration(GREET, examples=(msgspec.structs.replace(example, line=9),))
    [again] = await admission.admit([("greet", moved)], served={served.digest: served})
    assert isinstance(again, Revision)
    assert again == msgspec.structs.replace(served, examples=moved.examples)
    assert again.input_schema is served.input_schema
