"""What server and workers say to each other, and the bytes it travels in.

A frame is ``<u32 length, u8 type>`` and a msgpack body of that length, decoded into a strict Struct. What a
worker sends is someone else's bytes: frames are capped, and whatever does not decode is a ProtocolViolation,
which costs that worker. Neither pickle nor marshal is ever used.
"""

import struct
from typing import Any, ClassVar, TypeAlias

import msgspec

from portoser.catalog.errors import PortoserError
from portoser.catalog.revision import JsonSchema, SourceFile
from portoser.catalog.volume import msgpack_values

HEADER = struct.Struct("<IB")
MESSAGE_CAP = 1024 * 1024
"""The most bytes that a frame other than a result may have, from a worker."""
MESSAGE_VALUES = 10_000
"""The most values that such a frame may hold."""
DESCRIBED_VALUES = 50_000
"""The most values that a description may hold: its schemas may be large."""
MOST_BLOCKS = 1000
"""The most blocks that the content of a result may have."""
ENVELOPE = 256 * 1024
"""What a result frame may have beside content and structured content: message, traceback, and the like."""
WORKER_FAILED = 70
"""The exit code of a worker that could not go on: its channel was tampered with, or its limits cannot be set."""
LEVELS = frozenset(("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"))
"""MCP's levels of log messages."""


class ProtocolViolation(PortoserError):
    """A worker sent something that no worker of ours sends."""


class Frame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Anything that travels between server and worker."""

    TYPE: ClassVar[int] = 0


# From the server ------------------------------------------------------------------------------------------------


class Setup(Frame, frozen=True):
    """Always the first frame: what the worker limits itself to before it sees any code. Sizes in bytes."""

    TYPE: ClassVar[int] = 1
    memory: int
    disk: int
    """How large a file may be."""
    open_files: int


class Load(Frame, frozen=True):
    """The program that this worker will run from now on."""

    TYPE: ClassVar[int] = 2
    files: tuple[SourceFile, ...]
    entrypoint: str
    output_schema: JsonSchema | None
    result: int
    """The most bytes that content, and structured content, may have."""
    share: int
    """How many calls it will be given at once."""


class CallerView(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a tool's code may know of its caller."""

    subject: str
    name: str
    groups: list[str]


class CallFrame(Frame, frozen=True):
    """Run the loaded program. Each frame that belongs to the call repeats its id and its nonce."""

    TYPE: ClassVar[int] = 3
    id: str
    nonce: int
    arguments: dict[str, Any]
    caller: CallerView
    request_id: str


class RpcResult(Frame, frozen=True):
    """A power's answer, or in ``error`` why there is none."""

    TYPE: ClassVar[int] = 4
    id: str
    seq: int
    value: Any
    error: str | None


class Describe(Frame, frozen=True):
    """Import the files and say what the entrypoint looks like from outside."""

    TYPE: ClassVar[int] = 5
    files: tuple[SourceFile, ...]
    entrypoint: str


class Cancel(Frame, frozen=True):
    """Stop a call that shares its worker, and answer all the same; nobody waits for what it does."""

    TYPE: ClassVar[int] = 6
    id: str


# From the worker ------------------------------------------------------------------------------------------------


class Result(Frame, frozen=True):
    """How the call ended. ``reason`` is None where it went well."""

    TYPE: ClassVar[int] = 16
    id: str
    nonce: int
    reason: str | None
    message: str | None
    traceback: str | None
    content: msgspec.Raw
    structured: msgspec.Raw
    retire: bool
    """The worker should not be given another call."""


class Rpc(Frame, frozen=True):
    """The tool asks a power, and waits."""

    TYPE: ClassVar[int] = 17
    id: str
    nonce: int
    seq: int
    power: str
    method: str
    args: list[Any]
    kwargs: dict[str, Any]


class Log(Frame, frozen=True):
    """The tool logged something for its client."""

    TYPE: ClassVar[int] = 18
    id: str
    nonce: int
    level: str
    message: str
    data: dict[str, Any] | None


class Progress(Frame, frozen=True):
    """The tool reported how far it is."""

    TYPE: ClassVar[int] = 19
    id: str
    nonce: int
    done: float
    total: float | None
    message: str | None


class Printed(Frame, frozen=True):
    """A call that shares its worker printed something; what others print goes through a pipe."""

    TYPE: ClassVar[int] = 22
    id: str
    nonce: int
    piece: bytes


class Described(Frame, frozen=True):
    """The answer to Describe."""

    TYPE: ClassVar[int] = 20
    description: str
    input_schema: JsonSchema
    output_schema: JsonSchema | None
    is_async: bool
    warnings: tuple[str, ...]


class BadCode(Frame, frozen=True):
    """The answer to Describe where the code cannot be imported or described."""

    TYPE: ClassVar[int] = 21
    message: str
    path: str
    line: int
    column: int
    advice: str


FromServer: TypeAlias = Setup | Load | CallFrame | RpcResult | Describe | Cancel
FromWorker: TypeAlias = Result | Rpc | Log | Progress | Printed | Described | BadCode

_SERVER_FRAMES: tuple[type[Frame], ...] = (Setup, Load, CallFrame, RpcResult, Describe, Cancel)
_WORKER_FRAMES: tuple[type[Frame], ...] = (Result, Rpc, Log, Progress, Printed, Described, BadCode)
FROM_SERVER = {kind.TYPE: msgspec.msgpack.Decoder(kind) for kind in _SERVER_FRAMES}
FROM_WORKER = {kind.TYPE: msgspec.msgpack.Decoder(kind) for kind in _WORKER_FRAMES}
LARGE_FRAMES = frozenset((Result.TYPE,))

_encoder = msgspec.msgpack.Encoder()


def encode(frame: Frame) -> bytearray:
    """The bytes of a frame.

    Raises:
        TypeError, ValueError, OverflowError, RecursionError: where it holds what msgpack cannot carry, for
            example an integer beyond 64 bits.
    """
    buffer = bytearray(HEADER.size)
    _encoder.encode_into(frame, buffer, HEADER.size)
    HEADER.pack_into(buffer, 0, len(buffer) - HEADER.size, frame.TYPE)
    return buffer


def encode_value(value: Any) -> bytes:
    """A value in msgpack, to be carried inside a frame. Raises as ``encode`` does."""
    return _encoder.encode(value)


NIL = msgspec.Raw(encode_value(None))


def most_values(kind: int) -> int:
    """The most values that a frame other than a result may hold."""
    return DESCRIBED_VALUES if kind == Described.TYPE else MESSAGE_VALUES


def decode_from_worker(kind: int, body: bytes | memoryview) -> Frame:
    """The frame that a worker sent.

    Raises:
        ProtocolViolation: for anything that is not exactly a frame.
    """
    decoder = FROM_WORKER.get(kind)
    if decoder is None:
        raise ProtocolViolation(f"there is no frame of type {kind}")
    if kind not in LARGE_FRAMES:
        most = most_values(kind)
        if msgpack_values(body, most) > most:
            raise ProtocolViolation(f"a frame of type {kind} holds more than {most} values")
    try:
        frame: Frame = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ProtocolViolation(f"a frame of type {kind} does not decode: {error}") from None
    return frame


# Content ---------------------------------------------------------------------------------------------------------


class _Text(msgspec.Struct, tag="text", forbid_unknown_fields=True):
    text: str
    annotations: dict[str, Any] | None = None


class _Image(msgspec.Struct, tag="image", forbid_unknown_fields=True):
    data: str
    mimeType: str  # noqa: N815 - MCP's name
    annotations: dict[str, Any] | None = None


class _Audio(_Image, tag="audio", forbid_unknown_fields=True):
    pass


class _Document(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    uri: str
    mimeType: str  # noqa: N815 - MCP's name
    text: str | None = None
    blob: str | None = None


class _Resource(msgspec.Struct, tag="resource", forbid_unknown_fields=True):
    resource: _Document
    annotations: dict[str, Any] | None = None


_content = msgspec.msgpack.Decoder(list[dict[str, Any]])
_checked_content = msgspec.msgpack.Decoder(list[_Text | _Image | _Audio | _Resource])
_structured = msgspec.msgpack.Decoder(dict[str, Any] | None)


def decode_content(raw: msgspec.Raw) -> list[dict[str, Any]]:
    """MCP content blocks in wire shape, checked against MCP's shapes.

    Raises:
        ProtocolViolation: where a block is none of MCP's.
    """
    try:
        blocks = _content.decode(raw)
        if len(blocks) > MOST_BLOCKS:
            raise ProtocolViolation(f"the content of a result has {len(blocks)} blocks; it may have {MOST_BLOCKS}")
        for block in blocks:
            if len(block) != 2 or block.get("type") != "text" or type(block.get("text")) is not str:
                _checked_content.decode(raw)
                break
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ProtocolViolation(f"the content of a result is not MCP content: {error}") from None
    return blocks


def decode_structured(raw: msgspec.Raw) -> dict[str, Any] | None:
    """A result's structured content.

    Raises:
        ProtocolViolation: where it is neither an object nor nothing.
    """
    try:
        structured: dict[str, Any] | None = _structured.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ProtocolViolation(f"the structured content of a result does not decode: {error}") from None
    return structured


# Between server and zygote: one packet a message, descriptors beside it ------------------------------------------


class Spawn(msgspec.Struct, frozen=True, tag="spawn"):
    """Fork a worker; two descriptors come along: its channel and its output.

    ``warm`` asks for a run of a sample program first: for a spare, which has the time, so that the first call does
    not pay for the pages that a forked process copies when it first touches them.
    """

    seq: int
    warm: bool
    scratch: str
    """The folder that it works in; empty where workers make their own."""
    disk: int
    """How many bytes fit in the folder that it makes."""


class End(msgspec.Struct, frozen=True, tag="end"):
    """End a worker that the server has no hold on: its pidfd did not arrive."""

    seq: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The zygote has preloaded everything and can fork.

    ``layers`` says which layers hold, as people read it; it is empty where tools are not isolated.
    """

    layers: dict[str, str]
    has_private_scratch: bool
    """Workers make their scratch folders themselves."""


class Unfit(msgspec.Struct, frozen=True, tag="unfit"):
    """Tools cannot be isolated here: the zygote ends."""

    message: str


class Spawned(msgspec.Struct, frozen=True, tag="spawned"):
    """A worker was forked; its pidfd comes along."""

    seq: int
    pid: int


class SpawnFailed(msgspec.Struct, frozen=True, tag="failed"):
    """A worker could not be forked."""

    seq: int
    message: str


class Exited(msgspec.Struct, frozen=True, tag="exited"):
    """A worker ended, with the status that ``waitpid`` gave."""

    seq: int
    status: int


FromZygote: TypeAlias = Ready | Unfit | Spawned | SpawnFailed | Exited
ZYGOTE_DECODER = msgspec.msgpack.Decoder(FromZygote)
ToZygote: TypeAlias = Spawn | End
ORDER_DECODER = msgspec.msgpack.Decoder(ToZygote)
