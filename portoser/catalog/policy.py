"""The policy: who has which role, which clients may use which groups, and which powers may be granted."""

from collections.abc import Collection, Iterator
from enum import StrEnum
from fnmatch import fnmatchcase

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
    """Who may be granted what. ``owner`` and ``tools`` are glob patterns; so are a power's values.

    ``grants`` has the manifest's words for the powers, ``network`` for what ``http`` reaches. No ``actions`` means all.
    ``private`` lets the names of ``network`` lead to private addresses.
    """

    grants: dict[str, list[str]]
    actions: tuple[str, ...] = ()
    owner: str = "*"
    tools: tuple[str, ...] = ("*",)
    private: bool = False

    def is_for(self, *, owner: str, tool: str) -> bool:
        """Whether the rule speaks of this tool of this owner."""
        return fnmatchcase(owner, self.owner) and any(fnmatchcase(tool, pattern) for pattern in self.tools)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The registry's policy. The default one gives nobody a role and no tool a power."""

    roles: dict[Role, tuple[str, ...]] = msgspec.field(default_factory=dict)
    clients: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    powers: tuple[PowerRule, ...] = ()

    def groups_with(self, role: Role) -> Collection[str]:
        """The RBAC groups that have a role."""
        return self.roles.get(role, ())

    def rules_for(self, power: str, *, owner: str, tool: str) -> Iterator[PowerRule]:
        """The rules that grant something of a power, by the manifest's word for it, to a tool of an owner."""
        return (rule for rule in self.powers if power in rule.grants and rule.is_for(owner=owner, tool=tool))
