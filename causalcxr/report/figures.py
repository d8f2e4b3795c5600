"""Figures of images: counterfactuals with difference maps, reconstructions, samples.

Images are tensors or arrays `(C, H, W)` or `(H, W)`, float in [0, 1] or uint8. Every figure is a
matplotlib Figure of its own; pyplot and its global state are not used.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from causalcxr.support.files import write_atomically

__all__ = [
    "Band",
    "as_picture",
    "bands_figure",
    "changes_band",
    "counterfactual_grid",
    "difference_limit",
    "save_picture",
    "save_png",
]

CELL, GAP, LINE, LABEL, BAR = 1.15, 0.07, 0.145, 0.34, 0.75  # inches
TITLE_WIDTH = 19  # letters
DIFFERENCES = "RdBu_r"
CHANGED = "#b3261e"  # colour of what an intervention changed


@dataclass(frozen=True)
class Band:
    """One row of pictures: its label, the pictures (None leaves a gap), and lines of text under each.

    With `limit` the pictures are signed differences in grey levels, drawn on a scale from -limit to limit.
    Lines that differ from those of the first picture are marked, if `mark_changes`.
    """

    label: str
    pictures: Sequence[Any]
    captions: Sequence[Sequence[str]] | None = None
    limit: float | None = None
    mark_changes: bool = False

    @property
    def height(self) -> float:
        """In inches, with its captions."""
        lines = max((len(caption) for caption in self.captions), default=0) if self.captions else 0
        return CELL + GAP + LINE * lines + (0.06 if lines else 0.0)


def counterfactual_grid(
    images: Sequence[Any],
    titles: Sequence[str],
    captions: Sequence[Sequence[str]] | None = None,
    exact: Sequence[Any] | None = None,
    exact_captions: Sequence[Sequence[str]] | None = None,
    limit: float | None = None,
) -> Figure:
    """One subject: the factual image, then its counterfactuals; below, difference maps on one shared scale.

    `titles` stand above the columns, `captions` (lines each) below the pictures. `exact`, the true counterfactuals
    in the same columns, adds two rows. `limit` (grey levels) is the end of the symmetric scale; by default it
    fits the largest differences. Brighter than the factual image is red, darker is blue.
    """
    if limit is None:
        limit = difference_limit([images] if exact is None else [images, exact])
    label = "model" if exact is not None else "images"
    bands = [Band(label, images, captions, mark_changes=True), changes_band(images, limit)]
    if exact is not None:
        bands += [Band("exact", exact, exact_captions, mark_changes=True), changes_band(exact, limit)]
    return bands_figure(bands, titles)


def bands_figure(bands: Sequence[Band], titles: Sequence[str] = ()) -> Figure:
    """Rows of pictures under one another, as wide as the longest; one colour bar for all differences."""
    columns = max(len(band.pictures) for band in bands)
    titles = [_wrap(title) for title in titles]
    head = 0.08 + LINE * max((title.count("\n") + 1 for title in titles), default=0)
    limit = next((band.limit for band in bands if band.limit is not None), None)
    width = LABEL + columns * (CELL + GAP) + (BAR if limit is not None else 0.05)
    height = head + sum(band.height for band in bands) + 0.05
    figure = Figure(figsize=(width, height), facecolor="white")
    top, differences = height - head, []
    for band in bands:
        for column, picture in enumerate(band.pictures):
            left = LABEL + column * (CELL + GAP)
            place = (left / width, (top - CELL) / height, CELL / width, CELL / height)
            axes = figure.add_axes(place)
            _draw(axes, picture, band.limit)
            if band is bands[0] and column < len(titles):
                axes.set_title(titles[column], fontsize=8, pad=4, parse_math=False)
            if band.captions:
                _write_caption(axes, band, column)
        figure.text(
            0.5 * LABEL / width,
            (top - CELL / 2) / height,
            band.label,
            fontsize=8,
            rotation=90,
            ha="center",
            va="center",
            color="#444444",
            parse_math=False,
        )
        if band.limit is not None:
            differences.append(top)
        top -= band.height
    if limit is not None:
        _colour_bar(figure, limit, (width, height), differences[0])
    return figure


def difference_limit(rows: Sequence[Sequence[Any]]) -> float:
    """The end of a symmetric scale, in grey levels, that fits all but the largest 1 % of the changes.

    Each row holds a factual image and its counterfactuals. Images that did not change don't count.
    """
    changes = [np.abs(_levels(image) - _levels(row[0])).ravel() for row in rows for image in row[1:]]
    changes = [change for change in changes if change.max() > 0.5]
    return max(1.0, float(np.ceil(np.quantile(np.concatenate(changes), 0.99)))) if changes else 1.0


def as_picture(image: Any) -> np.ndarray:
    """`(H, W)` or `(H, W, 3)` in [0, 1], as matplotlib draws it."""
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    array = array / 255.0 if array.dtype == np.uint8 else array.astype(np.float64)
    if array.ndim == 3:
        array = array[0] if array.shape[0] != 3 else np.moveaxis(array, 0, -1)
    return array.clip(0, 1)


def save_png(figure: Figure, path: Path, dpi: int = 130) -> None:
    """Write a figure as PNG, whole or not at all. Raises RunError: full disk, or a read-only folder."""
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=dpi))


def save_picture(figure: Figure, path: Path, dpi: int = 130) -> None:
    """Write a figure in the format of the path's ending, PNG or JPEG, whole or not at all."""
    kind = "jpeg" if path.suffix.lower() in (".jpg", ".jpeg") else "png"
    write_atomically(path, lambda file: figure.savefig(file, format=kind, dpi=dpi))


