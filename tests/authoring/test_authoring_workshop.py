"""A folder that is checked again and again, and called from."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from portoser.admission import Admission, Seen
from portoser.authoring.checking import Checker
from portoser.authoring.workshop import Workshop
from portoser.catalog.caller import ANONYMOUS, Caller
from portoser.catalog.revision import Declaration
from portoser.powers.registry import EXAMPLE
from portoser.runtime.runtime import Runtime


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    started = Runtime(workers=2, scratch=tmp_path / "scratch", spares=0)
    await started.start()
    yield started
    await started.aclose()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "tools.d"
    made.mkdir()
    for name in ("one", "two"):
        (made / f"{name}.yaml").write_text("kind: Tool\npermissions: [operator]\nexamples: [{expect: 1}]\n")
        (made / f"{name}.py").write_text(f'def {name}() -> int:\n    """One."""\n    return 1\n')
    return made


class Noting(Admission):
    """Admission that notes what it looks at."""

    looked_at: list[str]

    async def look_in(self, lock: str | None, name: str, declaration: Declaration) -> Seen:
        self.looked_at.append(name)
        return await super().look_in(lock, name, declaration)


async def test_only_what_changed_is_imported_again_and_problems_follow_their_lines(
    folder: Path, runtime: Runtime
) -> None:
    admission = Noting(None, runtime)
    admission.looked_at = looked_at = []
    checker = Checker(folder, admission)
    checked = await checker.check()
    assert sorted(looked_at) == ["one", "two"]
    assert (checked.examples.passed, checked.examples.failed, checked.problems) == (2, 0, [])
    looked_at.clear()
    (folder / "two.py").write_text('def two() -> int:\n    """Two."""\n    return 2\n')
    checked = await checker.check()
    assert looked_at == ["two"]
    assert [(problem.path, problem.line) for problem in checked.problems] == [("two.yaml", 3)]
    assert "two" in checked.described
    assert "two" not in checked.revisions
    (folder / "two.yaml").write_text("# A line more.\n" + (folder / "two.yaml").read_text())
    checked = await checker.check()
    assert [(problem.path, problem.line) for problem in checked.problems] == [("two.yaml", 4)]
    looked_at.clear()
    await checker.check()
    assert looked_at == []


async def test_a_call_runs_what_was_checked_last_and_is_let_through_as_on_a_server(
    folder: Path, runtime: Runtime
) -> None:
    workshop = Workshop(folder, runtime, registry=EXAMPLE)
    await workshop.check()
    (folder / "two.py").write_text('def two() -> int:\n    """Two."""\n    return 2\n')
    await workshop.check()
    result = await workshop.call("two", {}, ANONYMOUS)
    assert result is not None
    assert result.structured == {"result": 2}
    wrong = await workshop.call("two", {"more": 1}, ANONYMOUS)
    assert wrong is not None
    assert wrong.reason == "invalid_arguments"
    denied = await workshop.call("two", {}, Caller(subject="ada", groups=frozenset({"dev"})))
    assert denied is not None
    assert denied.reason == "forbidden"
    assert workshop.may("two", Caller(subject="ada", groups=frozenset({"operator"})))
