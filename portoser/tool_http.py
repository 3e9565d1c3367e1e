"""What the power ``http`` of `portoser.tool` takes and gives: requests written out, and answers to be looked at.

It needs nothing but the standard library, as `portoser.tool` does.
"""

import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from email.message import Message
from http import HTTPStatus
from typing import Any, TypedDict
from urllib.parse import urlencode

__all__ = ["Headers", "Options", "Response"]


class Options(TypedDict, total=False):
    """What may be said of a request besides its method and its URL; see ``http.request``."""

    params: Mapping[str, Any] | Sequence[tuple[str, Any]] | None
    headers: Mapping[str, str] | Sequence[tuple[str, str]] | None
    json: Any
    data: Any
    content: str | bytes | None
    timeout: float | None
    follow_redirects: bool


class Headers(Mapping[str, str]):
    """An answer's headers, by name in any case. Several of one name are joined by a comma."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._pairs = [(str(name), str(value)) for name, value in pairs]
        self._joined: dict[str, str] = {}
        for name, value in self._pairs:
            key = name.lower()
            self._joined[key] = f"{self._joined[key]}, {value}" if key in self._joined else value

    def __getitem__(self, name: str) -> str:
        return self._joined[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._joined)

    def __len__(self) -> int:
        return len(self._joined)

    def get_list(self, name: str) -> list[str]:
        """Each value of a name, in order, as ``set-cookie`` has them."""
        return [value for each, value in self._pairs if each.lower() == name.lower()]

    def __repr__(self) -> str:
        return f"Headers({self._joined!r})"


class Response:
    """What a request was answered. It may be awaited, and is then itself."""

    def __init__(
        self,
        status_code: int,
        headers: Iterable[tuple[str, str]] = (),
        content: bytes = b"",
        url: str = "",
    ) -> None:
        self.status_code = status_code
        self.headers: Headers = Headers(headers)
        self.content = content
        self.url = url
        """Where the answer is from, after all redirects."""

    def __await__(self) -> Generator[Any, None, "Response"]:
        yield from ()
        return self

    @property
    def is_success(self) -> bool:
        """Whether the status is one from 200 to 299."""
        return 200 <= self.status_code <= 299

    @property
    def is_error(self) -> bool:
        """Whether the status is 400 or higher."""
        return self.status_code >= 400

    @property
    def reason_phrase(self) -> str:
        """The status in words."""
        try:
            return HTTPStatus(self.status_code).phrase
        except ValueError:
            return ""

    @property
    def text(self) -> str:
        """The content as text, in the encoding that its type names, UTF-8 by default."""
        told = Message()
        told["content-type"] = self.headers.get("content-type", "")
        encoding = told.get_content_charset("utf-8")
        try:
            return self.content.decode(encoding, "replace")
        except LookupError:
            return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The content, read as JSON; ValueError where it is none."""
        return json.loads(self.content)

    def raise_for_status(self) -> "Response":
        """Itself; PowerError where the status is 400 or higher."""
        if self.is_error:
            from portoser.tool import PowerError

            raise PowerError(f"{self.url.partition('?')[0]} answered {self.status_code} {self.reason_phrase}".rstrip())
        return self

    def __repr__(self) -> str:
        return f"<Response [{self.status_code} {self.reason_phrase}]>"


def with_params(url: str, params: Mapping[str, Any] | Sequence[tuple[str, Any]] | None) -> str:
    """The URL with more parameters in its query."""
    pairs = _pairs(params)
    if not pairs:
        return url
    bare, hash_, fragment = url.partition("#")
    joint = "" if bare.endswith(("?", "&")) else "&" if "?" in bare else "?"
    return f"{bare}{joint}{urlencode(pairs, doseq=True)}{hash_}{fragment}"


def body_of(json_value: Any, data: Any, content: Any) -> tuple[bytes, str | None]:
    """The bytes of a request's body, and their type where that goes without saying.

    Raises:
        TypeError: more than one body is given, or one that is none.
    """
    given = [value for value in (json_value, data, content) if value is not None]
    if len(given) > 1:
        raise TypeError("A request has one body: give json, data or content.")
    if json_value is not None:
        return json.dumps(json_value, ensure_ascii=False, allow_nan=False).encode(), "application/json"
    if isinstance(data, Mapping) or (isinstance(data, Sequence) and not isinstance(data, str | bytes)):
        return urlencode(_pairs(data), doseq=True).encode(), "application/x-www-form-urlencoded"
    body = given[0] if given else b""
    if not isinstance(body, str | bytes | bytearray | memoryview):
        raise TypeError(f"A request's body is text or bytes, not {type(body).__name__}; for JSON write json=….")
    return body.encode() if isinstance(body, str) else bytes(body), None


def headers_of(given: Any, kind: str | None) -> list[tuple[str, str]]:
    """The headers of a request, as pairs, with the type of its body where they do not name one."""
    pairs = list(given.items()) if isinstance(given, Mapping) else list(given or ())
    named = {str(name).lower() for name, _ in pairs}
    return [*pairs, *([("content-type", kind)] if kind is not None and "content-type" not in named else [])]


def _pairs(params: Mapping[str, Any] | Sequence[tuple[str, Any]] | None) -> list[tuple[str, Any]]:
    pairs = params.items() if isinstance(params, Mapping) else params or ()
    return [(name, _written(value)) for name, value in pairs if value is not None]


def _written(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return [_written(each) for each in value] if isinstance(value, list | tuple) else value
