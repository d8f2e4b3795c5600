"""One DICOM file: the few tags that are needed, and its pixels as they are meant to be shown.

The result is scaled by the range that the header gives, never by the image's own.
"""

import logging
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import DigitalXRayImageStorageForProcessing

from causalcxr.data.dicom_deflated import refuse_inflated
from causalcxr.data.dicom_levels import levels_of
from causalcxr.data.dicom_words import is_compressed, read_codes, transfer_syntax
from causalcxr.data.downloads import partial_download
from causalcxr.data.images import broken, centre_square, constant, resize, too_large
from causalcxr.data.source import Unusable

__all__ = ["TAGS", "read_dicom", "read_tags", "shown_levels"]

TAGS = (
    *("PatientID", "PatientSex", "PatientAge", "ViewPosition", "StudyDate", "SOPInstanceUID"),
    *("PhotometricInterpretation", "PresentationLUTShape"),
)
GREY = ("MONOCHROME1", "MONOCHROME2")
PROCESSING = "FOR PROCESSING"

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # what is broken is counted; no traceback is needed


def read_tags(path: Path) -> dict[str, str] | Unusable:
    """TAGS as text, empty where absent; nothing else of the header is kept."""
    if problem := partial_download(path):
        return problem
    try:
        with path.open("rb") as file:
            refuse_inflated(file)
            header = dcmread(file, stop_before_pixels=True, specific_tags=list(TAGS))
        return {tag: str(header.get(tag) or "").strip() for tag in TAGS}
    except Exception as error:  # a malformed header raises anything
        return broken(path, error)


def read_dicom(
    path: Path, sizes: Sequence[int], channels: int, for_processing: bool = False
) -> list[np.ndarray | Unusable]:
    """The image as it is meant to be shown, `uint8 (channels, size, size)` of each size; or why it is unusable.

    A film that is FOR PROCESSING, which no person was to look at, is unusable unless `for_processing`.
    """
    if problem := partial_download(path):
        return [problem] * len(sizes)
    try:
        content = BytesIO(path.read_bytes())  # an impossible length in it can't ask for more memory
        refuse_inflated(content)
        file = dcmread(content)
        if problem := _unusable(file, path, for_processing):
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
    return levels_of(read_codes(file), file)


def _unusable(file: Dataset, path: Path, for_processing: bool) -> Unusable | None:
    """What can't be a radiograph, or can't be decoded here."""
    if not file.get("PixelData"):
        return Unusable("no pixels", f"'{path}' has no pixel data")
    if (frames := int(file.get("NumberOfFrames") or 1)) > 1:
        return Unusable("multi-frame", f"'{path}' has {frames} frames; a radiograph has one: split the file")
    kind, samples = file.get("PhotometricInterpretation") or "of no stated kind", file.get("SamplesPerPixel", 1)
    if kind not in GREY or samples != 1:
        found = kind if kind not in GREY else f"{kind} with {samples} samples a pixel"
        return Unusable("not greyscale", f"'{path}' is {found}, expected {' or '.join(GREY)}")
    if not for_processing and _is_for_processing(file):
        detail = f"'{path}' is {PROCESSING}, expected FOR PRESENTATION; ask the archive for that one"
        return Unusable("for processing", detail)
    if problem := too_large(path, int(file.Columns), int(file.Rows)):
        return problem
    return _not_decodable(file, path)


def _is_for_processing(file: Dataset) -> bool:
    intent = str(file.get("PresentationIntentType") or "").strip().upper()
    return intent == PROCESSING or (not intent and file.get("SOPClassUID") == DigitalXRayImageStorageForProcessing)


def _not_decodable(file: Dataset, path: Path) -> Unusable | None:
    syntax = transfer_syntax(file)
    if syntax is None and is_compressed(file):
        detail = f"'{path}' names no transfer syntax and is compressed; ask the archive to send it again"
        return Unusable("no transfer syntax", detail)
    if syntax is None or (syntax.is_transfer_syntax and not is_compressed(file)):
        return None
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return Unusable("no decoder", f"'{path}': {syntax.name} is none that pydicom decodes")
    if not decoder.is_available:
        hint = "pip install 'causalcxr[dicom]'"
        return Unusable("no decoder", f"'{path}': no package that decodes {syntax.name} is installed; {hint}")
    return None
