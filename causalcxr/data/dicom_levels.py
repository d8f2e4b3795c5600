"""Stored values of a DICOM file to the levels that are meant to be shown (PS3.3 C.11).

In order: modality LUT or rescale, VOI LUT or window, inversion of MONOCHROME1. Each is applied to every value that
the header allows, once; the pixels then look their level up.
"""

from dataclasses import dataclass

import numpy as np
from pydicom import Dataset

from causalcxr.data.dicom_words import Codes

__all__ = ["levels_of"]

TABLED = 16  # bits up to which all values are worked out, instead of every pixel's


def levels_of(codes: Codes, file: Dataset) -> np.ndarray:
    """Levels 0 to 255, float32, of the shape of the codes. Of several windows or LUTs the first is taken.

    Raises ValueError: a window, a rescale or a LUT that can't be.
    """
    if codes.bits > TABLED:
        return _levels(codes.codes, codes.bits, file)
    return _levels(np.arange(2**codes.bits), codes.bits, file)[codes.codes]


def _levels(codes: np.ndarray, bits: int, file: Dataset) -> np.ndarray:
    values = codes.astype(np.float64)
    if file.PixelRepresentation == 1:
        values[codes >= 2 ** (bits - 1)] -= 2.0**bits
    low, high = _stored_range(file)
    if table := _first_lut(file, "ModalityLUTSequence", low, high):
        values, (low, high) = table.look_up(values), (0.0, table.top)
    elif "RescaleSlope" in file and "RescaleIntercept" in file:
        slope, intercept = _number(file, "RescaleSlope"), _number(file, "RescaleIntercept")
        values = slope * values + intercept
        low, high = sorted((slope * low + intercept, slope * high + intercept))
    if table := _first_lut(file, "VOILUTSequence", low, high):
        shown = table.look_up(values) / table.top
    elif (window := _window(file)) is not None:
        shown = window.show(values)
    else:
        shown = ((values - low) / (high - low or 1)).clip(0, 1)
    if not np.isfinite(shown).all():
        raise ValueError("rescale or window give no finite levels")
    return (255 * (1 - shown if file.PhotometricInterpretation == "MONOCHROME1" else shown)).astype(np.float32)


def _stored_range(file: Dataset) -> tuple[float, float]:
    low = -(2.0 ** (file.BitsStored - 1)) if file.PixelRepresentation == 1 else 0.0
    return low, low + 2.0**file.BitsStored - 1


def _number(file: Dataset, tag: str) -> float:
    """The first value of a tag."""
    value = file[tag].value
    number = float(value[0] if file[tag].VM > 1 else value)
    if not np.isfinite(number):
        raise ValueError(f"{tag} is {number}; expected a finite number")
    return number


@dataclass(frozen=True)
class _Lut:
    """A table whose first entry is that of the value `first` and of all below, its last one that of all above."""

    entries: np.ndarray
    first: int

    @property
    def top(self) -> float:
        """The highest level of as many bits as the entries need: descriptors say 16 of tables that fill 12."""
        return 2.0 ** int(self.entries.max()).bit_length() - 1

    def look_up(self, values: np.ndarray) -> np.ndarray:
        places = np.rint(values - self.first).clip(0, len(self.entries) - 1).astype(np.int64)
        return self.entries[places].astype(np.float64)


def _first_lut(file: Dataset, sequence: str, low: float, high: float) -> _Lut | None:
    """The first table of a sequence, None without one; `low` to `high` are the values that may come.

    Raises ValueError: fewer entries than it says, or all of them 0.
    """
    if not file.get(sequence):
        return None
    item = file[sequence].value[0]
    if item["LUTDescriptor"].VM != 3:
        raise ValueError(f"the descriptor of {sequence} is {item.LUTDescriptor}; expected three numbers")
    n, first, bits = (int(number) for number in item.LUTDescriptor)
    n = n % 2**16 or 2**16
    entries = _entries(item, n, bits % 2**16, file.original_encoding[1])
    if not entries.any():
        raise ValueError(f"the table in {sequence} has no entry but 0")
    return _Lut(entries, _signed_if_that_fits(first, n, low, high))


def _signed_if_that_fits(first: int, n: int, low: float, high: float) -> int:
    """A negative first value may be written without its sign, or a high one with: what meets the values."""
    readings = (first, first - 2**16 if first > 0 else first + 2**16)
    return next((start for start in readings if start <= high and start + n > low), first)


def _entries(item: Dataset, n: int, bits: int, little: bool | None) -> np.ndarray:
    """One a word; or two, the first one in the low byte, where 8 bits are said and there are half the words."""
    data = item.LUTData
    if isinstance(data, bytes):
        words = np.frombuffer(data[: len(data) // 2 * 2], ">u2" if little is False else "<u2")
    else:
        words = np.atleast_1d(np.asarray(data, dtype=np.int64)) % 2**16
    if len(words) < n and bits == 8 and 2 * len(words) >= n:
        words = np.stack([words & 0xFF, words >> 8], axis=-1).ravel()
    if len(words) < n:
        raise ValueError(f"a look-up table of {n:,} entries has {len(words):,}")
    return words[:n]


@dataclass(frozen=True)
class _Window:
    center: float
    width: float
    function: str

    def show(self, values: np.ndarray) -> np.ndarray:
        """Shares of the way from black to white (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
        if self.function == "SIGMOID":
            with np.errstate(over="ignore"):
                return 1 / (1 + np.exp(-4 * (values - self.center) / self.width))
        center, width = (
            (self.center - 0.5, self.width - 1) if self.function == "LINEAR" else (self.center, self.width)
        )
        if width == 0:
            return (values > center).astype(np.float64)
        return ((values - center) / width + 0.5).clip(0, 1)


def _window(file: Dataset) -> _Window | None:
    """None without one. Raises ValueError: a width or a function that can't be."""
    if file.get("WindowCenter") is None or file.get("WindowWidth") is None:
        return None
    function = str(file.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise ValueError(f"VOILUTFunction is '{function}'; expected LINEAR, LINEAR_EXACT or SIGMOID")
    width = _number(file, "WindowWidth")
    if not (width >= 1 if function == "LINEAR" else width > 0):
        raise ValueError(
            f"WindowWidth is {width:g}; expected {'at least 1' if function == 'LINEAR' else 'above 0'}"
        )
    return _Window(_number(file, "WindowCenter"), width, function)
