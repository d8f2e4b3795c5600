"""`causalcxr counterfactual RUN IMAGE --with ... --do ...`: one patient, had something been otherwise."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from causalcxr.answers import Answer, answer
from causalcxr.commands.arguments import Help, Parser, assignments, refuse_replacing, say
from causalcxr.data.film import read_film
from causalcxr.data.source import Unusable
from causalcxr.report.figures import counterfactual_grid, save_picture
from causalcxr.runs import load, open_run
from causalcxr.scm import StructuralCausalModel
from causalcxr.support.errors import ConfigError, DataError
from causalcxr.support.files import write_json
from causalcxr.values import describe, parse_assignments, readable

__all__ = ["run"]

USAGE = "causalcxr counterfactual RUN IMAGE --with NAME=VALUE ... --do NAME=VALUE ... [options]"
EPILOG = """--with NAME=VALUE ...  what is recorded of the patient, every attribute of the model: sex=female age=63
--do NAME=VALUE ...    what had been otherwise: age=80"""
PICTURES = (".png", ".jpg", ".jpeg")
_SHOWN = 3  # of several draws, beside their mean


def run(arguments: list[str]) -> None:
    """Write a PNG (factual, counterfactual, difference) and beside it a JSON."""
    words, named = assignments(arguments, "--with", "--do")
    parser = Parser("causalcxr counterfactual", usage=USAGE, epilog=EPILOG, formatter_class=Help)
    parser.add_argument("run", help="folder of a trained run")
    parser.add_argument("image", help="image file of one patient: PNG, JPEG, TIFF or DICOM")
    parser.add_argument("--effect", default="total", help="total, direct or indirect")
    parser.add_argument("--seed", type=int, default=0, help="of the abduction")
    parser.add_argument("--draws", type=int, default=1, help="of the noise; several: their mean, and the first")
    parser.add_argument("--out", default="counterfactual.png", help="picture; the numbers go beside it as JSON")
    options = parser.parse_args(words)
    if not named.get("--do"):
        raise ConfigError("counterfactual: --do needs an intervention, for example --do age=80")
    picture = Path(options.out)
    if picture.suffix.lower() not in PICTURES:
        raise ConfigError(f"--out '{picture}' is no picture; expected an ending of {', '.join(PICTURES)}")
    numbers = picture.with_suffix(".json")
    refuse_replacing([picture, numbers], [Path(options.image), Path(options.run)])
    if numbers.exists() and '"counterfactual"' not in numbers.read_text("utf-8", "replace"):
        raise ConfigError(
            f"--out '{picture}' would replace '{numbers}', which holds something else; choose another"
        )
    scm, labels = load(options.run), open_run(options.run).config.data.labels
    given, do = (parse_assignments(scm.graph, named.get(option, []), labels) for option in ("--with", "--do"))
    if missing := [name for name in scm.graph.attributes if name not in given]:
        needed = ", ".join(scm.graph.attributes)
        raise ConfigError(f"--with lacks '{missing[0]}'; the model needs all of: {needed}")
    found = answer(scm, _read(scm, Path(options.image)), given, do, options.effect, options.draws, options.seed)
    save_picture(_figure(found, f"do({describe(scm.graph, do)})"), picture)
    question = {"run": options.run, "image": options.image, "do": do, "effect": options.effect}
    write_json(numbers, {**question, "seed": options.seed, "draws": options.draws, **_numbers(found)})
    say(f"wrote {picture} and {numbers}")


def _read(scm: StructuralCausalModel, path: Path) -> torch.Tensor:
    """The patient's image as the model takes it. Raises DataError: no image in the graph, or an unusable file."""
    if scm.graph.image is None:
        raise DataError(f"graph '{scm.graph.name}' has no image, so a picture can't be asked for")
    channels, size, _ = scm.image_mechanism.event_shape
    pixels = read_film(path, size, channels)
    if isinstance(pixels, Unusable):
        raise DataError(pixels.detail)
    return torch.from_numpy(pixels.copy())


def _figure(found: Answer, title: str) -> Figure:
    """The factual image and the counterfactual; of several draws their mean, and then the first of them."""
    image = found.scm.image_mechanism.variable.name
    shown = range(min(len(found), _SHOWN) if len(found) > 1 else 0)
    pictures = [found.factual[image][0], found.image, *(found.drawn[image][i] for i in shown)]
    titles = ["factual", f"{title}, mean of {len(found)}" if shown else title]
    values = [found.row(), found.attributes, *(found.row(i) for i in shown)]
    captions = [_caption(found, one) for one in values]
    return counterfactual_grid(pictures, [*titles, *(f"draw {i + 1}" for i in shown)], captions)


def _caption(found: Answer, values: Mapping[str, Any]) -> list[str]:
    return [readable(found.scm.graph[name], value) for name, value in values.items()]


def _numbers(found: Answer) -> dict[str, Any]:
    numbers = {
        "factual": found.row(),
        "counterfactual": found.attributes,
        "mean_absolute_change_grey_levels": float(found.change.abs().mean()),
        "largest_change_grey_levels": float(found.change.abs().max()),
    }
    return numbers | ({"spread_of_draws_grey_levels": found.spread} if len(found) > 1 else {})
