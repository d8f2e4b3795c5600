"""The same films with a bias in them, for everyone: simulated ones rendered again, real ones changed."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from causalcxr import simulator
from causalcxr.data.cohort import Cohort
from causalcxr.simulator.planted import IMAGE_CHANNELS, marker_mask
from causalcxr.simulator.warp import pixel_grid
from causalcxr.support.errors import ConfigError, nearest

__all__ = ["RECORD", "check_channels", "on_films", "plant"]

SEEN = (*IMAGE_CHANNELS, "view")  # of a simulated film
ON_FILMS = ("exposure", "contrast", "marker")  # what can be done to a film that is there already
RECORD = ("underdiagnosis", "selection")  # of what is written down, and of whom
_SLOPE = 1.7  # of the simulator's film curve: one log unit of exposure moves a pixel's logit by this much


def check_channels(plant: Mapping[str, Mapping[str, float]], factors: Sequence[float], is_simulated: bool) -> None:
    """Raises ConfigError: a channel that there is not, or not on such films; a strength outside its limits."""
    possible = (*(SEEN if is_simulated else ON_FILMS), *RECORD)
    for kind, channels in plant.items():
        for channel in channels:
            if channel not in possible:
                of = "simulated" if is_simulated else "real"
                raise ConfigError(
                    f"plant.{kind}: no channel '{channel}' on {of} films; {nearest(channel, possible)}"
                )
        for factor in factors:
            try:
                simulator.Knobs(
                    planted={"group": {name: factor * strength for name, strength in channels.items()}}
                )
            except ConfigError as error:
                times = f" (strengths has {factor:g})" if factor != 1 else ""
                raise ConfigError(str(error).replace("planted.group", f"plant.{kind}") + times) from None


def on_films(channels: Mapping[str, float]) -> dict[str, float]:
    """What of a bias is on the films, and not in the record alone; empty if it changes none."""
    return {channel: strength for channel, strength in channels.items() if strength and channel in SEEN}


def plant(cohort: Cohort, rows: np.ndarray, channels: Mapping[str, float]) -> np.ndarray:
    """Films `uint8 (B, C, size, size)` of these rows of the manifest, as if everyone were in group B."""
    seen = on_films(channels)
    assert cohort.images is not None
    if cohort.source.get("source") == "simulator":
        return _render(cohort, rows, seen)
    return _change(torch.from_numpy(cohort.images[rows]), seen).numpy()


@torch.no_grad()
def _render(cohort: Cohort, rows: np.ndarray, channels: Mapping[str, float]) -> np.ndarray:
    knobs = simulator.Knobs(**cohort.source["knobs"], planted={"group": dict(channels)})
    u = simulator.noise(cohort.source["seed"], torch.tensor(cohort.manifest["row"].to_numpy(np.int64)[rows]))
    image = simulator.render(u, simulator.attributes(u, {"group": "B"}, knobs), cohort.size, knobs)
    return (image * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def _change(images: Tensor, channels: Mapping[str, float]) -> Tensor:
    """Exposure shifts every pixel's logit, contrast multiplies it, a marker covers what lies under it."""
    pixels = images.float() / 255
    if channels.get("exposure") or channels.get("contrast"):
        logits = torch.logit(pixels.clamp(0.5 / 255, 254.5 / 255))
        steeper = math.exp(channels.get("contrast", 0.0))
        pixels = torch.sigmoid(steeper * (logits + _SLOPE * channels.get("exposure", 0.0)))
    if channels.get("marker"):
        grid, size = pixel_grid(images.shape[-1]), images.shape[-1]
        mask = marker_mask(grid.repeat(size), grid.repeat_interleave(size), 2 / size).view(size, size)
        pixels = pixels + channels["marker"] * mask * (1 - pixels)
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
