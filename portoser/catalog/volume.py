"""How much there is in an encoded value, told from its bytes before anything is made of them.

A megabyte of text is one value and costs next to nothing to read; a megabyte of ``[]`` is a million objects, and
stops whoever reads it for seconds. So bytes alone are no measure: what is counted here is every number, text, key,
true, false and null as one, and every list and object as two.
"""

from typing import Final

MOST_VALUES: Final = 100_000
"""The most that one message, its arguments or a result may hold: what the server reads and writes in some 50 ms."""

# MessagePack: by the first byte of a value, how many bytes it has, and what it counts. Where there is a length
# instead, the negative number of bytes that the length has, and how many follow beside those that it tells.
_SIZES: Final = [0] * 256
_COUNTS: Final = [1] * 256
for _byte in range(256):
    if _byte < 0x80 or _byte >= 0xE0:
        _SIZES[_byte] = 1
    elif _byte < 0xA0:
        _SIZES[_byte] = 1
        _COUNTS[_byte] = 2
    elif _byte < 0xC0:
        _SIZES[_byte] = 1 + _byte - 0xA0
for _byte, _size in {
    0xC0: 1, 0xC1: 1, 0xC2: 1, 0xC3: 1, 0xC4: -1, 0xC5: -2, 0xC6: -4, 0xC7: -1, 0xC8: -2, 0xC9: -4, 0xCA: 5, 0xCB: 9,
    0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9, 0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10,
    0xD8: 18, 0xD9: -1, 0xDA: -2, 0xDB: -4, 0xDC: 3, 0xDD: 5, 0xDE: 3, 0xDF: 5,
}.items():  # fmt: skip
    _SIZES[_byte] = _size
for _byte in (0xDC, 0xDD, 0xDE, 0xDF):
    _COUNTS[_byte] = 2
_EXTENSIONS: Final = (0xC7, 0xC8, 0xC9)


def msgpack_values(data: bytes | memoryview, most: int | None = MOST_VALUES) -> int:
    """How many values a MessagePack document holds; the count ends soon after it has passed ``most``, and is 0 where
    the document is too short to pass it.

    What is no MessagePack is counted somehow, and in no more time.
    """
    if most is None:
        most = 2 * len(data)
    elif 2 * len(data) <= most:
        return 0
    sizes, counts = _SIZES, _COUNTS
    position, count, end = 0, 0, len(data)
    while position < end and count <= most:
        code = data[position]
        size = sizes[code]
        count += counts[code]
        if size > 0:
            position += size
        else:
            told = int.from_bytes(data[position + 1 : position + 1 - size])
            position += 1 - size + told + (code in _EXTENSIONS)
    return count


def json_values(data: bytes, most: int = MOST_VALUES) -> int:
    """How many values a JSON document holds; more than ``most`` may be told where it is more, whatever the number.

    What is no JSON is counted somehow, and in no more time.
    """
    if 2 * len(data) <= most:
        return 0
    count = _marks(data)
    if count <= most:
        return count
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    # What stands between quotation marks is text: every second piece.
    pieces = data.split(b'"', 2 * most + 1)
    return most + 1 if len(pieces) > 2 * most + 1 else _marks(b"".join(pieces[::2]))


def _marks(data: bytes) -> int:
    """A bound of the values, by the marks that stand before or after each but the first."""
    without_commas = data.translate(None, b",:")
    return 1 + len(data) - len(without_commas) + 2 * (len(without_commas) - len(without_commas.translate(None, b"[{")))
