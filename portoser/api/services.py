"""What the routers work with: everything that the composition root built, in one value."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from portoser.admission import Admission
    from portoser.api.metrics import Metrics
    from portoser.audit.queries import AuditLog
    from portoser.audit.writer import AuditWriter
    from portoser.identity.tokens import TokenFile
    from portoser.invocation import Invocation
    from portoser.registry.access import Access
    from portoser.registry.changes import RegistryWriter
    from portoser.registry.code import CodeCache
    from portoser.registry.follower import Follower
    from portoser.runtime.environments.environments import Environments
    from portoser.runtime.runtime import Runtime
    from portoser.store.database import Database
    from sync.reconciler import Reconciler


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts of a running server that REST speaks to.

    ``public_url`` is what the operator says clients reach the server by; None means the address that a
    request came by, which the Host guard has checked. ``repository`` is where committed tools come from, as
    people call it: a directory, or a remote's URL. ``tokens`` is None where auth is off.
    """

    version: str
    started_at: datetime
    public_url: str | None
    embedded_database: bool
    repository: str
    database: "Database"
    follower: "Follower"
    access: "Access"
    writer: "RegistryWriter"
    code: "CodeCache"
    admission: "Admission"
    invocation: "Invocation"
    audit: "AuditLog"
    audit_writer: "AuditWriter"
    runtime: "Runtime"
    environments: "Environments"
    reconciler: "Reconciler"
    tokens: "TokenFile | None"
    metrics: "Metrics"
    registry: Path | None = None
    """The file that the registry power reads."""
    role_warning: str | None = None
    """Why the database's role is more than a server needs, None where it is not."""

    @property
    def auth_enabled(self) -> bool:
        """Whether callers have to say who they are."""
        return self.tokens is not None
