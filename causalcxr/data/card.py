"""The card of a cohort: one HTML file that says what is in it, and what to mind before training on it.

The same cohort gives the same bytes, so nothing here tells the time or where the cohort lies.
"""

import re
from collections import Counter
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from causalcxr.data import histograms
from causalcxr.data.concerns import balance, find_concerns, find_gaps
from causalcxr.data.summary import BySplit, label_counts, quantiles, spread
from causalcxr.graph import Graph
from causalcxr.support.html import page_template, png_source
from causalcxr.values import caption

__all__ = ["render_card"]

SHOWN = {"train": 16, "val": 8, "test": 8}  # images on the contact sheet
EXAMPLES = 3  # details of a reason of rejection, the most common ones


def render_card(
    described: Mapping[str, Any], graph: Graph, manifest: pd.DataFrame, rejected: pd.DataFrame, images: Any
) -> str:
    """The card as HTML. `described` is what cohort.json says, `images` are uint8 `(N, C, H, W)`, None without."""
    about = {key: value for key, value in described["source"].items() if key not in ("root", "noted")}
    noted = described.get("contradictions", {}) | described["source"].get("noted", {})
    parts = BySplit(manifest)
    alike = balance(graph, parts)
    discrete = [name for name in graph.attributes if graph[name].is_discrete]
    continuous = [name for name in graph.attributes if name not in discrete]
    return page_template("causalcxr.data", "card.html.j2").render(
        described=described,
        about=about,
        graph=graph,
        race="race" in graph.variables,
        concerns=[*find_concerns(graph, parts, described["rejected"]), *find_gaps(graph, parts)],
        contradictions=noted,
        pixels=described.get("pixels", {}),
        balanced=[name for name, same in alike.items() if same],
        unbalanced=[name for name, same in alike.items() if not same],
        sizes=parts.sizes,
        counts={name: label_counts(graph[name], parts) for name in discrete},
        quantiles={name: quantiles(graph[name], parts) for name in continuous},
        reasons=_reasons(described, rejected),
        panels=histograms.panels(graph, parts),
        plot=histograms,
        sheet={} if images is None else _contact_sheet(graph, manifest, images),
    )


def _contact_sheet(
    graph: Graph, manifest: pd.DataFrame, images: np.ndarray
) -> dict[str, list[tuple[str, list[str]]]]:
    """Images of each split with the lines below them, of as many combinations of labels as there is room for."""
    sheet = {}
    for split, count in SHOWN.items():
        rows = np.flatnonzero(manifest["split"].to_numpy() == split)
        chosen = rows[spread(graph, manifest.iloc[rows], count)]
        values = {name: manifest[name].iloc[chosen].tolist() for name in graph.attributes}
        sheet[split] = [(_picture(images[row]), caption(graph, values, i)) for i, row in enumerate(chosen)]
    return sheet


def _picture(image: np.ndarray) -> str:
    """`(C, H, W)` as a data URI: colour if there are three channels, else the first one in grey."""
    content = BytesIO()
    Image.fromarray(np.moveaxis(image, 0, -1) if len(image) == 3 else image[0]).save(content, format="PNG")
    return png_source(content.getvalue())


def _reasons(described: Mapping[str, Any], rejected: pd.DataFrame) -> list[dict[str, Any]]:
    """Each reason with its rows and its most common details, these without the names of files."""
    root = re.escape(str(described["source"].get("root", "")))
    file, found = re.compile(rf"'({root}/|/|[A-Za-z]:\\\\)[^']*'"), []
    for reason, rows in described["rejected"].items():
        details = rejected.loc[rejected["reason"] == reason, "detail"]
        common = Counter(file.sub("the file", detail) for detail in details).most_common(EXAMPLES)
        found.append({"reason": reason, "rows": rows, "details": common})
    return found
