"""DICOM files: the pixels against pydicom's own pipeline, what is refused, and a folder of them as a source."""

import hashlib
import json
import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from causalcxr.data import DataConfig, open_cohort, prepare
from causalcxr.data.source import Unusable
from causalcxr.graph import load_graph
from causalcxr.support.errors import DataError

pydicom = pytest.importorskip("pydicom", reason="pydicom (extra dicom) is not installed")

from pydicom.data import get_testdata_file  # noqa: E402
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut  # noqa: E402
from pydicom.uid import (  # noqa: E402
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from causalcxr.data import dicom_deflated  # noqa: E402
from causalcxr.data.dicom_file import read_dicom, read_tags, shown_levels  # noqa: E402

SIDE = 64  # the smallest that JPEG 2000 is happy with
ROUNDING = 0.5 + 1e-3  # of a level: what is stored is the nearest whole one of float32 levels


def radiograph(bits: int = 12, signed: bool = False, seed: int = 0, **tags) -> Dataset:
    """A square image with all levels of its bits from corner to corner, and what a header must have."""
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = DigitalXRayImageStorageForPresentation
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid(entropy_srcs=[str(seed)])
    file.Rows = file.Columns = SIDE
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsStored, file.BitsAllocated, file.HighBit = bits, 8 if bits <= 8 else 16, bits - 1
    file.PixelRepresentation = int(signed)
    levels = np.linspace(0, 2**bits - 1, SIDE**2).round() - (2 ** (bits - 1) if signed else 0)
    kind = f"{'i' if signed else 'u'}{file.BitsAllocated // 8}"
    file.PixelData = np.roll(levels, seed).astype(kind).tobytes()
    for tag, value in tags.items():
        setattr(file, tag, value)
    return file


def write(file: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)
    return path


def expected(file: Dataset, low: float, high: float) -> np.ndarray:
    """pydicom's own pipeline, its range `low` to `high` brought to 0..255."""
    shown = apply_voi_lut(apply_modality_lut(file.pixel_array, file), file)
    return (shown.astype(float) - low) / (high - low) * 255


def check_pixels(path: Path, levels: np.ndarray) -> None:
    pixels = read_dicom(path, [SIDE], 1)[0]
    assert isinstance(pixels, np.ndarray), pixels
    assert pixels.shape == (1, SIDE, SIDE) and pixels.dtype == np.uint8
    assert np.abs(pixels[0] - levels).max() <= ROUNDING
    assert np.array_equal(read_dicom(path, [SIDE], 3)[0], np.repeat(pixels, 3, 0))


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_without_a_window_the_range_of_the_bits_stored_is_shown(tmp_path, bits, signed):
    file = radiograph(bits, signed)
    path = write(file, tmp_path / "a.dcm")
    low = -(2 ** (bits - 1)) if signed else 0
    check_pixels(path, expected(file, low, low + 2**bits - 1))
    ramp = np.linspace(0, 255, SIDE**2).reshape(SIDE, SIDE)
    assert np.abs(read_dicom(path, [SIDE], 1)[0][0] - ramp).max() <= 0.5 + 255 / 2**bits  # the known answer


def test_a_deflated_file_is_read(tmp_path):
    file = radiograph()
    file.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    check_pixels(write(file, tmp_path / "a.dcm"), expected(radiograph(), 0, 4095))
    assert read_tags(tmp_path / "a.dcm")["PhotometricInterpretation"] == "MONOCHROME2"


@pytest.mark.parametrize("tag", ["ImageComments", "private"])
def test_a_file_that_only_mentions_deflation_is_read(tmp_path, tag):
    file = radiograph()
    if tag == "private":
        file.file_meta.PrivateInformationCreatorUID = DeflatedExplicitVRLittleEndian
        file.file_meta.PrivateInformation = DeflatedExplicitVRLittleEndian.encode()
    else:
        setattr(file, tag, f"decoded from {DeflatedExplicitVRLittleEndian}")
    check_pixels(write(file, tmp_path / "a.dcm"), expected(radiograph(), 0, 4095))


@pytest.mark.parametrize("meta", [0, 70_000])
def test_a_deflated_file_is_not_unpacked_beyond_the_size_of_a_film(tmp_path, monkeypatch, meta):
    file = radiograph()
    size = len(write(file, tmp_path / "plain.dcm").read_bytes())
    file.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = write(file, tmp_path / "a.dcm")
    if meta:  # private information, which pydicom writes behind the transfer syntax, may stand ahead of it
        plain = path.read_bytes()
        at, long = 144, struct.pack("<HH2sHI", 2, 0x0102, b"OB", 0, meta) + bytes(meta)
        path.write_bytes(plain[:at] + long + plain[at:])
    monkeypatch.setattr(dicom_deflated, "MOST_BYTES", size // 2)
    monkeypatch.setattr(dicom_deflated, "BLOCK", 1000)
    for unusable in (read_dicom(path, [SIDE], 1)[0], read_tags(path)):
        assert isinstance(unusable, Unusable) and unusable.reason == "too large"
        assert "deflated, and more than" in unusable.detail
    monkeypatch.setattr(dicom_deflated, "MOST_BYTES", size)
    assert isinstance(read_dicom(path, [SIDE], 1)[0], np.ndarray)


def test_a_faint_image_is_not_stretched(tmp_path):
    file = radiograph(12, PixelData=np.linspace(1000, 2000, SIDE**2).astype("u2").tobytes())
    pixels = read_dicom(write(file, tmp_path / "a.dcm"), [SIDE], 1)[0]
    assert pixels.min() == round(1000 / 4095 * 255) and pixels.max() == round(2000 / 4095 * 255)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("window", [(2048, 1000), (600, 3000), ([1800, 100], [900, 10])])
@pytest.mark.parametrize("rescale", [None, (1, 0), (2, -1024), (0.5, 3.25), (-1, 4095)])
def test_windows_are_those_of_pydicom(tmp_path, function, window, rescale):
    file = radiograph(12, WindowCenter=window[0], WindowWidth=window[1], VOILUTFunction=function)
    slope, intercept = rescale or (1, 0)
    if rescale:
        file.RescaleSlope, file.RescaleIntercept = slope, intercept
    check_pixels(write(file, tmp_path / "a.dcm"), expected(file, intercept, 4095 * slope + intercept))


def test_a_window_has_the_known_answer(tmp_path):
    """PS3.3 C.11.2.1.2.1: y = ((x - (c - 0.5)) / (w - 1) + 0.5) * 255, clipped."""
    file = radiograph(12, WindowCenter=2048, WindowWidth=1024)
    stored = file.pixel_array
    formula = (((stored - 2047.5) / 1023 + 0.5) * 255).clip(0, 255)
    check_pixels(write(file, tmp_path / "a.dcm"), formula)
    assert (formula == 0).sum() > 50 and (formula == 255).sum() > 50


def test_rescaled_levels_without_a_window(tmp_path):
    file = radiograph(12, RescaleSlope=-2, RescaleIntercept=100)  # high stored values are low ones
    ramp = np.linspace(255, 0, SIDE**2).reshape(SIDE, SIDE)
    pixels = read_dicom(write(file, tmp_path / "a.dcm"), [SIDE], 1)[0]
    assert np.abs(pixels[0] - ramp).max() <= 0.5 + 255 / 4096


def lut(entries: np.ndarray, first: int, bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries.tolist())
    return item


def test_a_voi_lut_goes_before_a_window(tmp_path):
    curve = np.rint(1023 * np.linspace(0, 1, 3000) ** 2).astype(int)  # 10 bits, for stored values from 500 on
    file = radiograph(12, WindowCenter=10, WindowWidth=10, VOILUTSequence=[lut(curve, 500, 10)])
    check_pixels(write(file, tmp_path / "a.dcm"), expected(file, 0, 1023))
    stored = file.pixel_array.astype(int)
    assert np.array_equal(expected(file, 0, 1023), curve[(stored - 500).clip(0, 2999)] / 1023 * 255)


def test_a_voi_lut_after_a_rescale(tmp_path):
    curve = np.arange(4096)[::-1]
    file = radiograph(12, RescaleSlope=1, RescaleIntercept=-1000, VOILUTSequence=[lut(curve, -1000 % 65536, 12)])
    file.VOILUTSequence[0].LUTDescriptor = [4096, 0, 12]
    stored = file.pixel_array.astype(int)
    check_pixels(write(file, tmp_path / "a.dcm"), curve[(stored - 1000).clip(0)] / 4095 * 255)


STORED12 = np.linspace(0, 4095, SIDE**2).round().astype(int).reshape(SIDE, SIDE)  # what radiograph(12) holds


def as_bytes(item: Dataset, padded: int = 0) -> Dataset:
    """The entries one a byte, as tables of 8 bits are meant to be written."""
    content = bytes(item.LUTData) + bytes(padded)
    del item.LUTData
    item.add_new("LUTData", "OW", content + bytes(len(content) % 2))
    return item


@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("n", [4096, 4095, 300])  # more entries than 8 bits can count
def test_a_table_of_8_bits_is_read_in_words_and_in_bytes(tmp_path, sequence, packed, n):
    entries = np.rint(255 * np.sqrt(np.arange(n) / (n - 1))).astype(int)
    item = lut(entries, 0, 8)
    file = radiograph(12)
    setattr(file, sequence, [as_bytes(item) if packed else item])
    check_pixels(write(file, tmp_path / "a.dcm"), entries[STORED12.clip(0, n - 1)])


@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("first", [0, 700, 4000])
@pytest.mark.parametrize(
    ("said", "filled"), [(16, 16), (12, 12), (10, 10), (16, 12), (16, 10), (12, 16), (14, 11)]
)
def test_a_table_is_scaled_by_the_bits_that_its_entries_need(tmp_path, sequence, said, filled, first):
    entries = np.linspace(2**filled - 1, 0, 2000).round().astype(int)
    file = radiograph(12)
    setattr(file, sequence, [lut(entries, first, said)])
    levels = entries[(STORED12 - first).clip(0, 1999)] / (2**filled - 1) * 255
    check_pixels(write(file, tmp_path / "a.dcm"), levels)


def test_a_table_of_all_65536_entries_has_the_length_0(tmp_path):
    entries = np.arange(65536)[::-1]
    item = lut(entries[:4], 0, 16)
    item.LUTDescriptor = [0, 0, 16]
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    file = radiograph(16, VOILUTSequence=[item])
    stored = np.linspace(0, 65535, SIDE**2).round().reshape(SIDE, SIDE)
    check_pixels(write(file, tmp_path / "a.dcm"), 255 - stored / 65535 * 255)


@pytest.mark.parametrize("slope", [20, 1000, -20])
def test_values_beyond_a_table_are_those_of_its_ends(tmp_path, slope):
    entries = np.arange(4096) * 16
    file = radiograph(12, RescaleSlope=slope, RescaleIntercept=0, VOILUTSequence=[lut(entries, 0, 16)])
    levels = entries[(STORED12 * slope).clip(0, 4095)] / 65535 * 255
    if slope < 0:  # all of them lie below the table
        assert read_dicom(write(file, tmp_path / "a.dcm"), [SIDE], 1)[0].reason == "constant image"
    else:
        check_pixels(write(file, tmp_path / "a.dcm"), levels)


@pytest.mark.parametrize("written", [-1000, -1000 % 65536])
def test_a_negative_first_value_may_lack_its_sign(tmp_path, written):
    entries = np.arange(4096)
    file = radiograph(12, RescaleSlope=1, RescaleIntercept=-1000, VOILUTSequence=[lut(entries, 0, 12)])
    descriptor = [4096, written, 12]
    file.VOILUTSequence[0].add_new("LUTDescriptor", "SS" if written < 0 else "US", descriptor)
    check_pixels(write(file, tmp_path / "a.dcm"), STORED12 / 4095 * 255)


def test_a_table_shorter_than_it_says_is_refused(tmp_path):
    file = radiograph(12, VOILUTSequence=[lut(np.arange(300), 0, 12)])
    file.VOILUTSequence[0].LUTDescriptor = [4096, 0, 12]
    answer = read_dicom(write(file, tmp_path / "a.dcm"), [SIDE], 1)[0]
    assert answer.reason == "broken image" and "a look-up table of 4,096 entries has 300" in answer.detail


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("slope", [1, -1, 2.5])
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_windows_are_those_of_the_standard(tmp_path, function, slope, kind):
    """PS3.3 C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2; a negative slope makes high stored values dark."""
    file = radiograph(12, RescaleSlope=slope, RescaleIntercept=50, PhotometricInterpretation=kind)
    center, width = 50 + slope * 2000, 1800
    file.WindowCenter, file.WindowWidth, file.VOILUTFunction = center, width, function
    x = STORED12 * slope + 50
    shares = {
        "LINEAR": (x - (center - 0.5)) / (width - 1) + 0.5,
        "LINEAR_EXACT": (x - center) / width + 0.5,
        "SIGMOID": 1 / (1 + np.exp(-4 * (x - center) / width)),
    }[function].clip(0, 1)
    check_pixels(write(file, tmp_path / "a.dcm"), 255 * (1 - shares if kind == "MONOCHROME1" else shares))


def test_a_modality_lut(tmp_path):
    curve = np.rint(65535 * np.linspace(0, 1, 4096) ** 3).astype(int)
    file = radiograph(12, ModalityLUTSequence=[lut(curve, 0, 16)])
    check_pixels(write(file, tmp_path / "a.dcm"), expected(file, 0, 65535))
    file.WindowCenter, file.WindowWidth = 30000, 20000
    check_pixels(write(file, tmp_path / "b.dcm"), expected(file, 0, 65535))


@pytest.mark.parametrize("tags", [{}, {"WindowCenter": 2048, "WindowWidth": 1000}])
def test_bones_are_white_whatever_the_photometric_interpretation(tmp_path, tags):
    file = radiograph(12, **tags)
    plain = read_dicom(write(file, tmp_path / "2.dcm"), [SIDE], 1)[0].astype(int)
    file.PhotometricInterpretation = "MONOCHROME1"
    inverted = read_dicom(write(file, tmp_path / "1.dcm"), [SIDE], 1)[0]
    assert np.abs(255 - plain - inverted).max() <= 1  # a half is rounded up on both sides


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_lossless_compression_changes_nothing(tmp_path, syntax, bits):
    file = radiograph(bits, seed=3)
    plain = read_dicom(write(file, tmp_path / "plain.dcm"), [SIDE], 1)[0]
    if syntax == JPEG2000Lossless:
        pytest.importorskip("openjpeg", reason="pylibjpeg-openjpeg (extra dicom) is not installed")
    file.compress(syntax)
    assert np.array_equal(read_dicom(write(file, tmp_path / "small.dcm"), [SIDE], 1)[0], plain)


def test_baseline_jpeg_as_pillow_writes_it(tmp_path):
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    smooth = np.rint(127.5 + 100 * np.sin(x / 6) * np.cos(y / 7)).astype(np.uint8)
    coded = BytesIO()
    Image.fromarray(smooth).save(coded, "JPEG", quality=95)
    file = radiograph(8)
    file.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    file.PixelData = encapsulate([coded.getvalue()])
    file["PixelData"].is_undefined_length = True
    pixels = read_dicom(write(file, tmp_path / "a.dcm"), [SIDE], 1)[0]
    decoded = np.asarray(Image.open(coded))
    assert np.abs(pixels[0].astype(int) - decoded).max() <= 1  # decoders may round otherwise
    assert np.abs(pixels[0].astype(int) - smooth).mean() < 2


NOISE = np.random.default_rng(7).integers(0, 2**16, (SIDE, SIDE))


def in_words(values: np.ndarray, stored: int, high: int) -> np.ndarray:
    """Values of so many bits, the highest of which is `high`, in words whose other bits are full of noise."""
    shift = high + 1 - stored
    mask = (2**stored - 1) << shift
    return (((values % 2**stored) << shift) | (NOISE & ~mask)).astype(np.uint16)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("stored", "high"), [(12, 11), (12, 15), (10, 12), (15, 14)])
def test_bits_beside_those_stored_are_not_seen(tmp_path, syntax, signed, stored, high):
    """PS3.5 8.1.1: they may hold anything, such as the overlays of old files."""
    values = np.linspace(0, 2**stored - 1, SIDE**2).round().astype(int).reshape(SIDE, SIDE)
    low = -(2 ** (stored - 1)) if signed else 0
    file = radiograph(16, PixelData=in_words(values + low, stored, high).tobytes())
    if syntax != ExplicitVRLittleEndian:
        if syntax == JPEG2000Lossless:
            pytest.importorskip("openjpeg", reason="pylibjpeg-openjpeg (extra dicom) is not installed")
        file.compress(syntax, generate_instance_uid=False)
    file.BitsStored, file.HighBit, file.PixelRepresentation = stored, high, int(signed)
    pixels = read_dicom(write(file, tmp_path / "a.dcm"), [SIDE], 1)[0]
    assert isinstance(pixels, np.ndarray), pixels
    assert np.abs(pixels[0] - values / (2**stored - 1) * 255).max() <= ROUNDING


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("stored", "high"), [(16, 15), (8, 7), (6, 6), (9, 15)])
def test_bits_beside_those_stored_are_not_seen_in_jpeg_ls(tmp_path, signed, stored, high):
    """pydicom's own film, of which the header says that fewer bits are stored than its 16."""
    words = pydicom.dcmread(shipped("MR_small.dcm")).pixel_array.view(np.uint16).astype(int)
    file = pydicom.dcmread(shipped("MR_small_jpeg_ls_lossless.dcm"))
    if not pydicom.pixels.decoders.base.get_decoder(JPEGLSLossless).is_available:
        pytest.skip("no decoder of JPEG-LS (extra dicom) is installed")
    for tag in ("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept"):
        file.pop(tag, None)
    file.BitsStored, file.HighBit, file.PixelRepresentation = stored, high, int(signed)
    values = (words >> (high + 1 - stored)) % 2**stored
    values = (values + 2 ** (stored - 1)) % 2**stored if signed else values  # counted from the lowest one
    pixels = read_dicom(write(file, tmp_path / "a.dcm"), [SIDE], 1)[0]
    assert isinstance(pixels, np.ndarray), pixels
    assert np.abs(pixels[0] - values / (2**stored - 1) * 255).max() <= ROUNDING


