"""Classifiers from elsewhere as predictor or evaluator: any module or callable, torchxrayvision's models.

Pixels come in [0, 1] here and leave in the range and size that the classifier was trained with; its classes come
back in the graph's label order. Weights are the user's to give: nothing is downloaded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causalcxr.graph import Variable
from causalcxr.mechanisms.likelihood import image_to_float
from causalcxr.predictors.predictor import Prediction, Predictor
from causalcxr.support.errors import CausalCXRError, ConfigError, DataError, nearest

__all__ = ["AdaptedPredictor", "Output", "call_model", "from_torchxrayvision"]

KINDS = ("logits", "probabilities", "value")
XRV_RANGE = (-1024.0, 1024.0)
XRV_SIZE = 224
_SMALLEST = 1e-6  # a probability is kept this far from 0 and 1 when it is turned into a logit


@dataclass(frozen=True)
class Output:
    """Where one attribute stands in a classifier's output `(B, M)`.

    `columns`: label of the graph to column; of a binary attribute the second label alone is enough (its column is
    then the logit or probability of that label). A number has one column, under its own name. `kind`: `logits`,
    `probabilities` or `value`. `scale`, `shift`: a number is `scale * column + shift`, in the graph's unit.
    """

    columns: Mapping[str, int]
    kind: str = "logits"
    scale: float = 1.0
    shift: float = 0.0


class AdaptedPredictor(Predictor):
    """`model(image) -> (B, M)` as a predictor. Gradients pass through it if it has any.

    `pixel_range`: what 0 and 1 become. `size`: side that images are resized to; None leaves them. `channels`:
    what the model takes; one channel is repeated.
    Raises ConfigError: an attribute or label that is not there, or a kind that doesn't fit.
    """

    def __init__(
        self,
        variables: Sequence[Variable],
        model: Callable[[Tensor], Tensor],
        outputs: Mapping[str, Output],
        pixel_range: tuple[float, float] = (0.0, 1.0),
        size: int | None = None,
        channels: int | None = None,
    ):
        by_name = {variable.name: variable for variable in variables}
        for name, output in outputs.items():
            if name not in by_name:
                raise ConfigError(f"outputs: '{name}' is no attribute of the graph; {nearest(name, by_name)}")
            _check_output(by_name[name], output)
        super().__init__([by_name[name] for name in outputs])
        self.model, self.outputs = model, dict(outputs)
        self.low, self.high = pixel_range
        self.size, self.channels = size, channels
        self.train(False)

    def features(self, image: Tensor) -> Tensor:
        """The model's outputs `(B, M)`: its last layer is all that is known of it."""
        pixels = image_to_float(image, self.spread.dtype)
        if self.channels is not None:
            pixels = pixels.expand(-1, self.channels, -1, -1)
        if self.size is not None and tuple(pixels.shape[2:]) != (self.size, self.size):
            side = (self.size, self.size)
            pixels = F.interpolate(pixels, side, mode="bilinear", align_corners=False, antialias=True)
        found: Any = self.model(self.low + (self.high - self.low) * pixels)
        if not isinstance(found, Tensor) or found.ndim != 2:
            shape = tuple(getattr(found, "shape", ())) or type(found).__name__
            raise ConfigError(f"the adapted model returned {shape}; expected a tensor (images, outputs)")
        return found

    def _identity(self) -> str:
        function = getattr(self.model, "__qualname__", type(self.model).__qualname__)
        return f"{self.model.__module__}.{function}"

    def heads(self, features: Tensor) -> Prediction:
        return {v.name: _read(v, self.outputs[v.name], features) for v in self.variables}


def from_torchxrayvision(
    model: nn.Module, variables: Sequence[Variable], names: Mapping[str, Any]
) -> AdaptedPredictor:
    """A classifier of torchxrayvision, which the user has built with its weights.

    `names` maps attributes to what the model calls them in `model.pathologies` or `model.targets`: the target of
    the second label (`{"finding": "Effusion"}`), or one for every label (`{"race": {"white": "White", ...}}`).
    DenseNet and ResNet models give calibrated probabilities, images are taken in [-1024, 1024] at 224 x 224.
    Raises ConfigError: the model doesn't name its outputs, or not so.
    """
    targets = list(getattr(model, "pathologies", None) or getattr(model, "targets", None) or [])
    if not targets:
        raise ConfigError("the model has neither 'pathologies' nor 'targets'; use AdaptedPredictor and say which")
    by_name = {variable.name: variable for variable in variables}
    outputs = {}
    for name, wanted in names.items():
        labels = wanted if isinstance(wanted, Mapping) else {_last_label(by_name, name): wanted}
        for target in labels.values():
            if target not in targets:
                raise ConfigError(f"the model has no output '{target}'; {nearest(target, targets)}")
        columns = {label: targets.index(target) for label, target in labels.items()}
        number = name in by_name and not by_name[name].is_discrete
        outputs[name] = Output(columns, "value" if number else "probabilities")
    return AdaptedPredictor(variables, model, outputs, XRV_RANGE, XRV_SIZE)


@torch.no_grad()
def call_model(model: Callable[[Tensor], Any], images: Tensor, what: str = "the model") -> Any:
    """What a function of the user's returns for images `(B, C, H, W)` in [0, 1].

    Raises DataError: it fails; the line says with what, and how to mend it.
    """
    try:
        return model(images)
    except CausalCXRError:
        raise
    except Exception as error:
        shape, reason = "x".join(map(str, images.shape)), " ".join(str(error).split())
        raise DataError(
            f"{what} fails on images {shape} in [0, 1] with {type(error).__name__}: {reason}; wrap it so that it "
            "takes these (channels and size: predictors/adapters.py)"
        ) from error


def _last_label(variables: Mapping[str, Variable], name: str) -> str:
    if name not in variables:
        raise ConfigError(f"'{name}' is no attribute of the graph; {nearest(name, variables)}")
    return variables[name].labels[-1] if variables[name].is_discrete else name


def _check_output(variable: Variable, output: Output) -> None:
    if output.kind not in KINDS:
        raise ConfigError(f"outputs.{variable.name}: kind '{output.kind}'; {nearest(output.kind, KINDS)}")
    if (output.kind == "value") == variable.is_discrete:
        expected = "logits or probabilities" if variable.is_discrete else "value"
        raise ConfigError(f"outputs.{variable.name}: kind is '{output.kind}', expected {expected}")
    wanted = set(variable.labels) if variable.is_discrete else {variable.name}
    given = set(output.columns)
    single = len(variable.labels) == 2 and given == {variable.labels[1]}
    if given != wanted and not single:
        raise ConfigError(
            f"outputs.{variable.name}: columns are given for {', '.join(map(str, output.columns)) or 'nothing'}; "
            f"expected {', '.join(variable.labels) or variable.name}"
        )


def _read(variable: Variable, output: Output, features: Tensor) -> Tensor:
    if output.kind == "value":
        return output.scale * features[:, output.columns[variable.name]] + output.shift
    columns = [output.columns[label] for label in variable.labels if label in output.columns]
    found = features[:, columns]
    if output.kind == "probabilities":
        found = found.clamp(_SMALLEST, 1 - _SMALLEST)
        found = torch.logit(found) if len(columns) == 1 else found.log()
    return torch.cat([torch.zeros_like(found), found], dim=1) if len(columns) == 1 else found
