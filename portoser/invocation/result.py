"""What a caller is answered."""

from collections.abc import Mapping
from typing import Any

import msgspec

from portoser.audit.entry import Outcome
from portoser.catalog.question import Question


class CallResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one call.

    ``reason`` is None where all went well. Before the tool ran it is one of the access room's (``unknown_tool``,
    ``forbidden``, ``client_not_allowed``, ``narrowed``, ``group_disabled``), ``invalid_arguments``,
    ``invalid_schema``, ``packages_not_granted``, ``rate_limited``, ``concurrency``, ``confirmation_required``,
    ``declined``, ``cannot_ask``, ``invalid_state``, ``expired_state``, ``spent_state``, ``invalid_answer``,
    ``busy``, ``unavailable`` or ``unrecorded``; after, it is the runtime's, ``question`` where the tool's code
    asked, ``unrecorded`` where the outcome could not be made durable, or ``internal``. ``message`` is what the
    caller reads of it. ``content`` holds MCP content blocks in wire shape; ``logs`` is what the tool printed. Where
    input is required, the call is made again with the answers to ``questions``, and with ``state``.
    """

    outcome: Outcome
    reason: str | None = None
    message: str | None = None
    is_error: bool
    content: list[dict[str, Any]] = msgspec.field(default_factory=list)
    structured: dict[str, Any] | None = None
    tool: str
    digest: str | None = None
    version: int | None = None
    duration_ms: float
    request_id: str
    logs: str = ""
    questions: Mapping[str, Question] | None = None
    state: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """The result as the REST interface answers a call, and the command line prints it."""
        return {
            "outcome": self.outcome.value,
            "reason": self.reason,
            "message": self.message,
            "isError": self.is_error,
            "content": self.content,
            "structuredContent": self.structured,
            "tool": self.tool,
            "version": self.version,
            "digest": self.digest,
            "requestId": self.request_id,
            "durationMs": round(self.duration_ms, 3),
            "logs": self.logs,
        }
