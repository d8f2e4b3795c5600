"""An image file to 8-bit pixels of the wanted size: centre crop to a square, resize with antialiasing."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from causalcxr.data.downloads import partial_download
from causalcxr.data.image_levels import MODES, OpenedImage
from causalcxr.data.source import Unusable, UnusableError

__all__ = ["MODES", "broken", "centre_square", "constant", "read_image", "read_sizes", "resize", "too_large"]

MOST_PIXELS = 89_478_485  # above this Pillow warns of a decompression bomb; a film has up to 25 million
TOO_LARGE = "too large"

GAP = 4  # a JPEG may be decoded at a fraction of its size, as long as this many pixels make one of the result


def read_image(
    path: Path, size: int, channels: int, bits: int = 16, inverted: bool = False
) -> np.ndarray | Unusable:
    """Any Pillow-readable image as `uint8 (channels, size, size)`, or why it can't be used.

    The largest centred square is kept, so the aspect ratio is. Palette and colour are converted to grey (or grey
    to colour), transparency is laid over black, an orientation tag is followed; 16 bits are scaled by their full
    range, 0..65535 to 0..255, never by the image's own. A file said to keep fewer `bits` in 16 is scaled by the
    range of these, unless it has higher levels. `inverted` is an image whose bones are dark.
    """
    return read_sizes(path, (size,), channels, bits, inverted)[0]


def read_sizes(
    path: Path, sizes: Sequence[int], channels: int, bits: int = 16, inverted: bool = False
) -> list[np.ndarray | Unusable]:
    """What `read_image` gives for each of the sizes; decoded once (a JPEG once at each fraction)."""
    if problem := partial_download(path):
        return [problem] * len(sizes)
    decoded: dict[tuple[int, int], Image.Image] = {}
    return [_read(path, size, channels, bits, inverted, decoded) for size in sizes]


def _read(
    path: Path, size: int, channels: int, bits: int, inverted: bool, decoded: dict[tuple[int, int], Image.Image]
) -> np.ndarray | Unusable:
    """`decoded` keeps the centre squares of the file by the resolution that the decoder was asked for."""
    try:
        with path.open("rb") as file:
            opened = OpenedImage(file)  # reads the header only
            if problem := too_large(path, *opened.image.size):
                return problem
            if isinstance(opened.image, ImageFile.ImageFile):
                opened.image.draft(None, (GAP * size, GAP * size))  # several times faster for large JPEGs
            resolution = opened.image.size
            if resolution not in decoded:
                decoded[resolution] = centre_square(opened.levels(channels, bits))
        pixels = resize(decoded[resolution], size, channels)
    except FileNotFoundError:
        return Unusable("missing file", f"no file '{path}'")
    except MemoryError:
        raise
    except Exception as error:  # decoders raise anything on a malformed file; none may end a preparation of hours
        return broken(path, error)
    if inverted:
        pixels = 255 - pixels
    return constant(pixels, str(path)) or pixels


def broken(path: Path, error: Exception) -> Unusable:
    """Unusable for what a decoder said of the file, in one line."""
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        reason = TOO_LARGE
    else:
        reason = error.reason if isinstance(error, UnusableError) else "broken image"
    said = str(error) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        said = "no image of a known format"
    return Unusable(reason, " ".join(f"'{path}': {said}".split()))


def too_large(path: Path, width: int, height: int) -> Unusable | None:
    """Unusable if its header declares more pixels than any film has, before memory is taken for them."""
    if width * height > MOST_PIXELS:
        return Unusable(TOO_LARGE, f"'{path}' is {width:,} x {height:,} pixels; expected at most {MOST_PIXELS:,}")
    return None


def constant(pixels: np.ndarray, path: str) -> Unusable | None:
    """Unusable if all pixels have the same value, as those of an all-black image have."""
    if pixels.min() == pixels.max():
        return Unusable("constant image", f"'{path}': every pixel is {pixels.flat[0]}")
    return None


def centre_square(image: Image.Image) -> Image.Image:
    """The largest centred square."""
    square = min(image.size)
    left, top = (image.width - square) // 2, (image.height - square) // 2
    return image.crop((left, top, left + square, top + square))


def resize(image: Image.Image, size: int, channels: int) -> np.ndarray:
    """A square image of mode L, RGB, or F with levels 0..255, as `uint8 (channels, size, size)`."""
    resized = np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))
    if resized.dtype != np.uint8:
        resized = np.rint(resized.clip(0, 255)).astype(np.uint8)
    resized = resized[None] if resized.ndim == 2 else resized.transpose(2, 0, 1)
    return np.broadcast_to(resized, (channels, size, size))
