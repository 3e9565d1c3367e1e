"""Where a tool's code uses a power that its manifest does not declare, told from its text.

A power is a global that every module of a tool has, or is imported from ``portoser.tool``. A name that the module, or
the function around it, binds to something else is no power. What counts is what the entrypoint can reach by names: a
module may serve several tools, of which each declares what it uses itself. What is reached by a statement of a module
alone, such as a list of functions, is told as what may be used.
"""

import ast
import re
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TypeAlias

from portoser.powers.room import KEPT

WORDS = {kept.name: kept.word for kept in KEPT if not kept.is_open}
"""The powers that a manifest has to declare: what they are called in code, and there."""

FORMS = {
    "http": 'network: ["api.example.com:443"]',
    "vault": 'vault: ["orders/stripe-key"]',
    "cluster": 'cluster: ["…"]',
}
_MENTIONED = re.compile(rf"\b({'|'.join(WORDS)})\b")
_PACKAGE, _MODULE = "portoser", "portoser.tool"

_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_Comprehension: TypeAlias = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
_Parts: TypeAlias = set[tuple[str, str | None]]
"""Files, and in them functions or classes of the module, or None for what is outside of them."""
_Inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


@dataclass(frozen=True, slots=True)
class PowerUse:
    """A place that uses a power. ``within`` is the function or class of the module that it is in, None outside."""

    power: str
    line: int
    column: int
    within: str | None


@dataclass(frozen=True, slots=True)
class PowersInCode:
    """The uses of a module. ``needs`` are the names of the module that each of its parts reads, None being the rest;
    ``imports`` says of names where they are from: a module, and the name in it, or None for all of it.
    """

    uses: tuple[PowerUse, ...] = ()
    needs: Mapping[str | None, frozenset[str]] = field(default_factory=dict)
    imports: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)


NONE = PowersInCode()


def powers_in(tree: ast.Module, text: str) -> PowersInCode:
    """What of a module's text concerns powers: `NONE`, which is known at once, where no power's name is in it.

    Raises:
        RecursionError: it nests too deeply.
    """
    return _read(tree) if _MENTIONED.search(text) is not None else NONE


def undeclared(
    files: Mapping[str, tuple[PowersInCode, str]], entrypoint: tuple[str, str], uses: Mapping[str, object]
) -> Iterator[tuple[str, PowerUse, bool]]:
    """The uses of powers that ``uses`` does not name, by file; of those, what the entrypoint's function can reach, and
    whether it does so by its own code: what it has in hand by a statement of a module alone may serve others.

    ``files`` holds what each module's text says of powers, and the text.
    """
    wanted = {power for power, word in WORDS.items() if word not in uses}
    if not any(use.power in wanted for module, _ in files.values() for use in module.uses):
        return
    modules = {path: _parsed(text) if module is NONE else module for path, (module, text) in files.items()}
    outside: _Parts = {(path, None) for path in modules}  # what an import runs
    own = outside | _reached(modules, _entry(modules, entrypoint))
    every = own | _reached(modules, outside)
    for path, module in modules.items():
        told: set[str] = set()
        for parts in (own, every):
            for use in module.uses:
                if use.power in wanted and use.power not in told and (path, use.within) in parts:
                    told.add(use.power)
                    yield path, use, parts is own


