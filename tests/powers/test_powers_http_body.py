"""Bodies of answers, compressed and otherwise, whole and hostile."""

import gzip
import os
import zlib
from collections.abc import AsyncIterator

import pytest
from http_world import bomb

from portoser.powers.http_body import MOST_RESPONSE, TooMuch, Undecodable, read_body

TEXT = os.urandom(5_000) + b"orders" * 5_000


async def in_pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]


async def read(body: bytes, *codings: str, size: int = 1_000) -> bytes:
    return await read_body(in_pieces(body, size), [("content-encoding", coding) for coding in codings])


def raw_deflate(text: bytes) -> bytes:
    return zlib.compress(text)[2:-4]


@pytest.mark.parametrize(
    ("body", "codings"),
    [
        (TEXT, ()),
        (TEXT, ("identity",)),
        (TEXT, ("br",)),
        (gzip.compress(TEXT), ("gzip",)),
        (gzip.compress(TEXT), ("identity, X-GZIP",)),
        (zlib.compress(TEXT), ("deflate",)),
        (raw_deflate(TEXT), ("deflate",)),
        (gzip.compress(TEXT) + b"what follows" * 1_000, ("gzip",)),
    ],
)
@pytest.mark.parametrize("size", [1, 1_000, 10**6])
async def test_a_body_comes_out_as_it_was_meant(body: bytes, codings: tuple[str, ...], size: int) -> None:
    assert await read(body, *codings, size=size) == TEXT


async def test_a_body_without_a_byte_is_empty_however_it_is_said_to_be_compressed() -> None:
    assert await read(b"", "gzip") == b""


@pytest.mark.parametrize(
    ("body", "codings", "message"),
    [
        (gzip.compress(gzip.compress(TEXT)), ("gzip, gzip",), "compressed 2 times over"),
        (gzip.compress(gzip.compress(TEXT)), ("gzip", "gzip"), "compressed 2 times over"),
        (gzip.compress(TEXT)[:-5], ("gzip",), "ends too soon"),
        (TEXT, ("gzip",), "incorrect header check"),
        (b"\xff" * 1_000, ("deflate",), "invalid block type"),
    ],
)
async def test_a_body_that_is_not_compressed_as_it_says_is_refused(
    body: bytes, codings: tuple[str, ...], message: str
) -> None:
    with pytest.raises(Undecodable, match=message):
        await read(body, *codings)


@pytest.mark.parametrize(
    ("body", "codings"),
    [
        (b"x" * (MOST_RESPONSE + 1), ()),
        (bomb(16), ("gzip",)),
        (gzip.compress(b"x") + b"x" * MOST_RESPONSE, ("gzip",)),
    ],
)
async def test_no_more_of_a_body_is_read_than_is_taken(body: bytes, codings: tuple[str, ...]) -> None:
    with pytest.raises(TooMuch):
        await read(body, *codings, size=65_536)


async def test_a_body_of_exactly_the_bound_is_taken() -> None:
    assert len(await read(bomb(MOST_RESPONSE // 1024**2), "gzip", size=65_536)) == MOST_RESPONSE
