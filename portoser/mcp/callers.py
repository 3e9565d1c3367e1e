"""Which caller a piece of work is done for.

The SDK runs handlers, and asks for tool schemas, without handing them the HTTP request. What it does
keep is the context of the task that received the message, so the caller travels in a context variable.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.types import Scope

from portoser.catalog.caller import Caller
from portoser.catalog.errors import Denied

_caller: ContextVar[Caller] = ContextVar("portoser_mcp_caller")


@contextmanager
def acting_as(caller: Caller) -> Iterator[None]:
    """Do the work in the block, and the tasks it starts, for ``caller``."""
    token = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(token)


def current_caller() -> Caller:
    """The caller that this work is done for.

    Raises:
        Denied: where nobody said so; there is no default caller.
    """
    try:
        return _caller.get()
    except LookupError:
        raise Denied("This request came without a caller, so nothing can be decided for it.") from None


def bind_session_owner(scope: Scope, caller: Caller) -> None:
    """Tell the SDK whose request this is, so that it gives a session only to the principal that opened it.

    The SDK compares ``scope["user"]`` of each request with that of the session's first one, by client
    and subject. With auth off there is nobody to tell apart.
    """
    if caller.is_anonymous:
        return
    # The SDK wants a token here; it compares the principal alone, and ours never leaves the identity room.
    principal = AccessToken(token="", client_id=caller.client or "", scopes=[], subject=caller.subject)
    scope["user"] = AuthenticatedUser(principal)


def same_principal(one: Caller, other: Caller) -> bool:
    """Whether two requests were made by the same principal through the same client."""
    return (one.kind, one.subject, one.client) == (other.kind, other.subject, other.client)
