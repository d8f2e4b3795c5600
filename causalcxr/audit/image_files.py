"""Images as files that a vendor's product takes: PNG of 8 or 16 bits, or DICOM; and back again."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from causalcxr.support.errors import ConfigError
from causalcxr.support.files import write_atomically

__all__ = ["FORMATS", "read_image", "write_image"]

FORMATS = {"png8": ".png", "png16": ".png", "dicom": ".dcm"}
_WORDS = 65535  # the largest of 16 bits


def write_image(path: Path, image: Tensor, kind: str, name: str) -> None:
    """Write `(1, H, W)` in [0, 1]. `name`: stands for the patient in DICOM. Raises ConfigError: no pydicom."""
    values = image.detach().cpu().double().numpy()[0]
    if kind == "dicom":
        write_atomically(path, _dicom(_rounded(values, _WORDS), name))
        return
    pixels = _rounded(values, 255).astype(np.uint8) if kind == "png8" else _rounded(values, _WORDS)
    write_atomically(path, lambda file: Image.fromarray(pixels).save(file, format="PNG"))


def read_image(path: Path, kind: str) -> np.ndarray:
    """What `write_image` wrote, float32 `(H, W)` in [0, 1]."""
    if kind == "dicom":
        return _pydicom().dcmread(path).pixel_array.astype(np.float32) / _WORDS
    with Image.open(path) as picture:
        return np.asarray(picture).astype(np.float32) / (255 if kind == "png8" else _WORDS)


def _rounded(values: np.ndarray, largest: int) -> np.ndarray:
    return (largest * values.clip(0, 1)).round().astype(np.uint16)


def _dicom(pixels: np.ndarray, name: str) -> bytes:
    """A digital X-ray of 16 bits, brighter is more, without anything about a person."""
    pydicom = _pydicom()
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"  # Digital X-Ray Image Storage, for presentation
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[name])
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data = pydicom.dataset.Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[name, "study"])
    data.SeriesInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[name, "series"])
    data.PatientID = data.PatientName = name
    data.PatientBirthDate = data.PatientSex = data.StudyDate = data.StudyTime = data.AccessionNumber = ""
    data.ReferringPhysicianName = data.StudyID = data.PatientOrientation = data.Laterality = ""
    data.SeriesNumber = data.InstanceNumber = 1
    data.Modality, data.BodyPartExamined, data.ViewPosition = "DX", "CHEST", ""
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.PresentationLUTShape = "IDENTITY"
    data.PixelIntensityRelationship, data.PixelIntensityRelationshipSign = "LIN", 1
    data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, 0, "US"
    data.WindowCenter, data.WindowWidth = (_WORDS + 1) / 2, _WORDS + 1
    data.PixelData = pixels.astype("<u2").tobytes()
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


def _pydicom() -> Any:
    try:
        import pydicom.dataset
        import pydicom.uid
    except ImportError:
        raise ConfigError("--format dicom needs pydicom: pip install 'causalcxr[dicom]'") from None
    return pydicom
