"""The forms that a new tool may begin with: a template each, in `templates/`."""

import ast
import builtins
import keyword
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

TEMPLATES = Path(__file__).with_name("templates")
SCHEMA_FILE = ".schema/manifest.schema.json"
"""Where the manifests' JSON Schema stands in a folder of tools. Hidden folders are no part of what is served."""

_SECTION = "--- "


class Form(StrEnum):
    """What a template shows; the first is the default."""

    FUNCTION = "function"
    ASYNC = "async"
    FILES = "files"
    SCHEMA = "schema"
    DATACLASS = "dataclass"
    MODEL = "model"
    IMAGE = "image"
    CONFIRM = "confirm"
    REGISTRY = "registry"
    GROUP = "group"
    POLICY = "policy"

    @property
    def is_tool(self) -> bool:
        """Whether it declares a tool, and no group and no policy."""
        return self not in {Form.GROUP, Form.POLICY}

    @property
    def summary(self) -> str:
        """What it shows, in a sentence."""
        return _text_of(self).partition("\n")[0]


@dataclass(frozen=True, slots=True)
class _Names:
    """What stands for the placeholders of a template."""

    name: str
    folder: str
    stem: str
    function: str


def made(form: Form, name: str, group: str | None = None) -> dict[str, str]:
    """The files of a new tool, group or policy by their path in the folder of tools; code comes before manifests.

    ``name`` is the tool's, `orders.refund` being `orders/refund.yaml`, or the group's.
    """
    sections = _sections(_text_of(form))
    names = _names(form, name, sections)
    files: dict[str, str] = {}
    for path, text in sections:
        placed = _filled(path, names)
        if form.is_tool and names.folder:
            placed = f"{names.folder}/{placed}"
        files[placed] = (
            _manifest(text, placed, names, form, group) if placed.endswith(".yaml") else _filled(text, names)
        )
    return dict(sorted(files.items(), key=lambda file: file[0].endswith(".yaml")))


def _text_of(form: Form) -> str:
    return (TEMPLATES / f"{form}.txt").read_text(encoding="utf-8")


def _sections(text: str) -> list[tuple[str, str]]:
    parts = ("\n" + text).split(f"\n{_SECTION}")[1:]
    return [
        (path, body if body.endswith("\n") else f"{body}\n") for path, _, body in (p.partition("\n") for p in parts)
    ]


def _names(form: Form, name: str, sections: list[tuple[str, str]]) -> _Names:
    whole = name.replace(".", "/")
    if not form.is_tool:
        return _Names(name, whole, "", "")
    folder, _, stem = whole.rpartition("/")
    code = "".join(body for path, body in sections if path.endswith(".py"))
    return _Names(name, folder, stem, _function(stem, _taken(code)))


def _taken(code: str) -> set[str]:
    """The names that a template's code uses, which its function may not have."""
    tree = ast.parse(code.replace("@function@", "_"))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    aliases = (
        alias for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
    )
    return used | defined | {alias.asname or alias.name for alias in aliases}


def _function(stem: str, taken: set[str]) -> str:
    function = "".join(letter if letter.isalnum() else "_" for letter in stem)
    if not function.isidentifier():
        function = f"tool_{function}"
    if keyword.iskeyword(function) or hasattr(builtins, function) or function in taken:
        function = f"{function}_tool"
    return function


def _manifest(text: str, path: str, names: _Names, form: Form, group: str | None) -> str:
    schema = os.path.relpath(SCHEMA_FILE, PurePosixPath(path).parent)
    head, _, rest = _filled(text, names).partition("\n")
    lines = [f"# yaml-language-server: $schema={schema}", head]
    if group is not None:
        lines.append(f"group: {group}")
    if form.is_tool and names.function != "".join(c if c.isalnum() else "_" for c in names.stem):
        lines.append(f"entrypoint: {names.stem}.py:{names.function}")
    return "\n".join([*lines, rest])


def _filled(text: str, names: _Names) -> str:
    for word in ("name", "folder", "stem", "function"):
        text = text.replace(f"@{word}@", getattr(names, word))
    return text
