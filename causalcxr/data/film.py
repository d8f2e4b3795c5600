"""One film from a file of any kind that a cohort can be made of: a picture, or DICOM."""

from pathlib import Path

import numpy as np

from causalcxr.data.images import read_image
from causalcxr.data.readers.dicom import is_dicom
from causalcxr.data.source import Unusable

__all__ = ["read_film"]


def read_film(path: Path, size: int, channels: int) -> np.ndarray | Unusable:
    """The film as `uint8 (channels, size, size)`, read as a cohort's films are, or why it can't be used."""
    if not path.is_file():
        return Unusable("missing file", f"no file '{path}'")
    if not is_dicom(path):
        return read_image(path, size, channels)
    try:
        from causalcxr.data.dicom_file import read_dicom
    except ImportError as error:
        return Unusable("no decoder", f"'{path}' is DICOM: {error}; pip install 'causalcxr[dicom]'")
    return read_dicom(path, [size], channels)[0]
