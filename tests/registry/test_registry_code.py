"""Code by digest, and the history that leads to it."""

import pytest
from registry_samples import ALICE, a_revision, put

from portoser.catalog.errors import NotFound
from portoser.registry import history
from portoser.registry.changes import RegistryWriter
from portoser.registry.code import CodeCache


async def test_code_is_fetched_once_and_the_least_used_is_dropped(database):
    texts = ["1", "2", "3"]
    await RegistryWriter(database).apply([put(f"t{text}", text) for text in texts], caller=ALICE)
    digests = [a_revision(text).digest for text in texts]
    cache = CodeCache(database, max_bytes=90)
    for text, digest in zip(texts, digests, strict=True):
        assert await cache.files(digest) == a_revision(text).files
    await database.close()  # what is kept needs no Postgres
    assert await cache.files(digests[2]) == a_revision("3").files
    assert digests[0] not in cache._files
    assert 0 < cache._bytes <= 90


async def test_code_larger_than_the_cache_is_served_and_not_kept(database):
    await RegistryWriter(database).apply([put("t")], caller=ALICE)
    cache = CodeCache(database, max_bytes=5)
    assert await cache.files(a_revision().digest) == a_revision().files
    assert cache._bytes == 0


async def test_what_never_was_is_not_found(database):
    with pytest.raises(NotFound, match="no tool 'x'"):
        await history.versions(database, "x")
    for question in (history.revision(database, "0" * 64), CodeCache(database).files("0" * 64)):
        with pytest.raises(NotFound, match="No revision has the digest"):
            await question
