"""Tells connected clients that the tools they may see changed.

Clients of the handshake era hear of it on their session; those of 2026-07-28 on a stream that they opened
with `subscriptions/listen`. A client is told only when its own listing changed: what it may see is
compared before and after, once for all clients that see the same.
"""

import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import anyio.abc
import anyio.lowlevel
import msgspec
import structlog
from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import ServerEvent, ToolsListChanged
from mcp_types import NotificationParams

from portoser.catalog.caller import Caller
from portoser.mcp.callers import current_caller
from portoser.mcp.calls import connection_of
from portoser.registry.access import Access
from portoser.registry.follower import Follower
from portoser.registry.snapshot import Snapshot

log = structlog.get_logger(__name__)

AT_ONCE: Final = 20
"""How many clients are told without delay; more are spread, so that they do not all list in one moment."""

PER_SECOND: Final = 2000
LONGEST_SPREAD: Final = 0.5
_SEND_SECONDS: Final = 10.0


class Subscriber:
    """One connected client: whose it is, what it last saw, and how to reach it."""

    def __init__(self, caller: Caller, seen: int, tell: Callable[[], Awaitable[None]]) -> None:
        self.caller = caller
        self.seen = seen
        self.tell = tell
        self.told_soon = False


class Subscribers:
    """The connected clients. Also the SDK's `SubscriptionBus`: the seam behind `subscriptions/listen`."""

    def __init__(self, follower: Follower, access: Access) -> None:
        self._follower = follower
        self._access = access
        self._subscribers: dict[object, Subscriber] = {}
        self._of_session: dict[Connection, Subscriber] = {}
        self._listings: dict[Hashable, int] = {}
        self._listed: Snapshot | None = None
        self._swaps: deque[Snapshot] = deque()
        self._comparing = False
        self._tasks: anyio.abc.TaskGroup | None = None
        follower.on_swap(self._swapped)

    def __len__(self) -> int:
        return len(self._subscribers)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While entered, tasks can be started; on the way out they end."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            self._swaps.clear()
            try:
                yield
            finally:
                self._tasks = None
                tasks.cancel_scope.cancel()

    def spawn(self, task: Callable[[], Coroutine[Any, Any, None]], /) -> None:
        """Start a task that ends with the server. Nothing is started any more once the server stops."""
        if self._tasks is not None:
            self._tasks.start_soon(_contained, task)

    async def initialized(self, ctx: ServerRequestContext[Any, Any], params: NotificationParams) -> None:
        """A session of the handshake era is ready: from now on it is told, until it ends."""
        connection = connection_of(ctx)
        if connection in self._of_session:
            return
        subscriber, leave = self._add(current_caller(), _tell_session(ctx.session))
        self._of_session[connection] = subscriber
        connection.exit_stack.callback(leave)
        connection.exit_stack.callback(self._of_session.pop, connection, None)

    def refresh(self, connection: Connection, caller: Caller, *, lists: bool) -> None:
        """A message came on a session: from now on its client is told of what ``caller`` may see.

        ``lists`` says that the message asks for the list itself, so that nobody need be told of this
        difference. The session's own narrowing stays.
        """
        subscriber = self._of_session.get(connection)
        if subscriber is None or not self._is_now(subscriber, caller):
            return
        snapshot = self._follower.snapshot
        listing = self._listing(snapshot, subscriber.caller)
        if listing != subscriber.seen:
            subscriber.seen = listing
            if not lists:
                self._tell([subscriber], snapshot)

    def callers_changed(self, present: Callable[[Caller], Caller]) -> None:
        """Groups were given or taken: ``present`` tells what each caller has now. Tell those who see another list."""
        for subscriber in self._subscribers.values():
            self._is_now(subscriber, present(subscriber.caller))
        self._swapped(self._follower.snapshot, self._follower.snapshot)

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """A 2026-07-28 client listens: tell it until the returned function is called. Runs in its request."""

        async def tell() -> None:
            listener(ToolsListChanged())

        _, leave = self._add(current_caller(), tell)
        return leave

    async def publish(self, event: ServerEvent) -> None:
        """Tell every client, whatever it sees. The SDK's interface; changes of the snapshot take the other way."""
        if isinstance(event, ToolsListChanged):
            for subscriber in list(self._subscribers.values()):
                self._tell_soon(subscriber, delay=0.0)

    def _add(self, caller: Caller, tell: Callable[[], Awaitable[None]]) -> tuple[Subscriber, Callable[[], None]]:
        token = object()
        subscriber = Subscriber(caller, self._listing(self._follower.snapshot, caller), tell)
        self._subscribers[token] = subscriber

        def leave() -> None:
            self._subscribers.pop(token, None)

        return subscriber, leave

    def _is_now(self, subscriber: Subscriber, caller: Caller) -> bool:
        """Take ``caller`` for the subscriber's, but for its narrowing; whether that makes a difference."""
        known = subscriber.caller
        if (known.kind, known.groups, known.client) == (caller.kind, caller.groups, caller.client):
            return False
        subscriber.caller = msgspec.structs.replace(caller, only_groups=known.only_groups)
        return True

    def _swapped(self, old: Snapshot, new: Snapshot) -> None:
        """The follower's callback, on the event loop: comparing may take a while, so it is left to a task."""
        if self._tasks is None:
            return  # not serving: nobody is connected
        self._swaps.append(new)
        if not self._comparing:
            self._comparing = True
            self.spawn(self._compare)

    async def _compare(self) -> None:
        """Tell those whose listing changed, swap by swap: whoever listed between two is told of the second."""
        try:
            while self._swaps:
                await self._compare_with(self._swaps.popleft())
        finally:
            self._comparing = False

    async def _compare_with(self, snapshot: Snapshot) -> None:
        changed: list[Subscriber] = []
        for subscriber in list(self._subscribers.values()):
            fresh = len(self._listings)
            listing = self._listing(snapshot, subscriber.caller)
            if listing != subscriber.seen:
                subscriber.seen = listing
                changed.append(subscriber)
            if len(self._listings) != fresh:
                await anyio.lowlevel.checkpoint()  # that listing was worked out anew: let others have their turn
        self._tell(changed, snapshot)

    def _tell(self, changed: list[Subscriber], snapshot: Snapshot) -> None:
        if not changed:
            return
        spread = 0.0 if len(changed) <= AT_ONCE else min(len(changed) / PER_SECOND, LONGEST_SPREAD)
        log.info("mcp.list_changed", generation=snapshot.generation, clients=len(changed), of=len(self._subscribers))
        for subscriber in changed:
            self._tell_soon(subscriber, delay=random.uniform(0, spread))  # noqa: S311 - it only spreads load

    def _listing(self, snapshot: Snapshot, caller: Caller) -> int:
        """A number that changes when what the caller sees listed does; worked out once for all who see the same."""
        if self._listed is not snapshot:
            self._listed = snapshot
            self._listings.clear()
        view = self._access.visibility_key(snapshot, caller)
        listing = self._listings.get(view)
        if listing is None:
            visible = self._access.visible(snapshot, caller)
            listing = self._listings[view] = hash(tuple((served.name, served.listing_digest) for served in visible))
        return listing

    def _tell_soon(self, subscriber: Subscriber, *, delay: float) -> None:
        if subscriber.told_soon:
            return  # it will list after this change too
        subscriber.told_soon = True

        async def tell() -> None:
            if delay:
                await anyio.sleep(delay)
            subscriber.told_soon = False
            # A client that stopped reading must cost nobody but itself.
            with anyio.move_on_after(_SEND_SECONDS) as sending:
                await subscriber.tell()
            if sending.cancelled_caught:
                log.warning("mcp.client_not_told", subject=subscriber.caller.subject, seconds=_SEND_SECONDS)

        self.spawn(tell)


def _tell_session(session: ServerSession) -> Callable[[], Awaitable[None]]:
    async def tell() -> None:
        await session.send_tool_list_changed()

    return tell


async def _contained(task: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """One client's failure must not end the others' tasks, which share a task group with it."""
    try:
        await task()
    except Exception:
        log.exception("mcp.task_failed")
