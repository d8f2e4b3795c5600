"""Trunks: an image to a feature vector. Two small ones for a CPU, and any classifier of torchvision by name."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from causalcxr.support.bounds import bounded, bounded_list, check_bounds
from causalcxr.support.errors import ConfigError, nearest

__all__ = ["SMALL", "PredictorConfig", "build_trunk"]

SMALL = ("convnet", "resnet")
_GROUPS = 8  # of GroupNorm, at most


@dataclass
class PredictorConfig:
    """One predictor network.

    `architecture`: `convnet` (plain convolutions), `resnet` (residual blocks), or the name of a torchvision
    classifier (`resnet18`, `densenet121`, ...), which is never downloaded but trained here. `widths`: channels of
    the small ones, each at half the resolution of the one before. `augment`: strength of the augmentation; 0 is
    none, 1 shifts by up to 6 %, turns by up to 6 degrees and scales by up to 6 %.
    """

    architecture: str = "convnet"
    widths: list[int] = bounded_list([24, 48, 96], least=1)
    augment: float = bounded(1.0, least=0)


def build_trunk(config: PredictorConfig, channels: int) -> tuple[nn.Module, int]:
    """The trunk, images to features `(B, F)`, and F.

    Raises ConfigError: an unknown architecture, or no widths.
    """
    if config.architecture in SMALL:
        check_bounds(config, "predictor.")
        build = _convnet if config.architecture == "convnet" else _resnet
        trunk = build(channels, config.widths).append(_Pool())
        return trunk.to(memory_format=torch.channels_last), 2 * config.widths[-1]
    return _from_torchvision(config.architecture, channels)


class _Pool(nn.Module):
    """Mean and maximum over the map: what is everywhere, and what is somewhere."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.inner = nn.Sequential(
            _norm(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            _norm(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.inner(hidden)


def _convnet(channels: int, widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, width in pairwise([channels, *widths]):
        layers += [nn.Conv2d(before, width, 3, padding=1, stride=2), _norm(width), nn.ReLU()]
        layers += [nn.Conv2d(width, width, 3, padding=1), _norm(width), nn.ReLU()]
    return nn.Sequential(*layers)


def _resnet(channels: int, widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 5, padding=2, stride=2), _Residual(widths[0])]
    for before, width in pairwise(widths):
        layers += [_norm(before), nn.Conv2d(before, width, 2, stride=2), _Residual(width)]
    return nn.Sequential(*layers, _norm(widths[-1]), nn.ReLU())


def _norm(width: int) -> nn.GroupNorm:
    """No batch statistics: a frozen predictor must not depend on what else is in the batch."""
    return nn.GroupNorm(next(groups for groups in range(min(_GROUPS, width), 0, -1) if width % groups == 0), width)


class _AsColour(nn.Module):
    """Torchvision's classifiers take three channels of mean 0; ours come in [0, 1] with one or three."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model((4 * image - 2).expand(-1, 3, -1, -1))


def _from_torchvision(name: str, channels: int) -> tuple[nn.Module, int]:
    from torchvision import models  # a second to import, and needed only here

    known = models.list_models(module=models)
    if name not in known:
        raise ConfigError(f"no predictor architecture '{name}'; {nearest(name, [*SMALL, *known])}")
    if channels not in (1, 3):
        raise ConfigError(f"architecture '{name}' takes images of 1 or 3 channels, not {channels}")
    model = models.get_model(name, weights=None)
    head, last = _last_linear(model, name)
    setattr(head[0], head[1], nn.Identity())
    return _AsColour(model), last.in_features


def _last_linear(model: nn.Module, name: str) -> tuple[tuple[nn.Module, str], nn.Linear]:
    """The classifier's last layer, with the module that holds it."""
    linear = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ConfigError(f"architecture '{name}' does not end in a linear layer; choose another")
    path, last = linear[-1]
    parent, _, key = path.rpartition(".")
    return (model.get_submodule(parent), key), last