def _parsed(text: str) -> PowersInCode:
    """What a module reads and imports, that has no power's name in it; nothing where it nests too deeply to tell."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _read(ast.parse(text))
        except (RecursionError, MemoryError):
            return NONE


def _entry(modules: Mapping[str, PowersInCode], entrypoint: tuple[str, str]) -> _Parts:
    file, function = entrypoint
    if file not in modules:
        return set()
    return {(file, function)} if function in modules[file].needs else set(_parts(file, modules[file]))


def _reached(modules: Mapping[str, PowersInCode], begin: _Parts) -> _Parts:
    """The parts of modules that some parts name, or something that they name; with them."""
    by_name = {_module_name(path): path for path in modules}
    waiting = deque(begin)
    reached: _Parts = set()
    while waiting:
        part = waiting.popleft()
        if part in reached:
            continue
        reached.add(part)
        path, within = part
        module = modules[path]
        for name in module.needs.get(within, ()):
            if name in module.needs:
                waiting.append((path, name))
            elif name in module.imports:
                source, imported = module.imports[name]
                other = by_name.get(source) or by_name.get(f"{source}.{imported}")
                if other is not None:
                    whole = imported is None or imported not in modules[other].needs
                    waiting.extend(_parts(other, modules[other]) if whole else [(other, imported)])
    return reached


def _parts(path: str, module: PowersInCode) -> list[tuple[str, str | None]]:
    return [(path, part) for part in module.needs]


def _module_name(path: str) -> str:
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


class _Scope:
    """The names that a module, a function or a class binds: to a power, to where powers are from, or to None."""

    __slots__ = ("is_class", "names")

    def __init__(self, names: dict[str, str | None], *, is_class: bool = False) -> None:
        self.names = names
        self.is_class = is_class


def _read(tree: ast.Module) -> PowersInCode:
    walk = _Walk(tree)
    return PowersInCode(tuple(walk.uses), {part: frozenset(names) for part, names in walk.needs.items()}, walk.imports)


class _Walk:
    def __init__(self, tree: ast.Module) -> None:
        self.uses: list[PowerUse] = []
        self.needs: dict[str | None, set[str]] = {None: set()}
        self.imports: dict[str, tuple[str, str | None]] = {}
        self._within: str | None = None
        self._is_top = True
        bound = _bound(tree.body)
        is_open = any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(tree))
        injected: dict[str, str | None] = {} if is_open else {power: power for power in WORDS}
        for node in ast.walk(tree):
            if isinstance(node, ast.Global):  # a function that binds a name of the module
                bound.update(dict.fromkeys(node.names))
        self._scopes = [_Scope({**injected, **bound})]
        self._imported(tree.body)
        for statement in tree.body:
            self._visit(statement)

    def _imported(self, body: list[ast.stmt]) -> None:
        for node in _of_scope(body):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self.imports[alias.asname or alias.name.partition(".")[0]] = (alias.name, None)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self.imports[alias.asname or alias.name] = (node.module or "", alias.name)

    def _visit(self, node: ast.AST) -> None:
        waiting = [node]  # not by recursion: a sum of a thousand terms is a thousand nodes deep
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.Name | ast.Attribute):
                meaning = self._meaning(node)
                if meaning in WORDS and not isinstance(node.ctx, ast.Store | ast.Del):
                    self.uses.append(PowerUse(meaning, node.lineno, node.col_offset + 1, self._within))
            if isinstance(node, _Inner):
                self._visit_inner(node)
            elif isinstance(node, _Comprehension):
                targets = [each.target for each in node.generators]
                names = {each.id: None for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
                self._visit_all(ast.iter_child_nodes(node), _Scope(dict(names)))
            else:
                waiting.extend(reversed(list(ast.iter_child_nodes(node))))

    def _visit_inner(self, node: "_Function | ast.ClassDef") -> None:
        is_part = self._is_top and not isinstance(node, ast.Lambda)
        if is_part:
            self._within = node.name  # type: ignore[union-attr] # a lambda is no part
            self.needs.setdefault(self._within, set())
            self._is_top = False
        if isinstance(node, ast.ClassDef):
            body: list[ast.AST] = list(node.body)
            outside = [*node.decorator_list, *node.bases, *node.keywords]
            scope = _Scope(_bound(node.body), is_class=True)
        else:
            body = list(node.body) if isinstance(node.body, list) else [node.body]
            arguments = node.args
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
            outside = [*arguments.defaults, *(each for each in arguments.kw_defaults if each is not None)]
            outside += [each.annotation for each in every if each is not None and each.annotation is not None]
            if not isinstance(node, ast.Lambda):
                outside += [*node.decorator_list, *([node.returns] if node.returns is not None else [])]
            named: dict[str, str | None] = {each.arg: None for each in every if each is not None}
            scope = _Scope({**_bound(body), **named})
        for each in outside:
            self._visit(each)
        self._visit_all(iter(body), scope)
        if is_part:
            self._within = None
            self._is_top = True

    def _visit_all(self, nodes: Iterator[ast.AST], scope: _Scope) -> None:
        self._scopes.append(scope)
        for node in nodes:
            self._visit(node)
        self._scopes.pop()

    def _meaning(self, node: ast.expr) -> str | None:
        """The power that an expression is, or the module that has them, or None."""
        attributes: list[str] = []
        while isinstance(node, ast.Attribute) and len(attributes) < len(_MODULE.split(".")):
            attributes.append(node.attr)
            node = node.value
        meaning = self._looked_up(node.id) if isinstance(node, ast.Name) else None
        for name in reversed(attributes):
            if meaning == _PACKAGE and name == "tool":
                meaning = _MODULE
            else:
                meaning = name if meaning == _MODULE and name in WORDS else None
        return meaning

    def _looked_up(self, name: str) -> str | None:
        innermost = self._scopes[-1]
        for scope in reversed(self._scopes):
            if name in scope.names and (not scope.is_class or scope is innermost):
                if scope is self._scopes[0]:
                    self.needs[self._within].add(name)
                return scope.names[name]
        return None


def _bound(body: "list[ast.stmt] | list[ast.AST]") -> dict[str, str | None]:
    """What a scope binds by its own statements; what a name means where one of them binds it to a power, whatever
    stands in for it where the import fails."""
    bound: dict[str, str | None] = {}
    elsewhere: set[str] = set()
    for node in _of_scope(body):
        if isinstance(node, ast.Global | ast.Nonlocal):
            elsewhere.update(node.names)
        for name, meaning in _bindings(node):
            bound[name] = meaning or bound.get(name)
    return {name: meaning for name, meaning in bound.items() if name not in elsewhere}


def _bindings(node: ast.AST) -> Iterator[tuple[str, str | None]]:
    match node:
        case ast.Import(names=aliases):
            for alias in aliases:
                meaning = _MODULE if alias.name == _MODULE and alias.asname else _PACKAGE
                is_ours = alias.name in (_MODULE, _PACKAGE)
                yield alias.asname or alias.name.partition(".")[0], meaning if is_ours else None
        case ast.ImportFrom(module=module, names=aliases):
            for alias in aliases:
                of_package = _MODULE if module == _PACKAGE and alias.name == "tool" else None
                is_power = module == _MODULE and alias.name in WORDS
                yield alias.asname or alias.name, alias.name if is_power else of_package
        case ast.Name(id=str() as name, ctx=ast.Store() | ast.Del()):
            yield name, None
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name, None
        case (
            ast.ExceptHandler(name=str() as name) | ast.MatchAs(name=str() as name) | ast.MatchStar(name=str() as name)
        ):
            yield name, None
        case ast.MatchMapping(rest=str() as name):
            yield name, None


def _of_scope(body: "list[ast.stmt] | list[ast.AST]") -> Iterator[ast.AST]:
    """The nodes of a scope's own statements: not those in the functions and classes that it defines."""
    waiting: deque[ast.AST] = deque(body)
    while waiting:
        node = waiting.popleft()
        yield node
        if isinstance(node, _Comprehension):
            # Only ':=' binds a name around it.
            waiting.extend(each.target for each in ast.walk(node) if isinstance(each, ast.NamedExpr))
        elif not isinstance(node, _Inner):
            waiting.extend(ast.iter_child_nodes(node))
