"""PNGs of 16 bits: what Pillow cuts to 8 bits (several channels), and how many of the bits are meant.

Read as the PNG specification (third edition) says; nothing is unpacked beyond the size that the header declares.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from causalcxr.data.source import UnusableError

__all__ = ["PngHeader", "read_header", "read_words", "significant_bits"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type
MODES = {4: "grey and alpha", 2: "colour", 6: "colour and alpha"}


class PngHeader(NamedTuple):
    """Of the first chunk."""

    width: int
    height: int
    depth: int
    colour: int
    compression: int
    filtering: int
    interlace: int

    @property
    def is_cut_by_pillow(self) -> bool:
        """Several channels of 16 bits, of which Pillow keeps 8."""
        return self.depth == 16 and self.colour in MODES


def read_header(start: bytes) -> PngHeader | None:
    """From the first 33 bytes of a file; None of one that is no PNG."""
    if len(start) < 33 or start[:8] != SIGNATURE or start[12:16] != b"IHDR":
        return None
    return PngHeader(*struct.unpack(">IIBBBBB", start[16:29]))


def significant_bits(file: BinaryIO) -> int:
    """The most bits that the chunk sBIT states for a channel; 16 without it."""
    for kind, length in _chunks(file):
        if kind == b"IDAT":
            break
        if kind == b"sBIT" and 1 <= length <= 4:
            return min(max(file.read(length)), 16) or 16
    return 16


def read_words(file: BinaryIO, header: PngHeader) -> np.ndarray:
    """All channels of a PNG that Pillow cuts, uint16 `(H, W, C)`; a colour said to be transparent adds an alpha.

    Raises UnusableError: interlaced. Raises ValueError: damaged.
    """
    if header.interlace:
        detail = f"interlaced {MODES[header.colour]} of 16 bits; save it without interlacing"
        raise UnusableError("not decodable", detail)
    channels = CHANNELS[header.colour]
    packed, transparent = _data(file)
    size = header.height * (1 + 2 * channels * header.width)
    unpacking = zlib.decompressobj()
    rows = unpacking.decompress(packed, size + 1)
    if len(rows) != size or not unpacking.eof:
        raise ValueError("the packed pixels are not of the size that the header says")
    lines = np.frombuffer(rows, np.uint8).reshape(header.height, -1)
    content = _unfilter(lines[:, 0], lines[:, 1:].reshape(header.height, header.width, 2 * channels))
    words = content.view(">u2").astype(np.uint16)
    if transparent and header.colour == 2:
        alpha = np.where((words == np.frombuffer(transparent, ">u2")).all(axis=-1), 0, 65535).astype(np.uint16)
        words = np.concatenate([words, alpha[..., None]], axis=-1)
    return words


def _data(file: BinaryIO) -> tuple[bytes, bytes]:
    """The packed pixels, and the content of tRNS. Raises ValueError: a chunk that is cut off or damaged."""
    parts, transparent = [], b""
    for kind, length in _chunks(file):
        if kind in (b"IDAT", b"tRNS"):
            content = file.read(length)
            if file.read(4) != struct.pack(">I", zlib.crc32(kind + content)):
                raise ValueError(f"the chunk {kind.decode()} is cut off or damaged")
            if kind == b"IDAT":
                parts.append(content)
            else:
                transparent = content
    return b"".join(parts), transparent


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Name and length of each chunk, the file standing at its content."""
    position = len(SIGNATURE)
    while True:
        file.seek(position)
        start = file.read(8)
        if len(start) < 8 or start[4:] == b"IEND":
            return
        length = int.from_bytes(start[:4], "big")
        yield start[4:], length
        position += 12 + length


def _unfilter(kinds: np.ndarray, content: np.ndarray) -> np.ndarray:
    """Undo the filters of the rows; content is uint8 `(H, W, B)`, whose pixels follow from those left and above.

    So all pixels of an antidiagonal are worked out at once, from the two antidiagonals before.
    """
    if kinds.max() > 4:
        raise ValueError(f"unknown filter {kinds.max()}")
    height, width, size = content.shape
    padded = np.zeros((height + 1, width + 1, size), np.uint8)  # nothing left of the first pixel, nor above
    padded[1:, 1:] = content
    pixels = padded.reshape(-1, size)
    for diagonal in range(height + width - 1):
        top, bottom = max(0, diagonal - width + 1), min(height - 1, diagonal)
        first = (top + 1) * (width + 1) + diagonal - top + 1
        last = first + (bottom - top) * width

        def along(offset: int, first: int = first, last: int = last) -> np.ndarray:
            return pixels[first - offset : last - offset + 1 : width]

        left, above, corner = along(1), along(width + 1), along(width + 2)
        pixels[first : last + 1 : width] += _predicted(kinds[top : bottom + 1, None], left, above, corner)
    return np.ascontiguousarray(padded[1:, 1:])


def _predicted(kinds: np.ndarray, left: np.ndarray, above: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """What each filter adds to the stored bytes: nothing, left, above, their mean, or the one Paeth chooses."""
    a, b, c = left.astype(np.int16), above.astype(np.int16), corner.astype(np.int16)
    to_left, to_above, to_corner = abs(b - c), abs(a - c), abs(a + b - 2 * c)
    nearest = np.where(to_above <= to_corner, b, c)
    paeth = np.where((to_left <= to_above) & (to_left <= to_corner), a, nearest)
    return np.choose(kinds, [np.zeros_like(a), a, b, (a + b) // 2, paeth]).astype(np.uint8)
