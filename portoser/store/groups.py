"""The groups' rows: what is declared of a group, and what overrides it."""

from collections.abc import Sequence

import msgspec
from asyncpg import Record

from portoser.catalog.group import Group, GroupOverride, RegisteredGroup
from portoser.store.database import Connection


async def load(connection: Connection) -> dict[str, RegisteredGroup]:
    """Every group by name."""
    records = await connection.fetch("SELECT * FROM mcp_groups ORDER BY name")
    return {record["name"]: _group(record) for record in records}


async def put(connection: Connection, groups: Sequence[RegisteredGroup], *, generation: int) -> None:
    """Write groups as they now stand."""
    if not groups:
        return
    declared = [group.declared for group in groups]
    override = [group.override for group in groups]
    await connection.execute(
        """
        INSERT INTO mcp_groups (name, owner, enabled, permissions, description, path, override_enabled,
            override_reason, override_by, override_at, override_expires_at, generation)
        SELECT n.name, n.owner, n.enabled, n.permissions::jsonb, n.description, n.path, n.override_enabled,
            n.override_reason, n.override_by, n.override_at, n.override_expires_at, $12
        FROM unnest($1::text[], $2::text[], $3::boolean[], $4::text[], $5::text[], $6::text[], $7::boolean[],
                $8::text[], $9::text[], $10::timestamptz[], $11::timestamptz[])
            AS n (name, owner, enabled, permissions, description, path, override_enabled, override_reason,
                override_by, override_at, override_expires_at)
        ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, enabled = excluded.enabled,
            permissions = excluded.permissions, description = excluded.description, path = excluded.path,
            override_enabled = excluded.override_enabled, override_reason = excluded.override_reason,
            override_by = excluded.override_by, override_at = excluded.override_at,
            override_expires_at = excluded.override_expires_at, generation = excluded.generation
        """,
        [group.name for group in groups],
        [group.owner if group else None for group in declared],
        [group.enabled if group else True for group in declared],
        [msgspec.json.encode(group.permissions if group else ()).decode() for group in declared],
        [group.description if group else "" for group in declared],
        [group.path if group else None for group in declared],
        [word.enabled if word else None for word in override],
        [word.reason if word else None for word in override],
        [word.by if word else None for word in override],
        [word.at if word else None for word in override],
        [word.expires_at if word else None for word in override],
        generation,
    )


async def remove(connection: Connection, names: Sequence[str]) -> None:
    """Remove groups that nobody declares or overrides any more."""
    if names:
        await connection.execute("DELETE FROM mcp_groups WHERE name = ANY($1::text[])", list(names))


async def with_expired_override(connection: Connection) -> list[str]:
    """The names of groups whose override has ended."""
    records = await connection.fetch("SELECT name FROM mcp_groups WHERE override_expires_at <= now() ORDER BY name")
    return [record["name"] for record in records]


def _group(record: Record) -> RegisteredGroup:
    declared = override = None
    if record["owner"] is not None:
        declared = Group(
            name=record["name"],
            owner=record["owner"],
            enabled=record["enabled"],
            permissions=tuple(record["permissions"]),
            description=record["description"],
            path=record["path"],
        )
    if record["override_enabled"] is not None:
        override = GroupOverride(
            enabled=record["override_enabled"],
            reason=record["override_reason"],
            by=record["override_by"],
            at=record["override_at"],
            expires_at=record["override_expires_at"],
        )
    return RegisteredGroup(name=record["name"], declared=declared, override=override)
