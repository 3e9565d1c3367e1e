import struct
import zlib
from typing import Annotated

from portoser.tool import Image
from pydantic import Field

PALETTE = bytes.fromhex("ffffff 2f6fdf d9534f 9aa0a6")  # background, bars up, bars down, zero line
BACKGROUND, UP, DOWN, AXIS = range(4)


def chart(
    values: Annotated[list[float], Field(min_length=1, max_length=100)],
    width: Annotated[int, Field(ge=20, le=2000)] = 400,
    height: Annotated[int, Field(ge=20, le=2000)] = 200,
) -> Image:
    """Draw numbers as a bar chart and return it as a PNG image.

    Args:
        values: The numbers to draw, from left to right; negative ones hang below the zero line.
        width: The image's width in pixels.
        height: The image's height in pixels.
    """
    highest, lowest = max(0.0, *values), min(0.0, *values)
    scale = (height - 1) / ((highest - lowest) or 1.0)
    zero = round(highest * scale)
    rows = [bytearray(width) for _ in range(height)]
    rows[zero][:] = bytes([AXIS]) * width
    for number, value in enumerate(values):
        left, right = number * width // len(values), (number + 1) * width // len(values)
        gap = (right - left) // 5
        end = round((highest - value) * scale)
        for y in range(min(zero, end), max(zero, end) + 1):
            if y != zero:
                rows[y][left : right - gap] = bytes([UP if value > 0 else DOWN]) * (right - gap - left)
    return Image(data=png(width, height, rows), format="png")


def png(width: int, height: int, rows: list[bytearray]) -> bytes:
    """A PNG file with one byte a pixel, which is an index into PALETTE."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    pixels = b"".join(b"\0" + row for row in rows)  # each row is preceded by its filter: none
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"PLTE", PALETTE)
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )
