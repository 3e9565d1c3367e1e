"""How messages are told apart on the bridge's two sides: lines on a pipe, events in a stream."""

import asyncio
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, BinaryIO, Final, TypeAlias

import httpx

Message: TypeAlias = dict[str, Any]
"""A JSON-RPC message, as it came."""

_CHUNK: Final = 65536


async def server_sent_events(response: httpx.Response) -> AsyncIterator[tuple[str, str]]:
    """The server-sent events of a response: (event, data).

    Lines end with LF or CRLF only. A reader of text lines would also break at separators that JSON may
    hold unescaped, such as U+2028.
    """
    event, data, rest = "message", bytearray(), bytearray()
    async for chunk in response.aiter_bytes():
        searched = len(rest)  # a result of megabytes comes in many chunks and holds no line break
        rest += chunk
        while (end := rest.find(b"\n", searched)) >= 0:
            line = bytes(rest[:end]).removesuffix(b"\r")
            del rest[: end + 1]
            searched = 0
            if not line:
                if data:
                    yield event, data.decode("utf-8", "replace")
                event, data = "message", bytearray()
            elif line.startswith(b"event:"):
                event = line[6:].strip().decode("latin-1")
            elif line.startswith(b"data:"):
                data += (b"\n" if data else b"") + line[5:].removeprefix(b" ")


async def messages_of(pipe: int) -> AsyncIterator[Message]:
    """The messages that come in on a file descriptor, one in a line, until it ends.

    A thread reads, because a pipe on standard input cannot be waited for on every platform. It is a daemon,
    and reads the descriptor itself, because nothing can wake it when the program ends first.
    """
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue()

    def read() -> None:
        with suppress(OSError, RuntimeError):  # the pipe or the loop is closed: the program ends
            while chunk := os.read(pipe, _CHUNK):
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            loop.call_soon_threadsafe(chunks.put_nowait, b"")

    threading.Thread(target=read, name="stdin", daemon=True).start()
    begun: list[bytes] = []  # a message may come in many chunks; they are joined once
    while chunk := await chunks.get():
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            begun.append(line)
            message = _message_of(b"".join(begun))
            begun.clear()
            if message is not None:
                yield message
        begun.append(rest)
    message = _message_of(b"".join(begun))
    if message is not None:
        yield message


def _message_of(line: bytes) -> Message | None:
    if not line.strip():
        return None
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        print("portoser bridge: ignored a line that is not a JSON-RPC message", file=sys.stderr)  # noqa: T201
        return None
    return message


def encoded(message: Message) -> bytes:
    """The message in one line, escaped to ASCII, so that whatever text came in can go out again."""
    return json.dumps(message, separators=(",", ":")).encode()


def line_writer(pipe: BinaryIO) -> Callable[[Message], None]:
    """Writes each message to ``pipe`` as a line, at once."""

    def write(message: Message) -> None:
        pipe.write(encoded(message) + b"\n")
        pipe.flush()

    return write
