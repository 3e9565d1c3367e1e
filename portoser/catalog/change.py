"""Changes: what REST and the reconciler both produce, and what the registry applies as one transaction.

Every change names its owner and, where it changes something that exists, what it expects to find, so that
a change computed against a state that is gone is refused instead of applied to another one.
"""

from datetime import datetime
from typing import TypeAlias

import msgspec

from portoser.catalog.group import Group
from portoser.catalog.policy import Policy
from portoser.catalog.tool import DesiredTool, ToolStatus


class PutTool(msgspec.Struct, frozen=True, kw_only=True, tag="put_tool"):
    """Create, update or bring back a tool.

    ``expected_version`` is None for a tool that must not exist among the living; else the version that
    the change was computed against. ``expected_generation``, where it is given, is that of the tool's last change:
    permissions and group change without a new version.
    """

    desired: DesiredTool
    expected_version: int | None = None
    expected_generation: int | None = None
    restore: bool = False
    """True where a tombstone of the same owner and name is brought back, with its id and history."""

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.desired.name

    @property
    def owner(self) -> str:
        """Who makes the change."""
        return self.desired.owner


class DeleteTool(msgspec.Struct, frozen=True, kw_only=True, tag="delete_tool"):
    """Make a tombstone of a living tool."""

    name: str
    owner: str
    expected_version: int
    expected_generation: int | None = None


class MarkTool(msgspec.Struct, frozen=True, kw_only=True, tag="mark_tool"):
    """Set how a tool stands, without changing what is served."""

    name: str
    owner: str
    status: ToolStatus
    problem: str | None = None


class PutGroup(msgspec.Struct, frozen=True, kw_only=True, tag="put_group"):
    """Declare a group, or change its declaration."""

    group: Group

    @property
    def name(self) -> str:
        """The group's name."""
        return self.group.name

    @property
    def owner(self) -> str:
        """Who makes the change."""
        return self.group.owner


class DeleteGroup(msgspec.Struct, frozen=True, kw_only=True, tag="delete_group"):
    """Take a group's declaration back; its tools stay."""

    name: str
    owner: str


class OverrideGroup(msgspec.Struct, frozen=True, kw_only=True, tag="override_group"):
    """Switch a group on or off over its declaration; ``enabled`` None takes the override back."""

    name: str
    owner: str
    enabled: bool | None
    reason: str
    expires_at: datetime | None = None


class PutPolicy(msgspec.Struct, frozen=True, kw_only=True, tag="put_policy"):
    """Replace the policy. Only the authority's owner may."""

    policy: Policy
    owner: str
    path: str | None = None
    name: str = "policy"


Change: TypeAlias = PutTool | DeleteTool | MarkTool | PutGroup | DeleteGroup | OverrideGroup | PutPolicy
