"""Is it a PNG picture, and how large? (PNG specification, 3rd edition, sections 5 and 11.) A leaf."""

import struct
import zlib
from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = 13  # bytes of an IHDR
_LARGEST = 5000  # pixels, either way


def picture_size(content: bytes) -> tuple[int, int]:
    """Return width and height in pixels; raises `ValueError` saying why it is no picture that mail programs show."""
    if not content.startswith(_SIGNATURE):
        raise ValueError("must be a PNG file")
    chunks = dict(_chunks(content))
    header = chunks.get(b"IHDR", b"")
    if len(header) != _HEADER or not {b"IDAT", b"IEND"} <= chunks.keys():
        raise ValueError("must be a whole PNG file: this one is damaged or cut short")
    width, height = struct.unpack(">II", header[:8])
    if not (0 < width <= _LARGEST and 0 < height <= _LARGEST):
        raise ValueError(f"must be a PNG picture of 1 to {_LARGEST} pixels either way")
    return width, height


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and data of each chunk that is whole, up to the last or the first that is not."""
    at = len(_SIGNATURE)
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        data = content[at + 8 : at + 8 + length]
        checked = content[at + 8 + length : at + 12 + length]
        if len(checked) != 4 or zlib.crc32(kind + data) != int.from_bytes(checked):  # noqa: PLR2004
            return
        yield kind, data
        at += 12 + length
        if kind == b"IEND":
            return
