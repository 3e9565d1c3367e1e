"""Imports a tool's files as modules, from memory.

The files are modules that can import each other by name, whole or from packages (a folder is one, with or without an
``__init__.py``), and are imported in the order in which they were declared. Nothing is written to disk;
:mod:`linecache` is fed, so that tracebacks show source lines.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from types import ModuleType
from typing import Any

from portoser import tool
from portoser.catalog.revision import SourceFile

TAKEN = sys.stdlib_module_names | {
    "annotated_types",
    "msgspec",
    "portoser",
    "pydantic",
    "pydantic_core",
    "typing_extensions",
    "typing_inspection",
}
"""Names that other code imports. A file of such a name is imported under another one, lest it stands in their way."""

INJECTED: Mapping[str, Any] = {
    "ctx": tool.ctx,
    "registry": tool.registry,
    "vault": tool.vault,
    "cluster": tool.cluster,
    "http": tool.http,
}


class EntrypointError(Exception):
    """The entrypoint does not name a function of one of the files."""

    def __init__(self, message: str, *, path: str, advice: str = "") -> None:
        self.path = path
        self.advice = advice
        super().__init__(message)


def module_name(path: str) -> str:
    """The name that a file is imported by: ``money`` for ``money.py``, ``shop.tax`` for ``shop/tax.py``."""
    parts = list(PurePosixPath(path).with_suffix("").parts)
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    parts = [part.replace(".", "_") for part in parts]
    if parts[0] in TAKEN:
        parts[0] = f"tool_{parts[0]}"
    return ".".join(parts)


class Library(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """The modules of one tool: a finder and loader of :mod:`importlib` over texts."""

    def __init__(self, files: Sequence[SourceFile]) -> None:
        self._files = {module_name(file.path): file for file in files}
        self._order = tuple(self._files)
        self._packages = {name.rsplit(".", depth)[0] for name in self._files for depth in range(1, name.count(".") + 1)}
        self.paths = frozenset(file.path for file in files)

    def import_all(self) -> None:
        """Import the files in their order. Raises whatever they raise."""
        for file in self._files.values():
            linecache.cache[file.path] = (
                len(file.content),
                None,
                file.content.splitlines(keepends=True),
                file.path,
            )
        for name in {name.partition(".")[0] for name in self._order}:
            sys.modules.pop(name, None)  # something preloaded, which no tool has asked for yet
        sys.meta_path.insert(0, self)
        for name in self._order:
            importlib.import_module(name)

    def entrypoint(self, entrypoint: str) -> Callable[..., Any]:
        """The function that ``<file>:<function>`` names, after ``import_all``.

        Raises:
            EntrypointError: where there is none.
        """
        path, _, function = entrypoint.partition(":")
        module = sys.modules.get(module_name(path))
        if path not in self.paths or module is None:
            raise EntrypointError(
                f"The entrypoint's file {path!r} is not one of the tool's files.",
                path=path,
                advice=f"Its files are {', '.join(sorted(self.paths))}.",
            )
        found = getattr(module, function, None)
        if found is None:
            raise EntrypointError(f"{path} has no function {function!r}.", path=path, advice=_functions_advice(module))
        if not callable(found):
            raise EntrypointError(
                f"{function!r} in {path} is not a function but {type(found).__name__}.",
                path=path,
                advice=_functions_advice(module),
            )
        result: Callable[..., Any] = found
        return result

    # importlib's interface -----------------------------------------------------------------------------------

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of a module that is one of ours, or a folder of ours."""
        file = self._files.get(name)
        is_package = name in self._packages or (file is not None and file.path.endswith("/__init__.py"))
        if file is None and not is_package:
            return None
        origin = file.path if file is not None else None
        spec = importlib.machinery.ModuleSpec(name, self, origin=origin, is_package=is_package)
        spec.has_location = file is not None
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """An ordinary module."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run a file's code in its module."""
        file = self._files.get(module.__name__)
        if file is None:
            return
        module.__dict__.update(INJECTED)
        code = compile(file.content, file.path, "exec", dont_inherit=True)
        exec(code, module.__dict__)  # noqa: S102 - running a tool's code is what this process is for

    def get_source(self, name: str) -> str | None:
        """A module's text, for :mod:`inspect` and :mod:`linecache`."""
        file = self._files.get(name)
        return file.content if file is not None else None


def _functions_advice(module: ModuleType) -> str:
    names = [
        name
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    return f"Its functions are {', '.join(sorted(names))}." if names else "It defines no public function."
