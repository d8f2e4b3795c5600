"""One patient's image and attributes in; the counterfactual as a picture and as numbers out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from causalcxr.data.images import read_image
from causalcxr.data.source import Unusable
from causalcxr.errors import DataError
from causalcxr.files import write_json
from causalcxr.metrics.interventions import describe, readable
from causalcxr.report.figures import counterfactual_grid, save_png
from causalcxr.runs import load
from causalcxr.scm import StructuralCausalModel
from causalcxr.values import decode, parse_assignments

__all__ = ["ask"]


def ask(
    run: str | Path,
    image: str | Path,
    given: Sequence[str],
    do: Sequence[str],
    effect: str = "total",
    seed: int = 0,
    out: str | Path = "counterfactual.png",
) -> tuple[Path, Path]:
    """Answer "this patient, had `do` been the case" for one image file.

    `given` and `do` are `name=value` strings in natural units, `given` naming every attribute of the graph. Writes
    a PNG (factual, counterfactual, difference) and beside it a JSON; returns both paths.
    """
    scm = load(run)
    factual = _patient(scm, Path(image), parse_assignments(scm.graph, given))
    intervention = parse_assignments(scm.graph, do)
    abduction = scm.abduct(factual, seed)
    result = scm.counterfactual(abduction, do=intervention, effect=effect)
    name = scm.graph.image
    assert name is not None
    before, after = abduction.factual[name][0], result[name][0]
    picture = Path(out)
    titles = ["factual", f"do({describe(scm.graph, intervention)})"]
    figure = counterfactual_grid([before, after], titles, [_in_words(scm, b) for b in (abduction.factual, result)])
    save_png(figure, picture)
    numbers = {
        "run": str(run),
        "image": str(image),
        "do": intervention,
        "effect": effect,
        "seed": seed,
        "factual": _values(scm, abduction.factual),
        "counterfactual": _values(scm, result),
        "mean_absolute_change_grey_levels": float((after - before).abs().mean() * 255),
        "largest_change_grey_levels": float((after - before).abs().max() * 255),
    }
    write_json(picture.with_suffix(".json"), numbers)
    return picture, picture.with_suffix(".json")


def _patient(scm: StructuralCausalModel, path: Path, given: dict[str, Any]) -> dict[str, Any]:
    name = scm.graph.image
    if name is None:
        raise DataError(f"graph '{scm.graph.name}' has no image, so a picture can't be asked for")
    channels, size, _ = scm.mechanism(name).event_shape
    pixels = read_image(path, size, channels)
    if isinstance(pixels, Unusable):
        raise DataError(pixels.detail)
    return {**given, name: torch.from_numpy(pixels.copy())[None]}


def _values(scm: StructuralCausalModel, batch: Mapping[str, Any]) -> dict[str, Any]:
    return {name: decode(scm.graph[name], batch[name])[0] for name in scm.graph.attributes}


def _in_words(scm: StructuralCausalModel, batch: Mapping[str, Any]) -> list[str]:
    return [readable(scm.graph[name], value) for name, value in _values(scm, batch).items()]
