"""The stored values of a DICOM file: decoded, cut to the bits that are stored, whatever the transfer syntax.

The bits of a word that are not stored may hold anything (PS3.5 8.1.1), such as the overlays of old files. They are
cleared here, for a decoder clears them in some transfer syntaxes only.
"""

from typing import Any, NamedTuple

import numpy as np
from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from causalcxr.data.codestream import read_codestream

__all__ = ["Codes", "is_compressed", "read_codes", "transfer_syntax"]

DEPTHS = (8, 16, 32)  # bits allocated


class Codes(NamedTuple):
    """Stored values as they lie in the file: unsigned `(H, W)`, below 2**bits; negative ones in complement."""

    codes: np.ndarray
    bits: int


def read_codes(file: Dataset) -> Codes:
    """Raises ValueError: header and pixel data contradict each other."""
    allocated, stored = int(file.BitsAllocated), int(file.BitsStored)
    if allocated not in DEPTHS or not 1 <= stored <= allocated:
        raise ValueError(f"{stored} bits stored in {allocated}; expected at most {allocated}, of 8, 16 or 32")
    if is_compressed(file):
        words, width = _decompressed(file, allocated)
    else:
        words, width = _native(file, allocated), allocated
    if width <= stored:
        return Codes(words & _mask(width, words), width)
    return Codes((words >> _lowest_bit(file, stored, width)) & _mask(stored, words), stored)


def transfer_syntax(file: Dataset) -> UID | None:
    """As the header names it, if it does."""
    return getattr(file, "file_meta", Dataset()).get("TransferSyntaxUID") or None


def is_compressed(file: Dataset) -> bool:
    """As the transfer syntax says; where none is named, as the pixel data look."""
    syntax = transfer_syntax(file)
    return syntax.is_compressed if syntax else file["PixelData"].is_undefined_length


def _lowest_bit(file: Dataset, stored: int, width: int) -> int:
    """Where in the word the value begins. One in twenty headers of CheXpert Plus has no HighBit."""
    high = file.get("HighBit")
    high = stored - 1 if high is None else int(high)
    if not stored - 1 <= high < width:
        raise ValueError(f"HighBit {high} for {stored} bits stored in {width}; expected {stored - 1}")
    return high + 1 - stored


def _mask(bits: int, words: np.ndarray) -> np.ndarray:
    return np.array(2**bits - 1, words.dtype)


def _native(file: Dataset, allocated: int) -> np.ndarray:
    """Words as they are; what follows the last row may only be padding."""
    content, rows, columns = file.PixelData, int(file.Rows), int(file.Columns)
    big = file.original_encoding[1] is False
    order, n = ">" if big else "<", rows * columns
    if big and allocated == 8 and file["PixelData"].VR == "OW":
        content = np.frombuffer(content[: len(content) // 2 * 2], "u2").byteswap().tobytes()
    words = np.frombuffer(content, f"{order}u{allocated // 8}", count=len(content) // (allocated // 8))
    if len(words) < n or words[n:].any():
        expected = f"{n * allocated // 8:,} for {rows} x {columns} pixels of {allocated} bits"
        raise ValueError(f"{len(content):,} bytes of pixel data; expected {expected}")
    return words[:n].reshape(rows, columns)


def _decompressed(file: Dataset, allocated: int) -> tuple[np.ndarray, int]:
    """Samples as unsigned words, and how many bits of these the compressed image says to hold."""
    syntax = transfer_syntax(file)
    assert syntax is not None
    declared = read_codestream(get_frame(file.PixelData, 0, number_of_frames=1))
    width = declared.bits if declared else allocated
    if declared and (declared.rows, declared.columns) != (file.Rows, file.Columns):
        found = f"{declared.rows} x {declared.columns}"
        raise ValueError(f"the compressed image is {found}, the header says {file.Rows} x {file.Columns}")
    if width > allocated:
        raise ValueError(f"the compressed image has {width} bits, the header allocates {allocated}")
    options: dict[str, Any] = {
        "apply_j2k_sign_correction": False,
        "apply_jls_sign_correction": False,
        "correct_unused_bits": False,
    }
    if declared:
        options |= {"bits_allocated": 8 * -(-width // 8), "bits_stored": width}
    samples, _ = get_decoder(syntax).as_array(file, index=0, raw=True, **options)
    if samples.ndim != 2:
        raise ValueError(f"the compressed image has {samples.ndim} dimensions, expected one grey value a pixel")
    return samples.view(f"u{samples.dtype.itemsize}"), width
