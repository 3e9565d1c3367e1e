"""A tool's document and the files it names → the declared tool, or what does not fit together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import msgspec

from portoser.catalog.errors import Problem, Severity
from portoser.catalog.requirement import POWER as REQUIRES
from portoser.catalog.revision import KIB, Declaration, SourceFile
from sync.documents import Entrypoint, ToolDocument
from sync.located import Node, Problems, did_you_mean, nearest
from sync.powers_in_code import FORMS, undeclared
from sync.texts import MAX_TOOL, CodeFile, code_path_problem, function_named_after
from sync.tool_fields import ToolFields, check_against_parameters


class DeclaredTool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as its author declares it, whole and without an error in its text.

    ``path`` is the manifest's, relative to the source's folder, and ``line`` where the document begins in it;
    ``paths`` are all files that the tool is made of, the manifest first. Both are empty for a REST tool.
    """

    name: str
    declaration: Declaration
    group: str | None = None
    permissions: tuple[str, ...] | None = None
    adopt: bool = False
    path: str = ""
    line: int = 0
    paths: tuple[str, ...] = ()
    warnings: tuple[Problem, ...] = ()
    example_columns: Mapping[int, int] = {}
    """The columns of the examples by their lines, but of lines where several begin."""
    requires_place: tuple[int, int] = (0, 0)
    """The line and column of ``requires``."""


@dataclass(frozen=True, slots=True)
class Linked:
    """What came of linking. ``tool`` is None where something is wrong; ``needs`` are the paths that it looked at."""

    document: ToolDocument
    tool: DeclaredTool | None
    problems: tuple[Problem, ...]
    needs: tuple[str, ...]


class Folder:
    """The files of a source, as linking sees them: by path, with what was refused of them."""

    def __init__(
        self, code: Callable[[str], CodeFile | None], refused: Mapping[str, Problem], names: Callable[[str], list[str]]
    ) -> None:
        self.code = code
        """The Python file at a path, or None where there is none."""
        self.refused = refused
        self.names = names
        """The names of the Python files in a folder, for advice."""


def link_tool(document: ToolDocument, folder: Folder, group: str | Problem | None) -> Linked:
    """Bring a document and its files together. ``group`` is its folder's, or why that cannot be known."""
    problems = Problems()
    problems.found.extend(document.problems)
    files, needs = _files(problems, document, folder)
    entrypoint = None
    if files:
        entrypoint = _entrypoint(problems, document, files)
    if entrypoint is not None:
        check_powers(problems, document.fields, files, entrypoint, folder=PurePosixPath(document.path).parent)
    name = document.fields.name
    own_group = document.fields.group
    if own_group is None:
        if isinstance(group, Problem):
            problems.error(
                document.place,
                f"The group of this folder cannot be known: {group.path}:{group.line} is wrong.",
                "Put it right, or name the tool's own group: group: orders",
            )
        else:
            own_group = group
    found = tuple(msgspec.structs.replace(problem, tool=name) for problem in problems.found)
    if name is None or entrypoint is None or problems.has_errors:
        return Linked(document, None, found, needs)
    declaration = declared(
        document.fields, tuple(SourceFile(path, code.text) for path, code in files.items()), entrypoint
    )
    tool = DeclaredTool(
        name=name,
        declaration=declaration,
        group=own_group,
        permissions=document.fields.permissions,
        adopt=document.fields.adopt,
        path=document.path,
        line=document.place.line,
        paths=(document.path, *needs),
        warnings=found,
        example_columns=document.fields.example_columns,
        requires_place=_place_of_key(document.fields.requires_place),
    )
    return Linked(document, tool, found, needs)


def declared(fields: ToolFields, files: tuple[SourceFile, ...], entrypoint: str) -> Declaration:
    """The declaration of fields and code."""
    return Declaration(
        files=files,
        entrypoint=entrypoint,
        description=fields.description,
        input_schema=fields.input_schema,
        output_schema=fields.output_schema,
        annotations=fields.annotations,
        limits=fields.limits,
        isolation=fields.isolation,
        confirm=fields.confirm[0] if fields.confirm else None,
        uses=fields.uses,
        requires=fields.requires,
        redact=tuple(name for name, _ in fields.redact),
        examples=fields.examples,
    )


def _files(problems: Problems, document: ToolDocument, folder: Folder) -> tuple[dict[str, CodeFile], tuple[str, ...]]:
    """The tool's files by their own paths in the order of import, and their paths in the source."""
    own = PurePosixPath(document.path)
    if document.files is not None:
        wanted = document.files
    elif document.entrypoint is not None:
        wanted = ((document.entrypoint.file, document.entrypoint.node),)
    else:
        wanted = ((f"{own.stem}.py", document.place),)
    taken: dict[str, CodeFile] = {}
    needs: list[str] = []
    for path, node in wanted:
        wrong = code_path_problem(path)
        if wrong is not None:
            problems.error(node, *wrong)
            continue
        whole = str(own.parent / path)
        needs.append(whole)
        code = _code(problems, node, path, whole, folder, stated=node is not document.place)
        if code is not None:
            taken[path] = code
    size = sum(code.size for code in taken.values())
    if size > MAX_TOOL:
        problems.error(
            document.place,
            f"The tool's files have {size:,} bytes together; at most {MAX_TOOL // KIB} KiB are taken.",
            "Move what it does not need out of it.",
        )
    if len(taken) < len(wanted):
        return {}, tuple(needs)
    return taken, tuple(needs)


