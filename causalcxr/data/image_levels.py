"""An image file to a Pillow image of levels 0 to 255: whatever its depth, channels, transparency and polarity.

Transparency is laid over black, as a viewer does; an orientation tag is followed; 16 bits are scaled by their full
range, or by that of the bits that are said to be kept.
"""

from collections.abc import Sequence
from os import SEEK_END
from typing import BinaryIO

import numpy as np
from PIL import Image

from causalcxr.data import png_file, tiff_file
from causalcxr.data.source import UnusableError

__all__ = ["MODES", "OpenedImage"]

MODES = {1: "L", 3: "RGB"}
FULL = 2**16 - 1
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # shares of red, green and blue (ITU-R 601), as Pillow's
ORIENTATION = 0x0112  # of EXIF and TIFF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
END_OF_JPEG, SCAN_OF_JPEG = b"\xff\xd9", b"\xff\xda"


class OpenedImage:
    """An image whose header has been read, from a file that stays open.

    Raises whatever Pillow raises of a file that is no image.
    """

    def __init__(self, file: BinaryIO):
        start = file.read(33)
        file.seek(0)
        self.png = png_file.read_header(start)
        self.tiff = tiff_file.read_header(file) if start[:2] in (b"II", b"MM") else None
        self.tiff_pages = tiff_file.pictures(file) if self.tiff else []
        self.is_negative = self.tiff is not None and self.tiff.is_negative_in_pillow
        self.file = tiff_file.black_is_zero(file, self.tiff) if self.tiff and self.is_negative else file
        self.image = Image.open(self.file)

    def levels(self, channels: int, bits: int) -> Image.Image:
        """Mode L or RGB, or F for more than 8 bits; `bits` are those that a 16-bit file is said to keep.

        Raises UnusableError: several pictures, or a layout that would give wrong levels. Raises anything of a
        damaged file.
        """
        _require_one_picture(self.image, self.tiff_pages)
        if self.png and self.png.is_cut_by_pillow:
            levels = self._several_channels(png_file.read_words(self.file, self.png), channels, bits)
        elif self.image.mode in ("F", "I") or self.image.mode.startswith("I;16"):
            levels = self._one_channel(bits)
        elif bits < 16 and self.tiff and self.tiff.bits == 16:
            raise UnusableError("not decodable", f"several channels of 16 bits that keep {bits}; save it as grey")
        else:
            levels = _eight_bits(self.image, channels)
        _require_end(self.image, self.file)
        turn = TURNS.get(_orientation(self.image))
        return levels if turn is None else levels.transpose(turn)

    def _one_channel(self, bits: int) -> Image.Image:
        levels = np.asarray(self.image).astype(np.float32)
        low, high = levels.min(), levels.max()
        if not (low >= 0 and high <= FULL):
            raise ValueError(f"levels {low:g} to {high:g} of mode {self.image.mode} are not 8 or 16 bits")
        full = self._full(levels, bits)
        if isinstance(transparent := self.image.info.get("transparency"), int):
            levels[levels == transparent] = 0
        if self.is_negative:
            if not (self.tiff and self.tiff.whole_numbers and self.tiff.bits <= 16):
                raise UnusableError("unknown polarity", "0 is white, and no level is said to be black; invert it")
            levels = full - levels
        return Image.fromarray(levels * np.float32(255 / full))

    def _several_channels(self, words: np.ndarray, channels: int, bits: int) -> Image.Image:
        """Grey with alpha, colour, or colour with alpha, `(H, W, C)`."""
        has_alpha = words.shape[-1] in (2, 4)
        levels = words[..., :-1].astype(np.float32) if has_alpha else words.astype(np.float32)
        levels *= np.float32(255 / self._full(levels, bits))
        if has_alpha:
            levels *= words[..., -1:] / np.float32(FULL)
        if channels == 1 or levels.shape[-1] == 1:
            return Image.fromarray(levels @ GREY if levels.shape[-1] == 3 else levels[..., 0])
        return Image.fromarray(np.rint(levels).astype(np.uint8))

    def _full(self, levels: np.ndarray, bits: int) -> int:
        """The level of white: that of the bits said to be kept, by the caller or by the file, if none is higher.

        A PNG that states its bits as the specification has it keeps them in the upper ones of a word.
        """
        if self.tiff:
            bits = min(bits, self.tiff.bits)
        elif bits == 16 and self.png:
            bits = png_file.significant_bits(self.file)
            if bits < 16 and not (levels % 2 ** (16 - bits)).any():
                return FULL
        full = 2**bits - 1
        return full if levels.max() <= full else FULL


def _require_one_picture(image: Image.Image, tiff_pages: Sequence[bool]) -> None:
    """Raise UnusableError if the file has several. The previews beside a camera's JPEG are none."""
    n = sum(tiff_pages) if tiff_pages else getattr(image, "n_frames", 1)
    if n > 1 and image.format != "MPO":
        raise UnusableError("multi-frame", f"{n} pages; a radiograph has one: split the file")
    if len(tiff_pages) > 1 and not tiff_pages[0]:
        raise UnusableError("multi-frame", "the first page is a smaller copy or a mask; save the film by itself")


def _eight_bits(image: Image.Image, channels: int) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert(MODES[channels])
    whole = image.convert("RGBA")  # first of all, for a palette has its transparency by colour
    levels, alpha = whole.convert(MODES[channels]), whole.getchannel("A")
    return Image.composite(levels, Image.new(levels.mode, levels.size), alpha)


def _orientation(image: Image.Image) -> int:
    """Of an image that is loaded; Pillow turns TIFFs by itself. A tag that can't be read says nothing."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # malformed tags raise anything
        return 1


def _require_end(image: Image.Image, file: BinaryIO) -> None:
    """Raise ValueError if a JPEG has no end: its decoder makes up what is missing where zeros follow."""
    if image.format not in ("JPEG", "MPO"):
        return
    file.seek(-len(END_OF_JPEG), SEEK_END)
    if file.read() == END_OF_JPEG:
        return
    file.seek(0)
    content = file.read()
    if content.rfind(END_OF_JPEG) < content.rfind(SCAN_OF_JPEG):
        raise ValueError("the file ends before the image does")
