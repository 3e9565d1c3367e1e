"""The audit log: pages of it, and all of it."""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query
from pydantic import AfterValidator, BeforeValidator
from starlette.responses import StreamingResponse

from portoser.api.context import AuditorOf, ServicesOf
from portoser.api.documents import refusals
from portoser.api.models import AuditCaller, AuditPageOut, EntryOut, PowerUsed
from portoser.api.route import BoundedRoute
from portoser.api.services import Services
from portoser.audit.entry import Entry, Event, Outcome
from portoser.audit.queries import AuditFilter

router = APIRouter(prefix="/api/mcp/audit", tags=["audit"], route_class=BoundedRoute)

EXPORT_PAGE = 500


class Form(StrEnum):
    """What an export is written in."""

    JSONL = "jsonl"
    CSV = "csv"


def _plain(value: str) -> str:
    if "\x00" in value:
        raise ValueError("The text holds the character U+0000.")
    return value


def _moment(value: object) -> datetime:
    """In UTC; a moment without a zone is taken for UTC. A number is no moment: nobody knows what it counts."""
    try:
        moment = datetime.fromisoformat(str(value))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("This is no moment: write for example 2026-03-01T12:00:00Z.") from None


_Text = Annotated[str, AfterValidator(_plain)]
_Moment = Annotated[datetime, BeforeValidator(_moment)]


async def _filters(
    tool: Annotated[_Text | None, Query(max_length=200, description="Only of this tool.")] = None,
    caller: Annotated[_Text | None, Query(max_length=500, description="Only of this caller, by subject.")] = None,
    outcome: Annotated[Outcome | None, Query(description="Only what ended like this.")] = None,
    event: Annotated[Event | None, Query(description="Only such events.")] = None,
    since: Annotated[_Moment | None, Query(description="Only from this moment on.")] = None,
    until: Annotated[_Moment | None, Query(description="Only before this moment.")] = None,
    request_id: Annotated[_Text | None, Query(max_length=200, description="Only of this request.")] = None,
) -> AuditFilter:
    return AuditFilter(
        tool=tool, caller=caller, outcome=outcome, event=event, since=since, until=until, request_id=request_id
    )


FiltersOf = Annotated[AuditFilter, Depends(_filters)]


@router.get(
    "/logs", operation_id="list_audit_logs", summary="The log, newest first", responses=refusals(401, 403, 422, 503)
)
async def list_audit_logs(
    services: ServicesOf,
    _: AuditorOf,
    filters: FiltersOf,
    limit: Annotated[int, Query(ge=1, le=1000, description="How many to return at most.")] = 100,
    cursor: Annotated[_Text | None, Query(max_length=500, description="`next_cursor` of the page before.")] = None,
) -> AuditPageOut:
    """A page of entries. Pages stay what they are while new entries come in."""
    page = await services.audit.page(filters, limit=limit, cursor=cursor)
    return AuditPageOut(entries=[_entry(entry) for entry in page.entries], next_cursor=page.next_cursor)


@router.get(
    "/export",
    operation_id="export_audit_logs",
    summary="The whole log",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "One entry a line, newest first.",
            "content": {
                "application/x-ndjson": {"schema": {"type": "string"}},
                "text/csv": {"schema": {"type": "string"}},
            },
        },
        **refusals(401, 403, 422, 503),
    },
)
async def export_audit_logs(
    services: ServicesOf,
    _: AuditorOf,
    filters: FiltersOf,
    form: Annotated[Form, Query(alias="format", description="JSON lines or CSV.")] = Form.JSONL,
) -> StreamingResponse:
    """Every entry that the filters let through, as a stream."""
    lines = _csv_lines if form is Form.CSV else _json_lines
    first = await services.audit.page(filters, limit=EXPORT_PAGE, cursor=None)  # what is wrong, is told before the 200
    return StreamingResponse(
        lines(_pages(services, filters, first.entries, first.next_cursor)),
        media_type="text/csv; charset=utf-8; header=present" if form is Form.CSV else "application/x-ndjson",
        headers={"Content-Disposition": f'attachment; filename="portoser-audit.{form.value}"'},
    )


async def _pages(
    services: Services, filters: AuditFilter, entries: Sequence[Entry], cursor: str | None
) -> AsyncIterator[list[EntryOut]]:
    while True:
        yield [_entry(entry) for entry in entries]
        if cursor is None:
            return
        page = await services.audit.page(filters, limit=EXPORT_PAGE, cursor=cursor)
        entries, cursor = page.entries, page.next_cursor


async def _json_lines(pages: AsyncIterator[list[EntryOut]]) -> AsyncIterator[bytes]:
    async for entries in pages:
        yield b"".join(entry.model_dump_json().encode() + b"\n" for entry in entries)


async def _csv_lines(pages: AsyncIterator[list[EntryOut]]) -> AsyncIterator[str]:
    columns = [name for name in EntryOut.model_fields if name != "caller"]
    yield _csv([["caller", *columns]])
    async for entries in pages:
        yield _csv(
            [_cell(entry.caller.subject), *(_cell(getattr(entry, column)) for column in columns)] for entry in entries
        )


def _csv(rows: Iterable[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict | list | bool | int | float):
        return msgspec.json.encode(value).decode()
    text = str(value)
    # A spreadsheet runs what begins like a formula, and callers choose what is in here.
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _entry(entry: Entry) -> EntryOut:
    caller = entry.caller
    return EntryOut(
        id=entry.id,
        at=entry.at,
        event=entry.event.value,
        outcome=entry.outcome.value,
        reason=entry.reason,
        caller=AuditCaller(
            subject=caller.subject,
            name=caller.name or caller.subject,
            groups=sorted(caller.groups),
            kind=caller.kind.value,
        ),
        ip=caller.address,
        client=caller.client,
        agent=caller.agent,
        session=caller.session,
        tool=entry.tool,
        digest=entry.digest,
        version=entry.version,
        commit=entry.commit,
        path=entry.path,
        owner=entry.owner,
        arguments=entry.arguments,
        result=entry.result,
        result_digest=entry.result_digest,
        error=entry.error,
        duration_ms=entry.duration_ms,
        request_id=entry.request_id,
        powers=[PowerUsed.model_validate(used) for used in entry.powers] if entry.powers is not None else None,
    )
