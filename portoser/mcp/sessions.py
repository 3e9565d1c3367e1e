"""What a session of the handshake era remembers of its callers, from one message to the next."""

from typing import Any, Final

import msgspec
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

from portoser.mcp.callers import acting_as, current_caller
from portoser.mcp.calls import connection_of
from portoser.mcp.subscribers import Subscribers

_NARROWING: Final = "portoser.only_groups"


class SessionCallers:
    """SDK middleware: a session stays as narrow as it was opened, and its subscriber is whoever asks now.

    A message may narrow itself further; that holds for the message. On 2026-07-28 each request has a
    connection of its own, so nothing is remembered there.
    """

    def __init__(self, subscribers: Subscribers) -> None:
        self._subscribers = subscribers

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """Pass the message on, for its caller within what the session may see."""
        connection = connection_of(ctx)
        caller = current_caller()
        if ctx.method == "initialize":
            result = await call_next(ctx)
            if caller.only_groups is not None:
                connection.state.setdefault(_NARROWING, caller.only_groups)
            return result
        self._subscribers.refresh(connection, caller, lists=ctx.method == "tools/list")
        kept: frozenset[str] | None = connection.state.get(_NARROWING)
        if kept is None:
            return await call_next(ctx)
        only_groups = kept if caller.only_groups is None else kept & caller.only_groups
        with acting_as(msgspec.structs.replace(caller, only_groups=only_groups)):
            return await call_next(ctx)
