"""Tool code by digest, in a bounded cache: snapshots hold metadata only."""

from collections import OrderedDict

from portoser.catalog.errors import NotFound
from portoser.catalog.revision import MIB, SourceFile
from portoser.store import revisions
from portoser.store.database import Database


class CodeCache:
    """Fetches the files of revisions, and keeps the last used up to ``max_bytes``."""

    def __init__(self, database: Database, *, max_bytes: int = 64 * MIB) -> None:
        self._database = database
        self._max_bytes = max_bytes
        self._bytes = 0
        self._files: OrderedDict[str, tuple[SourceFile, ...]] = OrderedDict()

    async def files(self, digest: str) -> tuple[SourceFile, ...]:
        """A revision's files in the order of their import.

        Raises:
            NotFound: no revision has this digest.
            Unavailable: Postgres is away and the files are not in the cache.
        """
        found = self._files.get(digest)
        if found is not None:
            self._files.move_to_end(digest)
            return found
        async with self._database.acquire() as connection:
            files = await revisions.files_by_digest(connection, digest)
        if files is None:
            raise NotFound(f"No revision has the digest {digest}.")
        self._keep(digest, files)
        return files

    def _keep(self, digest: str, files: tuple[SourceFile, ...]) -> None:
        if digest in self._files or _size(files) > self._max_bytes:
            return
        self._files[digest] = files
        self._bytes += _size(files)
        while self._bytes > self._max_bytes:
            _, dropped = self._files.popitem(last=False)
            self._bytes -= _size(dropped)


def _size(files: tuple[SourceFile, ...]) -> int:
    return sum(len(file.content.encode()) for file in files)
