"""Deflated DICOM files: how much they would fill is found out before they are unpacked."""

import zlib
from typing import BinaryIO

from pydicom.filereader import data_element_generator, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from causalcxr.data.images import MOST_PIXELS, TOO_LARGE
from causalcxr.data.source import UnusableError

__all__ = ["refuse_inflated"]

MOST_BYTES = 4 * MOST_PIXELS  # no film has more pixels, nor they more than 32 bits
BLOCK = 2**24
TRANSFER_SYNTAX = 0x00020010


def refuse_inflated(file: BinaryIO) -> None:
    """Leave the file at its start. Raises UnusableError: deflated, and larger than any film once unpacked."""
    if _transfer_syntax(file) == DeflatedExplicitVRLittleEndian and _inflates_to_more(file, MOST_BYTES):
        raise UnusableError(TOO_LARGE, f"deflated, and more than {MOST_BYTES:,} bytes once unpacked")
    file.seek(0)


def _transfer_syntax(file: BinaryIO) -> str:
    """As the file meta information has it, behind which the file is left; nothing if it can't be read."""
    syntax = b""
    try:
        read_preamble(file, force=True)
        for element in data_element_generator(file, False, True, stop_when=lambda tag, *_: tag.group != 2):
            if element.tag == TRANSFER_SYNTAX:
                syntax = element.value
    except Exception:  # a malformed header raises anything; reading the file says what is wrong
        return ""
    return syntax.rstrip(b"\0 ").decode("ascii", "replace") if isinstance(syntax, bytes) else str(syntax)


def _inflates_to_more(file: BinaryIO, most: int) -> bool:
    """Whether what is left of the file unpacks to more bytes."""
    inflating, packed, size = zlib.decompressobj(-zlib.MAX_WBITS), file.read(), 0
    while size <= most and (unpacked := inflating.decompress(packed, BLOCK)):
        size, packed = size + len(unpacked), inflating.unconsumed_tail
    return size > most
