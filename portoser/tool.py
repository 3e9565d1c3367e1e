"""What a tool's code may import: results, errors, and what the running call is handed.

Inside Portoser ``ctx``, ``registry``, ``vault``, ``cluster`` and ``http`` are there as globals; importing
them from here gives the same objects and pleases linters and editors. The module needs nothing but the
standard library, so that a tool can be imported and unit tested anywhere: there ``ctx`` logs to
:mod:`logging`, and a power says that it needs Portoser.

Each function of ``ctx`` and of a power has done its work when it returns, in sync and in async code; a
power holds up its thread (and so an event loop) until the answer is there. Awaiting the answer is allowed:
in async code an answer that is a list, a dict, a text or a number is one that ``await`` gives back
unchanged. Only None and booleans, which Python does not let us extend, cannot be awaited.
"""

import asyncio
import base64
import logging
import mimetypes
from collections.abc import Generator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, Protocol, Unpack
from urllib.parse import quote

from portoser.tool_http import Options, Response, body_of, headers_of, with_params

__all__ = [
    "Answer",
    "Audio",
    "Caller",
    "Context",
    "ElicitError",
    "EmbeddedResource",
    "Http",
    "Image",
    "Power",
    "PowerError",
    "Registry",
    "Response",
    "ToolError",
    "cluster",
    "ctx",
    "http",
    "registry",
    "vault",
]


class ToolError(Exception):
    """The call failed, and the message is what the model reads, word for word."""


class PowerError(ToolError):
    """A power refused or failed. Uncaught, its message reaches the model as a ToolError's does."""


class ElicitError(ToolError):
    """The caller's user could not be asked, or did not answer in time. Uncaught, its message reaches the model."""


# Results --------------------------------------------------------------------------------------------------------


class _Media:
    """Bytes, or a file to read them from when the result is sent, with a media type."""

    _kind = ""
    _default_type = ""
    _types: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        path: str | Path | None = None,
        data: bytes | None = None,
        format: str | None = None,  # noqa: A002 - FastMCP's name, which authors know
        annotations: Mapping[str, Any] | None = None,
    ) -> None:
        if (path is None) == (data is None):
            raise ValueError(f"{type(self).__name__} takes either a path or data.")
        self.path = Path(path).expanduser() if path is not None else None
        self.data = data
        self.annotations = annotations
        self.mime_type = self._mime_type(format)

    def _mime_type(self, form: str | None) -> str:
        if form:
            return self._types.get(form.lower(), f"{self._kind}/{form.lower()}")
        if self.path is None:
            return self._default_type
        known = self._types.get(self.path.suffix.lower().lstrip("."))
        return known or mimetypes.guess_type(self.path.name, strict=False)[0] or "application/octet-stream"

    def to_block(self) -> dict[str, Any]:
        """The MCP content block, in wire shape."""
        data = self.data if self.path is None else self.path.read_bytes()
        encoded = base64.b64encode(data or b"").decode("ascii")
        block: dict[str, Any] = {"type": self._kind, "data": encoded, "mimeType": self.mime_type}
        if self.annotations:
            block["annotations"] = dict(self.annotations)
        return block


class Image(_Media):
    """An image, returned as MCP image content. Without a format, bytes are taken for PNG."""

    _kind = "image"
    _default_type = "image/png"
    _types: ClassVar[Mapping[str, str]] = {
        "jpg": "image/jpeg",
        "svg": "image/svg+xml",
        "tif": "image/tiff",
        "webp": "image/webp",
    }


class Audio(_Media):
    """A sound, returned as MCP audio content. Without a format, bytes are taken for WAV."""

    _kind = "audio"
    _default_type = "audio/wav"
    _types: ClassVar[Mapping[str, str]] = {
        "wav": "audio/wav",
        "mp3": "audio/mpeg",
        "ogg": "audio/ogg",
        "m4a": "audio/mp4",
        "flac": "audio/flac",
    }


