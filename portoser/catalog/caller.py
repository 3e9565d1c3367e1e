"""Who is asking."""

from enum import StrEnum

import msgspec


class CallerKind(StrEnum):
    """How a caller's identity was established."""

    ANONYMOUS = "anonymous"
    """Auth is off: everybody is this caller and everything is open."""
    TOKEN = "token"
    """A static API token."""
    OIDC = "oidc"
    """A token of an identity provider."""
    SYSTEM = "system"
    """Portoser itself: the reconciler, the leader's housekeeping."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The identity behind a request.

    ``client`` is the OAuth client id or the API token's name, which ``Policy.clients`` speaks of;
    ``agent`` is what the MCP client calls itself, for the audit log only. ``only_groups`` is the
    narrowing a connection chose with ``?groups=a,b``; None means no narrowing.
    """

    subject: str
    name: str = ""
    groups: frozenset[str] = frozenset()
    client: str | None = None
    agent: str | None = None
    kind: CallerKind = CallerKind.TOKEN
    address: str | None = None
    session: str | None = None
    only_groups: frozenset[str] | None = None
    expires_at: float | None = None
    """Seconds since the epoch after which the credential is no longer good; None means never."""

    @property
    def is_anonymous(self) -> bool:
        """Whether auth is off, so that everything is open."""
        return self.kind is CallerKind.ANONYMOUS


ANONYMOUS = Caller(subject="anonymous", name="anonymous", kind=CallerKind.ANONYMOUS)


def system_caller(subject: str) -> Caller:
    """The caller that Portoser's own work is done as, for example ``reconciler:main``."""
    return Caller(subject=subject, name=subject, kind=CallerKind.SYSTEM)
