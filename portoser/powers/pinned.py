"""Connections that go where it was checked that they go.

A name is looked up once for each connection. Every address that it has is looked at, and the connection is made to one
of those very addresses: between the check and the connection nobody is asked again, so a name that changes its mind
(DNS rebinding) changes nothing. The name stays what TLS verifies and what the request names as its host.

Connections are kept and shared, but never between those who may reach private addresses and those who may not.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import httpcore2

from portoser.catalog.network import Address, Reach, plain, reach_of
from portoser.powers.base import PowerRefused

Resolver: TypeAlias = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a name; ``OSError`` where it has none."""

CONNECTIONS = 64
KEPT = 16
KEPT_SECONDS = 30.0
CONNECT_SECONDS = 5.0
"""For one address of several."""
_MOST_ADDRESSES = 4
_LOOKUPS = 4
"""How many names are looked up at once: a name server that does not answer holds up a thread."""


class Connections:
    """Connections to public addresses, and to private ones for those who may; two pools that share nothing.

    ``resolver`` looks names up, ``tls`` says whose certificates are believed, ``network`` opens sockets.
    """

    def __init__(
        self,
        resolver: Resolver | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        network: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        self._lookups: ThreadPoolExecutor | None = None
        self._resolver = resolver or self._resolve
        self._tls = tls
        self._network = network or httpcore2.AnyIOBackend()
        self._pools: dict[bool, httpcore2.AsyncConnectionPool] = {}

    async def send(self, request: httpcore2.Request, *, may_be_private: bool) -> httpcore2.Response:
        """Send a request; the answer's body is still to be read, and then to be closed.

        Raises:
            PowerRefused: its host has an address that may not be reached.
            httpcore2's errors: it cannot be reached, or does not speak HTTP.
        """
        pool = self._pools.get(may_be_private)
        if pool is None:
            if self._tls is None:
                self._tls = await asyncio.to_thread(httpcore2.default_ssl_context)
            pool = self._pools.get(may_be_private) or self._pool(may_be_private=may_be_private)
        return await pool.handle_async_request(request)

    async def aclose(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            await pool.aclose()
        self._pools.clear()
        if self._lookups is not None:
            self._lookups.shutdown(wait=False, cancel_futures=True)
            self._lookups = None

    def _pool(self, *, may_be_private: bool) -> httpcore2.AsyncConnectionPool:
        pool = self._pools[may_be_private] = httpcore2.AsyncConnectionPool(
            ssl_context=self._tls,
            max_connections=CONNECTIONS,
            max_keepalive_connections=KEPT,
            keepalive_expiry=KEPT_SECONDS,
            network_backend=_Pinned(self._network, self._resolver, may_be_private=may_be_private),
        )
        return pool

    async def _resolve(self, name: str, port: int) -> list[str]:
        # Threads of their own: the event loop's others have to be there for everything else.
        if self._lookups is None:
            self._lookups = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="lookup")
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._lookups, lambda: socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        )
        return [str(entry[4][0]) for entry in found]


class _Pinned(httpcore2.AsyncNetworkBackend):
    def __init__(self, network: httpcore2.AsyncNetworkBackend, resolver: Resolver, *, may_be_private: bool) -> None:
        self._network = network
        self._resolver = resolver
        self._may_be_private = may_be_private

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        error: Exception | None = None
        for address in (await self._addresses(host, port))[:_MOST_ADDRESSES]:
            try:
                return await self._network.connect_tcp(str(address), port, timeout, None, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as failed:
                error = error or failed
        raise error or httpcore2.ConnectError("it has no address")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        raise PowerRefused("Sockets of this machine cannot be reached.")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _addresses(self, host: str, port: int) -> list[Address]:
        """The addresses of a host, each of which may be reached."""
        try:
            return [self._checked(host, ipaddress.ip_address(host))]
        except ValueError:
            pass
        try:
            told = await self._resolver(host, port)
        except (OSError, UnicodeError) as error:
            detail = getattr(error, "strerror", None) or str(error)
            raise httpcore2.ConnectError(f"its name cannot be resolved: {detail}") from None
        found = [self._checked(host, ipaddress.ip_address(each.partition("%")[0])) for each in told]
        return list(dict.fromkeys(found))

    def _checked(self, host: str, address: Address) -> Address:
        address = plain(address)
        reach, whose = reach_of(address)
        shown = str(address) if str(address) == host else f"{host} leads to {address}, and that"
        if reach is Reach.NEVER:
            raise PowerRefused(f"{shown} cannot be reached: the address is {whose}.")
        if reach is Reach.PRIVATE and not self._may_be_private:
            raise PowerRefused(
                f"{shown} is not a public address: it is {whose}. Where that is meant, add to the rule in policy.yaml: "
                "private: true"
            )
        return address
