"""What waits to be written: the beginning of a call, or the end of one."""

import asyncio
import uuid

import msgspec

from portoser.audit.entry import Entry, Outcome
from portoser.audit.rows import mask_session
from portoser.catalog.caller import system_caller
from portoser.catalog.errors import Unavailable


class Pending:
    """One entry on its way to the log: an intent where it ``begins``; else an outcome, which may end an intent."""

    __slots__ = ("begins", "deadline", "ends", "entry", "is_retry", "waiter")

    def __init__(
        self,
        entry: Entry,
        *,
        begins: bool = False,
        ends: bool = False,
        waiter: asyncio.Future[None] | None = None,
        deadline: float = 0.0,
    ) -> None:
        self.entry = entry
        self.begins = begins
        self.ends = ends
        self.waiter = waiter
        self.deadline = deadline
        self.is_retry = False

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody still wants to hear of it."""
        return self.waiter is not None and not self.waiter.done()

    @property
    def is_given_up(self) -> bool:
        """Whether it is a beginning that nobody waits for any more, so that the call will not run."""
        return self.begins and not self.is_waited_for

    def done(self) -> None:
        """It is durable."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def fail(self, error: Unavailable) -> None:
        """It is not durable yet; who waited is told, and waits no longer."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_exception(error)
        self.waiter = None


def intent_of(entry: Entry) -> Entry:
    """The entry as an intent holds it, with its session masked as in the log."""
    if entry.caller.session is None:
        return entry
    caller = msgspec.structs.replace(entry.caller, session=mask_session(entry.caller.session))
    return msgspec.structs.replace(entry, caller=caller)


def interrupted(entry: Entry) -> Entry:
    """The end of a call whose server died."""
    return msgspec.structs.replace(
        entry,
        outcome=Outcome.INTERRUPTED,
        reason="server_lost",
        error="The server that ran this call ended before it recorded the outcome: it may have done its work or not.",
    )


def reduced(entry: Entry) -> Entry:
    """What is left of an entry that the database does not take as it is: little enough to be taken always."""
    try:
        known_id = str(uuid.UUID(entry.id))
    except ValueError:
        known_id = str(uuid.uuid4())
    return Entry(
        id=known_id,
        at=entry.at,
        event=entry.event,
        caller=system_caller("audit"),
        outcome=entry.outcome,
        tool=entry.tool if entry.tool is None else entry.tool.encode("ascii", "replace").decode(),
        error="The audit log did not take this entry as it was; this is what could be kept.",
    )
