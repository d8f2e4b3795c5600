"""One patient's image and attributes in; the counterfactual as a picture and as numbers out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from causalcxr.data.images import read_image
from causalcxr.data.source import Unusable
from causalcxr.errors import ConfigError, DataError
from causalcxr.files import write_json
from causalcxr.metrics.interventions import describe, readable
from causalcxr.report.figures import counterfactual_grid, save_png
from causalcxr.runs import load
from causalcxr.scm import StructuralCausalModel
from causalcxr.values import Batch, decode, parse_assignments

__all__ = ["ask"]

_SHOWN = 3  # of several draws, beside their mean


def ask(
    run: str | Path,
    image: str | Path,
    given: Sequence[str],
    do: Sequence[str],
    effect: str = "total",
    seed: int = 0,
    draws: int = 1,
    out: str | Path = "counterfactual.png",
) -> tuple[Path, Path]:
    """Answer "this patient, had `do` been the case" for one image file.

    `given` and `do` are `name=value` strings in natural units, `given` naming every attribute of the graph. Writes
    a PNG (factual, counterfactual, difference) and beside it a JSON; returns both paths.

    What an image leaves open, such as the side of an effusion that isn't there, is drawn. With several `draws` the
    answer is their mean, the expected counterfactual; the picture also has the first of them, and the JSON how far
    they are apart. Raises ConfigError: fewer than one draw.
    """
    if draws < 1:
        raise ConfigError(f"draws: expected a whole number of at least 1, got {draws}")
    scm = load(run)
    factual = _patient(scm, Path(image), parse_assignments(scm.graph, given), draws)
    intervention = parse_assignments(scm.graph, do)
    abduction = scm.abduct(factual, seed)
    result = scm.counterfactual(abduction, do=intervention, effect=effect)
    picture, numbers = Path(out), Path(out).with_suffix(".json")
    save_png(_figure(scm, abduction.factual, result, f"do({describe(scm.graph, intervention)})"), picture)
    question = {"run": str(run), "image": str(image), "do": intervention, "effect": effect, "seed": seed}
    write_json(numbers, {**question, "draws": draws, **_numbers(scm, abduction.factual, result)})
    return picture, numbers


def _figure(scm: StructuralCausalModel, factual: Batch, result: Batch, title: str) -> Figure:
    """The factual image and the counterfactual; of several draws their mean, and then the first of them."""
    assert scm.graph.image is not None
    images = result[scm.graph.image]
    shown = range(min(len(images), _SHOWN) if len(images) > 1 else 0)
    pictures = [factual[scm.graph.image][0], images.mean(dim=0), *(images[i] for i in shown)]
    titles = ["factual", f"{title}, mean of {len(images)}" if shown else title]
    values = [_row(scm, factual, 0), _typical(scm, result), *(_row(scm, result, i) for i in shown)]
    captions = [[readable(scm.graph[name], value) for name, value in one.items()] for one in values]
    return counterfactual_grid(pictures, [*titles, *(f"draw {i + 1}" for i in shown)], captions)


def _numbers(scm: StructuralCausalModel, factual: Batch, result: Batch) -> dict[str, Any]:
    assert scm.graph.image is not None
    images = 255 * result[scm.graph.image]
    change = images.mean(dim=0) - 255 * factual[scm.graph.image][0]
    numbers = {
        "factual": _row(scm, factual, 0),
        "counterfactual": _typical(scm, result),
        "mean_absolute_change_grey_levels": float(change.abs().mean()),
        "largest_change_grey_levels": float(change.abs().max()),
    }
    if len(images) > 1:
        numbers["spread_of_draws_grey_levels"] = float(images.var(dim=0).mean().sqrt())
    return numbers


def _patient(scm: StructuralCausalModel, path: Path, given: dict[str, Any], draws: int) -> dict[str, Any]:
    """A batch of the same patient over and over, a row for every draw."""
    name = scm.graph.image
    if name is None:
        raise DataError(f"graph '{scm.graph.name}' has no image, so a picture can't be asked for")
    channels, size, _ = scm.mechanism(name).event_shape
    pixels = read_image(path, size, channels)
    if isinstance(pixels, Unusable):
        raise DataError(pixels.detail)
    return {**given, name: torch.from_numpy(pixels.copy()).expand(draws, -1, -1, -1)}


def _row(scm: StructuralCausalModel, batch: Batch, row: int) -> dict[str, Any]:
    return {name: decode(scm.graph[name], batch[name][row : row + 1])[0] for name in scm.graph.attributes}


def _typical(scm: StructuralCausalModel, batch: Batch) -> dict[str, Any]:
    """Of all rows: a label's most common value, a number's mean."""
    found = {}
    for name in scm.graph.attributes:
        variable, values = scm.graph[name], batch[name]
        value = values.mode().values if variable.is_discrete else values.mean()
        found[name] = decode(variable, value[None])[0]
    return found
