"""Many tools that add: a ``tools.d`` for Portoser, functions in process for the bare server.

Each tool has code and a description of its own, as in a real catalog, so nothing can be shared between them.
"""

import subprocess
from collections.abc import Callable
from pathlib import Path

READ_ONLY = "tool_00000"
"""The tool that the calls are measured with: declared readOnly, so only its outcome is recorded."""

READ_WRITE = "write_add"
"""The tool whose intent is recorded too, as for every tool that does not say readOnly."""


def counted(tools: int) -> str:
    """How many tools, for people."""
    return f"{tools:,} tool" if tools == 1 else f"{tools:,} tools"


def tool_name(number: int) -> str:
    """The name of the tool with this number; READ_ONLY is number 0."""
    return f"tool_{number:05d}"


def source_of(name: str, edition: int = 0) -> str:
    """The Python file of a tool. Another edition is another description, which clients see."""
    return (
        f"def {name}(a: int, b: int) -> int:\n"
        f'    """Add two numbers the way of {name}, edition {edition}."""\n'
        f"    return a + b\n"
    )


def python_file(root: Path, number: int) -> Path:
    """Where the Python file of a tool lies: a hundred tools to a folder."""
    name = tool_name(number)
    return root / f"team_{number // 100:03d}" / f"{name}.py"


def write_tools(root: Path, count: int) -> None:
    """A git repository with a committed ``tools.d`` of ``count`` tools at ``root``, and READ_WRITE besides."""
    for number in range(count):
        path = python_file(root, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source_of(path.stem))
        path.with_suffix(".yaml").write_text(
            f"kind: Tool\nname: {path.stem}\nannotations: {{readOnly: true, openWorld: false}}\n"
        )
    (root / f"{READ_WRITE}.py").write_text(source_of(READ_WRITE))
    (root / f"{READ_WRITE}.yaml").write_text(f"kind: Tool\nname: {READ_WRITE}\n")
    git = ["git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0", "-C", str(root)]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", f"{count} tools"]):
        subprocess.run([*git, *command], check=True, timeout=120)


def functions(count: int) -> list[Callable[[int, int], int]]:
    """The same tools as functions."""
    names = [tool_name(number) for number in range(count)]
    namespace: dict[str, Callable[[int, int], int]] = {}
    for name in names:
        exec(source_of(name), namespace)  # the text is ours, a few lines above
    return [namespace[name] for name in names]
