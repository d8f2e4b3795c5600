"""An image file to 8-bit pixels of the wanted size: centre crop to a square, resize with antialiasing."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from causalcxr.data.source import Unusable

__all__ = ["constant", "fit", "read_image"]

MODES = {1: "L", 3: "RGB"}
GAP = 4  # a JPEG may be decoded at a fraction of its size, as long as this many pixels make one of the result


def read_image(
    path: Path, size: int, channels: int, bits: int = 16, inverted: bool = False
) -> np.ndarray | Unusable:
    """Any Pillow-readable image as `uint8 (channels, size, size)`, or why it can't be used.

    The largest centred square is kept, so the aspect ratio is. Palette, colour and transparency are converted to
    grey (or grey to colour); 16 bits are scaled by their full range, 0..65535 to 0..255, never by the image's own.
    A file said to keep fewer `bits` in 16 is scaled by the range of these, unless it has higher levels. `inverted`
    is an image whose bones are dark.
    """
    try:
        with Image.open(path) as image:
            if isinstance(image, ImageFile.ImageFile):
                image.draft(None, (GAP * size, GAP * size))  # several times faster for large JPEGs
            pixels = _pixels(image, size, channels, bits)
    except FileNotFoundError:
        return Unusable("missing file", f"no file '{path}'")
    except MemoryError:
        raise
    except Exception as error:  # decoders raise anything on a malformed file; none may end a preparation of hours
        return Unusable("broken image", " ".join(f"'{path}': {error or type(error).__name__}".split()))
    if inverted:
        pixels = 255 - pixels
    return constant(pixels, str(path)) or pixels


def constant(pixels: np.ndarray, path: str) -> Unusable | None:
    """Unusable if all pixels have the same value, as those of an all-black image have."""
    if pixels.min() == pixels.max():
        return Unusable("constant image", f"'{path}': every pixel is {pixels.flat[0]}")
    return None


def fit(image: Image.Image, size: int, channels: int) -> np.ndarray:
    """The largest centred square, resized to `uint8 (channels, size, size)`. Modes L, RGB, and F of 0..255."""
    square = min(image.size)
    left, top = (image.width - square) // 2, (image.height - square) // 2
    image = image.crop((left, top, left + square, top + square))
    resized = np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))
    if resized.dtype != np.uint8:
        resized = np.rint(resized.clip(0, 255)).astype(np.uint8)
    resized = resized[None] if resized.ndim == 2 else resized.transpose(2, 0, 1)
    return np.broadcast_to(resized, (channels, size, size))


def _pixels(image: Image.Image, size: int, channels: int, bits: int) -> np.ndarray:
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        return fit(_more_than_eight_bits(image, bits), size, channels)
    return fit(image.convert(MODES[channels]), size, channels)


def _more_than_eight_bits(image: Image.Image, bits: int) -> Image.Image:
    levels = np.asarray(image).astype(np.float32)
    low, high = levels.min(), levels.max()
    if not (low >= 0 and high <= 2**16 - 1):
        raise ValueError(f"levels {low:g} to {high:g} of mode {image.mode} are not 8 or 16 bits")
    full = 2**bits - 1 if high <= 2**bits - 1 else 2**16 - 1
    return Image.fromarray(levels * (255 / full))
