"""The policy: who has which role, which clients may use which groups, and which powers may be granted."""

from collections.abc import Collection
from enum import StrEnum

import msgspec


class Role(StrEnum):
    """What a caller may do to the registry itself."""

    ADMIN = "admin"
    """Everything, also tools that name no permissions."""
    EDITOR = "editor"
    """Add, change and delete REST tools; sync; roll back."""
    AUDITOR = "auditor"
    """Read the audit log."""


class PowerRule(msgspec.Struct, frozen=True, kw_only=True):
    """Who may be granted what. ``owner`` and ``tools`` are glob patterns; so are a power's values."""

    grants: dict[str, list[str]]
    actions: tuple[str, ...] = ()
    owner: str = "*"
    tools: tuple[str, ...] = ("*",)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The registry's policy. The default one gives nobody a role and no tool a power."""

    roles: dict[Role, tuple[str, ...]] = msgspec.field(default_factory=dict)
    clients: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    powers: tuple[PowerRule, ...] = ()

    def groups_with(self, role: Role) -> Collection[str]:
        """The RBAC groups that have a role."""
        return self.roles.get(role, ())
