"""One line of the audit log."""

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from portoser.catalog.caller import Caller


class Outcome(StrEnum):
    """How an event ended; the finer word is the entry's ``reason``."""

    OK = "ok"
    ERROR = "error"
    DENIED = "denied"
    INVALID = "invalid"
    INPUT_REQUIRED = "input_required"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class Event(StrEnum):
    """What an entry speaks of."""

    TOOL_CALL = "tool.call"
    TOOL_CREATED = "tool.created"
    TOOL_UPDATED = "tool.updated"
    TOOL_DELETED = "tool.deleted"
    TOOL_RESTORED = "tool.restored"
    TOOL_MARKED = "tool.marked"
    GROUP_PUT = "group.put"
    GROUP_DELETED = "group.deleted"
    GROUP_OVERRIDE = "group.override"
    POLICY_PUT = "policy.put"
    SYNC_RUN = "sync.run"
    SIGNIN_FAILED = "signin.failed"
    REFUSED = "refused"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One event, already redacted. ``result`` is at most 8 KiB; ``result_digest`` is the sha256 of the whole.

    ``powers`` is what a call used of its powers, each once with how often, as `portoser.powers.tally` counts it.
    """

    id: str
    at: datetime
    event: Event
    caller: Caller
    outcome: Outcome
    tool: str | None = None
    digest: str | None = None
    version: int | None = None
    commit: str | None = None
    path: str | None = None
    owner: str | None = None
    arguments: Any = None
    result: Any = None
    result_digest: str | None = None
    reason: str | None = None
    error: str | None = None
    duration_ms: float | None = None
    request_id: str | None = None
    powers: list[dict[str, Any]] | None = None
