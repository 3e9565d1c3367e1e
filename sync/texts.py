"""Bytes → text, or why they are not taken; and which paths a declaration may name."""

from dataclasses import dataclass
from pathlib import PurePosixPath

from portoser.catalog.errors import Problem
from portoser.catalog.revision import KIB, MIB
from sync.python_text import Module, read_module
from sync.yaml_text import place_of

MAX_FILE = 256 * KIB
MAX_TOOL = MIB
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True, slots=True)
class CodeFile:
    """A Python file as it is served: its text, and what the text shows."""

    text: str
    size: int
    module: Module


def read_text(content: bytes, path: str) -> str | Problem:
    """The text of a file, without a byte order mark, or why it is not taken."""
    if len(content) > MAX_FILE:
        return too_large(path, len(content))
    if content.startswith(_LFS_POINTER):
        return Problem(
            path=path,
            message="This is a pointer of Git LFS, not the file itself.",
            advice="Keep tools out of LFS: git lfs untrack, then add the file again.",
        )
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Problem(path=path, line=1, column=1, message="The file is UTF-16.", advice="Save it as UTF-8.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = place_of(content[: error.start].decode(errors="replace"), error.start)
        return Problem(
            path=path,
            line=line,
            column=min(column, error.start + 1),
            message=f"The file is not UTF-8: byte 0x{content[error.start]:02x}.",
            advice="Save it as UTF-8.",
        )


def too_large(path: str, size: int) -> Problem:
    """The problem of a file that is over the limit. ``size`` in bytes."""
    return Problem(
        path=path,
        message=f"The file has {size:,} bytes; at most {MAX_FILE // KIB} KiB are taken.",
        advice="Split it into several files, or fetch its data when the tool runs.",
    )


def read_code(content: bytes, path: str) -> CodeFile:
    """A Python file, with what is wrong in its module where it cannot be read."""
    text = read_text(content, path)
    if isinstance(text, Problem):
        return CodeFile("", len(content), Module(problem=text))
    return CodeFile(text, len(content), read_module(text, path))


def code_path_problem(path: str) -> tuple[str, str] | None:
    """What is wrong with the path of a Python file in a declaration, with advice; None where it may be used."""
    parts = path.split("/")
    if path.startswith("/") or (len(path) > 1 and path[1] == ":"):
        return f"{path[:80]!r} is an absolute path.", "Name files relative to the manifest's folder."
    if "\\" in path:
        return f"{path[:80]!r} holds a backslash.", "Part folders by '/'."
    if ".." in parts:
        return f"{path[:80]!r} leaves the manifest's folder.", "Move the file into the folder of the manifest."
    if "" in parts or "." in parts:
        return f"{path[:80]!r} is not in its shortest form.", "Write it without './' and '//'."
    if not path.endswith(".py") or path == ".py" or path.endswith("/.py"):
        return f"{path[:80]!r} is not a Python file.", "Its name must end in '.py'."
    if len(path) > 200:
        return "The path has more than 200 characters.", "Shorten it."
    return None


def function_named_after(path: str) -> str:
    """The function that a file is taken to define where none is named: the file's stem, as an identifier."""
    return "".join(c if c.isalnum() or c == "_" else "_" for c in PurePosixPath(path).stem)
