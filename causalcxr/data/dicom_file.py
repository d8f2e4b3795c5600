"""One DICOM file: the few tags that are needed, and its pixels as they are meant to be shown.

The way to the screen is the standard's (PS3.3 C.11): stored values, modality LUT or rescale, VOI LUT or window,
inversion of MONOCHROME1. The result is scaled by the range that the header gives, never by the image's own.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from causalcxr.data.images import broken, centre_square, constant, resize
from causalcxr.data.source import Unusable

__all__ = ["TAGS", "read_dicom", "read_tags", "shown_levels"]

TAGS = ("PatientID", "PatientSex", "PatientAge", "ViewPosition", "StudyDate", "SOPInstanceUID")
GREY = ("MONOCHROME1", "MONOCHROME2")

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # what is broken is counted; no traceback is needed


def read_tags(path: Path) -> dict[str, str] | Unusable:
    """TAGS as text, empty where absent; nothing else of the header is kept."""
    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS))
        return {tag: str(header.get(tag) or "").strip() for tag in TAGS}
    except Exception as error:  # a malformed header raises anything
        return broken(path, error)


def read_dicom(path: Path, sizes: Sequence[int], channels: int) -> list[np.ndarray | Unusable]:
    """The image as it is meant to be shown, `uint8 (channels, size, size)` of each size; or why it is unusable."""
    try:
        file = dcmread(path)
        if problem := _unusable(file, path):
            return [problem] * len(sizes)
        square = centre_square(Image.fromarray(shown_levels(file)))
        images = [resize(square, size, channels) for size in sizes]
    except FileNotFoundError:
        return [Unusable("missing file", f"no file '{path}'")] * len(sizes)
    except MemoryError:
        raise
    except Exception as error:  # as for other images: no malformed file may end a preparation of hours
        return [broken(path, error)] * len(sizes)
    return [constant(image, str(path)) or image for image in images]


def shown_levels(file: Dataset) -> np.ndarray:
    """Levels 0 to 255, float32 `(H, W)`. Of several windows or LUTs the first is taken."""
    values = apply_modality_lut(file.pixel_array, file)
    if file.get("VOILUTSequence"):
        values = apply_voi_lut(np.rint(values).astype(np.int64), file)
        low, high = 0.0, 2.0 ** file.VOILUTSequence[0].LUTDescriptor[2] - 1
    else:
        low, high = _range(file)
        if not _has_window(file):
            low, high = min(low, high), max(low, high)
        values = apply_voi_lut(values, file)
    levels = (255 / (high - low) * (values - low)).astype(np.float32)
    return 255 - levels if file.PhotometricInterpretation == "MONOCHROME1" else levels


def _range(file: Dataset) -> tuple[float, float]:
    """What the lowest and the highest storable value become; pydicom's windows end there (PS3.3 C.11.2.1.2)."""
    if file.get("ModalityLUTSequence"):
        return 0.0, 2.0 ** file.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    signed = file.PixelRepresentation == 1
    low = -(2.0 ** (file.BitsStored - 1)) if signed else 0.0
    high = low + 2.0**file.BitsStored - 1
    if "RescaleSlope" in file and "RescaleIntercept" in file:
        slope, intercept = float(file.RescaleSlope), float(file.RescaleIntercept)
        return low * slope + intercept, high * slope + intercept
    return low, high


def _has_window(file: Dataset) -> bool:
    return file.get("WindowCenter") is not None and file.get("WindowWidth") is not None


def _unusable(file: Dataset, path: Path) -> Unusable | None:
    """What can't be a radiograph, or can't be decoded here."""
    if "PixelData" not in file:
        return Unusable("no pixels", f"'{path}' has no pixel data")
    if (frames := int(file.get("NumberOfFrames") or 1)) > 1:
        return Unusable("multi-frame", f"'{path}' has {frames} frames; a radiograph has one: split the file")
    if (kind := file.get("PhotometricInterpretation", "")) not in GREY:
        return Unusable(
            "not greyscale", f"'{path}' is {kind or 'of no stated kind'}, expected {' or '.join(GREY)}"
        )
    syntax = file.file_meta.TransferSyntaxUID
    if syntax.is_compressed:
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError:
            return Unusable("no decoder", f"'{path}': {syntax.name} is none that pydicom decodes")
        if not decoder.is_available:
            hint = "pip install 'causalcxr[dicom]'"
            return Unusable("no decoder", f"'{path}': no package that decodes {syntax.name} is installed; {hint}")
    return None
