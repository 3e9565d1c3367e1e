from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import BaseModel, Field


class Maintenance(BaseModel):
    """A maintenance window and the notice to send about it. Times are ISO 8601, in UTC."""

    service: str
    start: str
    end: str
    notice: str


def plan_maintenance(service: str, start: datetime, minutes: Annotated[int, Field(ge=5, le=480)] = 60) -> Maintenance:
    """Plan a maintenance window for a service and word the notice that announces it.

    Args:
        service: The service that will be down.
        start: When it goes down; a time without zone is taken as UTC.
        minutes: How long it stays down.
    """
    begin = start.astimezone(UTC) if start.tzinfo else start.replace(tzinfo=UTC)
    end = begin + timedelta(minutes=minutes)
    until = f"{end:%H:%M}" if end.date() == begin.date() else f"{end:%H:%M} on {day(end)}"
    notice = f"{service} is down for maintenance on {day(begin)}, from {begin:%H:%M} to {until} UTC."
    return Maintenance(service=service, start=begin.isoformat(), end=end.isoformat(), notice=notice)


def day(moment: datetime) -> str:
    return f"{moment:%A}, {moment.day} {moment:%B %Y}"
