"""What a tool's code asks of the power ``http``, read and checked before anything of it leaves the server."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import httpx2

from portoser.catalog.network import METHODS, Place, host_of
from portoser.powers.base import PowerRefused, bound, unknown_method

READING = frozenset(("get", "head", "options"))
"""The methods that change nothing where they are used as they are meant."""

MIB = 1024 * 1024
MOST_REQUEST = MIB
LONGEST_URL = 8192
MOST_HEADERS = 100
MOST_HEADER_BYTES = 32 * 1024
USUAL_SECONDS = 30.0
MOST_SECONDS = 300.0

_PORTS = {"http": 80, "https": 443}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OURS = frozenset(
    (
        "connection", "content-length", "expect", "host", "http2-settings", "keep-alive", "te", "trailer",
        "transfer-encoding", "upgrade",
    )
)  # fmt: skip
"""Headers that say how a message is sent, and where to: they are made here, and nowhere else."""
_BOUND_TO_CONNECTIONS = ("negotiate", "ntlm")
_KEPT_FOR_OTHERS = frozenset(
    ("accept", "accept-encoding", "accept-language", "content-encoding", "content-language", "content-type",
     "user-agent")
)  # fmt: skip
"""Headers that a redirect to another origin keeps; any other might be a credential."""


class HttpRequest(NamedTuple):
    """One request, sound in itself. ``headers`` are in lower case; ``seconds`` is what all of it may take."""

    method: str
    url: httpx2.URL
    place: Place
    headers: tuple[tuple[str, str], ...]
    content: bytes
    seconds: float
    follows: bool

    @property
    def shown(self) -> str:
        """The request as messages name it, without what may be a secret in it."""
        return f"{self.method.upper()} {self.url.scheme}://{self.place}"

    def redirected(self, status: int, location: str) -> "HttpRequest":
        """The request that a redirect leads to.

        Raises:
            PowerRefused: it leads nowhere that may be asked.
        """
        try:
            url, place = _target(str(self.url.join(location)))
        except (httpx2.InvalidURL, UnicodeError, ValueError):
            raise PowerRefused(f"{self.shown} was redirected to what is not a URL.") from None
        except PowerRefused as refused:
            raise PowerRefused(f"{self.shown} was redirected to what cannot be asked. {refused}") from None
        if self.url.scheme == "https" and url.scheme == "http":
            raise PowerRefused(f"{self.shown} was redirected to {place} without TLS, which is not followed.")
        method, content, headers = self.method, self.content, self.headers
        if (status == 303 and method != "head") or (status in (301, 302) and method == "post"):
            method, content = "get", b""
            headers = tuple(pair for pair in headers if not pair[0].startswith("content-"))
        if (url.scheme, place) != (self.url.scheme, self.place):
            headers = tuple(pair for pair in headers if pair[0] in _KEPT_FOR_OTHERS)
        return self._replace(method=method, url=url, place=place, headers=headers, content=content)


def read_request(method: str, args: list[Any], kwargs: dict[str, Any]) -> HttpRequest:
    """The request that a tool's code means.

    Raises:
        PowerRefused: it is none that may be sent; the message says what is wrong with it.
    """
    if method not in METHODS:
        raise unknown_method("http", method, METHODS)

    def asked(
        url: Any, *, headers: Any = (), content: Any = b"", timeout: Any = None, follow_redirects: Any = True
    ) -> HttpRequest:
        parsed, place = _target(url)
        body = _body(content)
        return HttpRequest(
            method=method,
            url=parsed,
            place=place,
            headers=_headers(headers),
            content=body,
            seconds=_seconds(timeout),
            follows=follow_redirects is not False,
        )

    found: HttpRequest = bound("http", method, asked, args, kwargs)
    return found


def _target(text: Any) -> tuple[httpx2.URL, Place]:
    if not isinstance(text, str):
        raise PowerRefused("The URL must be a text, for example https://api.example.com/v1/orders.")
    if len(text) > LONGEST_URL:
        raise PowerRefused(f"The URL has {len(text):,} characters; at most {LONGEST_URL:,} are sent.")
    if "\\" in text or any(not character.isprintable() for character in text):
        raise PowerRefused("The URL holds a character that URLs do not have: a control character or a backslash.")
    try:
        url = httpx2.URL(text)
        raw_host = url.raw_host.decode("ascii")
    except (httpx2.InvalidURL, UnicodeError, ValueError) as error:
        raise PowerRefused(f"The URL cannot be read: {str(error)[:200]}") from None
    if url.scheme not in _PORTS:
        raise PowerRefused(f"Only http:// and https:// can be asked, not {url.scheme[:20]!r}.")
    if url.userinfo or "@" in url.netloc.decode("ascii", "replace"):
        raise PowerRefused("The URL names a user or a password before '@'; send an Authorization header instead.")
    try:
        host = host_of(raw_host)
    except ValueError as error:
        raise PowerRefused(f"The URL's host cannot be asked: {error}.") from None
    port = _PORTS[url.scheme] if url.port is None else url.port
    if url.scheme == "http" and port == _PORTS["https"]:
        raise PowerRefused("Port 443 is spoken to by TLS: write https://, not http://.")
    if not 0 < port < 65536:
        raise PowerRefused(f"The URL's port {port} is none; ports are 1 to 65535.")
    return url.copy_with(host=str(host), fragment=None), Place(host, port)


def _headers(given: Any) -> tuple[tuple[str, str], ...]:
    pairs = list(given.items()) if isinstance(given, dict) else given
    if not isinstance(pairs, Sequence) or isinstance(pairs, str | bytes):
        raise PowerRefused("The headers must be a mapping of names to texts.")
    taken: list[tuple[str, str]] = []
    for pair in pairs:
        if not isinstance(pair, Sequence) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise PowerRefused("Each header must be a name and a text.")
        name, value = pair[0].lower(), pair[1].strip(" \t")
        if not _TOKEN.fullmatch(name):
            raise PowerRefused(f"{pair[0][:64]!r} cannot be a header's name.")
        if not _VALUE.fullmatch(value):
            raise PowerRefused(f"The header {pair[0]!r} holds a character that headers cannot, such as a line's end.")
        if name in _OURS or name.startswith("proxy-"):
            raise PowerRefused(f"The header {pair[0]!r} cannot be set: it is made of the request itself.")
        if name == "authorization" and value.lower().startswith(_BOUND_TO_CONNECTIONS):
            raise PowerRefused("NTLM and Negotiate cannot be used: connections are shared between calls.")
        taken.append((name, value))
    if len(taken) > MOST_HEADERS or sum(len(name) + len(value) for name, value in taken) > MOST_HEADER_BYTES:
        raise PowerRefused(f"The headers are too many: at most {MOST_HEADERS}, of {MOST_HEADER_BYTES // 1024} KiB.")
    return tuple(taken)


def _body(content: Any) -> bytes:
    if isinstance(content, str):
        content = content.encode("utf-8", "replace")
    if not isinstance(content, bytes):
        raise PowerRefused("The content must be bytes or a text.")
    if len(content) > MOST_REQUEST:
        raise PowerRefused(f"The content has {len(content):,} bytes; at most {MOST_REQUEST // MIB} MiB is sent.")
    return content


def _seconds(timeout: Any) -> float:
    if timeout is None:
        return USUAL_SECONDS
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= MOST_SECONDS:
        raise PowerRefused(f"The timeout must be a number of seconds, more than 0 and at most {MOST_SECONDS:g}.")
    return float(timeout)
