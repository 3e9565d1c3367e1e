from dataclasses import dataclass

from portoser.tool import ctx


@dataclass
class Identity:
    """A caller, as Portoser knows it."""

    subject: str
    groups: list[str]
    request: str


def restricted() -> Identity:
    """Tell platform admins who they are, and by which request id the audit log knows this call."""
    return Identity(ctx.caller.subject, sorted(ctx.caller.groups), ctx.request_id)