def changes_band(images: Sequence[Any], limit: float) -> Band:
    """The differences of all images from the first, on a scale from -limit to limit grey levels."""
    factual = _levels(images[0])
    return Band("change", [None, *(_levels(image) - factual for image in images[1:])], limit=limit)


def _wrap(title: str) -> str:
    """Lines short enough for a column, broken behind the `=` of an intervention if need be."""
    lines = [title] if len(title) <= TITLE_WIDTH else title.replace(" = ", " =\n").split("\n")
    return "\n".join(textwrap.fill(line, TITLE_WIDTH, break_long_words=False) for line in lines)


def _levels(image: Any) -> np.ndarray:
    """Grey levels 0..255, the mean over channels, `(H, W)`."""
    picture = 255 * as_picture(image)
    return picture.mean(axis=2) if picture.ndim == 3 else picture


def _draw(axes: Axes, picture: Any, limit: float | None) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if picture is None:
        axes.patch.set_visible(False)
    elif limit is None:
        axes.imshow(as_picture(picture), cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    else:
        axes.imshow(picture, cmap=DIFFERENCES, vmin=-limit, vmax=limit, interpolation="nearest", aspect="auto")
        for spine in axes.spines.values():
            spine.set_visible(True)
            spine.set_color("#cccccc")
            spine.set_linewidth(0.5)


def _write_caption(axes: Axes, band: Band, column: int) -> None:
    assert band.captions is not None
    first, lines = band.captions[0], band.captions[column]
    for i, line in enumerate(lines):
        changed = band.mark_changes and (i >= len(first) or first[i] != line)
        axes.text(
            0.5,
            -(0.035 + LINE * i) / CELL,
            line,
            transform=axes.transAxes,
            fontsize=7,
            ha="center",
            va="top",
            color=CHANGED if changed else "#222222",
            fontweight="bold" if changed else "normal",
            parse_math=False,
        )


def _colour_bar(figure: Figure, limit: float, size: tuple[float, float], top: float) -> None:
    width, height = size
    place = ((width - BAR + 0.06) / width, (top - CELL) / height, 0.09 / width, CELL / height)
    colours = ScalarMappable(Normalize(-limit, limit), DIFFERENCES)
    bar = figure.colorbar(colours, cax=figure.add_axes(place), ticks=[-limit, 0, limit], extend="both")
    bar.ax.tick_params(labelsize=6.5, length=2)
    bar.ax.set_yticklabels([f"−{limit:g}", "0", f"+{limit:g}"])
    bar.ax.set_ylabel("grey levels", fontsize=6.5, labelpad=1)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
