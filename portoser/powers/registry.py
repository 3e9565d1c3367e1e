"""The registry power: the hosts and services of the operators' ``registry.yml``, read-only.

The file has two sections. Only names, addresses and the references between them are checked; whatever else an
operator writes is handed to the tools as it is::

    hosts:
      alpha:
        address: 10.0.0.11
    services:
      web:
        host: alpha
        port: 8080
"""

import asyncio
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import yaml

from portoser.catalog.errors import PowerError
from portoser.powers.base import Power, PowerRefused, Use, bound, unknown_method

EXAMPLE = Path(__file__).with_name("registry.example.yml")
"""The registry that is served where the operator has none yet."""

METHODS = ("services", "service", "machines", "read")

_LARGEST = 4 * 1024 * 1024
_LONGEST_PATH = 1000
_MOST_PROBLEMS = 10
_DEPTH = 3
"""Sections, names, fields: what is checked, and so has a place in messages."""

_Places: TypeAlias = Mapping[tuple[str, ...], tuple[int, int]]


class RegistryFile(NamedTuple):
    """What a registry file says, checked."""

    hosts: list[dict[str, Any]]
    services: list[dict[str, Any]]
    document: dict[str, Any]


class RegistryProblems(PowerError):
    """A registry file cannot be served. ``problems`` has everything that is wrong, each with its place."""

    def __init__(self, name: str, problems: list[str]) -> None:
        self.problems = problems
        more = f" And {len(problems) - _MOST_PROBLEMS} more." if len(problems) > _MOST_PROBLEMS else ""
        told = " ".join(problems[:_MOST_PROBLEMS])
        super().__init__(f"The registry {name} has problems, which whoever runs the server can put right: {told}{more}")


class RegistryPower(Power):
    """Answers from a registry file, which it reads again whenever it has changed."""

    name = "registry"
    word = "registry"
    is_open = True

    def __init__(self, path: Path = EXAMPLE) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._file = RegistryFile([], [], {})
        self._reading = asyncio.Lock()

    async def call(self, method: str, args: list[Any], kwargs: dict[str, Any], use: Use) -> Any:
        """Answer one of ``services() service(name) machines() read(path)``.

        Raises:
            PowerError: for another method, wrong arguments, a name that is not there, or a file with problems.
        """
        use.targets.extend(value for value in (*args, *kwargs.values()) if isinstance(value, str))
        del use.targets[1:]
        functions: Mapping[str, Callable[..., Any]] = {
            "services": lambda: file.services,
            "service": lambda name: _service(file, name),
            "machines": lambda: file.hosts,
            "read": lambda path="": _read(file, path),
        }
        function = functions.get(method)
        if function is None:
            raise unknown_method(self.name, method, METHODS)
        file = await self._current()
        return bound(self.name, method, function, args, kwargs)

    async def _current(self) -> RegistryFile:
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen != self._seen:
                async with self._reading:
                    if seen != self._seen:
                        self._file = await asyncio.to_thread(read_registry, self._path)
                        self._seen = seen
        except OSError as error:
            raise PowerError(f"The registry {self._path.name} cannot be read: {error.strerror}.") from None
        return self._file


# What it answers ----------------------------------------------------------------------------------------------


def _service(file: RegistryFile, name: object) -> dict[str, Any]:
    for service in file.services:
        if service["name"] == name:
            return service
    raise PowerError(_no_such("service", name, [service["name"] for service in file.services]))


def _read(file: RegistryFile, path: object) -> Any:
    if not isinstance(path, str):
        raise PowerRefused("registry.read() takes a dotted path, for example services.web.port.")
    if len(path) > _LONGEST_PATH:
        raise PowerRefused(f"The path has {len(path):,} characters; at most {_LONGEST_PATH:,} are read.")
    found: Any = file.document
    taken: list[str] = []
    for step in filter(None, path.split(".")):
        if isinstance(found, list) and step.isdecimal() and int(step) < len(found):
            found = found[int(step)]
        elif isinstance(found, dict) and step in found:
            found = found[step]
        else:
            keys = list(found) if isinstance(found, dict) else []
            raise PowerError(_no_such("entry", step, keys, where=".".join(taken) or "the registry"))
        taken.append(step)
    return found


# The file -----------------------------------------------------------------------------------------------------


