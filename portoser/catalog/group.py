"""Groups of tools: what is switched on and off together."""

from datetime import datetime

import msgspec


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A group as its owner declares it. ``permissions`` is the default for its tools."""

    name: str
    owner: str
    enabled: bool = True
    permissions: tuple[str, ...] = ()
    description: str = ""
    path: str | None = None


class GroupOverride(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's word that beats the declaration until it expires. ``expires_at`` None means until cleared."""

    enabled: bool
    reason: str
    by: str
    at: datetime
    expires_at: datetime | None = None


class RegisteredGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A group as the registry holds it; ``declared`` is None for a group that only an override speaks of."""

    name: str
    declared: Group | None = None
    override: GroupOverride | None = None

    def is_enabled(self, now: datetime) -> bool:
        """Whether the group's tools are served at ``now`` (aware, UTC)."""
        override = self.override
        if override is not None and (override.expires_at is None or override.expires_at > now):
            return override.enabled
        return self.declared is None or self.declared.enabled
