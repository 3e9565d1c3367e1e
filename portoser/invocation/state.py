"""What a client keeps for us between a question and its answer.

Between the two, no server holds anything: the call's state travels with the client, signed, and bound to the tool, its
revision, its arguments and its caller. Any replica can go on with it, once. What is in it the client may read: it is
the questions and the answers, which were its user's.
"""

import base64
import binascii
import hashlib
import hmac
from typing import Any, Final

import msgspec

from portoser.catalog.caller import Caller
from portoser.catalog.errors import PortoserError
from portoser.catalog.question import Action
from portoser.catalog.revision import JsonSchema

LONGEST: Final = 512 * 1024
"""Characters of a sealed state."""

_PREFIX: Final = "p1."
_LABEL: Final = b"portoser: the state of a call that asks, 1"


class Given(msgspec.Struct, frozen=True, array_like=True):
    """An answer that was given in an earlier round; ``mark`` says to which question."""

    action: Action
    content: dict[str, Any] | None
    mark: str


class Pending(msgspec.Struct, frozen=True, array_like=True):
    """A question that waits for its answer."""

    schema: JsonSchema
    mark: str


class State(msgspec.Struct, frozen=True, array_like=True):
    """Where a call stands that has asked. ``expires_at`` is in seconds since 1970."""

    nonce: str
    expires_at: float
    tool: str
    digest: str
    arguments: bytes
    caller: bytes
    is_confirmed: bool
    """The manifest's ``confirm`` was agreed to."""
    is_confirming: bool
    """The question is the manifest's ``confirm``."""
    has_run: bool
    """The function ran already, up to its question."""
    pending: dict[str, Pending]
    given: dict[str, Given]


class BadState(PortoserError):
    """A state that this server did not seal, or not for what it is used for."""


def digest_of_arguments(arguments: dict[str, Any]) -> bytes:
    """What the arguments of a call are known by."""
    return hashlib.sha256(msgspec.json.encode(arguments, order="sorted")).digest()[:16]


def digest_of_caller(caller: Caller) -> bytes:
    """What a caller is known by from one request to the next: whoever it is, through the same client."""
    told = [caller.kind, caller.subject, caller.client]
    return hashlib.sha256(msgspec.json.encode(told)).digest()[:16]


def sealed(state: State, key: bytes) -> str:
    """The state as text that nobody without the key can change."""
    body = msgspec.msgpack.encode(state)
    return f"{_PREFIX}{_text(body)}.{_text(_seal(body, key))}"


def opened(text: str, key: bytes) -> State:
    """The state that was sealed.

    Raises:
        BadState: it was not sealed with this key, or was changed since.
    """
    try:
        if not text.startswith(_PREFIX) or len(text) > LONGEST:
            raise ValueError
        body, _, seal = text.removeprefix(_PREFIX).partition(".")
        raw = _bytes(body)
        if not hmac.compare_digest(_bytes(seal), _seal(raw, key)):
            raise ValueError
        return msgspec.msgpack.decode(raw, type=State)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise BadState("This state was not given out by this server, or was changed since.") from None


def _seal(body: bytes, key: bytes) -> bytes:
    return hmac.new(hmac.digest(key, _LABEL, "sha256"), body, "sha256").digest()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    data = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    if _text(data) != text:  # one text for each state, and no other
        raise ValueError
    return data
