"""The stdio bridge: for clients that can only start a program and speak to it over its pipes.

It hands every message on as it is, and adds what a pipe cannot have: when the server goes away it connects
again, opens a session as the client once did, and tells the client that its tools may have changed. A call
that ran when the connection broke is never sent again; the client is told that it may have run.

It is started by each client anew, so it imports little: no FastMCP, no SDK.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Final
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpx

from portoser.catalog.errors import PortoserError
from portoser.mcp.framing import Message, encoded, line_writer, messages_of, server_sent_events

DEFAULT_URL: Final = "http://127.0.0.1:8000/mcp/sse"

CONNECTION_LOST: Final = -32000
"""The JSON-RPC error of a request whose answer can no longer come."""

PATIENCE_SECONDS: Final = 30.0
"""How long a message waits for the server to come back before it is answered with an error."""

GOODBYE_SECONDS: Final = 2.0
"""How long answers may still come after the client closed its end."""

_READ_SECONDS: Final = 60.0  # the server writes at least every 15
_LEAST_PATIENCE: Final = 1.0
_MOST_WAITING: Final = 1000

_SAME_SESSION_RETRY: Final = 0.5
_FIRST_RETRY: Final = 0.1
_LONGEST_RETRY: Final = 5.0
_LOST: Final = (
    "The connection to Portoser broke while this call ran. It may have run, in whole or in part: "
    "look before you call again."
)

_JSON: Final = {"Content-Type": "application/json"}
_REFUSALS: Final = {
    401: "Set PORTOSER_TOKEN to a token that it knows.",
    403: "Its token may not, or the address is not the one that it announces.",
    404: "Is that the address of a Portoser server?",
    405: "Is that the address of a Portoser server?",
    421: "Use the address that it announces.",
}


class Refused(PortoserError):
    """The server answered that it will not take this client; trying again changes nothing."""


async def run_bridge(url: str, *, token: str | None) -> int:
    """Serve one client on this process's pipes until it closes its end.

    ``url`` is a server, its ``/mcp`` or its ``/mcp/sse``; a query such as ``?groups=a,b`` is kept. ``token``
    goes to the server as a bearer token. Returns the exit code: 0, or 1 where the server refused the client,
    after the client and stderr were told why.
    """
    bridge = Bridge(sse_url(url), token, line_writer(sys.stdout.buffer))
    try:
        await bridge.run(messages_of(sys.stdin.fileno()))
    except Refused as refused:
        print(f"portoser bridge: {refused}", file=sys.stderr)  # noqa: T201 - where clients look for a reason
        return 1
    except BrokenPipeError:
        return 0  # the client is gone without a word
    return 0


def sse_url(url: str) -> str:
    """The address of the event stream, from whichever address of the server a person has at hand.

    Raises:
        PortoserError: it is not an http address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PortoserError(f"{url!r} is not a server's address: write for example {DEFAULT_URL}")
    path = parts.path.rstrip("/")
    if not path.endswith("/sse"):
        path = f"{path}/sse" if path.endswith("/mcp") else f"{path}/mcp/sse"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


class _Session:
    """One connection to the server. ``endpoint`` is where to post, once messages may be; ``over`` is its end."""

    def __init__(self) -> None:
        self.endpoint: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.over = asyncio.Event()