def _code(problems: Problems, node: Node, path: str, whole: str, folder: Folder, *, stated: bool) -> CodeFile | None:
    refused = folder.refused.get(whole)
    if refused is not None:
        problems.error(node, f"{path!r} cannot be taken: {refused.message}", refused.advice)
        return None
    code = folder.code(whole)
    if code is None:
        stem = nearest(path.removesuffix(".py"), (name.removesuffix(".py") for name in folder.names(whole)))
        near = f"Did you mean '{stem}.py'?" if stem is not None else ""
        message = f"There is no file {path!r} beside the manifest."
        advice = near or ("Add it." if stated else "Add it, or name another one: entrypoint: refund.py:refund")
        problems.error(node, message, advice)
        return None
    if code.module.problem is not None:
        problems.found.append(code.module.problem)
        return None
    return code


def _entrypoint(problems: Problems, document: ToolDocument, files: dict[str, CodeFile]) -> str | None:
    stated = document.entrypoint
    if stated is not None and stated.file not in files:
        near = did_you_mean(stated.file, files) or f"Add it: files: [{', '.join([*files, stated.file])}]"
        problems.error(stated.node, f"'entrypoint' names {stated.file!r}, which is not one of 'files'.", near)
        return None
    file = stated.file if stated is not None else next(reversed(files))
    function = (stated.function if stated is not None else None) or function_named_after(file)
    code = files[file]
    whole = str(PurePosixPath(document.path).parent / file)
    if not check_function(
        problems, document.fields, code, function, file=file, whole=whole, at=document, stated=stated
    ):
        return None
    return f"{file}:{function}"


def check_function(
    problems: Problems,
    fields: ToolFields,
    code: CodeFile,
    function: str,
    *,
    file: str,
    whole: str,
    at: "ToolDocument | Node",
    stated: Entrypoint | None,
) -> bool:
    """Whether a module has the function and a tool may have its signature; what is wrong is told.

    ``whole`` is the file's path in problems, ``at`` where the declaration stands.
    """
    module = code.module
    place = stated.node if stated is not None else at if isinstance(at, Node) else at.place
    found = module.functions.get(function)
    if found is None:
        if function in module.bound or (module.is_open and function not in module.classes):
            check_against_parameters(problems, fields, None, is_async=None)
            return True
        public = module.public_functions()
        if function in module.classes:
            message = f"{function!r} in {file} is a class; the entrypoint must be a function."
        else:
            message = f"There is no function {function!r} in {file}."
        advice = did_you_mean(function, public)
        if not advice and public:
            advice = f"Name one of its functions, for example: entrypoint: {file}:{public[0]}"
        problems.error(place, message, advice or f"Write 'def {function}(…):' in it.")
        return False
    for line, column, message, advice in found.refused:
        problems.found.append(Problem(path=whole, line=line, column=column, message=message, advice=advice))
    check_against_parameters(problems, fields, found.parameters, is_async=found.is_async)
    return True


def check_powers(
    problems: Problems, fields: ToolFields, files: Mapping[str, CodeFile], entrypoint: str, *, folder: PurePosixPath
) -> None:
    """Tell of each power that the code uses and the declaration does not name. ``folder`` is where the files are."""
    file, _, function = entrypoint.partition(":")
    modules = {path: (code.module.powers, code.text) for path, code in files.items()}
    for path, use, is_own in undeclared(modules, (file, function), fields.uses):
        does = "uses" if is_own else "may use"
        problems.found.append(
            Problem(
                path=str(folder / path),
                line=use.line,
                column=use.column,
                message=f"The tool {does} the power {use.power}, and its manifest does not say so.",
                advice=f"Write what it needs there, for example: uses: {{{FORMS[use.power]}}}",
                severity=Severity.ERROR if is_own else Severity.WARNING,
            )
        )


def _place_of_key(node: Node | None) -> tuple[int, int]:
    return (node.key_line or node.line, node.key_column or node.column) if node is not None else (0, 0)


def placed(problem: Problem, tool: DeclaredTool) -> Problem:
    """A problem of admission with its path in the source: admission knows only those in the manifest's folder."""
    if problem.path == REQUIRES:
        line, column = tool.requires_place
        return msgspec.structs.replace(problem, path=tool.path, line=line or tool.line, column=column, tool=tool.name)
    if problem.path:
        path = str(PurePosixPath(tool.path).parent / problem.path)
        return msgspec.structs.replace(problem, path=path, tool=tool.name)
    column = problem.column or tool.example_columns.get(problem.line, 0)
    return msgspec.structs.replace(
        problem, path=tool.path, line=problem.line or tool.line, column=column, tool=tool.name
    )
