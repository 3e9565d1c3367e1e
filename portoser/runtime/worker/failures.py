"""What went wrong in a tool's code, in words for the model and for the tool's author."""

import errno
import traceback
from collections.abc import Collection
from types import TracebackType

import msgspec

from portoser.runtime import confine
from portoser.tool import ToolError

_MESSAGE_CAP = 16 * 1024
_TRACEBACK_CAP = 32 * 1024
_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_NO_ACTION = "Tools may not open sockets or start programs and processes: ask the power http, and use threads."
_NO_FILE = "Tools read Python and its packages, and write in their own folder, the working directory, alone."
_DEPTH = 8
"""How many causes of an exception are looked at."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a call failed: the word for it, what the model reads, and the tool's own frames."""

    reason: str
    message: str
    traceback: str | None = None


def failure_of(error: BaseException, paths: Collection[str]) -> Failure:
    """The failure that an exception of a tool's code is. ``paths`` are the tool's own files."""
    if isinstance(error, ToolError):
        return Failure(
            reason="tool_error", message=_text(error) or type(error).__name__, traceback=_trace(error, paths)
        )
    if isinstance(error, SystemExit):
        return Failure(
            reason="exited",
            message=f"The tool ended its process with exit code {_exit_code(error)}.",
            traceback=_trace(error, paths),
        )
    reason = "exception"
    if isinstance(error, MemoryError):
        reason = "memory_limit"
    elif isinstance(error, OSError) and error.errno in _FULL:
        reason = "disk_limit"
    return Failure(reason=reason, message=summary(error, paths), traceback=_trace(error, paths))


def summary(error: BaseException, paths: Collection[str]) -> str:
    """One line: the exception, and where in the tool's files it came from."""
    kind = type(error).__name__
    if isinstance(error, MemoryError):
        text = "The tool needs more memory than its limit allows"
    else:
        message = _text(error)
        text = f"{kind}: {message}" if message else kind
    place = place_of(error, paths)
    hint = _hint(error)
    return (f"{text} ({place[0]}, line {place[1]}, in {place[2]})" if place else text) + (f" {hint}" if hint else "")


def _hint(error: BaseException) -> str:
    """What an author has to know of whom the isolation stopped; also where a library has made another error of it."""
    cause: BaseException | None = error
    for _ in range(_DEPTH if confine.isolated else 0):
        if isinstance(cause, PermissionError) and cause.errno == errno.EPERM:
            return _NO_ACTION
        if isinstance(cause, OSError) and cause.errno in (errno.EACCES, errno.EROFS):
            return _NO_FILE
        cause = cause.__cause__ or cause.__context__ if cause is not None else None
    return ""


def place_of(error: BaseException, paths: Collection[str]) -> tuple[str, int, str] | None:
    """The innermost frame in the tool's own files: path, line, function. None where there is none."""
    frames = _frames(error.__traceback__, paths)
    if not frames:
        return None
    frame = frames[-1]
    return frame.filename, frame.lineno or 0, frame.name


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - __str__ is the tool's code: it may raise anything
        return "<an exception that cannot be printed>"
    return _cut(text, _MESSAGE_CAP)


def _exit_code(error: SystemExit) -> str:
    code = error.code
    return "0" if code is None else str(code) if isinstance(code, int) else "1"


def _frames(trace: TracebackType | None, paths: Collection[str]) -> list[traceback.FrameSummary]:
    return [frame for frame in traceback.extract_tb(trace) if frame.filename in paths]


def _trace(error: BaseException, paths: Collection[str], depth: int = 0) -> str | None:
    """The traceback, with the frames of the tool's own files alone, and of the exceptions that led to it."""
    before = ""
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if earlier is not None and depth < 3:
        bridge = "was the cause of" if error.__cause__ is not None else "was being handled during"
        before = f"{_trace(earlier, paths, depth + 1)}\nThe above {bridge} the following:\n\n"
    frames = _frames(error.__traceback__, paths)
    lines = ["Traceback (the tool's own files):\n", *traceback.format_list(frames)] if frames else []
    message = _text(error)
    lines.append(f"{type(error).__name__}: {message}" if message else type(error).__name__)
    return _cut(before + "".join(lines), _TRACEBACK_CAP)


def _cut(text: str, cap: int) -> str:
    return text if len(text) <= cap else f"{text[:cap]}… ({len(text) - cap} characters more)"
