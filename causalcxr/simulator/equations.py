"""Structural equations of the attributes, and the knobs that scale every effect on the image.

    sex   race   age ----> finding ----> severity e = (2 finding - 1) + N(0, 1) ----> volume 200 mL exp(0.7 e)

Severity and volume are inner to the image's equation: an intervention on the finding keeps their noise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from causalcxr.graph import Graph, graph_from_dict, load_graph
from causalcxr.support.errors import ConfigError
from causalcxr.values import encode_intervention

__all__ = ["DEFAULT", "Knobs", "attributes", "effusion_volume", "graph", "severity"]

AGE_LOW, AGE_SPAN = 20.0, 70.0
AGE_SHAPE = (2.5, 2.0)
# Prevalence 0.35 over the law of age above (tests integrate it).
FINDING_BASE, FINDING_PER_DECADE = -0.63, 0.45
RACE_SHARES = (0.60, 0.15, 0.25)  # white, asian, black
# Which group stands where on an acquisition knob is arbitrary; what counts is that the groups differ.
RACE_CONTRAST = (0.0, -1.0, 1.0)


@dataclass(frozen=True)
class Knobs:
    """Scales of the effects. 1 is the size stated in the documentation, 0 switches an effect off.

    The `race_*` knobs are correlates of how images were acquired, never of anatomy, and are 0 by default:
    `race_exposure` (log units of exposure), `race_texture` (log units of a band-limited pattern), `race_view`
    (added share of AP views), `race_prevalence` (log-odds of the finding), each between neighbouring groups.
    The attribute `view` exists only where `ap_share` or `race_view` is not 0.
    """

    sex_chest_width: float = 1.0
    sex_breast: float = 1.0
    sex_heart: float = 1.0
    age_heart: float = 1.0
    age_aorta: float = 1.0
    age_bone: float = 1.0
    age_kyphosis: float = 1.0
    finding_volume: float = 1.0
    variation: float = 1.0
    pixel_noise: float = 1.0
    ap_share: float = 0.0
    race_exposure: float = 0.0
    race_texture: float = 0.0
    race_view: float = 0.0
    race_prevalence: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < float("inf"):
                raise ConfigError(f"knob '{field.name}': expected a finite number, got {value!r}")
        for name in ("variation", "pixel_noise", "ap_share"):
            if getattr(self, name) < 0:
                raise ConfigError(f"knob '{name}': expected a number of at least 0, got {getattr(self, name):g}")

    @property
    def has_view(self) -> bool:
        """Whether the attribute `view` (0 PA, 1 AP) is part of the model."""
        return self.ap_share != 0 or self.race_view != 0


DEFAULT = Knobs()


def graph(knobs: Knobs = DEFAULT) -> Graph:
    """The causal graph that the simulator obeys: `chest`, and `view` and edges from race if knobs ask."""
    return _graph(knobs.has_view, knobs.race_view != 0, knobs.race_prevalence != 0)


def attributes(
    u: Mapping[str, Tensor], do: Mapping[str, Any] | None = None, knobs: Knobs = DEFAULT
) -> dict[str, Tensor]:
    """The attributes of the subjects with noise `u`, under an intervention if one is given.

    Returns sex (0 female, 1 male), race (0 white, 1 asian, 2 black), finding (0 No Finding, 1 Pleural Effusion),
    with `Knobs.has_view` also view (0 PA, 1 AP), each int64 `(B,)`, and age, float32 `(B,)`, in years.
    `do` is in natural units: labels, numbers, or one value per row. Raises GraphError for what the graph refuses.
    """
    n, device = len(u["age"]), u["age"].device
    values = intervened(do, n, device, knobs)
    if "sex" not in values:
        values["sex"] = (u["sex"] < 0.5).to(torch.int64)
    if "race" not in values:
        values["race"] = (u["race"] >= RACE_SHARES[0]).to(torch.int64) + (u["race"] >= sum(RACE_SHARES[:2]))
    if "age" not in values:
        values["age"] = (AGE_LOW + AGE_SPAN * _beta_quantile(u["age"])).to(torch.float32)
    if "finding" not in values:
        values["finding"] = (u["finding"] < _finding_probability(values, knobs)).to(torch.int64)
    names = ["sex", "race", "age", "finding"]
    if knobs.has_view:
        names.append("view")
        if "view" not in values:
            share = knobs.ap_share + knobs.race_view * race_contrast(values["race"])
            values["view"] = (u["view"] < share).to(torch.int64)
    return {name: values[name] for name in names}


def intervened(
    do: Mapping[str, Any] | None, n: int, device: torch.device | str = "cpu", knobs: Knobs = DEFAULT
) -> dict[str, Tensor]:
    """The values that an intervention sets, one tensor `(n,)` a variable. Raises GraphError for a bad one."""
    return {name: value.contiguous() for name, value in encode_intervention(graph(knobs), do, n, device).items()}


def severity(u: Mapping[str, Tensor], p: Mapping[str, Tensor]) -> Tensor:
    """`e = (2 finding - 1) + N(0, 1)`, `(B,)`.

    The best classifier on it has AUROC 0.921 and, at equal prevalence, accuracy 0.841.
    """
    return 2.0 * p["finding"] - 1.0 + u["severity"]


def effusion_volume(u: Mapping[str, Tensor], p: Mapping[str, Tensor]) -> Tensor:
    """Millilitres of pleural fluid on the fuller side, `200 exp(0.7 e)`, `(B,)`."""
    return 200.0 * torch.exp(0.7 * severity(u, p))


def race_contrast(race: Tensor) -> Tensor:
    """Where each row's group stands on an acquisition knob, `(B,)` float64."""
    return torch.tensor(RACE_CONTRAST, dtype=torch.float64, device=race.device)[race]


