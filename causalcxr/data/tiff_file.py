"""What Pillow doesn't see to in a TIFF: a white 0 in more than 8 bits, and pages that are no pictures."""

import struct
from io import BytesIO
from typing import BinaryIO, NamedTuple

__all__ = ["TiffHeader", "black_is_zero", "pictures", "read_header"]

PAGE, OLD_PAGE = 254, 255  # NewSubfileType, and SubfileType of old files
SMALLER, MASK, OLD_SMALLER = 1, 4, 2  # bits of the new one, a value of the old one
BITS, POLARITY, KIND = 258, 262, 339  # BitsPerSample, PhotometricInterpretation, SampleFormat
WHITE_IS_ZERO, BLACK_IS_ZERO = 0, 1
SIZES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # types that whole numbers come in
ENTRIES = 4096  # of a directory, at most: no film has more


class TiffHeader(NamedTuple):
    """What decides how the first picture of the file is to be shown."""

    bits: int
    whole_numbers: bool  # without sign
    white_is_zero: bool
    polarity_at: int  # where in the file this is said
    polarity_as: str  # and how, for struct

    @property
    def is_negative_in_pillow(self) -> bool:
        """0 is white and Pillow doesn't see to it."""
        return self.white_is_zero and self.bits > 8


def read_header(file: BinaryIO) -> TiffHeader | None:
    """None of a file that is no TIFF, or whose directory can't be read: opening it says so."""
    try:
        return _read_header(file)
    except struct.error:  # cut off
        return None
    finally:
        file.seek(0)


def black_is_zero(file: BinaryIO, header: TiffHeader) -> BinaryIO:
    """The same file, said to have its 0 black; what it then shows is the negative."""
    content = bytearray(file.read())
    struct.pack_into(header.polarity_as, content, header.polarity_at, BLACK_IS_ZERO)
    return BytesIO(content)


def pictures(file: BinaryIO) -> list[bool]:
    """Of each page, whether it is a picture of its own: neither a smaller copy nor a mask. Empty of no TIFF."""
    kinds: list[bool] = []
    seen: set[int] = set()
    try:
        order, offset, count, entry, at = _start(file)
        while at and at not in seen and len(kinds) < ENTRIES:
            seen.add(at)
            file.seek(at)
            n = struct.unpack(order + count, file.read(struct.calcsize(count)))[0]
            content = file.read(min(n, ENTRIES) * entry)
            at = struct.unpack(order + offset, file.read(struct.calcsize(offset)))[0]
            kinds.append(_is_picture(content, order, offset, entry))
    except (struct.error, OverflowError):  # no TIFF, or cut off
        pass
    finally:
        file.seek(0)
    return kinds


def _is_picture(directory: bytes, order: str, offset: str, entry: int) -> bool:
    for start in range(0, len(directory) - entry + 1, entry):
        tag, kind, _ = struct.unpack_from(f"{order}HH{offset}", directory, start)
        if tag in (PAGE, OLD_PAGE) and kind in SIZES:
            room = struct.calcsize(offset)
            value = struct.unpack_from(order + SIZES[kind], directory, start + entry - room)[0]
            if value & (SMALLER | MASK) if tag == PAGE else value == OLD_SMALLER:
                return False
    return True


def _start(file: BinaryIO) -> tuple[str, str, str, int, int]:
    """How a TIFF is written, and where its first directory is. Raises struct.error: no TIFF."""
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None or (version := struct.unpack_from(f"{order}H", start, 2)[0]) not in (42, 43):
        raise struct.error("no TIFF")
    offset, count, entry = ("I", "H", 12) if version == 42 else ("Q", "Q", 20)
    return order, offset, count, entry, struct.unpack_from(order + offset, start, 4 if version == 42 else 8)[0]


def _read_header(file: BinaryIO) -> TiffHeader:
    order, offset, count, entry, at = _start(file)
    file.seek(at)
    n = struct.unpack(order + count, file.read(struct.calcsize(count)))[0]
    places = {}
    for _ in range(min(n, ENTRIES)):
        at = file.tell()
        tag, kind, values = struct.unpack_from(f"{order}HH{offset}", content := file.read(entry))
        if tag in (BITS, POLARITY, KIND) and kind in SIZES:
            place, room = at + entry - struct.calcsize(offset), struct.calcsize(offset)
            if values * struct.calcsize(SIZES[kind]) > room:  # they are elsewhere
                place = struct.unpack_from(order + offset, content, entry - room)[0]
            places[tag] = (place, order + SIZES[kind])
        file.seek(at + entry)
    values = {tag: _value(file, *place) for tag, place in places.items()}
    at, form = places.get(POLARITY, (0, ""))
    white = values.get(POLARITY) == WHITE_IS_ZERO
    return TiffHeader(values.get(BITS, 1), values.get(KIND, 1) == 1, white, at, form)


def _value(file: BinaryIO, at: int, form: str) -> int:
    file.seek(at)
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]
