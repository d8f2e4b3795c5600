"""What a compressed image says of itself, read from its first bytes and before anything is decoded."""

import struct
from typing import NamedTuple

__all__ = ["Codestream", "read_codestream"]

JPEG2000 = b"\xff\x4f\xff\x51"  # SOC, SIZ
JPEG = b"\xff\xd8"
FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # start of frame, of JPEG and of JPEG-LS
ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length


class Codestream(NamedTuple):
    """Size in pixels, and bits of each sample."""

    rows: int
    columns: int
    bits: int


def read_codestream(content: bytes) -> Codestream | None:
    """Of JPEG, JPEG-LS and JPEG 2000 (in a JP2 box too); None for others. Raises ValueError: no such header."""
    if content[:2] == JPEG:
        return _jpeg(content)
    if content[:4] == JPEG2000 or content[4:8] == b"jP  ":
        return _jpeg2000(content)
    return None


def _jpeg(content: bytes) -> Codestream:
    position = 2
    while position + 9 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker in FRAMES:
            bits, rows, columns = struct.unpack_from(">BHH", content, position + 4)
            return Codestream(rows, columns, bits)
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker in ALONE:
            position += 2
        else:
            position += 2 + struct.unpack_from(">H", content, position + 2)[0]
    raise ValueError("a JPEG without the header of its frame")


def _jpeg2000(content: bytes) -> Codestream:
    start = content.find(JPEG2000)
    if start < 0 or len(content) < start + 43:
        raise ValueError("a JPEG 2000 file without its SIZ header")
    right, below, left, above = struct.unpack_from(">4I", content, start + 8)
    return Codestream(below - above, right - left, (content[start + 42] & 0x7F) + 1)
