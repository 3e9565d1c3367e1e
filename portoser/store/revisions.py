"""Revisions by digest: immutable, written once, their files fetched only when they are to run."""

from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from portoser.catalog.revision import Revision, SourceFile
from portoser.store.database import Connection


class StoredRevision(msgspec.Struct, frozen=True):
    """A revision without its files, and the digest of what ``tools/list`` shows of it."""

    revision: Revision
    listing_digest: str


async def put(connection: Connection, revisions: Iterable[Revision]) -> None:
    """Store the revisions that are not stored yet."""
    wanted = {revision.digest: revision for revision in revisions}
    known = await connection.fetch("SELECT digest FROM mcp_revisions WHERE digest = ANY($1::text[])", list(wanted))
    for record in known:
        del wanted[record["digest"]]
    new = list(wanted.values())
    if not new:
        return
    await connection.execute(
        """
        INSERT INTO mcp_revisions (digest, listing_digest, body, lock)
        SELECT n.digest, n.listing_digest, n.body::json, n.lock
        FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS n (digest, listing_digest, body, lock)
        ON CONFLICT DO NOTHING
        """,
        [revision.digest for revision in new],
        [revision.listing_digest() for revision in new],
        [msgspec.json.encode(msgspec.structs.replace(revision, files=())).decode() for revision in new],
        [revision.lock for revision in new],
    )
    files = [(revision.digest, position, file) for revision in new for position, file in enumerate(revision.files)]
    await connection.execute(
        """
        INSERT INTO mcp_revision_files (digest, position, path, content)
        SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::text[])
        ON CONFLICT DO NOTHING
        """,
        [digest for digest, _, _ in files],
        [position for _, position, _ in files],
        [file.path for _, _, file in files],
        [file.content for _, _, file in files],
    )


async def without_files(connection: Connection, digests: Collection[str]) -> list[StoredRevision]:
    """The revisions of these digests, with ``files`` empty; digests that are not stored are left out."""
    if not digests:
        return []
    records = await connection.fetch(
        # As text: it is decoded straight into the struct, not into a dict first.
        "SELECT body::text, listing_digest FROM mcp_revisions WHERE digest = ANY($1::text[])",
        list(digests),
    )
    decoder = msgspec.json.Decoder(Revision)
    seen: dict[Any, Any] = {}
    return [StoredRevision(_sharing(decoder.decode(record[0]), seen), record[1]) for record in records]


def _sharing(revision: Revision, seen: dict[Any, Any]) -> Revision:
    """The revision, with what most have in common as one object for all of them."""
    limits, annotations = revision.limits, revision.annotations
    return msgspec.structs.replace(
        revision,
        limits=seen.setdefault(limits, limits),
        annotations=seen.setdefault(annotations, annotations),
        uses=revision.uses or seen.setdefault("uses", revision.uses),
    )


async def files_by_digest(connection: Connection, digest: str) -> tuple[SourceFile, ...] | None:
    """A revision's files in the order of their import, or None where it is not stored."""
    records = await connection.fetch(
        "SELECT path, content FROM mcp_revision_files WHERE digest = $1 ORDER BY position", digest
    )
    return tuple(SourceFile(record["path"], record["content"]) for record in records) or None


async def whole(connection: Connection, digest: str) -> Revision | None:
    """A revision with its files, or None where it is not stored."""
    found = await without_files(connection, [digest])
    files = await files_by_digest(connection, digest)
    if not found or files is None:
        return None
    return msgspec.structs.replace(found[0].revision, files=files)