class EmbeddedResource:
    """A document, returned as MCP resource content: ``text``, or ``data`` for bytes.

    ``uri`` may be any URI; a plain name becomes ``file:///<name>``.
    """

    def __init__(
        self,
        uri: str,
        *,
        text: str | None = None,
        data: bytes | None = None,
        mime_type: str | None = None,
        annotations: Mapping[str, Any] | None = None,
    ) -> None:
        if (text is None) == (data is None):
            raise ValueError("EmbeddedResource takes either text or data.")
        self.uri = uri if "://" in uri or uri.startswith(("urn:", "data:")) else f"file:///{quote(uri.lstrip('/'))}"
        self.text = text
        self.data = data
        fallback = "text/plain" if text is not None else "application/octet-stream"
        self.mime_type = mime_type or mimetypes.guess_type(uri, strict=False)[0] or fallback
        self.annotations = annotations

    def to_block(self) -> dict[str, Any]:
        """The MCP content block, in wire shape."""
        resource: dict[str, Any] = {"uri": self.uri, "mimeType": self.mime_type}
        if self.text is not None:
            resource["text"] = self.text
        else:
            resource["blob"] = base64.b64encode(self.data or b"").decode("ascii")
        block: dict[str, Any] = {"type": "resource", "resource": resource}
        if self.annotations:
            block["annotations"] = dict(self.annotations)
        return block


# What the running call is handed --------------------------------------------------------------------------------


class Caller:
    """Who called the tool, as far as the tool may know."""

    __slots__ = ("groups", "name", "subject")

    def __init__(self, subject: str, name: str, groups: frozenset[str]) -> None:
        self.subject = subject
        self.name = name
        self.groups = groups

    def __repr__(self) -> str:
        return f"Caller(subject={self.subject!r}, name={self.name!r}, groups={sorted(self.groups)!r})"


class Answer:
    """What the caller's user answered to a question of ``ctx.elicit``.

    ``action`` is ``accept``, ``decline`` (the user said no) or ``cancel`` (the user left the question alone).
    ``content`` is what was answered, in the form of the question's schema: a dict, or a value of the Python type that
    was asked for; None where the question was not accepted. An answer may be awaited, and is then itself.
    """

    __slots__ = ("action", "content")

    def __init__(self, action: Literal["accept", "decline", "cancel"], content: Any = None) -> None:
        self.action = action
        self.content = content

    def __await__(self) -> Generator[Any, None, "Answer"]:
        yield from ()
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Answer) and (self.action, self.content) == (other.action, other.content)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Answer({self.action!r}, {self.content!r})"


