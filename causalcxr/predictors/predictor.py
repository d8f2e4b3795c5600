"""What a predictor is: an image in, a prediction of every attribute out, calibrated on held-out data."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causalcxr.graph import Variable
from causalcxr.mechanisms.likelihood import image_to_float
from causalcxr.predictors.networks import PredictorConfig, build_trunk
from causalcxr.values import Batch

__all__ = ["NetworkPredictor", "Prediction", "Predictor"]

CALIBRATION = ("temperature", "spread", "log_prior")  # buffers that `calibrate` sets
Prediction = dict[str, Tensor]  # discrete: logits (B, labels); continuous: the mean (B,) in natural units


class Predictor(nn.Module):
    """`q(a | x)` of several attributes from one pass of a trunk.

    Calling it gives calibrated predictions: logits `(B, labels)` in the graph's label order, whose softmax is a
    probability; the mean `(B,)` in natural units of a number, with the standard deviation `spread`. Subclasses
    give `features` and `heads`; `calibration.py` sets the buffers from the validation split.
    """

    temperature: Tensor
    spread: Tensor
    log_prior: Tensor

    def __init__(self, variables: Sequence[Variable]):
        super().__init__()
        self.variables = tuple(variables)
        self.index = {variable.name: i for i, variable in enumerate(self.variables)}
        most = max([len(variable.labels) for variable in self.variables], default=0)
        self.register_buffer("temperature", torch.ones(len(self.variables)))
        self.register_buffer("spread", torch.ones(len(self.variables)))
        self.register_buffer("log_prior", torch.zeros(len(self.variables), most))

    def features(self, image: Tensor) -> Tensor:
        """Features `(B, F)` of images `(B, C, H, W)`, float in [0, 1] or uint8."""
        raise NotImplementedError

    def heads(self, features: Tensor) -> Prediction:
        """Uncalibrated predictions from the features."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Prediction:
        return self.predict(self.features(image))

    def predict(self, features: Tensor) -> Prediction:
        """Calibrated predictions from the features."""
        return {name: self.calibrated(name, output) for name, output in self.heads(features).items()}

    def calibrated(self, name: str, output: Tensor) -> Tensor:
        """A head's output with the labels' prior added and the temperature divided by; numbers as they are."""
        i = self.index[name]
        if not self.variables[i].is_discrete:
            return output
        prior, temperature = self.log_prior[i, : output.shape[1]].to(output), self.temperature[i].to(output)
        return (output + prior) / temperature

    def fingerprint(self) -> str:
        """A hash of the weights, by which a model knows the predictor that fine-tuned it.

        Calibration is left out: the same network with another temperature is still the same.
        """
        digest = hashlib.sha256(self._identity().encode())
        for name, tensor in sorted(self.state_dict().items()):
            if name not in CALIBRATION:
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _identity(self) -> str:
        """What tells predictors without weights apart."""
        return type(self).__qualname__


class NetworkPredictor(Predictor):
    """A trunk and a linear head per attribute, trained here."""

    loc: Tensor
    scale: Tensor
    label_weight: Tensor

    def __init__(self, variables: Sequence[Variable], config: PredictorConfig, channels: int = 1):
        super().__init__(variables)
        self.config = config
        self.trunk, width = build_trunk(config, channels)
        self.linear = nn.ModuleList(nn.Linear(width, max(1, len(v.labels))) for v in self.variables)
        self.register_buffer("loc", torch.zeros(len(self.variables)))
        self.register_buffer("scale", torch.ones(len(self.variables)))
        self.register_buffer("label_weight", torch.ones_like(self.log_prior))

    def fit_scaling(self, train: Batch) -> None:
        """From the training split: each number's mean and deviation; each label's weight in the loss.

        Every label weighs the same in the loss however rare it is. That is a training prior of equal shares, so
        the logarithm of the real shares is added to the logits afterwards.
        """
        for i, variable in enumerate(self.variables):
            values = train[variable.name]
            if variable.is_discrete:
                k = len(variable.labels)
                share = (torch.bincount(values, minlength=k) / len(values)).clamp_min(1 / len(values))
                self.label_weight[i, :k] = 1 / (k * share)
                self.log_prior[i, :k] = (k * share).log()
            else:
                self.loc[i] = values.double().mean()
                self.scale[i] = values.double().std().clamp_min(1e-6)
                self.spread[i] = self.scale[i]

    def features(self, image: Tensor) -> Tensor:
        return self.trunk(self._pixels(image))

    def _pixels(self, image: Tensor) -> Tensor:
        return image_to_float(image, self.loc.dtype).contiguous(memory_format=torch.channels_last)

    def heads(self, features: Tensor) -> Prediction:
        return {variable.name: self._head(variable, features) for variable in self.variables}

    def _head(self, variable: Variable, features: Tensor) -> Tensor:
        i = self.index[variable.name]
        output = self.linear[i](features).to(self.loc.dtype)
        return output if variable.is_discrete else self.loc[i] + self.scale[i] * output[:, 0]

    def losses(self, features: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Training loss `(B,)` by attribute: balanced cross-entropy, or half the squared standardised error."""
        found = {}
        for name, output in self.heads(features).items():
            i = self.index[name]
            if self.variables[i].is_discrete:
                weight = self.label_weight[i, : output.shape[1]][batch[name]]
                found[name] = weight * F.cross_entropy(output, batch[name], reduction="none")
            else:
                found[name] = 0.5 * ((output - batch[name]) / self.scale[i]).square()
        return found
