"""The stubs let an editor know what tools may use, where Portoser is not installed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from portoser import __version__, tool
from portoser.authoring.stubs import SOURCE, stub_files, stub_of
from portoser.runtime.worker.loader import INJECTED

TYPED = '''
from dataclasses import dataclass
from portoser.tool import Audio, EmbeddedResource, Image, PowerError, ToolError, cluster, ctx, http, registry, vault

@dataclass
class Report:
    host: str
    services: list[str]

async def report(host: str) -> Report:
    """What runs on a host."""
    await ctx.info("looking", host=host)
    ctx.warning("slow")
    await ctx.report_progress(0, 1, "reading")
    if "operator" not in ctx.caller.groups:
        raise ToolError(f"{ctx.caller.subject} may not, {ctx.request_id.upper()}.")
    try:
        names = [str(service["name"]) for service in registry.services() if service["host"] == host]
    except PowerError:
        names = []
    vault.get_secret("a"), cluster.anything()
    answer = http.post("https://example.com", json={"host": host}, timeout=5)
    names.append(answer.raise_for_status().text.upper() + answer.headers["x-a"])
    return Report(host, names)

def media() -> list[object]:
    return [Image(data=b"", format="png"), Audio(path="a.wav"), EmbeddedResource("a.txt", text="a")]
'''

WRONG = """
from portoser.tool import Image, ctx, http, registry

number: int = ctx.request_id
ctx.inform("a")
ctx.report_progress("half")
registry.service(5)
Image(daat=b"")
http.get("https://example.com", jsno={})
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for path, text in stub_files(__version__, tuple(INJECTED)).items():
        file = tmp_path / "typings" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def mypy(home: Path, code: str, *, stubs: bool = True) -> str:
    """What mypy says of a tool where nothing is installed."""
    (home / "sample.py").write_text(code)
    (home / "mypy.ini").write_text("[mypy]\nstrict = true\n" + ("mypy_path = typings\n" if stubs else ""))
    command = [sys.executable, "-m", "mypy", "--no-site-packages", "--cache-dir", str(home / "cache"), "sample.py"]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_a_tool_is_typed_strictly_without_portoser_and_is_not_without_the_stubs(home: Path) -> None:
    assert "Success" in mypy(home, TYPED)
    assert "portoser" in mypy(home, TYPED, stubs=False)


def test_mistakes_are_told_by_the_stubs(home: Path) -> None:
    said = mypy(home, WRONG)
    for line in range(4, 10):
        assert f"sample.py:{line}: error" in said, said


def test_the_stubs_name_all_that_the_module_exports_with_its_docstrings() -> None:
    stub = ast.parse(stub_of(SOURCE.read_text()))
    told = {node.name: node for node in stub.body if isinstance(node, ast.ClassDef)}
    imported = {name.name for node in stub.body if isinstance(node, ast.ImportFrom) for name in node.names}
    names = {*told, *imported, *(node.target.id for node in stub.body if isinstance(node, ast.AnnAssign))}  # type: ignore[union-attr]
    assert set(tool.__all__) <= names
    for name, node in told.items():
        assert ast.get_docstring(node, clean=False) == getattr(tool, name).__doc__
        public = {name for name, value in vars(getattr(tool, name)).items() if not name.startswith("_")}
        methods = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
        attributes = {part.target.id for part in node.body if isinstance(part, ast.AnnAssign)}  # type: ignore[union-attr]
        assert public <= methods | attributes
    assert "wire" not in names


def test_the_globals_of_tools_are_told_to_pyright() -> None:
    lines = stub_files(__version__, tuple(INJECTED))["__builtins__.pyi"].splitlines()
    assert [line for line in lines if line.startswith("from")] == [
        f"from portoser.tool import {name} as {name}" for name in INJECTED
    ]
