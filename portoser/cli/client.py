"""Speaking to a running server."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from portoser.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    import httpx

DEFAULT_URL = "http://127.0.0.1:8000"

_CODES = {401: Exit.FORBIDDEN, 403: Exit.FORBIDDEN, 404: Exit.NOT_FOUND, 503: Exit.UNREACHABLE}


class Server:
    """A server by its URL and, where auth is on, a token. One connection for each command."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url = _base_of(url)
        self._token = token

    def get(self, path: str, **query: Any) -> Any:
        """The answer to a GET; query parameters that are None are left out."""
        return self.request("GET", path, query=query).json()

    def post(self, path: str, body: Any, **query: Any) -> Any:
        """The answer to a POST of JSON."""
        return self.request("POST", path, body=body, query=query).json()

    def put(self, path: str, body: Any) -> Any:
        """The answer to a PUT of JSON."""
        return self.request("PUT", path, body=body).json()

    def delete(self, path: str) -> None:
        """DELETE."""
        self.request("DELETE", path)

    def request(
        self, method: str, path: str, *, body: Any = None, query: Mapping[str, Any] | None = None
    ) -> "httpx.Response":
        """One request.

        Raises:
            CommandError: the server cannot be reached, or answers with a problem; it says which.
        """
        with self._http() as http:
            response = http.request(method, path, json=body, params=_given(query))
        if response.is_success:
            return response
        raise _refusal(response, self.url, with_token=self._token is not None)

    @contextmanager
    def lines(self, path: str, **query: Any) -> Iterator[Iterator[str]]:
        """The lines of an answer, as they come."""
        with self._http() as http, http.stream("GET", path, params=_given(query)) as response:
            if not response.is_success:
                response.read()
                raise _refusal(response, self.url, with_token=self._token is not None)
            yield response.iter_lines()

    @contextmanager
    def _http(self) -> Iterator["httpx.Client"]:
        import httpx

        headers = {"User-Agent": "portoser-cli", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        local = urlsplit(self.url).hostname in {"127.0.0.1", "::1", "localhost"}
        # Calls take as long as their tool may; only reaching the server has a deadline. A proxy has no business
        # between a command and its own machine.
        timeout = httpx.Timeout(None, connect=10)
        try:
            with httpx.Client(base_url=self.url, headers=headers, timeout=timeout, trust_env=not local) as http:
                yield http
        except httpx.ConnectError as error:
            hint = "is `portoser serve` running?" if local else "is the address right, and the server running?"
            why = "" if "refused" in str(error) else f" ({error})"
            raise CommandError(f"cannot reach {self.url}{why}: {hint}", code=Exit.UNREACHABLE) from None
        except httpx.TimeoutException:
            raise CommandError(f"{self.url} does not answer.", code=Exit.UNREACHABLE) from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise CommandError(f"the connection to {self.url} broke: {error}", code=Exit.UNREACHABLE) from None


def tool_path(name: str, rest: str = "") -> str:
    """The path of a tool, whatever its name holds."""
    return f"/api/mcp/tools/{quote(name, safe='')}{rest}"


def _given(query: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (query or {}).items() if value is not None}


def _base_of(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        good = False
    if not good:
        raise CommandError(f"{url!r} is not a server's URL: write for example {DEFAULT_URL}.", code=Exit.USAGE)
    return url.rstrip("/").removesuffix("/mcp/sse").removesuffix("/mcp")


def _refusal(response: "httpx.Response", url: str, *, with_token: bool) -> CommandError:
    try:
        problem = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        problem = None
    if not isinstance(problem, dict) or "detail" not in problem:
        return CommandError(f"{url} answers {response.status_code}: is this a Portoser server?")
    detail = str(problem["detail"])
    if response.status_code == 401:
        detail += " Set PORTOSER_TOKEN." if not with_token else " Is PORTOSER_TOKEN right?"
    items = (item for item in problem.get("errors") or () if isinstance(item, dict))
    problems = tuple(problem_line(item) for item in items if str(item.get("message")) not in detail)
    code = _CODES.get(response.status_code, Exit.FAILED)
    return CommandError(detail, code=code, problems=problems, document=problem)


def problem_line(item: Mapping[str, Any]) -> str:
    """A problem as one line, as `validate` writes it: ``path:line:column: error: message advice``."""
    place = str(item.get("path") or "")
    if item.get("line"):
        place += f":{item['line']}:{item.get('column') or 1}"
    text = f"{item.get('message', '')} {item.get('advice', '')}".strip()
    severity = f"{item['severity']}: " if item.get("severity") and item.get("line") else ""
    return f"{place}: {severity}{text}" if place else text
