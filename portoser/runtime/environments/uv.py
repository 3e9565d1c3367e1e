"""Runs uv: resolves requirements and installs locks, wheels only, with an environment of its own and a deadline."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import structlog

from portoser.catalog.errors import PortoserError, Unavailable
from portoser.runtime.environments import indexes

log = structlog.get_logger(__name__)

OURS = ("annotated-types", "msgspec", "pydantic", "pydantic-core", "typing-extensions", "typing-inspection")
"""What every worker has imported before a tool's code comes: these are the server's, in every environment."""

RESOLVING_SECONDS = 120.0
INSTALLING_SECONDS = 900.0
RETRY_SECONDS = 30.0
_LONGEST_OUTPUT = 256 * 1024
_LONGEST_REASON = 900

_UNRESOLVABLE = re.compile(r"No solution found when resolving dependencies|not a valid|Failed to parse|Hash mismatch")
_NOT_REACHED = re.compile(
    r"could not be queried|error sending request|Failed to fetch|network|connect|timed out|timeout|offline"
    r"|dns error|Unauthorized|Forbidden|Proxy|certificate|HTTP status|Connection|Could not connect",
    re.IGNORECASE,
)
_NO_ROOM = re.compile(r"No space left|os error 28|os error 122|Disk quota", re.IGNORECASE)
_PURE = "Wheel-Version: 1.0\nGenerator: portoser\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_GONE = re.compile(r"[×╰│─▶├]+")

# Ends with the server, however that ends: the kernel sees to it.
_WITH_PARENT = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class Unresolvable(PortoserError):
    """A set of requirements that cannot be had, now or later. The message is uv's reason, shortened.

    ``advice`` says what to do.
    """

    def __init__(self, message: str) -> None:
        held = [each for each in ours() if re.search(rf"\b{re.escape(each.partition('==')[0])}\b", message)]
        self.advice = (
            f"Every tool runs with this server's {', '.join(held)}: leave it out, or take a version that goes with it."
            if held
            else "Require other versions."
        )
        super().__init__(message)


class Uv:
    """uv, as the operator has configured it. ``cache`` is the folder of what it has downloaded.

    ``environ`` is where the operator's settings are read from; the server's own environment by default.
    """

    def __init__(
        self,
        cache: Path,
        *,
        environ: Mapping[str, str] | None = None,
        resolving: float = RESOLVING_SECONDS,
        installing: float = INSTALLING_SECONDS,
    ) -> None:
        self._cache = cache
        self._operator = dict(os.environ if environ is None else environ)
        self._resolving = resolving
        self._installing = installing

    async def compile(self, requires: Sequence[str], *, before: str = "") -> str:
        """The lock of a set of requirements. Versions of ``before``, an older lock, stay where they can.

        What every worker has anyway (`OURS`) is not part of it, and only versions that go with those are taken.

        Raises:
            Unresolvable: there is no such set of wheels.
            Unavailable: an index cannot be reached, it took too long, or there is no room.
        """
        with _room("resolved") as folder:
            (folder / "requirements.in").write_text("".join(f"{each}\n" for each in requires), encoding="utf-8")
            (folder / "ours.txt").write_text("".join(f"{each}\n" for each in ours()), encoding="utf-8")
            _write_ours(folder / "ours")
            lock = folder / "lock.txt"
            lock.write_text(before, encoding="utf-8")
            await self._run(
                "pip",
                "compile",
                "requirements.in",
                *("--output-file", "lock.txt", "--constraints", "ours.txt", "--generate-hashes"),
                *("--no-header", "--no-annotate", "--no-sources"),
                *(option for name in OURS for option in ("--no-emit-package", name)),
                folder=folder,
                seconds=self._resolving,
                doing="resolved",
                also=folder / "ours",
            )
            return lock.read_text(encoding="utf-8")

    async def install(self, lock: str, target: Path) -> None:
        """Unpack the wheels of a lock into the folder ``target``, which is there and empty, and compile them.

        Raises:
            Unresolvable: a wheel is not what the lock says, or there is none for this machine.
            Unavailable: an index cannot be reached, it took too long, or there is no room.
        """
        with _room("installed") as folder:
            (folder / "lock.txt").write_text(lock, encoding="utf-8")
            await self._run(
                "pip",
                "install",
                *("--requirements", "lock.txt", "--target", str(target), "--require-hashes", "--no-deps"),
                *("--compile-bytecode", "--link-mode", "hardlink"),
                folder=folder,
                seconds=self._installing,
                doing="installed",
            )

    def empty_cache(self) -> None:
        """Forget what was downloaded. Blocks."""
        shutil.rmtree(self._cache, ignore_errors=True)

    async def _run(self, *arguments: str, folder: Path, seconds: float, doing: str, also: Path | None = None) -> None:
        """Run uv in a folder. ``also`` has wheels that it may look at, besides those of the operator's indexes."""
        environment = self._environment()
        if also is not None:
            places = (environment.get("UV_FIND_LINKS"), str(also))
            environment["UV_FIND_LINKS"] = ",".join(place for place in places if place)
        secrets = indexes.secrets_in(environment)
        config = indexes.config_file(self._operator)
        command = [
            *(binary(), *arguments, "--only-binary", ":all:"),
            *("--python", sys.executable, "--color", "never", "--no-progress"),
            *indexes.options(self._operator),
            *(("--config-file", str(config)) if config is not None else ("--no-config",)),
        ]
        log.debug("environment.uv", doing=doing)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", _WITH_PARENT, str(os.getpid()), *command),
                cwd=folder,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(
                f"The packages cannot be {doing}: uv cannot be started: {error.strerror}.", retry_after=RETRY_SECONDS
            ) from error
        try:
            async with asyncio.timeout(seconds):
                said = await _read(process)
                status = await process.wait()
        except TimeoutError:
            raise Unavailable(
                f"The packages could not be {doing} within {seconds:.0f} s; it is tried again.",
                retry_after=RETRY_SECONDS,
            ) from None
        finally:
            await _end(process)
        if status == 0:
            return
        reason = readable(indexes.without_secrets(said, secrets))
        if _NO_ROOM.search(said):
            raise Unavailable(
                f"The packages cannot be {doing}: the disk is full. Make room, or move PORTOSER_DATA.",
                retry_after=RETRY_SECONDS,
            )
        if _UNRESOLVABLE.search(said) and not _is_unreached(said):
            raise Unresolvable(f"The packages cannot be {doing}: {reason}")
        raise Unavailable(
            f"The packages cannot be {doing} now: {reason or f'uv ended with {status}'}", retry_after=RETRY_SECONDS
        )

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            **indexes.variables(self._operator),
            "UV_CACHE_DIR": str(self._cache),
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_NO_BUILD": "1",
        }


