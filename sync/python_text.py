"""Python text → what can be said of it without running it: its functions, or why it cannot be read.

Tool code is never imported here. What only an import can tell (schemas, decorators, names made at run time)
is admission's to find out, in a worker.
"""

import ast
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from portoser.catalog.errors import Problem
from sync.powers_in_code import NONE, PowersInCode, powers_in


@dataclass(frozen=True, slots=True)
class Function:
    """A function at the top level of a module."""

    name: str
    line: int
    column: int
    is_async: bool
    parameters: tuple[str, ...] | None
    """None where a decorator may have changed them."""
    refused: tuple[tuple[int, int, str, str], ...] = ()
    """Line, column, message and advice of each parameter that a tool cannot have."""


@dataclass(frozen=True, slots=True)
class Module:
    """A module as its text shows it. ``problem`` is why it cannot be read, None where it can."""

    functions: dict[str, Function] = field(default_factory=dict)
    bound: frozenset[str] = frozenset()
    """Other names that the top level binds by import or assignment, and that may be callable."""
    classes: frozenset[str] = frozenset()
    is_open: bool = False
    """Whether names may come from elsewhere, by ``from x import *``."""
    powers: PowersInCode = NONE
    problem: Problem | None = None

    def public_functions(self) -> tuple[str, ...]:
        """The functions whose names do not begin with an underscore, in the order of the text."""
        return tuple(name for name in self.functions if not name.startswith("_"))


def read_module(text: str, path: str) -> Module:
    """Parse a module's text."""
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        return _unreadable(path, line, 1, "The file holds a NUL character.", "Take it out.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text, filename=path)
        return _described(tree, powers_in(tree, text))
    except SyntaxError as error:
        return _unreadable(
            path,
            error.lineno or 0,
            max(error.offset or 0, 0),
            f"Not valid Python: {error.msg}.",
            _advice(error),
        )
    except (ValueError, MemoryError, RecursionError):
        return _unreadable(path, 0, 0, "The file cannot be parsed: it nests too deeply.", "Make it simpler.")


def _unreadable(path: str, line: int, column: int, message: str, advice: str) -> Module:
    return Module(problem=Problem(path=path, line=line, column=column, message=message, advice=advice))


def _advice(error: SyntaxError) -> str:
    if isinstance(error, TabError):
        return "Indent with spaces only."
    shown = (error.text or "").strip()
    return f"Look at: {shown[:80]}" if shown else ""


def _described(tree: ast.Module, powers: PowersInCode) -> Module:
    functions: dict[str, Function] = {}
    bound: set[str] = set()
    classes: set[str] = set()
    is_open = False
    for statement in _top_level(tree.body):
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            functions[statement.name] = _function(statement)
        elif isinstance(statement, ast.ClassDef):
            classes.add(statement.name)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            names = {alias.asname or alias.name.split(".")[0] for alias in statement.names}
            is_open = is_open or "*" in names
            bound |= names
        elif isinstance(statement, ast.Assign):
            bound.update(_names(statement.targets))
        elif isinstance(statement, ast.AnnAssign):
            bound.update(_names([statement.target]))
    return Module(
        functions=functions, bound=frozenset(bound), classes=frozenset(classes), is_open=is_open, powers=powers
    )


def _top_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run in the module's own namespace, also those under ``if``, ``try`` and ``with``."""
    waiting = [*body][::-1]  # not by recursion: a thousand times elif is a thousand statements deep
    while waiting:
        statement = waiting.pop()
        yield statement
        inner: list[ast.stmt] = []
        if isinstance(statement, ast.If):
            inner = [*statement.body, *statement.orelse]
        elif isinstance(statement, ast.Try | ast.TryStar):
            inner = [*statement.body, *statement.orelse, *statement.finalbody]
            inner += [each for handler in statement.handlers for each in handler.body]
        elif isinstance(statement, ast.With):
            inner = statement.body
        waiting.extend(reversed(inner))


def _names(targets: Iterable[ast.expr]) -> Iterator[str]:
    for target in targets:
        if isinstance(target, ast.Name):
            yield target.id
        elif isinstance(target, ast.Tuple | ast.List):
            yield from _names(target.elts)


def _function(statement: ast.FunctionDef | ast.AsyncFunctionDef) -> Function:
    arguments = statement.args
    by_name = "Give it named parameters: clients pass arguments by name."
    # A decorator may change the signature; then the import decides, not the text.
    refused: list[tuple[int, int, str, str]] = []
    if not statement.decorator_list:
        for argument in arguments.posonlyargs:
            message = f"The parameter {argument.arg!r} is positional only, which a tool's cannot be."
            refused.append((argument.lineno, argument.col_offset + 1, message, "Take the '/' out of the signature."))
        for star, argument_or_none in (("*", arguments.vararg), ("**", arguments.kwarg)):
            if argument_or_none is not None:
                message = f"A tool cannot have '{star}{argument_or_none.arg}'."
                place = (argument_or_none.lineno, argument_or_none.col_offset + 1 - len(star))
                refused.append((*place, message, by_name))
    return Function(
        name=statement.name,
        line=statement.lineno,
        column=statement.col_offset + 1,
        is_async=isinstance(statement, ast.AsyncFunctionDef),
        parameters=None
        if statement.decorator_list
        else tuple(argument.arg for argument in (*arguments.args, *arguments.kwonlyargs)),
        refused=tuple(refused),
    )
