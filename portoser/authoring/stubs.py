"""Type stubs of `portoser.tool`, for the editors and type checkers of authors who have not installed Portoser.

They are made of the module's own text each time they are asked for, so they say what this version says: names,
signatures, docstrings. Nothing is imported for it.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
SOURCE = _PACKAGE / "tool.py"
BESIDE = _PACKAGE / "tool_http.py"
"""What the module imports of ours."""

_HEAD = "# Stubs of Portoser {version} for tools. Written by `portoser tool stubs`, which also writes them anew.\n\n"
_KEPT_METHODS = frozenset({"__init__", "__getattr__", "__getitem__", "__iter__", "__len__", "__call__", "__await__"})


def stub_files(version: str, globals_: tuple[str, ...]) -> dict[str, str]:
    """The stubs by path below their folder.

    ``globals_`` are the names that tools have without importing them: pyright takes them from ``__builtins__.pyi``.
    """
    head = _HEAD.format(version=version)
    names = "".join(f"from portoser.tool import {name} as {name}\n" for name in globals_)
    return {
        "portoser/__init__.pyi": head.rstrip("\n") + "\n",
        "portoser/tool.pyi": head + stub_of(SOURCE.read_text(encoding="utf-8")),
        "portoser/tool_http.pyi": head + stub_of(BESIDE.read_text(encoding="utf-8")),
        "__builtins__.pyi": head + names,
    }


def stub_of(source: str) -> str:
    """The stub of a module: what its ``__all__`` names, and what that needs."""
    module = ast.parse(source)
    defined: dict[str, ast.stmt] = {}
    imports: list[ast.Import | ast.ImportFrom] = []
    exported: list[str] = []
    for statement in module.body:
        match statement:
            case ast.Import() | ast.ImportFrom():
                imports.append(statement)
            case ast.Assign(targets=[ast.Name(id="__all__")]):
                exported = ast.literal_eval(statement.value)
                defined["__all__"] = statement
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                defined[name] = _stubbed(statement)
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Name() as made)):
                defined[name] = ast.AnnAssign(target=ast.Name(name), annotation=made, value=None, simple=1)
    needed = _needed(["__all__", *exported], defined)
    body = [statement for name, statement in defined.items() if name in needed]
    used = {name for statement in body for name in _names(statement)}
    kept = [part for statement in imports if (part := _used_part(statement, used)) is not None]
    text = ast.get_docstring(module, clean=False)
    told: list[ast.stmt] = [ast.Expr(ast.Constant(text))] if text else []
    stub = ast.Module(body=[*told, *kept, *body], type_ignores=[])
    return ast.unparse(ast.fix_missing_locations(stub)) + "\n"


def _needed(names: list[str], defined: Mapping[str, ast.stmt]) -> set[str]:
    waiting, needed = list(names), set[str]()
    while waiting:
        name = waiting.pop()
        if name in defined and name not in needed:
            needed.add(name)
            waiting.extend(_names(defined[name]))
    return needed


def _names(statement: ast.AST) -> Iterator[str]:
    return (node.id for node in ast.walk(statement) if isinstance(node, ast.Name))


def _used_part(statement: ast.Import | ast.ImportFrom, used: set[str]) -> ast.stmt | None:
    aliases = [alias for alias in statement.names if (alias.asname or alias.name).partition(".")[0] in used]
    if not aliases:
        return None
    if isinstance(statement, ast.Import):
        return ast.Import(names=aliases)
    return ast.ImportFrom(module=statement.module, names=aliases, level=statement.level)


def _stubbed(statement: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> ast.stmt:
    if not isinstance(statement, ast.ClassDef):
        return _function(statement)
    body: list[ast.stmt] = []
    text = ast.get_docstring(statement, clean=False)
    if text:
        body.append(ast.Expr(ast.Constant(text)))
    for part in statement.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            body.extend(_attributes(part, statement))
    for part in statement.body:
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) and _is_told(part.name):
            body.append(_function(part))
        elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and _is_told(part.target.id):
            body.append(ast.AnnAssign(target=part.target, annotation=part.annotation, value=None, simple=1))
    return ast.ClassDef(
        name=statement.name,
        bases=statement.bases,
        keywords=statement.keywords,
        decorator_list=statement.decorator_list,
        body=body or [_ellipsis()],
    )


def _function(function: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.stmt:
    text = ast.get_docstring(function, clean=False)
    kind = type(function)
    return kind(
        name=function.name,
        args=function.args,
        body=[ast.Expr(ast.Constant(text)) if text else _ellipsis()],
        decorator_list=function.decorator_list,
        returns=function.returns,
    )


def _attributes(init: ast.FunctionDef, of: ast.ClassDef) -> Iterator[ast.stmt]:
    """The attributes that ``__init__`` gives, with the types that its text shows; Any where it shows none."""
    parameters = {each.arg: each.annotation for each in [*init.args.args, *init.args.kwonlyargs]}
    returns = {part.name: part.returns for part in of.body if isinstance(part, ast.FunctionDef)}
    for statement in init.body:
        match statement:
            case ast.AnnAssign(target=ast.Attribute(attr=name), annotation=annotation):
                pass
            case ast.Assign(targets=[ast.Attribute(attr=name)], value=ast.Name(id=parameter)):
                annotation = parameters.get(parameter) or ast.Name("Any")
            case ast.Assign(targets=[ast.Attribute(attr=name)], value=ast.Call(func=ast.Attribute(attr=method))):
                annotation = returns.get(method) or ast.Name("Any")
            case ast.Assign(targets=[ast.Attribute(attr=name)]):
                annotation = ast.Name("Any")
            case _:
                continue
        if _is_told(name):
            yield ast.AnnAssign(target=ast.Name(name), annotation=annotation, value=None, simple=1)


def _is_told(name: str) -> bool:
    return not name.startswith("_") or name in _KEPT_METHODS


def _ellipsis() -> ast.stmt:
    return ast.Expr(ast.Constant(...))
