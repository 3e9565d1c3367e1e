"""What the audit log is told of a change."""

import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from portoser.audit.entry import Entry, Event, Outcome
from portoser.catalog.caller import Caller


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """One change that is being made, in the audit log's words."""

    event: Event
    tool: str | None = None
    digest: str | None = None
    version: int | None = None
    commit: str | None = None
    path: str | None = None
    owner: str | None = None
    arguments: dict[str, Any] | None = None
    reason: str | None = None
    error: str | None = None


def entries(recorded: Iterable[Recorded], *, caller: Caller, now: datetime, generation: int) -> list[Entry]:
    """The entries of one applied set of changes; each names the generation it made."""
    return [
        Entry(
            id=str(uuid.uuid4()),
            at=now,
            caller=caller,
            outcome=Outcome.OK,
            event=change.event,
            tool=change.tool,
            digest=change.digest,
            version=change.version,
            commit=change.commit,
            path=change.path,
            owner=change.owner,
            arguments={**(change.arguments or {}), "generation": generation},
            reason=change.reason,
            error=change.error,
        )
        for change in recorded
    ]
