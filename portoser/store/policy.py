"""The policy's one row."""

from datetime import datetime

import msgspec

from portoser.catalog.policy import Policy
from portoser.store.database import Connection


class StoredPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The policy, whose it is, and where it is declared."""

    policy: Policy
    owner: str
    path: str | None = None


async def load(connection: Connection) -> StoredPolicy | None:
    """The policy, or None where nobody has declared one."""
    record = await connection.fetchrow("SELECT owner, path, body::text FROM mcp_policy")
    if record is None:
        return None
    policy = msgspec.json.decode(record["body"], type=Policy)
    return StoredPolicy(policy=policy, owner=record["owner"], path=record["path"])


async def put(connection: Connection, stored: StoredPolicy, *, generation: int, at: datetime) -> None:
    """Set the policy."""
    await connection.execute(
        """
        INSERT INTO mcp_policy (id, owner, path, body, generation, updated_at) VALUES (1, $1, $2, $3, $4, $5)
        ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, path = excluded.path, body = excluded.body,
            generation = excluded.generation, updated_at = excluded.updated_at
        """,
        stored.owner,
        stored.path,
        stored.policy,
        generation,
        at,
    )
