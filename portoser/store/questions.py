"""What replicas share of calls that ask: the key that their states are signed with, and which states were used."""

from datetime import datetime

from portoser.store.database import Connection

_KEY = "questions"


async def key(connection: Connection) -> bytes:
    """The key that states are signed with; the migration that made its table made it up."""
    found: bytes = await connection.fetchval("SELECT key FROM mcp_keys WHERE name = $1", _KEY)
    return found


async def spend(connection: Connection, nonce: str, expires_at: datetime) -> bool:
    """Use a nonce; False where somebody has before. What expired long ago is forgotten on the way."""
    spent = await connection.fetchval(
        """
        WITH forgotten AS (
            DELETE FROM mcp_spent_nonces WHERE nonce IN (
                SELECT nonce FROM mcp_spent_nonces WHERE expires_at < now() - interval '1 hour'
                ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED
            )
        )
        INSERT INTO mcp_spent_nonces (nonce, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING true
        """,
        nonce,
        expires_at,
    )
    return spent is True
