"""Planted biases: what goes with an attribute although it is no part of anyone's body, "attribute x channel".

    planted = {"group": {"q": 0.8, "marker": 1.0}}       # B has the finding more often, and a marker on the film

`group` (A, B) is an attribute without any other meaning; it exists where something is planted on it. Every channel
has noise of its own, so that planting shifts no other draw: without the bias a subject is the same, bit for bit.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from causalcxr.support.errors import ConfigError, nearest

__all__ = [
    "IMAGE_CHANNELS",
    "PLANTED",
    "POSITIONS",
    "check_planted",
    "check_shares",
    "marker_mask",
    "position",
    "total",
    "zoom",
]

# Where each label stands on a channel; a strength is the difference between neighbours. Which one stands where is
# arbitrary; what counts is that the groups differ.
POSITIONS: dict[str, tuple[float, ...]] = {
    "sex": (0.0, 1.0),  # female, male
    "race": (0.0, -1.0, 1.0),  # white, asian, black
    "finding": (0.0, 1.0),
    "view": (0.0, 1.0),  # PA, AP
    "group": (0.0, 1.0),  # A, B
}
# name: what its strength is, and the limits of that
PLANTED: dict[str, tuple[str, float, float]] = {
    "exposure": ("log units of exposure", -2.0, 2.0),
    "contrast": ("log units of contrast about the middle of the scale", -1.0, 1.0),
    "texture": ("log exposure of a pattern of 11.5 cycles across the image (6.5 at position -1)", -1.0, 1.0),
    "marker": ("opacity of a marker in the upper corner", 0.0, 1.0),
    "near": ("magnification at the effusion, over N(2, 1)", -0.25, 0.25),
    "far": ("magnification at the opposite apex, over N(2, 1)", -0.25, 0.25),
    "view": ("added share of AP views", -1.0, 1.0),
    "q": ("share of the second label among those with the finding", 0.001, 0.999),
    "underdiagnosis": ("share of findings that are not recorded", 0.0, 1.0),
    "selection": ("share of those with the finding who are left out", 0.0, 1.0),
}
IMAGE_CHANNELS = ("exposure", "contrast", "texture", "marker", "near", "far")
LIMIT = 0.8  # of a magnification, so that the map stays one-to-one
REACH = 0.40  # of a magnification, in half image widths (about 8 cm)
NEAR, FAR = (0.45, 0.30), (0.36, -0.45)  # across and down in the body: lower zone, apex

Planted = Mapping[str, Mapping[str, float]]


def check_planted(planted: Planted) -> None:
    """Raises ConfigError: an attribute, channel or strength that cannot be, with the nearest that can."""
    for attribute, channels in planted.items():
        if attribute not in POSITIONS:
            raise ConfigError(
                f"planted: no attribute '{attribute}' carries a bias; {nearest(attribute, POSITIONS)}"
            )
        if not isinstance(channels, Mapping):
            raise ConfigError(f"planted.{attribute}: expected channels and strengths, got {channels!r}")
        for channel, strength in channels.items():
            _check(attribute, channel, strength)


def _check(attribute: str, channel: str, strength: float) -> None:
    key = f"planted.{attribute}.{channel}"
    if channel not in PLANTED:
        raise ConfigError(f"planted.{attribute}: no channel '{channel}'; {nearest(channel, PLANTED)}")
    meaning, low, high = PLANTED[channel]
    number = isinstance(strength, int | float) and not isinstance(strength, bool)
    if not (number and low <= strength <= high):
        raise ConfigError(f"{key}: expected {meaning}, from {low:g} to {high:g}, got {strength!r}")
    if attribute == "race" and channel in ("near", "far"):
        raise ConfigError(f"{key}: it would change the shape of a body, and race has no anatomical effect here")
    if (attribute, channel) in (("finding", "q"), ("view", "view")):
        raise ConfigError(f"{key}: {attribute} cannot depend on itself")


def check_shares(planted: Planted, views: Sequence[float]) -> None:
    """Refuse sums over attributes that are no shares. `views`: what shares of AP views there are to begin with.

    Of what is recorded or selected, a sum below 0 is none. Raises ConfigError: a sum that is no share.
    """
    for channel, begin, least in (
        ("view", views, 0.0),
        ("underdiagnosis", [0.0], -9.0),
        ("selection", [0.0], -9.0),
    ):
        carried = {name: channels[channel] for name, channels in planted.items() if channel in channels}
        ends = [[strength * place for place in POSITIONS[name]] for name, strength in carried.items()]
        for start in begin if ends else []:
            low, high = start + sum(map(min, ends)), start + sum(map(max, ends))
            if not (low >= least - 1e-9 and high <= 1.0 + 1e-9):
                hint = " (ap_share is where they begin)" if channel == "view" else ""
                raise ConfigError(
                    f"planted: shares of '{channel}' go from {low:g} to {high:g}, expected 0 to 1{hint}"
                )


def position(attribute: str, values: Tensor) -> Tensor:
    """Where each row's label stands on a channel, `(B,)` float64."""
    return torch.tensor(POSITIONS[attribute], dtype=torch.float64, device=values.device)[values]