class Running(Protocol):
    """The running call, as Portoser's worker puts it into ``wire``."""

    request_id: str

    @property
    def caller(self) -> Caller:
        """Who called."""

    def log(self, level: str, message: str, data: dict[str, Any] | None) -> None:
        """Send a log message."""

    def progress(self, done: float, total: float | None, message: str | None) -> None:
        """Report progress."""

    def ask(self, power: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Ask a power, and wait for the answer."""

    def elicit(self, message: str, schema: Any, key: str | None) -> Answer:
        """Ask the caller's user, and wait for the answer."""


class Wire:
    """What connects this module's objects with the call that runs in this process, or in this context, if one does."""

    __slots__ = ("_alone",)

    def __init__(self) -> None:
        self._alone: Running | None = None

    @property
    def running(self) -> Running | None:
        """The call that whoever asks belongs to."""
        return _shared.get() or self._alone

    @running.setter
    def running(self, running: Running | None) -> None:
        self._alone = running

    def share(self, running: Running) -> None:
        """Have a call run beside others: it is this context's, and that of what is made from here."""
        _shared.set(running)


_shared: ContextVar[Running | None] = ContextVar("portoser_call", default=None)
wire = Wire()


class _Done:
    """Nothing, that may be awaited."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()

    def __repr__(self) -> str:
        return "None"


_DONE = _Done()
_log = logging.getLogger("portoser.tool")
_LOGGING_LEVELS = {"debug": 10, "info": 20, "notice": 20, "warning": 30, "error": 40}


class Context:
    """The running call: logging, progress, who called, questions to its user. Each function may be awaited or not."""

    @property
    def caller(self) -> Caller:
        """Who called the tool; ``anonymous`` where nobody did, as in a unit test."""
        running = wire.running
        return running.caller if running is not None else Caller("anonymous", "anonymous", frozenset())

    @property
    def request_id(self) -> str:
        """The id that the audit log knows this call by; empty outside a call."""
        running = wire.running
        return running.request_id if running is not None else ""

    def log(self, level: str, message: object, **data: Any) -> _Done:
        """Send a log message to the client. ``level`` is one of MCP's: debug, info, notice, warning, error, …"""
        running = wire.running
        if running is not None:
            running.log(level, str(message), data or None)
        else:
            _log.log(_LOGGING_LEVELS.get(level, logging.CRITICAL), "%s%s", message, f" {data}" if data else "")
        return _DONE

    def debug(self, message: object, **data: Any) -> _Done:
        """Log at level ``debug``."""
        return self.log("debug", message, **data)

    def info(self, message: object, **data: Any) -> _Done:
        """Log at level ``info``."""
        return self.log("info", message, **data)

    def notice(self, message: object, **data: Any) -> _Done:
        """Log at level ``notice``."""
        return self.log("notice", message, **data)

    def warning(self, message: object, **data: Any) -> _Done:
        """Log at level ``warning``."""
        return self.log("warning", message, **data)

    def error(self, message: object, **data: Any) -> _Done:
        """Log at level ``error``."""
        return self.log("error", message, **data)

    def report_progress(self, progress: float, total: float | None = None, message: str | None = None) -> _Done:
        """Tell the client how far the call is: ``progress`` of ``total``, with an optional message."""
        running = wire.running
        if running is not None:
            running.progress(float(progress), None if total is None else float(total), message)
        return _DONE

    def elicit(self, message: str, schema: Any = None, key: str | None = None) -> Answer:
        """Ask the caller's user a question, and wait for the answer.

        ``schema`` says what is asked for: ``str``, ``int``, ``float``, ``bool``, a ``Literal`` or an enum of texts, a
        list of one of those two, a dataclass or a model whose fields are such, or the JSON Schema of a flat object;
        None where the user only agrees or not. ``key`` names the question within the call, by default its number.

        Newer clients let the function run again, from the top, with the answers that they have by then: so ask before
        you change anything, and ask the same questions in the same order, or give them keys.

        Raises:
            ElicitError: this caller's client cannot ask its user, nobody answered in time, or MCP has no form for
                the schema.
        """
        running = wire.running
        if running is None:
            raise ElicitError(
                "ctx.elicit() is answered by Portoser, while it runs a call of the tool. In a test, replace "
                "`ctx.elicit` by a fake that returns an Answer: lambda *_: Answer('accept', …)."
            )
        return running.elicit(message, schema, key)


class _Awaited:
    """Its own answer when it is awaited."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, Any]:
        yield from ()
        return self


class _AwaitableList(list[Any], _Awaited): ...


class _AwaitableDict(dict[Any, Any], _Awaited): ...


class _AwaitableStr(str, _Awaited): ...


class _AwaitableInt(int, _Awaited): ...


class _AwaitableFloat(float, _Awaited): ...


_AWAITABLE: Mapping[type, type] = {
    list: _AwaitableList,
    dict: _AwaitableDict,
    str: _AwaitableStr,
    int: _AwaitableInt,
    float: _AwaitableFloat,
}


def _awaitable(answer: Any) -> Any:
    """The answer, as one that may be awaited where an event loop runs; plain data everywhere else."""
    kind = _AWAITABLE.get(type(answer))
    if kind is None:
        return answer
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return answer
    return kind(answer)


class _Method:
    __slots__ = ("_method", "_power")

    def __init__(self, power: str, method: str) -> None:
        self._power = power
        self._method = method

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _ask(self._power, self._method, args, kwargs)

    def __repr__(self) -> str:
        return f"<{self._power}.{self._method} of Portoser>"


def _ask(power: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    running = wire.running
    if running is None:
        raise PowerError(
            f"{power}.{method}() is answered by Portoser, while it runs a call of the tool. "
            f"In a test, replace `{power}` by a fake."
        )
    return _awaitable(running.ask(power, method, args, kwargs))


class Power:
    """Something outside the tool's sandbox. Any function may be called; Portoser answers, or says why not."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, method: str) -> _Method:
        if method.startswith("_"):
            raise AttributeError(method)
        return _Method(self._name, method)

    def __repr__(self) -> str:
        return f"<the power {self._name} of Portoser>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self._name} is a power of the running call and cannot be copied or sent.")


