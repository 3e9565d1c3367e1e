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
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from portoser.catalog.errors import PowerError
from portoser.powers.base import PowerContext
from portoser.powers.host import unknown_method

EXAMPLE = Path(__file__).with_name("registry.example.yml")
"""The registry that is served where the operator has none yet."""

_LARGEST = 4 * 1024 * 1024
_MOST_PROBLEMS = 10


class RegistryFile(NamedTuple):
    """What a registry file says, checked."""

    hosts: list[dict[str, Any]]
    services: list[dict[str, Any]]
    document: dict[str, Any]


class RegistryPower:
    """Answers from a registry file, which it reads again whenever it has changed."""

    name = "registry"

    def __init__(self, path: Path = EXAMPLE) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._file = RegistryFile([], [], {})
        self._reading = asyncio.Lock()
        self._methods: Mapping[str, Callable[..., Any]] = {
            "services": self._services,
            "service": self._service,
            "machines": self._machines,
            "read": self._read,
        }

    async def call(self, method: str, args: list[Any], kwargs: dict[str, Any], context: PowerContext) -> Any:
        """Answer one of ``services() service(name) machines() read(path)``.

        Raises:
            PowerError: for another method, wrong arguments, a name that is not there, or a file with problems.
        """
        function = self._methods.get(method)
        if function is None:
            raise unknown_method(self.name, method, tuple(self._methods))
        try:
            inspect.signature(function).bind(None, *args, **kwargs)
        except TypeError as error:
            raise PowerError(f"registry.{method}() was called with the wrong arguments: {error}.") from None
        return function(await self._current(), *args, **kwargs)

    # What it answers -----------------------------------------------------------------------------------------

    def _services(self, file: RegistryFile) -> list[dict[str, Any]]:
        return file.services

    def _service(self, file: RegistryFile, name: str) -> dict[str, Any]:
        for service in file.services:
            if service["name"] == name:
                return service
        raise PowerError(_no_such("service", name, [service["name"] for service in file.services]))

    def _machines(self, file: RegistryFile) -> list[dict[str, Any]]:
        return file.hosts

    def _read(self, file: RegistryFile, path: str = "") -> Any:
        if not isinstance(path, str):
            raise PowerError("registry.read() takes a dotted path, for example services.web.port.")
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

    # The file ------------------------------------------------------------------------------------------------

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


def read_registry(path: Path) -> RegistryFile:
    """Read and check a registry file.

    Raises:
        PowerError: naming every problem of the file.
        OSError: where it cannot be read.
    """
    if path.stat().st_size > _LARGEST:
        raise PowerError(f"The registry {path.name} is larger than {_LARGEST // 1024 // 1024} MiB.")
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a safe loader of ours
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PowerError(f"The registry {path.name} is not YAML: {' '.join(str(error).split())}") from None
    if document is None:
        document = {}
    problems: list[str] = []
    if not isinstance(document, dict):
        raise PowerError(f"The registry {path.name} must hold the sections hosts and services.")
    hosts = _entries(document, "hosts", problems)
    services = _entries(document, "services", problems)
    for host in hosts:
        _check_text(host, "hosts", "address", problems)
        host.setdefault("services", [service["name"] for service in services if service.get("host") == host["name"]])
    names = [host["name"] for host in hosts]
    for service in services:
        _check_text(service, "services", "host", problems)
        host_name = service.get("host")
        if isinstance(host_name, str) and host_name not in names:
            problems.append(f"services.{service['name']}.host: {_no_such('host', host_name, names)}")
        port = service.get("port")
        if port is not None and (isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536):
            problems.append(f"services.{service['name']}.port: {port!r} is not a port; ports are 1 to 65535.")
    if problems:
        more = f" And {len(problems) - _MOST_PROBLEMS} more." if len(problems) > _MOST_PROBLEMS else ""
        raise PowerError(f"The registry {path.name} has problems: {' '.join(problems[:_MOST_PROBLEMS])}{more}")
    return RegistryFile(hosts, services, document)


class _Loader(yaml.CSafeLoader):
    """Plain data that msgpack can carry: dates stay text, and keys are not given twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys: set[Any] = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands there twice", key_node.start_mark
                )
            keys.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def _entries(document: dict[Any, Any], section: str, problems: list[str]) -> list[dict[str, Any]]:
    entries = document.get(section)
    if entries is None:
        return []
    if not isinstance(entries, dict):
        problems.append(f"{section}: must be a mapping of names.")
        return []
    found = []
    for name, entry in entries.items():
        if not isinstance(name, str) or not name:
            problems.append(f"{section}: the name {name!r} must be text; write it in quotes.")
        elif not isinstance(entry, dict):
            problems.append(f"{section}.{name}: must be a mapping.")
        else:
            found.append({"name": name, **entry})
    return found


def _check_text(entry: dict[str, Any], section: str, field: str, problems: list[str]) -> None:
    value = entry.get(field)
    if not isinstance(value, str) or not value:
        what = "is missing" if value is None else f"{value!r} is not text"
        problems.append(f"{section}.{entry['name']}.{field}: {what}.")


def _no_such(kind: str, name: object, names: list[Any], where: str = "the registry") -> str:
    texts = [str(known) for known in names]
    close = difflib.get_close_matches(str(name), texts, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"There is no {kind} {str(name)[:64]!r} in {where}.{hint}"