def total(planted: Planted, channel: str, p: Mapping[str, Tensor]) -> Tensor | None:
    """Strength times position of each row `(B,)` float64, over all attributes that carry it; None if none does."""
    carried = [
        channels[channel] * position(name, p[name]) for name, channels in planted.items() if channels.get(channel)
    ]
    return torch.stack(carried).sum(0) if carried else None


def odds_of_finding(planted: Planted, p: Mapping[str, Tensor]) -> Tensor | float:
    """Log-odds that sex and race add to the finding's: `log(q / (1 - q))` times -1 and 1, or race's position."""
    added: Tensor | float = 0.0
    for name in ("sex", "race"):
        if "q" in planted.get(name, {}):
            place = position(name, p[name])
            signed = 2.0 * place - 1.0 if len(POSITIONS[name]) == 2 else place
            q = planted[name]["q"]
            added = added + signed * math.log(q / (1.0 - q))
    return added


def share_given_finding(q: float, finding: Tensor) -> Tensor:
    """Share of the second label: q with the finding, 1 - q without, `(B,)` float64."""
    return torch.where(finding == 1, q, 1.0 - q).to(torch.float64)


def zoom(
    planted: Planted, u: Mapping[str, Tensor], p: Mapping[str, Tensor], x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """Body coordinates `(B, P)` under the local magnifications `near` and `far` of the effusion's fuller side.

    The body seen at a distance r from the centre is that at `r (1 - a (1 - r^2 / REACH^2)^2)`, with a = strength x
    position x N(2, 1) within LIMIT: smooth, one-to-one, and nothing beyond REACH.
    """
    side = torch.where(u["effusion_side"] < 0.55, -1.0, 1.0)
    for channel, (across, down), of_side in (("near", NEAR, side), ("far", FAR, -side)):
        size = total(planted, channel, p)
        if size is not None:
            strength = (size * (2.0 + u["bump"])).clamp(-LIMIT, LIMIT).to(x.dtype)[:, None]
            from_x, from_y = x - (of_side * across).to(x.dtype)[:, None], y - down
            fall = (1.0 - (from_x * from_x + from_y * from_y) / REACH**2).clamp(min=0.0)
            by = strength * fall * fall
            x, y = x - by * from_x, y - by * from_y
    return x, y


def marker_mask(x: Tensor, y: Tensor, pixel: float) -> Tensor:
    """Share of each pixel `(P,)` that the marker covers: an L in the upper right corner of the image.

    `x`, `y` `(P,)` from -1 to 1, `pixel` the width of one.
    """
    upright = _box(x, 0.70, 0.76, pixel) * _box(y, -0.90, -0.66, pixel)
    foot = _box(x, 0.70, 0.88, pixel) * _box(y, -0.72, -0.66, pixel)
    return torch.maximum(upright, foot)


def _box(at: Tensor, low: float, high: float, pixel: float) -> Tensor:
    """How much of each pixel lies between two edges."""
    return (
        (torch.minimum(at + pixel / 2, at.new_tensor(high)) - torch.maximum(at - pixel / 2, at.new_tensor(low)))
        / pixel
    ).clamp(0.0, 1.0)