@contextlib.contextmanager
def _room(doing: str) -> Iterator[Path]:
    """A folder for what uv reads and writes, for as long as that takes."""
    try:
        with tempfile.TemporaryDirectory(prefix="portoser-lock-") as made:
            yield Path(made)
    except OSError as error:
        raise Unavailable(
            f"The packages cannot be {doing}: {error.strerror}. Make room in the folder of temporary files (TMPDIR).",
            retry_after=RETRY_SECONDS,
        ) from error


def binary() -> str:
    """Where uv is.

    Raises:
        Unavailable: it is not installed.
    """
    from uv import find_uv_bin

    try:
        return find_uv_bin()
    except FileNotFoundError as error:
        raise Unavailable("uv is not installed: install Portoser with its dependencies.") from error


def ours() -> list[str]:
    """`OURS`, each with the version that is installed here."""
    found = []
    for name in OURS:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name}=={version(name)}")
    return found


def _write_ours(folder: Path) -> None:
    """Wheels that say what `ours` are and need, and hold nothing else: an index need not have just these versions."""
    folder.mkdir()
    for each in ours():
        name, _, number = each.partition("==")
        stem = f"{name.replace('-', '_')}-{number}"
        with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{stem}.dist-info/METADATA", distribution(name).read_text("METADATA") or "")
            wheel.writestr(f"{stem}.dist-info/WHEEL", _PURE)
            wheel.writestr(f"{stem}.dist-info/RECORD", "")


def readable(said: str) -> str:
    """What uv said, as one short text. Of its hints the first sentences are kept: the rest speaks of its options."""
    lines = [" ".join(_GONE.sub(" ", line).split()) for line in said.splitlines()]
    told = [line for line in lines if line and not line.startswith(("warning:", "Resolved ", "Using "))]
    text = " ".join(told).removeprefix("error: ").replace(" cause: ", ": ")
    text = text.removeprefix("No solution found when resolving dependencies: ")
    reason, *hints = text.split(" hint: ")
    text = " ".join((reason, *(f"({hint.partition('. ')[0].rstrip('.')}.)" for hint in hints)))
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"


def _is_unreached(said: str) -> bool:
    """Whether there may be a solution in an index that did not answer."""
    hints = said.partition("hint:")[2]
    return bool(_NOT_REACHED.search(hints)) and "could not be queried" in hints


async def _read(process: asyncio.subprocess.Process) -> str:
    stream = process.stderr
    assert stream is not None  # noqa: S101 - it was asked for
    taken = bytearray()
    while block := await stream.read(64 * 1024):
        taken += block[: _LONGEST_OUTPUT - len(taken)]
    return taken.decode("utf-8", "replace")


async def _end(process: asyncio.subprocess.Process) -> None:
    """End uv, and whatever it has started, where it still runs."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())
