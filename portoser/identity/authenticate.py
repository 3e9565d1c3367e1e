"""From a request's headers to its caller."""

from collections.abc import Sequence
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Scope

from portoser.catalog.caller import ANONYMOUS, Caller
from portoser.catalog.errors import PortoserError
from portoser.identity.address import TrustedProxies
from portoser.identity.tokens import Expired, TokenFile, hash_of

_LONGEST_AGENT = 200
_MOST_GROUPS = 100
_MOST_FIELDS = 1000


class Unauthenticated(PortoserError):
    """The request does not say who is asking, in a way that can be believed.

    ``reason`` is ``missing``, ``malformed``, ``unknown_token`` or ``expired``.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        self.reason = reason
        super().__init__(message)


class Unreadable(PortoserError):
    """The request's query cannot be read, so that it is not known which groups it narrows itself to."""


class Authenticator:
    """Tells the caller of each request. Without tokens auth is off: everybody is ``anonymous``."""

    def __init__(self, tokens: TokenFile | None, trusted_proxies: Sequence[str] = ()) -> None:
        self._tokens = tokens
        self._proxies = TrustedProxies(trusted_proxies)

    @property
    def enabled(self) -> bool:
        """Whether callers have to say who they are."""
        return self._tokens is not None

    def caller(self, scope: Scope) -> Caller:
        """The caller of an ASGI request.

        Raises:
            Unauthenticated: there is no good credential.
            Unreadable: the query has too many fields.
        """
        told = _Headers(scope)
        known = ANONYMOUS if self._tokens is None else self._holder(self._tokens, told.authorization)
        return msgspec.structs.replace(
            known,
            address=self.address(scope),
            agent=told.agent,
            session=told.session,
            only_groups=_narrowing(scope),
        )

    def address(self, scope: Scope) -> str | None:
        """The address that a request comes from."""
        client = scope.get("client")
        forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        return self._proxies.client_address(client[0] if client else None, forwarded)

    def _holder(self, tokens: TokenFile, authorization: Sequence[str]) -> Caller:
        if not authorization:
            raise Unauthenticated("Say who you are: send the header 'Authorization: Bearer <token>'.", reason="missing")
        scheme, _, token = authorization[0].partition(" ")
        if len(authorization) > 1 or scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated("The Authorization header must be one: 'Bearer <token>'.", reason="malformed")
        try:
            caller = tokens.verify(token.strip())
        except Expired as error:
            raise Unauthenticated(f"{error} Ask for a new one.", reason="expired") from None
        if caller is None:
            raise Unauthenticated("The token is not known here.", reason="unknown_token")
        return caller


def credential_of(scope: Scope) -> str | None:
    """The hash of the token that came with a request, by which the token file knows it; None where none came."""
    authorization = _Headers(scope).authorization
    token = authorization[0].partition(" ")[2].strip() if authorization else ""
    return hash_of(token) if token else None


class _Headers:
    """The few headers that say who is asking, found in one pass."""

    __slots__ = ("agent", "authorization", "session")

    def __init__(self, scope: Scope) -> None:
        self.authorization: list[str] = []
        self.agent: str | None = None
        self.session: str | None = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                self.authorization.append(value.decode("latin-1").strip())
            elif name == b"user-agent":
                self.agent = value[:_LONGEST_AGENT].decode("latin-1")
            elif name == b"mcp-session-id":
                self.session = value[:_LONGEST_AGENT].decode("latin-1")


def _narrowing(scope: Scope) -> frozenset[str] | None:
    """The groups of ``?groups=a,b``; None where the connection does not narrow itself.

    ``?groups=`` narrows too, to nothing: a list that came out empty must not open everything.
    """
    query: bytes = scope.get("query_string", b"")
    if b"groups" not in query:
        return None
    try:
        fields = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Unreadable(f"The query has more than {_MOST_FIELDS:,} fields: send fewer.") from None
    named = [value for key, value in fields if key == "groups"]
    if not named:
        return None
    groups = [group.strip() for value in named for group in value.split(",") if group.strip()]
    return frozenset(groups[:_MOST_GROUPS])