def _finding_probability(values: Mapping[str, Tensor], knobs: Knobs) -> Tensor:
    log_odds = FINDING_BASE + FINDING_PER_DECADE * (values["age"].to(torch.float64) - 60.0) / 10.0
    if knobs.race_prevalence:
        log_odds = log_odds + knobs.race_prevalence * race_contrast(values["race"])
    return 1.0 / (1.0 + torch.exp(-log_odds))


@lru_cache(maxsize=8)
def _graph(has_view: bool, race_to_view: bool, race_to_finding: bool) -> Graph:
    declared = load_graph("chest").to_dict()
    variables = declared["variables"]
    if race_to_finding:
        variables["finding"]["parents"] = ["race", *variables["finding"]["parents"]]
    if has_view:
        variables["view"] = {"kind": "binary", "labels": ["PA", "AP"], "parents": ["race"] if race_to_view else []}
        variables["image"]["parents"] = [*variables["image"]["parents"], "view"]
    return graph_from_dict(declared)


@lru_cache(maxsize=1)
def _beta_table() -> tuple[Tensor, Tensor]:
    """The distribution function of Beta(2.5, 2.0) on a grid, by the midpoint rule (error below 1e-8)."""
    edges = torch.linspace(0.0, 1.0, 50_001, dtype=torch.float64)
    middle = (edges[1:] + edges[:-1]) / 2
    density = middle ** (AGE_SHAPE[0] - 1) * (1 - middle) ** (AGE_SHAPE[1] - 1)
    cumulative = torch.cat([torch.zeros(1, dtype=torch.float64), density.cumsum(0)])
    return edges, cumulative / cumulative[-1]


def _beta_quantile(uniform: Tensor) -> Tensor:
    edges, cumulative = (table.to(uniform.device) for table in _beta_table())
    right = torch.searchsorted(cumulative, uniform).clamp(1, len(edges) - 1)
    low, high = cumulative[right - 1], cumulative[right]
    return edges[right - 1] + (edges[1] - edges[0]) * (uniform - low) / (high - low)
