"""Image files to pixels: what is converted, cropped and scaled, and how."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from causalcxr.data.images import MOST_PIXELS, read_image, read_sizes
from causalcxr.data.source import Unusable


def read(path: Path, size: int = 8, channels: int = 1) -> np.ndarray:
    pixels = read_image(path, size, channels)
    assert isinstance(pixels, np.ndarray), pixels
    assert pixels.shape == (channels, size, size) and pixels.dtype == np.uint8
    return pixels


def ramp(side: int, top: float) -> np.ndarray:
    """0 to `top` from left to right."""
    return np.broadcast_to(np.linspace(0, top, side), (side, side))


def test_an_image_of_the_right_size_is_kept_bit_for_bit(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png")[0], levels)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_are_scaled_by_their_full_range(tmp_path, name):
    levels = np.rint(ramp(8, 40000)).astype(np.uint16)  # brightest far below 65535: not stretched
    Image.fromarray(levels).save(tmp_path / name)
    assert np.array_equal(read(tmp_path / name)[0], np.rint(levels / 65535 * 255).astype(np.uint8))


def test_sixteen_bits_of_the_other_byte_order(tmp_path):
    levels = np.rint(ramp(8, 65535)).astype(">u2")
    Image.frombytes("I;16B", (8, 8), levels.tobytes()).save(tmp_path / "a.tif")
    assert np.array_equal(read(tmp_path / "a.tif")[0], np.rint(levels / 65535 * 255).astype(np.uint8))


@pytest.mark.parametrize("levels", [ramp(8, 1e6).astype(np.int32), -ramp(8, 9).astype(np.float32)])
def test_levels_beyond_sixteen_bits_are_refused(tmp_path, levels):
    Image.fromarray(levels).save(tmp_path / "a.tif")
    unusable = read_image(tmp_path / "a.tif", 8, 1)
    assert isinstance(unusable, Unusable) and unusable.reason == "broken image"
    assert "are not 8 or 16 bits" in unusable.detail


def test_the_centre_is_kept_and_the_aspect_ratio_with_it(tmp_path):
    levels = np.zeros((8, 20), np.uint8)  # what is left and right of the middle 8 columns is white
    levels[:, :6] = levels[:, 14:] = 255
    levels[:, 6:14] = ramp(8, 200)
    Image.fromarray(levels).save(tmp_path / "wide.png")
    Image.fromarray(levels.T.copy()).save(tmp_path / "tall.png")
    assert np.array_equal(read(tmp_path / "wide.png")[0], levels[:, 6:14])
    assert np.array_equal(read(tmp_path / "tall.png")[0], levels[:, 6:14].T)


def test_shrinking_averages(tmp_path):
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    checks[:8] = 0  # not constant
    Image.fromarray(checks).save(tmp_path / "a.png")
    below = read(tmp_path / "a.png")[0, 4:]  # picking pixels would give 0 or 255
    assert np.all(np.abs(below.astype(int) - 127.5) <= 2)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "CMYK", "1"])
def test_every_mode_becomes_grey_or_colour(tmp_path, mode):
    picture = Image.fromarray(np.stack([ramp(8, 255), ramp(8, 255).T, ramp(8, 90)], -1).astype(np.uint8))
    name = "a.tif" if mode == "CMYK" else "a.png"
    picture.convert(mode).save(tmp_path / name)
    with Image.open(tmp_path / name) as opened:
        grey, colour = np.asarray(opened.convert("L")), np.asarray(opened.convert("RGB"))
    assert np.array_equal(read(tmp_path / name)[0], grey)
    assert np.array_equal(read(tmp_path / name, channels=3), colour.transpose(2, 0, 1))


def test_sixteen_bits_to_three_channels(tmp_path):
    Image.fromarray(np.rint(ramp(8, 65535)).astype(np.uint16)).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png", channels=3), np.repeat(read(tmp_path / "a.png"), 3, axis=0))


def test_a_large_jpeg_decoded_at_a_fraction_looks_the_same(tmp_path):
    y, x = np.mgrid[0:1024, 0:1024] / 1024
    levels = np.rint(127 + 60 * np.sin(9 * x) + 60 * np.cos(7 * y * x)).astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(levels).save(tmp_path / "a.png")
    difference = read(tmp_path / "a.jpg", 32).astype(int) - read(tmp_path / "a.png", 32)
    assert np.abs(difference).max() <= 2  # quality 95 costs about one level, rounding another


def test_a_folder_is_not_an_image(tmp_path):
    unusable = read_image(tmp_path, 8, 1)
    assert isinstance(unusable, Unusable) and unusable.reason == "broken image"


UPRIGHT = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4  # all levels differ, so every turn is another picture
STORED = {  # EXIF 2.32, 4.6.4 A: where the picture's top row and left column lie in the file, by orientation
    **{1: UPRIGHT, 2: UPRIGHT[:, ::-1], 3: UPRIGHT[::-1, ::-1], 4: UPRIGHT[::-1]},
    **{5: UPRIGHT.T, 6: UPRIGHT.T[::-1], 7: UPRIGHT.T[::-1, ::-1], 8: UPRIGHT.T[:, ::-1]},
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("ending", "deep"), [("png", False), ("png", True), ("tif", False), ("tif", True), ("jpg", False)]
)
def test_an_orientation_tag_is_followed_in_every_format(tmp_path, orientation, ending, deep):
    tag, stored = Image.Exif(), STORED[orientation].copy()
    tag[0x112] = orientation
    image = Image.fromarray(stored.astype(np.uint16) * 257 if deep else stored)
    image.save(tmp_path / f"a.{ending}", exif=tag, **({"quality": 100} if ending == "jpg" else {}))
    difference = read(tmp_path / f"a.{ending}")[0].astype(int) - UPRIGHT
    assert np.abs(difference).max() <= (3 if ending == "jpg" else 0)  # three: the coder's rounding at quality 100


def test_a_large_jpeg_decoded_at_a_fraction_is_turned_too(tmp_path):
    dark_above = np.kron(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4, np.ones((100, 100), np.uint8))
    tag = Image.Exif()
    tag[0x112] = 6  # stored on its left side
    Image.fromarray(np.rot90(dark_above).copy()).save(tmp_path / "a.jpg", exif=tag, quality=95)
    upright = read(tmp_path / "a.jpg")[0].astype(int)
    assert np.abs(upright - UPRIGHT).max() <= 6  # Lanczos rings at the edges of the squares


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_an_orientation_tag_that_cannot_be_read_says_nothing(tmp_path):
    Image.fromarray(UPRIGHT).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xffrubbish", quality=100)
    assert np.abs(read(tmp_path / "a.jpg")[0].astype(int) - UPRIGHT).max() <= 3


def tiff(levels: np.ndarray, order: str, polarity: int, kind: int = 1, packed: bool = False) -> bytes:
    """One strip of grey; `kind` is 1 for whole numbers and 3 for floating-point ones."""
    data = levels.astype(levels.dtype.newbyteorder(order)).tobytes()
    data = zlib.compress(data) if packed else data
    height, width = levels.shape
    tags = [(256, 3, width), (257, 3, height), (258, 3, 8 * levels.itemsize), (259, 3, 8 if packed else 1)]
    tags += [(262, 3, polarity), (273, 4, 8), (277, 3, 1), (278, 3, height), (279, 4, len(data)), (339, 3, kind)]
    entries = b"".join(
        struct.pack(
            order + ("HHIHH" if form == 3 else "HHII"), tag, form, 1, *([value, 0] if form == 3 else [value])
        )
        for tag, form, value in tags
    )
    start = struct.pack(order + "HI", 42, 8 + len(data))
    return (
        (b"II" if order == "<" else b"MM")
        + start
        + data
        + struct.pack(order + "H", len(tags))
        + entries
        + bytes(4)
    )


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("polarity", [0, 1])
def test_bones_are_white_whatever_a_tiff_says_is_white(tmp_path, bits, order, polarity, packed):
    shown = UPRIGHT.astype(f"u{bits // 8}") * (257 if bits == 16 else 1)
    stored = shown if polarity else 2**bits - 1 - shown
    (tmp_path / "a.tif").write_bytes(tiff(stored.astype(shown.dtype), order, polarity, packed=packed))
    assert np.array_equal(read(tmp_path / "a.tif")[0], UPRIGHT)


@pytest.mark.parametrize(("form", "kind"), [("f4", 3), ("u4", 1)])
def test_white_is_zero_without_a_known_black_is_refused(tmp_path, form, kind):
    (tmp_path / "a.tif").write_bytes(tiff(UPRIGHT.astype(form), "<", 0, kind))
    unusable = read_image(tmp_path / "a.tif", 8, 1)
    assert isinstance(unusable, Unusable) and unusable.reason == "unknown polarity"


def png(
    words: np.ndarray, kind: int, *more: tuple[bytes, bytes], depth: int = 16, interlaced: bool = False
) -> bytes:
    """`(H, W, C)` without filters; `more` are chunks before the pixels."""
    height, width = words.shape[:2]
    rows = b"".join(b"\0" + row.astype(f">u{depth // 8}").tobytes() for row in words)
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, int(interlaced))
    chunks = [(b"IHDR", header), *more, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = (struct.pack(">I", len(c)) + name + c + struct.pack(">I", zlib.crc32(name + c)) for name, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


TWELVE = np.linspace(0, 4095, 64).round().astype(int).reshape(8, 8)
OPAQUE = np.full((8, 8), 65535)
LAYOUTS = {"grey": ([TWELVE], 0), "grey and alpha": ([TWELVE, OPAQUE], 4), "colour": ([TWELVE] * 3, 2),
           "colour and alpha": ([TWELVE] * 3 + [OPAQUE], 6)}  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("bits", "stated", "shift", "full"),
    [
        (12, 16, 0, 4095),  # the caller knows
        (16, 12, 0, 4095),  # the file says so, and keeps them in the lower bits as many programs do
        (16, 12, 4, 65535),  # as PNG's specification has it: in the upper bits
        (16, 16, 0, 65535),  # nobody says anything: a dark film
    ],
)
def test_twelve_bits_of_sixteen_are_kept_in_every_layout(tmp_path, layout, channels, bits, stated, shift, full):
    planes, kind = LAYOUTS[layout]
    words = np.stack([plane if plane is OPAQUE else plane << shift for plane in planes], axis=-1)
    said = [(b"sBIT", bytes([stated]) * len(planes))] if stated != 16 else []
    (tmp_path / "a.png").write_bytes(png(words, kind, *said))
    pixels = read_image(tmp_path / "a.png", 8, channels, bits)
    assert isinstance(pixels, np.ndarray), pixels
    assert np.abs(pixels - (TWELVE << shift) / full * 255).max() <= 0.5 + 1e-3  # rounded once


@pytest.mark.parametrize("depth", [8, 16])
def test_transparency_is_laid_over_black(tmp_path, depth):
    top = 2**depth - 1
    grey, alpha = np.full((8, 8), top * 4 // 5), np.linspace(0, top, 64).round().astype(int).reshape(8, 8)
    for name, planes, kind in (("grey", [grey, alpha], 4), ("colour", [grey, grey, grey, alpha], 6)):
        (tmp_path / f"{name}.png").write_bytes(png(np.stack(planes, axis=-1), kind, depth=depth))
        over_black = grey / top * 255 * alpha / top
        assert np.abs(read(tmp_path / f"{name}.png")[0] - over_black).max() <= 1  # rounded twice at 8 bits
    palette = Image.fromarray(UPRIGHT // 4).convert("P")
    palette.putpalette([level for index in range(256) for level in [min(4 * index, 255)] * 3])
    palette.save(tmp_path / "p.png", transparency=63)
    assert np.array_equal(read(tmp_path / "p.png")[0], np.where(UPRIGHT == 252, 0, UPRIGHT))


@pytest.mark.parametrize(("kind", "colour"), [(0, 1), (2, 3)])
def test_a_transparent_colour_of_sixteen_bits_is_black(tmp_path, kind, colour):
    words = np.repeat(257 * UPRIGHT.astype(int)[..., None], colour, axis=-1)
    (tmp_path / "a.png").write_bytes(png(words, kind, (b"tRNS", struct.pack(">H", 257 * 252) * colour)))
    assert np.array_equal(read(tmp_path / "a.png")[0], np.where(UPRIGHT == 252, 0, UPRIGHT))


def test_interlaced_channels_of_sixteen_bits_are_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(png(np.stack([TWELVE, OPAQUE], axis=-1), 4, interlaced=True))
    unusable = read_image(tmp_path / "a.png", 8, 1)
    assert isinstance(unusable, Unusable) and unusable.reason == "not decodable"
    assert "interlaced grey and alpha of 16 bits; save it without interlacing" in unusable.detail


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp", "deep.png", "deep.tif"])
@pytest.mark.parametrize("zeros", [False, True])
def test_a_truncated_image_is_refused(tmp_path, name, zeros):
    levels = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(levels.astype(np.uint16) * 257 if "deep" in name else levels).save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    half = len(content) // 2
    if zeros and Path(name).suffix in (".tif", ".bmp"):
        return  # zeros are pixels there: only the name of a partial download tells
    (tmp_path / name).write_bytes(content[:half] + (bytes(len(content) - half) if zeros else b""))
    unusable = read_image(tmp_path / name, 16, 1)
    assert isinstance(unusable, Unusable) and unusable.reason == "broken image"


def test_a_jpeg_with_something_behind_its_end_is_whole(tmp_path):
    content = BytesIO()
    Image.fromarray(UPRIGHT).save(content, "JPEG", quality=100)
    (tmp_path / "a.jpg").write_bytes(content.getvalue() + bytes(100))
    assert np.abs(read(tmp_path / "a.jpg")[0].astype(int) - UPRIGHT).max() <= 3


@pytest.mark.parametrize("name", ["a.tif", "a.gif", "a.png", "a.webp"])
def test_a_file_of_several_pictures_is_refused(tmp_path, name):
    pages = [Image.fromarray(UPRIGHT), Image.fromarray(255 - UPRIGHT), Image.fromarray(UPRIGHT.T.copy())]
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    unusable = read_image(tmp_path / name, 8, 1)
    assert isinstance(unusable, Unusable) and unusable.reason == "multi-frame"
    assert "3 pages; a radiograph has one: split the file" in unusable.detail


@pytest.mark.parametrize("kind", [1, 4, 5])  # a smaller copy, a mask, the mask of a smaller copy
def test_smaller_copies_and_masks_beside_a_tiff_are_no_pictures(tmp_path, kind):
    page = Image.fromarray(UPRIGHT)
    with TiffImagePlugin.AppendingTiffWriter(str(tmp_path / "a.tif"), True) as file:
        page.save(file, "TIFF")
        file.newFrame()
        page.resize((8, 8)).save(file, "TIFF", tiffinfo={254: kind})
    with Image.open(tmp_path / "a.tif") as opened:
        assert opened.n_frames == 2
    assert np.array_equal(read(tmp_path / "a.tif", len(UPRIGHT))[0], UPRIGHT)


def entry(tag: int, kind: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, kind, 1, value)


def with_page(film: bytes, *entries: bytes, following: int = 0) -> bytes:
    """A small-endian TIFF of one page, and a directory of these entries as its second."""
    first = struct.unpack_from("<I", film, 4)[0]
    at = first + 2 + 12 * struct.unpack_from("<H", film, first)[0]
    page = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", following)
    return film[:at] + struct.pack("<I", len(film)) + film[at + 4 :] + page


@pytest.mark.parametrize(
    "page", [[entry(254, 4, 1), entry(259, 3, 34712)], [entry(255, 3, 2)], [entry(254, 4, 5)]]
)
def test_a_smaller_copy_that_cannot_be_decoded_spoils_no_film(tmp_path, page):
    """Of an unknown compression, without a size, or said in the way of old files."""
    (tmp_path / "a.tif").write_bytes(with_page(tiff(UPRIGHT, "<", 1), *page))
    assert np.array_equal(read(tmp_path / "a.tif", len(UPRIGHT))[0], UPRIGHT)
    (tmp_path / "a.tif").write_bytes(with_page(tiff(UPRIGHT, "<", 1), *page, following=2**31))
    assert np.array_equal(read(tmp_path / "a.tif", len(UPRIGHT))[0], UPRIGHT)


@pytest.mark.parametrize("kind", [1, 4])
def test_a_mask_or_a_smaller_copy_ahead_of_the_film_is_not_taken_for_it(tmp_path, kind):
    page = Image.fromarray(UPRIGHT)
    with TiffImagePlugin.AppendingTiffWriter(str(tmp_path / "a.tif"), True) as file:
        page.resize((8, 8)).save(file, "TIFF", tiffinfo={254: kind})
        file.newFrame()
        page.save(file, "TIFF")
    unusable = read_image(tmp_path / "a.tif", 8, 1)
    assert isinstance(unusable, Unusable) and unusable.reason == "multi-frame"
    assert "the first page is a smaller copy or a mask" in unusable.detail


def test_the_previews_of_a_camera_are_no_pictures(tmp_path):
    page = Image.fromarray(UPRIGHT)
    page.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[page.resize((8, 8))], quality=100)
    assert np.abs(read(tmp_path / "a.jpg", len(UPRIGHT))[0].astype(int) - UPRIGHT).max() <= 3


@pytest.mark.parametrize("side", [9_460, 13_500, 2**31 - 1])  # below and above what Pillow calls an error
@pytest.mark.filterwarnings("default::PIL.Image.DecompressionBombWarning")
def test_a_header_cannot_ask_for_all_memory(tmp_path, side):
    assert side**2 > MOST_PIXELS
    content = png(UPRIGHT[..., None], 0, depth=8)
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    content = content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]
    (tmp_path / "a.png").write_bytes(content)
    unusable = read_image(tmp_path / "a.png", 8, 1)
    assert isinstance(unusable, Unusable) and unusable.reason == "too large"


@pytest.mark.parametrize(
    "name",
    [
        ".azDownload-0a1b-a.png",
        "a.png.part",
        "a.png.partial",
        "a.crdownload",
        "A.PNG.DOWNLOAD",
        ".~a.png",
        "._a.png",
    ],
)
def test_a_partial_download_is_never_used(tmp_path, name):
    Image.fromarray(UPRIGHT).save(tmp_path / name, format="PNG")  # whole, as it happens
    for unusable in read_sizes(tmp_path / name, [8, 16], 1):
        assert isinstance(unusable, Unusable) and unusable.reason == "partial download" and name in unusable.detail