class Bridge:
    """One client, and the sessions with the server that it has had."""

    def __init__(self, url: str, token: str | None, write: Callable[[Message], None]) -> None:
        self._url = url
        self._write = write
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._session = _Session()
        self._sessions = 0
        self._down_since = time.monotonic()
        # Requests of the client: all that have no answer yet, and those of them that a session was given.
        self._unanswered: dict[str | int, Message] = {}
        self._given: dict[str | int, Message] = {}
        self._all_answered = asyncio.Event()
        # What a new session needs to be as the one before.
        self._hello: Message | None = None
        self._welcomed = False
        self._greeted = False
        self._level: Message | None = None
        self._own_requests: dict[str, asyncio.Future[None]] = {}

    async def run(self, messages: AsyncIterator[Message]) -> None:
        """Hand messages on, both ways, until ``messages`` end.

        Raises:
            Refused: the server does not take this client.
        """
        timeout = httpx.Timeout(10.0, read=_READ_SECONDS)
        # A proxy of the environment is not meant for this machine itself.
        local = urlsplit(self._url).hostname in ("localhost", "127.0.0.1", "::1")
        # Connections are let go before the server lets them go, so that no message meets a closed one.
        limits = httpx.Limits(keepalive_expiry=3.0)
        async with httpx.AsyncClient(
            headers=self._headers, timeout=timeout, limits=limits, trust_env=not local
        ) as http:
            connected = asyncio.create_task(self._stay_connected(http))
            sending = asyncio.create_task(self._send_all(http, messages))
            try:
                await asyncio.wait({connected, sending}, return_when=asyncio.FIRST_COMPLETED)
                if connected.done():
                    await connected  # it ends only by being refused
                await sending
                with suppress(TimeoutError):
                    async with asyncio.timeout(GOODBYE_SECONDS):
                        await self._all_answered.wait()
            except Refused as refused:
                for message in list(self._unanswered.values()):
                    self._answer(message, str(refused))
                raise
            finally:
                for task in (connected, sending):
                    task.cancel()
                await asyncio.gather(connected, sending, return_exceptions=True)

    # From the client to the server

    async def _send_all(self, http: httpx.AsyncClient, messages: AsyncIterator[Message]) -> None:
        """Send what the client says, in its order; what it takes back before a session was given it is not sent."""
        self._all_answered.set()
        waiting: asyncio.Queue[Message | None] = asyncio.Queue(_MOST_WAITING)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read(messages, waiting))
            while (message := await waiting.get()) is not None:
                if not self._is_taken_back(message):
                    await self._send(http, message)

    async def _read(self, messages: AsyncIterator[Message], waiting: "asyncio.Queue[Message | None]") -> None:
        async for message in messages:
            match message:
                case {"method": "initialize"}:
                    self._hello = message
                case {"method": "logging/setLevel"}:
                    self._level = message
                case {"method": "notifications/initialized"}:
                    self._greeted = True
                case {"method": "notifications/cancelled", "params": {"requestId": str() | int() as request_id}}:
                    if request_id in self._unanswered and request_id not in self._given:
                        self._forget(request_id)
                        continue
            if "method" in message and "id" in message:
                self._unanswered[message["id"]] = message
                self._all_answered.clear()
            await waiting.put(message)
        await waiting.put(None)

    def _is_taken_back(self, message: Message) -> bool:
        """Whether it is a request that was answered, or cancelled by the client, before it could be sent."""
        return "method" in message and "id" in message and message["id"] not in self._unanswered

    async def _send(self, http: httpx.AsyncClient, message: Message) -> None:
        """Send a message in order. It waits for the server to come back, as long as it certainly did not arrive."""
        try:
            async with asyncio.timeout(None) as waiting:
                while True:
                    session = self._session
                    if not session.endpoint.done():
                        waiting.reschedule(asyncio.get_running_loop().time() + self._patience())
                    endpoint = await asyncio.shield(session.endpoint)
                    waiting.reschedule(None)
                    if self._is_taken_back(message) or await self._give(http, endpoint, message):
                        return
                    if self._is_taken_back(message):
                        return  # its session broke off meanwhile, and it was answered then
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_SAME_SESSION_RETRY):
                            await session.over.wait()
        except TimeoutError:
            self._answer(message, f"Portoser cannot be reached at {self._url}.")
        except httpx.TransportError:
            self._answer(message, _LOST)

    def _patience(self) -> float:
        """How long a message waits now: less, the longer the server has been away already."""
        return max(_LEAST_PATIENCE, PATIENCE_SECONDS - (time.monotonic() - self._down_since))

    async def _give(self, http: httpx.AsyncClient, endpoint: str, message: Message) -> bool:
        """Post a message of the client, and remember that the session has it; False where it certainly has not."""
        request_id = message.get("id") if "method" in message else None
        if request_id is not None:
            self._given[request_id] = message
        arrived = await self._post(http, endpoint, message)
        if request_id is not None and not arrived:
            self._given.pop(request_id, None)
        return arrived

    async def _post(self, http: httpx.AsyncClient, endpoint: str, message: Message) -> bool:
        """Post a message to a session; False says that it certainly did not arrive.

        Raises:
            httpx.TransportError: it may have arrived.
        """
        try:
            response = await http.post(endpoint, content=encoded(message), headers=_JSON)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
            return False
        if response.status_code in (404, 502, 503):
            return False  # the session is gone, or the server is going
        if response.is_error:
            self._answer(message, f"Portoser refused the message ({response.status_code}): {response.text[:500]}")
        return True

    # From the server to the client

    async def _stay_connected(self, http: httpx.AsyncClient) -> None:
        """Keep a session open.

        Raises:
            Refused: the server does not take this client.
        """
        pause = _FIRST_RETRY
        while True:
            sessions = self._sessions
            try:
                async with http.stream("GET", self._url, headers={"Accept": "text/event-stream"}) as response:
                    await self._check(response)
                    await self._one_session(http, response)
            except httpx.TransportError:
                pass  # not reachable, or broke off: both mean trying again
            finally:
                self._session_over()
            if self._sessions > sessions:
                pause = _FIRST_RETRY
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - it only spreads load
            pause = min(pause * 2, _LONGEST_RETRY)

    async def _check(self, response: httpx.Response) -> None:
        """Raise where there is no stream: `Refused` for good, a transport error where there may be one later."""
        status = response.status_code
        if status == httpx.codes.OK:
            return
        text = (await response.aread()).decode("utf-8", "replace")[:300]
        if status in _REFUSALS and (self._sessions == 0 or status in (401, 403)):
            raise Refused(f"{self._url} answered {status}. {_REFUSALS[status]} {text}".strip())
        raise httpx.RemoteProtocolError(f"{self._url} answered {status}")

    async def _one_session(self, http: httpx.AsyncClient, response: httpx.Response) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                opening: asyncio.Task[None] | None = None
                async for event, data in server_sent_events(response):
                    if event == "endpoint" and opening is None:
                        opening = tasks.create_task(self._open(http, urljoin(self._url, data)))
                    elif event == "message" and data:
                        self._received(json.loads(data))
                if opening is not None:
                    opening.cancel()
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None  # there is one opening, and it fails once

    async def _open(self, http: httpx.AsyncClient, endpoint: str) -> None:
        """Make a new session what the one before it was, then let messages through.

        Requests that the broken session had, and that nobody answered, are asked again.
        """
        if urlsplit(endpoint)[:2] != urlsplit(self._url)[:2]:
            raise Refused(f"{self._url} wants messages sent to another server, {endpoint}.")
        again = list(self._given.values())
        if self._welcomed and self._hello is not None:
            await self._ask(http, endpoint, self._hello)
        if self._greeted:
            await self._post(http, endpoint, {"jsonrpc": "2.0", "method": "notifications/initialized"})
            if self._level is not None:
                await self._ask(http, endpoint, self._level)
        for message in again:
            if message["id"] in self._given and not await self._post(http, endpoint, message):
                raise httpx.RemoteProtocolError("the session ended as it began")
        self._sessions += 1
        self._session.endpoint.set_result(endpoint)
        if self._greeted and self._sessions > 1:
            self._write({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})

    async def _ask(self, http: httpx.AsyncClient, endpoint: str, message: Message) -> None:
        """Send a request again under an id of ours, and wait for its answer, which the client does not see."""
        own_id = f"portoser-bridge-{self._sessions}-{message['method']}"
        answered = self._own_requests[own_id] = asyncio.get_running_loop().create_future()
        try:
            if not await self._post(http, endpoint, {**message, "id": own_id}):
                raise httpx.RemoteProtocolError("the session ended as it began")
            await answered
        finally:
            del self._own_requests[own_id]

    def _received(self, message: Message) -> None:
        if "method" in message:
            self._write(message)
            return
        request_id = message.get("id")
        if request_id in self._own_requests:
            self._own_requests[request_id].set_result(None)
        elif request_id is None or self._forget(request_id):
            if self._hello is not None and request_id == self._hello["id"] and "result" in message:
                self._welcomed = True
            self._write(message)

    def _session_over(self) -> None:
        """Calls that the session had are answered, because they may have run; the rest waits for the next one."""
        over, self._session = self._session, _Session()
        over.over.set()
        if over.endpoint.done():
            self._down_since = time.monotonic()
        else:
            self._session.endpoint = over.endpoint  # it never opened; who waits for it waits for the next
        for message in list(self._given.values()):
            if message["method"] == "tools/call":
                self._answer(message, _LOST)

    def _answer(self, message: Message, reason: str) -> None:
        """Answer a request in the server's place; notifications and responses get none."""
        if "method" in message and "id" in message and self._forget(message["id"]):
            error = {"code": CONNECTION_LOST, "message": reason}
            self._write({"jsonrpc": "2.0", "id": message["id"], "error": error})

    def _forget(self, request_id: str | int) -> bool:
        """A request is answered; False where it was before."""
        self._given.pop(request_id, None)
        known = self._unanswered.pop(request_id, None) is not None
        if not self._unanswered:
            self._all_answered.set()
        return known
