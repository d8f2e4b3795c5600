"""Image files to pixels: what is converted, cropped and scaled, and how."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from causalcxr.data.images import read_image
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
