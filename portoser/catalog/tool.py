"""The registered tool, and the tool that a source or an operator wants to be registered."""

from datetime import datetime
from enum import StrEnum

import msgspec

from portoser.catalog.revision import Revision

GIT = "git:"
REST = "rest:"


class ToolStatus(StrEnum):
    """How a tool stands to what is declared of it."""

    SYNCED = "Synced"
    OUT_OF_SYNC = "OutOfSync"
    INVALID = "Invalid"
    """The newest declaration cannot be taken; the last good revision is served."""
    CONFLICT = "Conflict"
    OVERRIDDEN = "Overridden"
    TOMBSTONED = "Tombstoned"


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Where a tool's declaration came from.

    ``commit`` last touched the tool's files, with ``+dirty`` where the working tree differs from it;
    ``applied_commit`` is the commit of the run that brought it in. Both are None outside git.
    """

    source: str
    path: str | None = None
    commit: str | None = None
    author: str | None = None
    applied_commit: str | None = None


class DesiredTool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as a source or an operator wants it: admitted, with everything that is not its revision."""

    name: str
    owner: str
    revision: Revision
    group: str | None = None
    permissions: tuple[str, ...] | None = None
    """None inherits the group's."""
    provenance: Provenance


class RegisteredTool(msgspec.Struct, frozen=True, kw_only=True):
    """A living tool as the registry holds it. ``revision.files`` is empty: code is fetched by digest."""

    id: str
    name: str
    owner: str
    revision: Revision
    version: int
    group: str | None = None
    permissions: tuple[str, ...] | None = None
    status: ToolStatus = ToolStatus.SYNCED
    problem: str | None = None
    """What is wrong with the newest declaration, where ``status`` is Invalid or Conflict."""
    provenance: Provenance
    generation: int
    """The generation of its last change."""
    created_at: datetime
    updated_at: datetime

    @property
    def digest(self) -> str:
        """The digest of the current revision."""
        return self.revision.digest