class Registry(Power):
    """The hosts and services that the operators' ``registry.yml`` knows. Every tool may read it."""

    def services(self) -> list[dict[str, Any]]:
        """All services, each a dict with ``name``, ``host`` and what else the file says of it."""
        answer: list[dict[str, Any]] = _ask("registry", "services", (), {})
        return answer

    def service(self, name: str) -> dict[str, Any]:
        """One service; a PowerError names the close ones where there is none of that name."""
        answer: dict[str, Any] = _ask("registry", "service", (name,), {})
        return answer

    def machines(self) -> list[dict[str, Any]]:
        """All hosts, each a dict with ``name``, ``address``, the ``services`` on it, and what else the file says."""
        answer: list[dict[str, Any]] = _ask("registry", "machines", (), {})
        return answer

    def read(self, path: str = "") -> Any:
        """What stands at a dotted path of the file, for example ``services.web.port``; all of it by default."""
        return _ask("registry", "read", (path,), {})


def _response(answer: dict[str, Any]) -> Response:
    return Response(answer["status"], answer["headers"], answer["content"], answer["url"])


class Http(Power):
    """Requests to the hosts that the manifest names under ``uses: {network: ["api.example.com:443"]}``.

    Portoser sends them, where its policy grants them. An answer has at most 8 MiB; all of a request, with its
    redirects, takes 30 s or the ``timeout`` that is given, and never longer than the call may take.
    """

    def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, Any] | Sequence[tuple[str, Any]] | None = None,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
        json: Any = None,
        data: Any = None,
        content: str | bytes | None = None,
        timeout: float | None = None,
        follow_redirects: bool = True,
    ) -> Response:
        """Send a request, and wait for its answer, whatever its status is.

        ``params`` are added to the URL's query; a list is its name several times, None is left out. The body is
        ``json``, or ``data`` (a mapping is sent as a form), or ``content`` as it is. ``timeout`` is in seconds.

        Raises:
            PowerError: it is not granted, cannot be sent, or has no answer that can be taken.
        """
        body, kind = body_of(json, data, content)
        named = {"timeout": timeout, "follow_redirects": follow_redirects}
        asked = {name: value for name, value in named.items() if value is not None and value is not True}
        told = headers_of(headers, kind)
        answer = _ask(
            self._name,
            str(method).lower(),
            (with_params(str(url), params),),
            {**asked, **({"headers": told} if told else {}), **({"content": body} if body else {})},
        )
        # Where several calls share a worker, the answer is on its way, and is to be awaited.
        made: Response = _response(answer) if isinstance(answer, dict) else answer.then(_response)
        return made

    def get(self, url: str, **options: Unpack[Options]) -> Response:
        """``request("GET", url, …)``."""
        return self.request("GET", url, **options)

    def head(self, url: str, **options: Unpack[Options]) -> Response:
        """``request("HEAD", url, …)``."""
        return self.request("HEAD", url, **options)

    def options(self, url: str, **options: Unpack[Options]) -> Response:
        """``request("OPTIONS", url, …)``."""
        return self.request("OPTIONS", url, **options)

    def post(self, url: str, **options: Unpack[Options]) -> Response:
        """``request("POST", url, …)``."""
        return self.request("POST", url, **options)

    def put(self, url: str, **options: Unpack[Options]) -> Response:
        """``request("PUT", url, …)``."""
        return self.request("PUT", url, **options)

    def patch(self, url: str, **options: Unpack[Options]) -> Response:
        """``request("PATCH", url, …)``."""
        return self.request("PATCH", url, **options)

    def delete(self, url: str, **options: Unpack[Options]) -> Response:
        """``request("DELETE", url, …)``."""
        return self.request("DELETE", url, **options)


ctx = Context()
registry = Registry("registry")
vault = Power("vault")
cluster = Power("cluster")
http = Http("http")
