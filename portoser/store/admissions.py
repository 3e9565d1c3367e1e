"""What admission said of declarations, by their keys: a cache that all replicas share."""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from portoser.store.database import Connection


class StoredAdmission(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of admission. ``outcome`` comes back as it was written, with its keys in order."""

    key: str
    outcome: dict[str, Any]
    digest: str | None = None


async def get_many(connection: Connection, keys: Collection[str]) -> dict[str, StoredAdmission]:
    """The answers that are known, by key."""
    records = await connection.fetch(
        "SELECT key, outcome, digest FROM mcp_admissions WHERE key = ANY($1::text[])", list(keys)
    )
    return {record["key"]: StoredAdmission(**dict(record)) for record in records}


async def put_many(connection: Connection, admissions: Sequence[StoredAdmission]) -> None:
    """Remember answers; of one key the newest stays."""
    newest = {admission.key: admission for admission in admissions}.values()
    await connection.execute(
        """
        INSERT INTO mcp_admissions (key, outcome, digest, at)
        SELECT n.key, n.outcome::json, n.digest, now()
        FROM unnest($1::text[], $2::text[], $3::text[]) AS n (key, outcome, digest)
        ON CONFLICT (key) DO UPDATE SET outcome = excluded.outcome, digest = excluded.digest, at = excluded.at
        """,
        [admission.key for admission in newest],
        [msgspec.json.encode(admission.outcome).decode() for admission in newest],
        [admission.digest for admission in newest],
    )
