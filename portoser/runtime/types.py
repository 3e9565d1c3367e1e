"""What the runtime is asked to run, and what came of it."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from portoser.catalog.caller import Caller
from portoser.catalog.errors import PortoserError
from portoser.catalog.revision import Isolation, JsonSchema, Limits, SourceFile

FilesLoader: TypeAlias = Callable[[], Awaitable[tuple[SourceFile, ...]]]
"""Fetches a program's files; asked only where no warm worker holds them."""


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """A revision as the runtime sees it. Its files are fetched only when a worker must load them."""

    digest: str
    entrypoint: str
    limits: Limits = Limits()
    isolation: Isolation = Isolation.REUSE
    output_schema: JsonSchema | None = None
    environment: str | None = None
    """The digest of the lock whose packages it may import."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a program. ``id`` is unique among running calls."""

    id: str
    arguments: dict[str, Any]
    caller: Caller
    request_id: str


class Events(Protocol):
    """Where a running call's logs and progress go. Called on the event loop; must not block."""

    def log(self, level: str, message: str, data: dict[str, Any] | None) -> None:
        """The tool logged. ``level`` is one of MCP's: debug, info, warning, error, …"""

    def progress(self, done: float, total: float | None, message: str | None) -> None:
        """The tool reported progress."""


class PowerHost(Protocol):
    """Answers what a call asks of its powers."""

    async def call(self, power: str, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Do it, or raise PowerError with a message that the tool's code will see."""


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one call.

    ``reason`` is None where all went well; else one of ``tool_error`` (the tool raised ToolError),
    ``exception``, ``invalid_arguments``, ``timeout``, ``cancelled``, ``cpu_limit``, ``memory_limit``,
    ``disk_limit``, ``output_limit``, ``power_limit``,
    ``crashed``, ``exited``, ``protocol_error``, ``result_too_large``, ``not_serializable``, ``load_error``.
    ``message`` is what the model reads. ``content`` holds MCP content blocks in wire shape. ``logs`` is the
    captured output, capped. ``duration`` is in seconds.
    """

    outcome: Literal["ok", "error", "timeout", "cancelled"]
    reason: str | None = None
    message: str | None = None
    traceback: str | None = None
    content: list[dict[str, Any]] = msgspec.field(default_factory=list)
    structured: dict[str, Any] | None = None
    logs: str = ""
    duration: float = 0.0
    size: int = 0
    """Bytes of the result as it came from the worker."""


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What a declaration's code says of itself."""

    description: str
    input_schema: JsonSchema
    output_schema: JsonSchema | None = None
    warnings: tuple[str, ...] = ()


class CodeError(PortoserError):
    """A declaration's code cannot be imported or described; names the file, the line and what would be right."""

    def __init__(self, message: str, *, path: str = "", line: int = 0, column: int = 0, advice: str = "") -> None:
        self.message = message
        self.path = path
        self.line = line
        self.column = column
        self.advice = advice
        super().__init__(f"{path}:{line}: {message} {advice}".strip())


class RuntimeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A moment of the runtime. ``layers`` says of each isolation layer whether it holds, and why not."""

    workers: int
    busy: int
    queued: int
    zygotes: int
    sandbox: str
    layers: dict[str, str]
