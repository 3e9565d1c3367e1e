"""Entries as rows of the audit log, and back."""

import hashlib
import re

import asyncpg
import msgspec

from portoser.audit.entry import Entry, Event, Outcome
from portoser.audit.redaction.taint import clean
from portoser.catalog.caller import Caller, CallerKind
from portoser.store.audit import Row
from portoser.store.database import encode_json

_MASKED = re.compile(r"session-[0-9a-f]{12}")
_LONGEST_NAME = 200
"""Callers choose some of these texts, and an index holds no key above 2.7 kB."""


def row_of(entry: Entry) -> Row:
    """The entry in the order of the store's columns."""
    caller = entry.caller
    return (
        entry.id,
        entry.at,
        entry.event.value,
        {
            "subject": caller.subject,
            "name": caller.name,
            "groups": sorted(caller.groups),
            "kind": caller.kind.value,
        },
        _name(caller.subject),
        caller.address,
        _name(caller.client),
        _name(caller.agent),
        mask_session(caller.session),
        _name(entry.tool),
        entry.digest,
        entry.version,
        entry.commit,
        _text(entry.path),
        _text(entry.owner),
        entry.arguments,
        entry.result,
        entry.result_digest,
        entry.outcome.value,
        entry.reason,
        _text(entry.error),
        entry.duration_ms,
        _name(entry.request_id),
        # Encoded already: a list among the values of a column would be taken for one more dimension of it.
        None if entry.powers is None else msgspec.Raw(encode_json(entry.powers)),
    )


def entry_of(row: asyncpg.Record) -> Entry:
    """The entry that a row of the log tells of. The caller's session stays masked."""
    told = row["caller"]
    caller = Caller(
        subject=told["subject"],
        name=told["name"],
        groups=frozenset(told["groups"]),
        kind=CallerKind(told["kind"]),
        client=row["client"],
        agent=row["agent"],
        address=row["ip"],
        session=row["session"],
    )
    return Entry(
        id=row["id"],
        at=row["at"],
        event=Event(row["event"]),
        caller=caller,
        outcome=Outcome(row["outcome"]),
        tool=row["tool"],
        digest=row["digest"],
        version=row["version"],
        commit=row["commit"],
        path=row["path"],
        owner=row["owner"],
        arguments=row["arguments"],
        result=row["result"],
        result_digest=row["result_digest"],
        reason=row["reason"],
        error=row["error"],
        duration_ms=row["duration_ms"],
        request_id=row["request_id"],
        powers=row["powers"],
    )


def mask_session(session: str | None) -> str | None:
    """A name for a session that tells which rows belong together, and opens nothing."""
    if session is None or _MASKED.fullmatch(session):
        return session
    return f"session-{hashlib.sha256(session.encode('utf-8', 'replace')).hexdigest()[:12]}"


def _text(text: str | None) -> str | None:
    return text if text is None else clean(text)


def _name(text: str | None) -> str | None:
    return text if text is None else clean(text[:_LONGEST_NAME])