@pytest.mark.parametrize("signed", [False, True])
def test_a_header_without_high_bit_means_the_usual_one(tmp_path, signed):
    file = radiograph(12, signed)
    with_high_bit = read_dicom(write(file, tmp_path / "a.dcm"), [SIDE], 1)[0]
    del file.HighBit
    assert np.array_equal(read_dicom(write(file, tmp_path / "b.dcm"), [SIDE], 1)[0], with_high_bit)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"HighBit": 7}, "HighBit 7 for 12 bits stored in 16; expected 11"),
        ({"Rows": SIDE + 1}, "8,192 bytes of pixel data; expected 8,320 for 65 x 64 pixels of 16 bits"),
        ({"Columns": SIDE - 1}, "8,192 bytes of pixel data; expected 8,064 for 64 x 63 pixels of 16 bits"),
        ({"WindowCenter": 9, "WindowWidth": 0}, "WindowWidth is 0; expected at least 1"),
        ({"WindowCenter": 9, "WindowWidth": 9, "VOILUTFunction": "CURVED"}, "VOILUTFunction is 'CURVED'"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(tmp_path, tags, said):
    answer = read_dicom(write(radiograph(12, **tags), tmp_path / "a.dcm"), [SIDE], 1)[0]
    assert isinstance(answer, Unusable) and answer.reason == "broken image" and said in answer.detail


def test_padding_behind_the_pixels_is_no_contradiction(tmp_path):
    file = radiograph(12)
    plain = read_dicom(write(file, tmp_path / "a.dcm"), [SIDE], 1)[0]
    file.PixelData += bytes(256)
    assert np.array_equal(read_dicom(write(file, tmp_path / "b.dcm"), [SIDE], 1)[0], plain)


def test_a_compressed_image_of_another_size_than_the_header_says_is_refused(tmp_path):
    pytest.importorskip("openjpeg", reason="pylibjpeg-openjpeg (extra dicom) is not installed")
    file = radiograph(12)
    file.compress(JPEG2000Lossless)
    file.Rows = SIDE // 2
    answer = read_dicom(write(file, tmp_path / "a.dcm"), [SIDE], 1)[0]
    assert answer.reason == "broken image" and "is 64 x 64, the header says 32 x 64" in answer.detail
    file.Rows = file.Columns = 65_535
    assert read_dicom(write(file, tmp_path / "b.dcm"), [SIDE], 1)[0].reason == "too large"


@pytest.mark.parametrize("bits", [8, 12])
def test_eight_bits_of_the_other_byte_order(tmp_path, bits):
    file = radiograph(bits)
    plain = read_dicom(write(file, tmp_path / "a.dcm"), [SIDE], 1)[0]
    file.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    words = np.frombuffer(file.PixelData, "<u2").byteswap()  # words are swapped, whatever is in them
    file.PixelData = words.tobytes()
    file["PixelData"].VR = "OW"
    path = tmp_path / "b.dcm"
    file.save_as(path, enforce_file_format=True, implicit_vr=False, little_endian=False)
    assert np.array_equal(read_dicom(path, [SIDE], 1)[0], plain)


@pytest.mark.parametrize("implicit", [False, True])
def test_a_file_that_names_no_transfer_syntax_is_read_as_what_it_is(tmp_path, implicit):
    file = radiograph(12)
    plain = read_dicom(write(file, tmp_path / "a.dcm"), [SIDE], 1)[0]
    del file.file_meta.TransferSyntaxUID
    file.preamble = bytes(128)
    file["PixelData"].VR = "OW"
    file.save_as(tmp_path / "b.dcm", implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    assert np.array_equal(read_dicom(tmp_path / "b.dcm", [SIDE], 1)[0], plain)


def test_a_compressed_file_that_names_no_transfer_syntax_is_refused(tmp_path):
    file = radiograph(12)
    file.compress(RLELossless)
    del file.file_meta.TransferSyntaxUID
    file.preamble = bytes(128)
    file.save_as(tmp_path / "a.dcm", implicit_vr=False, little_endian=True, enforce_file_format=False)
    answer = read_dicom(tmp_path / "a.dcm", [SIDE], 1)[0]
    assert answer.reason == "no transfer syntax" and "names no transfer syntax and is compressed" in answer.detail


def test_empty_pixel_data_are_no_pixels(tmp_path):
    assert read_dicom(write(radiograph(12, PixelData=b""), tmp_path / "a.dcm"), [SIDE], 1)[0].reason == "no pixels"


@pytest.mark.parametrize(
    "tags",
    [
        {"PresentationIntentType": "FOR PROCESSING"},
        {"SOPClassUID": DigitalXRayImageStorageForProcessing},  # with no intent stated
    ],
)
def test_a_film_for_processing_is_refused_unless_it_is_asked_for(tmp_path, tags):
    path = write(radiograph(12, **tags), tmp_path / "a.dcm")
    assert read_dicom(path, [SIDE], 1)[0].reason == "for processing"
    assert isinstance(read_dicom(path, [SIDE], 1, for_processing=True)[0], np.ndarray)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_the_shape_of_the_presentation_lut_inverts_nothing_twice(tmp_path, kind):
    file = radiograph(12, PhotometricInterpretation=kind)
    plain = read_dicom(write(file, tmp_path / "a.dcm"), [SIDE], 1)[0]
    file.PresentationLUTShape = "INVERSE"
    assert np.array_equal(read_dicom(write(file, tmp_path / "b.dcm"), [SIDE], 1)[0], plain)


def shipped(name: str) -> Path:
    """A file inside the package; nothing is downloaded."""
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"this pydicom ships no {name}")
    return Path(str(path))


def compare(file: Dataset, path: Path) -> None:
    """The levels before cropping and resizing are those of pydicom's pipeline, up to their scale."""
    shown = apply_voi_lut(apply_modality_lut(file.pixel_array, file), file)
    levels = shown_levels(file)
    assert levels.shape == (file.Rows, file.Columns) and levels.dtype == np.float32
    assert levels.min() >= 0 and levels.max() <= 255 + 1e-3
    slope, offset = np.polyfit(shown.ravel().astype(float), levels.ravel().astype(float), 1)
    assert np.abs(slope * shown + offset - levels).max() < 0.01
    assert slope > 0
    assert isinstance(read_dicom(path, [SIDE], 1)[0], np.ndarray)


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom remarks on flaws of some of its test files
@pytest.mark.parametrize(
    "name",
    [
        *("CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm"),
        *("MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "JPEG2000.dcm", "JPGExtended.dcm"),
        *("JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm"),
    ],
)
def test_files_that_come_with_pydicom(name):
    path = shipped(name)
    file = pydicom.dcmread(path)
    if not pydicom.pixels.decoders.base.get_decoder(file.file_meta.TransferSyntaxUID).is_available:
        pytest.skip(f"no decoder of {file.file_meta.TransferSyntaxUID.name} (extra dicom) is installed")
    compare(file, path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("SC_rgb_rle_2frame.dcm", "multi-frame"),
        ("SC_rgb_small_odd.dcm", "not greyscale"),
        ("examples_palette.dcm", "not greyscale"),
        ("rtplan.dcm", "no pixels"),
        ("MR_truncated.dcm", "broken image"),
        ("README.txt", "broken image"),
    ],
)
def test_files_that_are_no_radiograph_are_refused(name, reason):
    answer = read_dicom(shipped(name), [SIDE], 1)[0]
    assert isinstance(answer, Unusable) and answer.reason == reason and name in answer.detail
    assert "\n" not in answer.detail


def test_several_frames_are_refused(tmp_path):
    file = radiograph(8, NumberOfFrames=2)
    file.PixelData *= 2
    answer = read_dicom(write(file, tmp_path / "a.dcm"), [SIDE], 1)[0]
    assert answer == Unusable(
        "multi-frame", f"'{tmp_path / 'a.dcm'}' has 2 frames; a radiograph has one: split the file"
    )


def test_a_file_that_is_not_there_or_constant(tmp_path):
    assert read_dicom(tmp_path / "none.dcm", [SIDE], 1)[0].reason == "missing file"
    black = radiograph(8, PixelData=bytes(SIDE**2))
    assert read_dicom(write(black, tmp_path / "a.dcm"), [SIDE], 1)[0].reason == "constant image"


def test_a_missing_decoder_is_named(tmp_path, monkeypatch):
    file = radiograph(8)
    file.file_meta.TransferSyntaxUID = JPEGLSLossless
    file.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    path = write(file, tmp_path / "a.dcm")
    decoder = pydicom.pixels.decoders.base.get_decoder(JPEGLSLossless)
    monkeypatch.setattr(decoder, "_available", {})
    answer = read_dicom(path, [SIDE], 1)[0]
    assert answer.reason == "no decoder"
    assert answer.detail.endswith(
        "no package that decodes JPEG-LS Lossless Image Compression is installed; pip install 'causalcxr[dicom]'"
    )
    file.file_meta.TransferSyntaxUID = MPEG2MPML
    assert read_dicom(write(file, tmp_path / "b.dcm"), [SIDE], 1)[0].reason == "no decoder"


PEOPLE = [  # file, PatientID, PatientSex, PatientAge, ViewPosition, what becomes of it
    ("a/1.dcm", "0001", "F", "063Y", "PA", "kept"),
    ("a/2.dcm", "0001", "F", "065Y", "LL", "other view"),
    ("a/3.DCM", "0002", "M", "018M", "AP", "kept"),
    ("b/IM0001", "0003", "F", "040Y", "AP", "kept"),  # no ending, as on a disc from a hospital
    ("b/5.dcm", "0004", "O", "040Y", "AP", "other value"),
    ("b/6.dcm", "0005", "M", "", "AP", "blank value"),
    ("b/7.dcm", "", "M", "050Y", "AP", "blank value"),
    ("b/8.dcm", "0006", "M", "050Y", "AP", "no record"),
    ("b/9.dcm", "0007", "M", "050Y", "AP", "broken image"),
]
REJECTED = {"other view": 1, "other value": 1, "blank value": 2, "no record": 1, "broken image": 1}


@pytest.fixture
def folder(tmp_path, write_csv):
    """Make a folder of DICOM files, and the CSV that says what they showed and where they go, joined by `key`."""

    def make(key: str = "path", table: str = "metadata.csv", name: str = "root") -> DataConfig:
        root = tmp_path / name
        rows = []
        for i, (file, patient, sex, age, view, fate) in enumerate(PEOPLE):
            made = radiograph(12, seed=i, PatientID=patient, PatientSex=sex, PatientAge=age, ViewPosition=view)
            made.StudyDate, made.PatientName = "20240229", "Doe^Jane"
            write(made, root / file)
            row = {"path": file, "SOPInstanceUID": made.SOPInstanceUID, "PatientID": patient}
            row = {key: row[key], "finding": ("No Finding", "Pleural Effusion")[i % 2]}
            row["split"] = {"0002": "val", "0003": "test"}.get(patient, "train")
            if fate != "no record" and row not in rows and row[key] not in [other[key] for other in rows]:
                rows.append(row)
        (root / "b/9.dcm").write_bytes(b"no DICOM file")
        for other in ("DICOMDIR", "README", "notes.txt"):
            (root / other).write_bytes(b"nothing that counts")
        write_csv(root / table, rows)
        return DataConfig(source="dicom", root=str(root), cache=str(tmp_path / "cache"), size=SIDE, table=table)

    return make


def test_every_file_is_kept_or_rejected_for_its_reason(folder, check_every_row):
    config = folder()
    cohort = open_cohort(config, load_graph("chest_without_race"))
    check_every_row(cohort, len(PEOPLE), REJECTED)
    assert cohort.manifest[["path", "split", "sex", "age", "finding"]].values.tolist() == [
        ["a/1.dcm", "train", "female", 63, "No Finding"],
        ["a/3.DCM", "val", "male", 1.5, "No Finding"],
        ["b/IM0001", "test", "female", 40, "Pleural Effusion"],
    ]
    assert np.array_equal(cohort.images[0], read_dicom(Path(config.root, "a/1.dcm"), [SIDE], 1)[0])


def test_no_name_and_no_number_of_a_patient_is_kept(folder):
    cohort = open_cohort(folder(), load_graph("chest_without_race"))
    assert cohort.manifest["patient_id"][0] == hashlib.sha256(b"1").hexdigest()[:16]  # of 0001
    for file in cohort.folder.iterdir():
        assert b"Doe" not in file.read_bytes() and b"20240229" not in file.read_bytes()


def test_tags_are_text_and_only_those_needed(tmp_path):
    file = radiograph(8, PatientName="Doe^Jane", PatientBirthDate="19610101", PatientID="7", PatientAge="063Y")
    tags = read_tags(write(file, tmp_path / "a.dcm"))
    assert tags == {
        **{"PatientID": "7", "PatientSex": "", "PatientAge": "063Y", "ViewPosition": "", "StudyDate": ""},
        **{"SOPInstanceUID": file.SOPInstanceUID, "PhotometricInterpretation": "MONOCHROME2"},
        "PresentationLUTShape": "",
    }


@pytest.mark.parametrize("key", ["SOPInstanceUID", "PatientID"])
def test_the_table_may_name_images_or_people(folder, key):
    config = folder(key, table="labels.csv")
    cohort = open_cohort(config, load_graph("chest_without_race"))
    assert cohort.manifest["path"].tolist() == ["a/1.dcm", "a/3.DCM", "b/IM0001"]
    assert cohort.source["table"] == "labels.csv"


def test_what_the_card_says_of_the_pixels_is_counted(folder):
    config = folder()
    config.views = []
    for name, tags in {
        "a/1.dcm": {"PresentationLUTShape": "INVERSE", "HighBit": 15, "BitsStored": 16},  # 12 bits in 16: dark
        "a/3.DCM": {"PresentationLUTShape": "INVERSE", "PhotometricInterpretation": "MONOCHROME1"},
        "b/5.dcm": {"PresentationLUTShape": "INVERSE"},  # rejected for its sex, so not counted
    }.items():
        file = pydicom.dcmread(Path(config.root, name))
        for tag, value in tags.items():
            setattr(file, tag, value)
        write(file, Path(config.root, name))
    folder_ = prepare(config, load_graph("chest_without_race"))
    described = json.loads((folder_ / "cohort.json").read_text())
    assert described["pixels"] == {"little of the stated range": 1, "MONOCHROME2 with an INVERSE shape": 1}


def test_partial_downloads_are_counted_and_never_used(folder, check_every_row):
    config = folder()
    content = Path(config.root, "a/1.dcm").read_bytes()
    for name in (".azDownload-0000-1.dcm", "1.dcm.part", "._1.dcm", "IM7.crdownload"):
        Path(config.root, "a", name).write_bytes(content[:-1024] + bytes(1024))  # of full size
    Path(config.root, "a/notes.txt.part").write_bytes(b"nothing that counts")
    cohort = open_cohort(config, load_graph("chest_without_race"))
    check_every_row(cohort, len(PEOPLE) + 4, REJECTED | {"partial download": 4})


def test_films_for_processing_are_a_reason_of_their_own(folder, check_every_row):
    config = folder()
    file = pydicom.dcmread(Path(config.root, "a/1.dcm"))
    file.PresentationIntentType, file.SOPInstanceUID = "FOR PROCESSING", generate_uid()
    write(file, Path(config.root, "a/0.dcm"))
    table = Path(config.root, "metadata.csv")
    table.write_text(table.read_text() + "a/0.dcm,No Finding,train\n")
    cohort = open_cohort(config, load_graph("chest_without_race"))
    check_every_row(cohort, len(PEOPLE) + 1, REJECTED | {"for processing": 1})
    config.for_processing = "keep"
    check_every_row(open_cohort(config, load_graph("chest_without_race")), len(PEOPLE) + 1, REJECTED)


def test_all_views_can_be_kept(folder):
    config = folder()
    config.views = []
    assert open_cohort(config, load_graph("chest_without_race")).rejected.get("other view") is None


def test_a_replaced_file_makes_another_cohort(folder):
    config = folder()
    first = prepare(config, load_graph("chest_without_race"))
    assert prepare(config, load_graph("chest_without_race")) == first
    known = {"PatientID": "0001", "PatientSex": "F", "PatientAge": "063Y", "ViewPosition": "PA"}
    write(radiograph(12, seed=50, **known, PatientComments="longer"), Path(config.root, "a/1.dcm"))
    assert prepare(config, load_graph("chest_without_race")) != first


def test_what_cannot_be_read_is_one_clear_line(folder, tmp_path):
    config = folder()
    with pytest.raises(DataError, match=r"has no column 'race'"):
        prepare(config, load_graph("chest"))
    table = Path(config.root, "metadata.csv")
    table.write_text(table.read_text().replace("path,", "file,"))
    with pytest.raises(DataError, match=r"none of the columns path, SOPInstanceUID, PatientID to join it by"):
        prepare(config, load_graph("chest_without_race"))
    table.unlink()
    with pytest.raises(DataError, match=r"DICOM files in .* has no column 'finding'"):
        prepare(config, load_graph("chest_without_race"))
    config.table = "labels.csv"
    with pytest.raises(DataError, match=r"no table .*labels.csv"):
        prepare(config, load_graph("chest_without_race"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no DICOM file .* under '.*empty'"):
        prepare(DataConfig(source="dicom", root=str(tmp_path / "empty")), load_graph("chest_without_race"))