def read_registry(path: Path) -> RegistryFile:
    """Read and check a registry file.

    Raises:
        RegistryProblems: naming every problem of the file, each as ``file:line:column: what, and what to do``.
        OSError: where it cannot be read.
    """
    name = path.name
    size = path.stat().st_size
    if size > _LARGEST:
        raise RegistryProblems(name, [f"{name}: It is larger than {_LARGEST // 1024 // 1024} MiB. Make it smaller."])
    try:
        document, places = _parsed(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark is not None else name
        raise RegistryProblems(name, [f"{place}: This is not YAML: {error.problem or error.context}."]) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RegistryProblems(name, [f"{name}: This is not YAML: {' '.join(str(error).split())}."]) from None
    except RecursionError:
        raise RegistryProblems(name, [f"{name}: It nests too deeply. Make it flatter."]) from None
    if document is None:
        document = {}
    if not isinstance(document, dict):
        message = f"{name}:1:1: It must hold the sections hosts and services, as mappings of names."
        raise RegistryProblems(name, [message])
    check = _Check(name, places)
    file = check.file(document)
    if check.problems:
        raise RegistryProblems(name, check.problems)
    return file


def problems_of(path: Path) -> list[str]:
    """Everything that keeps a registry file from being served, each with its place; empty where nothing does."""
    try:
        read_registry(path)
    except RegistryProblems as error:
        return error.problems
    except OSError as error:
        return [f"{path.name}: It cannot be read: {error.strerror}."]
    return []


def _parsed(text: str) -> tuple[Any, _Places]:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, {}
        places: dict[tuple[str, ...], tuple[int, int]] = {}
        _place(node, (), places)
        return loader.construct_document(node), places
    finally:
        loader.dispose()


def _place(node: yaml.Node, way: tuple[str, ...], places: dict[tuple[str, ...], tuple[int, int]]) -> None:
    if not isinstance(node, yaml.MappingNode) or len(way) >= _DEPTH:
        return
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode):
            mark = value.start_mark if len(way) == _DEPTH - 1 else key.start_mark
            places[(*way, key.value)] = (mark.line + 1, mark.column + 1)
            _place(value, (*way, key.value), places)


class _Check:
    def __init__(self, name: str, places: _Places) -> None:
        self._name = name
        self._places = places
        self.problems: list[str] = []

    def file(self, document: dict[Any, Any]) -> RegistryFile:
        hosts = self._entries(document, "hosts", "alpha: {address: 10.0.0.11}")
        services = self._entries(document, "services", "web: {host: alpha, port: 8080}")
        for section in document:
            if section not in ("hosts", "services") and (near := _near(section, ["hosts", "services"])):
                self._tell((str(section),), f"{section!r} is not known. Did you mean {near!r}?")
        names = [host["name"] for host in hosts]
        for host in hosts:
            self._text(host, "hosts", "address", "address: 10.0.0.11")
            on_it = [service["name"] for service in services if service.get("host") == host["name"]]
            host.setdefault("services", on_it)
        for service in services:
            self._text(service, "services", "host", f"host: {names[0] if names else 'alpha'}")
            host_name, port = service.get("host"), service.get("port")
            way = ("services", service["name"])
            if isinstance(host_name, str) and host_name and host_name not in names:
                told = f"{_no_such('host', host_name, names, 'hosts')} Name one that is there, or add it."
                self._tell((*way, "host"), f"{'.'.join(way)}.host: {told}")
            if port is not None and (isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536):
                told = f"{port!r} is not a port; ports are 1 to 65535. Write for example: port: 8080"
                self._tell((*way, "port"), f"{'.'.join(way)}.port: {told}")
        return RegistryFile(hosts, services, document)

    def _entries(self, document: dict[Any, Any], section: str, form: str) -> list[dict[str, Any]]:
        entries = document.get(section)
        if entries is None:
            return []
        if not isinstance(entries, dict):
            self._tell((section,), f"{section}: must be a mapping of names. Write for example: {form}")
            return []
        found = []
        for name, entry in entries.items():
            if not isinstance(name, str) or not name:
                told = f"{section}: the name {name!r} must be text; write it in quotes."
                self._tell((section, str(name)), told)
            elif not isinstance(entry, dict):
                self._tell((section, name), f"{section}.{name}: must be a mapping. Write for example: {form}")
            else:
                found.append({"name": name, **entry})
        return found

    def _text(self, entry: dict[str, Any], section: str, field: str, form: str) -> None:
        value = entry.get(field)
        if not isinstance(value, str) or not value:
            what = "is missing" if value is None else f"{value!r} is not text" if value != "" else "is empty"
            way = (section, entry["name"], field)
            self._tell(way, f"{'.'.join(way)}: {what}. Write for example: {form}")

    def _tell(self, way: tuple[str, ...], message: str) -> None:
        """Note a problem at the place of a key, or of the nearest thing around it that has one."""
        while way and way not in self._places:
            way = way[:-1]
        line, column = self._places.get(way, (1, 1))
        self.problems.append(f"{self._name}:{line}:{column}: {message}")


class _Loader(yaml.CSafeLoader):
    """Plain data that msgpack can carry: dates stay text, and keys are not given twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys: set[Any] = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else id(key_node)
            if key in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands there twice; keep one of them", key_node.start_mark
                )
            keys.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def _near(word: object, known: list[str]) -> str | None:
    close = difflib.get_close_matches(str(word)[:100], known, n=1)
    return close[0] if close else None


def _no_such(kind: str, name: object, names: list[Any], where: str = "the registry") -> str:
    near = _near(name, [str(known) for known in names])
    hint = f" Did you mean {near!r}?" if near else ""
    return f"There is no {kind} {str(name)[:64]!r} in {where}.{hint}"
