"""The power ``http``: requests that the server sends for a tool, to the hosts that its manifest and the policy name.

A tool has no network. What it asks for here is read and checked (`http_request`), granted or not at each hop of a
redirect, and sent over a connection to an address that was looked at (`pinned`). No proxy of the environment is used,
no cookie is kept, TLS is always verified, and what comes back has a size and a time that it must not pass.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpcore2

from portoser import __version__
from portoser.catalog.errors import PowerError
from portoser.catalog.network import Place, place_of, place_pattern
from portoser.catalog.policy import PowerRule
from portoser.powers.base import Power, Use
from portoser.powers.http_body import MOST_RESPONSE, TooMuch, Undecodable, read_body
from portoser.powers.http_request import MIB, READING, HttpRequest, read_request
from portoser.powers.pinned import CONNECT_SECONDS, Connections

MOST_REDIRECTS = 5

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_USUAL_HEADERS = (("accept", "*/*"), ("accept-encoding", "gzip, deflate"), ("user-agent", f"portoser/{__version__}"))


class HttpPower(Power):
    """Sends requests, over ``connections``."""

    name = "http"
    word = "network"

    def __init__(self, connections: Connections | None = None) -> None:
        self._connections = connections or Connections()

    def matches(self, pattern: str, resource: str) -> bool:
        """Whether a pattern means a place; see `reaches`."""
        return reaches(pattern, resource)

    def writes(self, method: str) -> bool:
        """Whether a method is one that may change something."""
        return method not in READING

    async def aclose(self) -> None:
        """Close its connections."""
        await self._connections.aclose()

    async def call(self, method: str, args: list[Any], kwargs: dict[str, Any], use: Use) -> Any:
        """Answer one of ``get post put patch delete head options (url, *, headers, content, timeout)``.

        Raises:
            PowerRefused: it is not granted, or is none that may be sent.
            PowerError: there is no answer, or one that is too much.
        """
        request = read_request(method, args, kwargs)
        try:
            async with asyncio.timeout(request.seconds):
                return await self._answer(request, use)
        except TimeoutError:
            raise PowerError(
                f"{request.shown} had no whole answer within {request.seconds:g} s. Ask for less, or give it more "
                "time: timeout=…"
            ) from None

    async def _answer(self, request: HttpRequest, use: Use) -> dict[str, Any]:
        for _ in range(MOST_REDIRECTS + 1):
            rules = use.granted(str(request.place), request.method)
            may_be_private = any(_means_private(rule, request.place) for rule in rules)
            answer = await self._send(request, may_be_private=may_be_private)
            location = answer.pop("location")
            if location is None or not request.follows:
                return answer
            request = request.redirected(answer["status"], location)
        raise PowerError(f"{request.shown} was redirected more than {MOST_REDIRECTS} times.")

    async def _send(self, request: HttpRequest, *, may_be_private: bool) -> dict[str, Any]:
        try:
            sent = await self._connections.send(_on_wire(request), may_be_private=may_be_private)
            async with contextlib.aclosing(sent):
                headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in sent.headers]
                location = _location(sent.status, headers)
                is_left = location is not None and request.follows
                return {
                    "status": sent.status,
                    "headers": headers,
                    "content": b"" if is_left else await _content(request, sent, headers),
                    "url": str(request.url),
                    "location": location,
                }
        except httpcore2.ConnectTimeout:
            raise PowerError(f"{request.shown} did not connect within {CONNECT_SECONDS:g} s.") from None
        except httpcore2.ConnectError as error:
            raise PowerError(f"{request.shown} cannot connect: {_told(error)}") from None
        except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise PowerError(f"{request.shown} got no whole answer: {_told(error)}") from None


def reaches(pattern: str, resource: str) -> bool:
    """Whether a pattern of a manifest or of the policy means a place, both as ``host:port``."""
    try:
        return place_pattern(pattern).matches(place_of(resource))
    except ValueError:  # of a pattern that was taken before it was looked at like this
        return False


def _means_private(rule: PowerRule, place: Place) -> bool:
    """Whether a rule that grants a place grants it where it is a private address, too."""
    if rule.private or isinstance(place.host, str):
        return rule.private
    patterns = [place_pattern(each) for each in rule.grants[HttpPower.word] if reaches(each, str(place))]
    return any(pattern.is_private for pattern in patterns)


def _on_wire(request: HttpRequest) -> httpcore2.Request:
    url = request.url
    given = {name for name, _ in request.headers}
    pairs = [("host", url.netloc.decode("ascii"))]
    pairs += [pair for pair in _USUAL_HEADERS if pair[0] not in given]
    pairs += request.headers
    if request.content or request.method not in READING:
        pairs.append(("content-length", str(len(request.content))))
    return httpcore2.Request(
        method=request.method.upper(),
        url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in pairs],
        content=_Sent(request.content),
        extensions={"timeout": {"connect": CONNECT_SECONDS}},
    )


class _Sent:
    """A request's body, which says nothing of its length: the headers have said it."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._content:
            yield self._content


async def _content(request: HttpRequest, answer: httpcore2.Response, headers: list[tuple[str, str]]) -> bytes:
    try:
        async with contextlib.aclosing(answer.aiter_stream()) as pieces:
            return await read_body(pieces, headers)
    except TooMuch:
        raise PowerError(
            f"{request.shown} was answered with more than {MOST_RESPONSE // MIB} MiB. Ask for less, or in pages."
        ) from None
    except Undecodable as error:
        raise PowerError(f"{request.shown} was answered with what cannot be decompressed: {_told(error)}") from None


def _location(status: int, headers: list[tuple[str, str]]) -> str | None:
    if status not in _REDIRECTS:
        return None
    return next((value for name, value in headers if name == "location"), None)


def _told(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{text or type(error).__name__}."
