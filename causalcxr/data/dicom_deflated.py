"""Deflated DICOM files: how much they would fill is found out before they are unpacked."""

import zlib
from typing import BinaryIO

from pydicom.filereader import data_element_generator, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from causalcxr.data.images import MOST_PIXELS, TOO_LARGE
from causalcxr.data.source import UnusableError

__all__ = ["refuse_inflated"]

META = 2**16  # bytes from the start in which the transfer syntax is looked for
MOST_BYTES = 4 * MOST_PIXELS  # no film has more pixels, nor they more than 32 bits
BLOCK = 2**24


def refuse_inflated(file: BinaryIO) -> None:
    """Leave the file at its start. Raises UnusableError: deflated, and larger than any film once unpacked."""
    deflated = DeflatedExplicitVRLittleEndian.encode() in file.read(META)
    file.seek(0)
    if deflated and _inflates_to_more(file, MOST_BYTES):
        raise UnusableError(TOO_LARGE, f"deflated, and more than {MOST_BYTES:,} bytes once unpacked")
    file.seek(0)


def _inflates_to_more(file: BinaryIO, most: int) -> bool:
    """Whether what follows the file meta information, which is not deflated itself, unpacks to more bytes."""
    read_preamble(file, force=True)
    for _ in data_element_generator(file, False, True, stop_when=lambda tag, *_: tag.group != 2):
        pass
    inflating, packed, size = zlib.decompressobj(-zlib.MAX_WBITS), file.read(), 0
    while size <= most and (unpacked := inflating.decompress(packed, BLOCK)):
        size, packed = size + len(unpacked), inflating.unconsumed_tail
    return size > most
