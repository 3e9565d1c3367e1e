"""An answer's body, decompressed piece by piece, so that a small one cannot become a large one unseen."""

import zlib
from collections.abc import AsyncIterable, Iterable

from portoser.powers.http_request import MIB

MOST_RESPONSE = 8 * MIB
"""The most bytes that an answer's body may have, decompressed; and as it is sent."""

_GZIP = ("gzip", "x-gzip")
_HEADER = 2
"""Bytes that ``deflate`` begins with, by RFC 1950; some servers leave them out."""


class TooMuch(Exception):
    """An answer has more bytes than are read."""


class Undecodable(Exception):
    """An answer is not compressed as it says, or in a way that is not taken."""


async def read_body(pieces: AsyncIterable[bytes], headers: Iterable[tuple[str, str]]) -> bytes:
    """The content of an answer. Names of headers are in lower case.

    Codings other than gzip and deflate are left as they are. What follows the compressed data is read and dropped.

    Raises:
        TooMuch: there is more of it than `MOST_RESPONSE`.
        Undecodable: it is compressed more than once, or is not what its headers say.
    """
    inflate = _inflation(headers)
    taken = bytearray()
    read = 0
    async for piece in pieces:
        read += len(piece)
        taken += piece if inflate is None else inflate.of(piece, MOST_RESPONSE + 1 - len(taken))
        if max(read, len(taken)) > MOST_RESPONSE:
            raise TooMuch
    if inflate is not None and read and not inflate.has_ended:
        raise Undecodable("it ends too soon")
    return bytes(taken)


class _Inflation:
    """One compressed text, of which never more is made than is taken."""

    def __init__(self, *, is_gzip: bool) -> None:
        self._is_sure = is_gzip
        self._begin = b""
        self._stream = zlib.decompressobj(zlib.MAX_WBITS | 16 if is_gzip else zlib.MAX_WBITS)

    @property
    def has_ended(self) -> bool:
        return self._stream.eof

    def of(self, piece: bytes, most: int) -> bytes:
        if not self._is_sure:
            piece = self._begin = self._begin + piece
            if len(piece) < _HEADER:
                return b""
            self._is_sure = True
            if int.from_bytes(piece[:_HEADER], "big") % 31 or piece[0] & 0x0F != zlib.DEFLATED:
                self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            return self._stream.decompress(piece, most) if not self._stream.eof else b""
        except zlib.error as error:
            raise Undecodable(str(error)) from None


def _inflation(headers: Iterable[tuple[str, str]]) -> _Inflation | None:
    told = ",".join(value for name, value in headers if name == "content-encoding")
    codings = [coding for each in told.split(",") if (coding := each.strip().lower()) not in ("", "identity")]
    if len(codings) > 1:
        raise Undecodable(f"it is compressed {len(codings)} times over, and once is taken")
    if not codings or codings[0] not in (*_GZIP, "deflate"):
        return None
    return _Inflation(is_gzip=codings[0] in _GZIP)
