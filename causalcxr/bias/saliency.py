"""Where a network looks: SmoothGrad, as the share that falls inside the true effusion and inside the true bias.

Both regions are known: where the film changes under do(finding), and under do(group). Needs `causalcxr[bias]`.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from causalcxr import simulator
from causalcxr.bias.films import Films
from causalcxr.bias.training import log_odds
from causalcxr.data.cohort import Cohort
from causalcxr.mechanisms.likelihood import image_to_float
from causalcxr.predictors.predictor import NetworkPredictor
from causalcxr.support.errors import ConfigError

__all__ = ["SaliencyFound", "check_captum", "finding_region", "saliency", "smooth_gradients"]

SAMPLES, NOISE = 16, 0.1  # noisy copies of each film, and the deviation of their noise (pixels are in [0, 1])
_EDGE = 0.1  # of an image's largest change: a pixel that changes more is in the region


@dataclass(frozen=True)
class SaliencyFound:
    """Mean share of the saliency inside a region, and of the film's area: a network that looks everywhere has both
    alike. NaN where the region is not known."""

    bias: float
    bias_area: float
    finding: float
    finding_area: float


def check_captum() -> None:
    """Raises ConfigError: captum is not installed."""
    if find_spec("captum") is None:
        raise ConfigError("saliency needs captum: pip install 'causalcxr[bias]', or set saliency_rows=0")


def saliency(model: NetworkPredictor, films: Films, cohort: Cohort, bias: str, rows: int) -> SaliencyFound:
    """Of test subjects with the finding, on their biased films."""
    chosen = films.some_with_finding(rows)
    biased, plain = films.biased[bias][chosen], films.plain[chosen]
    where = smooth_gradients(model, torch.from_numpy(biased))
    planted = _region(torch.from_numpy(biased.astype(np.float32) - plain.astype(np.float32)))
    known = finding_region(cohort, chosen)
    inside = _shares(where, planted)
    return SaliencyFound(*inside, *(_shares(where, known) if known is not None else (np.nan, np.nan)))


def smooth_gradients(model: NetworkPredictor, images: Tensor, seed: int = 0) -> Tensor:
    """Absolute SmoothGrad (Smilkov et al. 2017) of the log-odds, `(B, H, W)`, summed over channels."""
    from captum.attr import NoiseTunnel, Saliency  # an extra

    tunnel = NoiseTunnel(Saliency(lambda image: log_odds(model, image)))
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        parts: list[Any] = [
            tunnel.attribute(
                image_to_float(part).requires_grad_(),
                nt_type="smoothgrad",
                nt_samples=SAMPLES,
                stdevs=NOISE,
                abs=False,
            )
            for part in images.split(32)
        ]
    return torch.cat(parts).detach().abs().sum(1)


@torch.no_grad()
def finding_region(cohort: Cohort, rows: np.ndarray) -> Tensor | None:
    """Where a film shows the finding, bool `(B, H, W)`; None of real films."""
    if cohort.source.get("source") != "simulator":
        return None
    knobs = simulator.Knobs(**cohort.source["knobs"])
    u = simulator.noise(cohort.source["seed"], torch.tensor(cohort.manifest["row"].to_numpy(np.int64)[rows]))
    with_, without = (simulator.counterfactual(u, {"finding": f}, cohort.size, "direct", knobs) for f in (1, 0))
    return _region(with_ - without)


def _region(change: Tensor) -> Tensor:
    size = change.abs().sum(1)
    largest = size.amax((1, 2), keepdim=True)
    return (size > _EDGE * largest) & (largest > 0)


def _shares(where: Tensor, region: Tensor) -> tuple[float, float]:
    total = where.sum((1, 2)).clamp_min(torch.finfo(where.dtype).tiny)
    return float(((where * region).sum((1, 2)) / total).mean()), float(region.float().mean())
