"""A tool as a REST request declares it: the manifest's fields as JSON, with the code in the request itself.

The same checks as for a manifest; a problem's path is then the field's, as ``limits.timeout`` or ``files[0].path``,
and for wrong Python the file's, with line and column.
"""

import re
from pathlib import PurePosixPath
from typing import Any

import msgspec

from portoser.catalog.errors import Invalid, Problem
from portoser.catalog.revision import KIB, SourceFile
from sync import fields
from sync.documents import Entrypoint, read_entrypoint
from sync.linking import DeclaredTool, check_function, check_powers, declared
from sync.located import Node, Problems, from_json
from sync.texts import MAX_FILE, MAX_TOOL, CodeFile, code_path_problem, function_named_after, read_code
from sync.tool_fields import TOOL_KEYS, ToolFields, tool_fields

_KEYS = (*(key for key in TOOL_KEYS if key != "adopt"), "code", "replace_existing")
_HINTS = {"adopt": "Only a manifest can adopt a tool.", "kind": "A request declares tools only."}


def from_rest(body: dict[str, Any]) -> DeclaredTool:
    """The tool that a request's body declares.

    The code stands in ``code``, or in ``files`` as ``[{"path", "content"}, …]`` (``filename`` is another word for
    ``path``) in the order of import. Without ``entrypoint`` the function is the one that is named like the tool's
    last dotted part, else the only public one of the last file. Fields that are null count as left out;
    ``replace_existing`` is allowed here and is the caller's to look at.

    Raises:
        Invalid: with every problem.
    """
    problems = Problems()
    try:
        root = from_json(body)
    except ValueError as error:
        raise Invalid([Problem(message=str(error))]) from None
    if isinstance(root.value, dict):
        root.value = {key: node for key, node in root.value.items() if node.value is not None}
    pairs = fields.mapping(problems, root, "", '{"name": "refund", "code": "def refund(): …"}', _KEYS, hints=_HINTS)
    fields.flag(problems, pairs.get("replace_existing"), "replace_existing")
    told = tool_fields(problems, pairs, place=Node(None, "name"), default_name=None)
    files = _files(problems, pairs, told.name)
    stated = read_entrypoint(problems, pairs.get("entrypoint"))
    entrypoint = _entrypoint(problems, told, files, stated) if files else None
    if entrypoint is not None:
        check_powers(problems, told, files, entrypoint, folder=PurePosixPath())
    found = tuple(msgspec.structs.replace(problem, tool=told.name) for problem in problems.found)
    if told.name is None or entrypoint is None or problems.has_errors:
        raise Invalid(problem for problem in found if problem.is_error)
    sources = tuple(SourceFile(path, code.text) for path, code in files.items())
    return DeclaredTool(
        name=told.name,
        declaration=declared(told, sources, entrypoint),
        group=told.group,
        permissions=told.permissions,
        warnings=found,
    )


def file_named_after(tool: str) -> str:
    """The Python file that holds the code of a tool which names none: the last dotted part of the name."""
    stem = re.sub(r"\W", "_", tool.rsplit(".", 1)[-1], flags=re.ASCII) or "tool"
    return f"_{stem}.py" if stem[0].isdigit() else f"{stem}.py"


def _files(problems: Problems, pairs: dict[str, Node], name: str | None) -> dict[str, CodeFile]:
    code, listed = pairs.get("code"), pairs.get("files")
    if code is not None and listed is not None:
        problems.error(code, "'code' and 'files' are both given.", "Give one of the two.")
        return {}
    if code is not None:
        taken = _code(problems, code, file_named_after(name or "tool"), "code")
        return {taken[0]: taken[1]} if taken else {}
    if listed is None:
        problems.error(Node(None, "code"), "The tool has no code.", "Give 'code', or several modules in 'files'.")
        return {}
    form = '"files": [{"path": "money.py", "content": "…"}, {"path": "refund.py", "content": "…"}]'
    if listed.value == []:
        problems.error(listed, "'files' is empty.", f"Write for example: {form}")
        return {}
    if not isinstance(listed.value, list):
        fields.wrong_type(problems, listed, "files", form)
        return {}
    files: dict[str, CodeFile] = {}
    whole = True
    for item in listed.value:
        read = _file(problems, item, form)
        if read is None:
            whole = False
        elif read[0] in files:
            problems.error(item, f"The path {read[0]!r} stands twice in 'files'.", "Give each file a path of its own.")
        else:
            files[read[0]] = read[1]
    if sum(code.size for code in files.values()) > MAX_TOOL:
        problems.error(
            listed, f"The files have more than {MAX_TOOL // KIB} KiB together.", "Leave out what is not needed."
        )
    return files if whole else {}


def _file(problems: Problems, item: Node, form: str) -> tuple[str, CodeFile] | None:
    pairs = fields.mapping(problems, item, "files", form, ("path", "filename", "content"))
    if not isinstance(item.value, dict):
        return None
    if "path" in pairs and "filename" in pairs:
        problems.error(pairs["filename"], "'path' and 'filename' are both given.", "They mean the same: give one.")
    named = pairs.get("path") or pairs.get("filename")
    if named is None or "content" not in pairs:
        missing = "path" if named is None else "content"
        problems.error(item, f"A file has no {missing!r}.", f"Write for example: {form}")
        return None
    path = fields.text(problems, named, "path", '"path": "refund.py"')
    if path is None:
        return None
    wrong = code_path_problem(path)
    if wrong is not None:
        problems.error(named, *wrong)
        return None
    return _code(problems, pairs["content"], path, "content")


def _code(problems: Problems, node: Node, path: str, field: str) -> tuple[str, CodeFile] | None:
    text = node.value
    if not isinstance(text, str):
        fields.wrong_type(problems, node, field, f'"{field}": "def refund():\\n    …"')
        return None
    try:
        content = text.encode()
    except UnicodeEncodeError:
        problems.error(node, f"{field!r} holds half of a surrogate pair.", "Take the character out.")
        return None
    if len(content) > MAX_FILE:
        problems.error(
            node,
            f"{field!r} has {len(content):,} bytes; at most {MAX_FILE // KIB} KiB are taken.",
            "Split it into files.",
        )
        return None
    code = read_code(content, path)
    if code.module.problem is not None:
        problems.found.append(code.module.problem)
        return None
    return path, code


def _entrypoint(
    problems: Problems, told: ToolFields, files: dict[str, CodeFile], stated: Entrypoint | None
) -> str | None:
    if stated is not None and stated.file not in files:
        names = ", ".join(files)
        problems.error(
            stated.node, f"'entrypoint' names {stated.file!r}, which is not among the files.", f"There: {names}."
        )
        return None
    file = stated.file if stated is not None else next(reversed(files))
    function = stated.function if stated is not None else None
    if function is None:
        wanted = function_named_after(file_named_after(told.name or "tool"))
        functions = files[file].module.functions
        public = files[file].module.public_functions()
        function = public[0] if wanted not in functions and len(public) == 1 else wanted
    field = "entrypoint" if stated is not None else "files" if len(files) > 1 else "code"
    place = Node(None, field)
    if not check_function(problems, told, files[file], function, file=file, whole=file, at=place, stated=stated):
        return None
    return f"{file}:{function}"
