"""Structural equations of the attributes, and the knobs that scale every effect on the image.

    sex   race   age ----> finding ----> severity e = (2 finding - 1) + N(0, 1) ----> volume 200 mL exp(0.7 e)

Severity and volume are inner to the image's equation: an intervention on the finding keeps their noise.
`planted.py` has what may be planted on top: correlates of an attribute, and the attribute `group` to carry them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from causalcxr.graph import Graph, graph_from_dict, load_graph
from causalcxr.simulator.planted import (
    IMAGE_CHANNELS,
    Planted,
    check_planted,
    check_shares,
    odds_of_finding,
    share_given_finding,
    total,
)
from causalcxr.simulator.sites import LAWS, SITE, Sites, check_sites, law_of_site, site_of, varies
from causalcxr.support.errors import ConfigError
from causalcxr.values import encode_intervention

__all__ = ["DEFAULT", "Knobs", "attributes", "effusion_volume", "graph", "recorded", "selected", "severity"]

AGE_LOW, AGE_SPAN = 20.0, 70.0
AGE_SHAPE = (2.5, 2.0)
FINDING_PER_DECADE = 0.45


@dataclass(frozen=True)
class Knobs:
    """Scales of the effects, and biases that are planted on top.

    1 is the size stated in the documentation, 0 switches an effect off. `finding_odds`: log-odds of the finding at
    60 years (-0.63 gives a prevalence of 0.35 over the law of age), `finding_age`: scale of what age adds to them.
    `ap_share`: of AP views. `planted`: attribute to channel to strength, see `planted.py`; nothing by default.
    What is planted on race are correlates of how and whom a site images, never anatomy.
    The attribute `view` exists only where `ap_share` is not 0 or something is planted on it, `group` only where
    something is planted on it. `sites`: name to law to number, see `sites.py`; then there is an attribute `site`.
    """

    sex_chest_width: float = 1.0
    sex_breast: float = 1.0
    sex_heart: float = 1.0
    age_heart: float = 1.0
    age_aorta: float = 1.0
    age_bone: float = 1.0
    age_kyphosis: float = 1.0
    finding_volume: float = 1.0
    finding_odds: float = -0.63
    finding_age: float = 1.0
    variation: float = 1.0
    pixel_noise: float = 1.0
    ap_share: float = 0.0
    planted: Planted = field(default_factory=dict)
    sites: Sites = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_planted(self.planted)
        check_sites(self.sites)
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in ("planted", "sites"):
                continue
            if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < float("inf"):
                raise ConfigError(f"knob '{each.name}': expected a finite number, got {value!r}")
        for name in ("variation", "pixel_noise", "ap_share"):
            if getattr(self, name) < 0:
                raise ConfigError(f"knob '{name}': expected a number of at least 0, got {getattr(self, name):g}")

        if self.ap_share > 1:
            raise ConfigError(f"knob 'ap_share': expected a share of at most 1, got {self.ap_share:g}")
        base = () if not self.has_view else (self.ap_share,)
        if (q := self.planted.get("view", {}).get("q")) is not None:
            base = (q, 1.0 - q)
        added = [laws.get("ap", 0.0) for laws in self.sites.values()] if self.has_view else []
        for start in base:
            for share in added:
                if not 0 <= start + share <= 1:
                    raise ConfigError(
                        f"sites: a share of AP views of {start:g} and {share:g} is none; see ap_share"
                    )
        check_shares(self.planted, [start + share for start in base for share in added or [0.0]])

    @property
    def has_view(self) -> bool:
        """Whether the attribute `view` (0 PA, 1 AP) is part of the model."""
        by_site = varies(self.sites, "ap")
        return self.ap_share != 0 or "view" in self.planted or bool(self.carriers("view")) or by_site

    @property
    def has_site(self) -> bool:
        """Whether the attribute `site` is part of the model."""
        return bool(self.sites)

    @property
    def has_group(self) -> bool:
        """Whether the attribute `group` (0 A, 1 B) is part of the model."""
        return "group" in self.planted

    def carriers(self, *channels: str) -> tuple[str, ...]:
        """The attributes on which any of these channels is planted, in the order of the graph."""
        order = ("sex", "race", "age", "finding", "group", "view")
        return tuple(n for n in order if any(self.planted.get(n, {}).get(c) for c in channels))


DEFAULT = Knobs()


def graph(knobs: Knobs = DEFAULT) -> Graph:
    """The causal graph that the simulator obeys: `chest`, and what the knobs add to it."""
    by_q = [name for name in knobs.carriers("q") if name in ("sex", "race")]
    finding = (*by_q, "age") if knobs.finding_age else tuple(by_q)
    follows = {name: ("finding",) if "q" in knobs.planted.get(name, {}) else () for name in ("group", "view")}
    view = tuple(dict.fromkeys((*knobs.carriers("view"), *follows["view"])))
    declared = _graph(
        finding,
        follows["group"] if knobs.has_group else None,
        view if knobs.has_view else None,
        knobs.carriers(*IMAGE_CHANNELS),
    )
    return _with_sites(declared, knobs) if knobs.has_site else declared


def attributes(
    u: Mapping[str, Tensor], do: Mapping[str, Any] | None = None, knobs: Knobs = DEFAULT
) -> dict[str, Tensor]:
    """The attributes of the subjects with noise `u`, under an intervention if one is given.

    Returns sex (0 female, 1 male), race (0 white, 1 asian, 2 black), finding (0 No Finding, 1 Pleural Effusion),
    where they exist site, group (0 A, 1 B) and view (0 PA, 1 AP), each int64 `(B,)`, and age, float32 `(B,)`, in
    years.
    `do` is in natural units: labels, numbers, or one value per row. Raises GraphError for what the graph refuses.
    """
    n, device = len(u["age"]), u["age"].device
    values = intervened(do, n, device, knobs)
    if knobs.has_site and SITE not in values:
        values[SITE] = site_of(knobs.sites, u["subject"])
    if "sex" not in values:
        values["sex"] = (u["sex"] < 0.5).to(torch.int64)
    if "race" not in values:
        black = 1.0 - _by_site(knobs, "black", values)
        values["race"] = (u["race"] >= black - _by_site(knobs, "asian", values)).to(torch.int64) + (
            u["race"] >= black
        )
    if "age" not in values:
        values["age"] = (AGE_LOW + AGE_SPAN * _beta_quantile(u["age"])).to(torch.float32)
    if "finding" not in values:
        values["finding"] = (u["finding"] < _finding_probability(values, knobs)).to(torch.int64)
    names = [*([SITE] if knobs.has_site else []), "sex", "race", "age", "finding"]
    for name, exists, share in (("group", knobs.has_group, 0.5), ("view", knobs.has_view, knobs.ap_share)):
        if exists:
            names.append(name)
            if name not in values:
                values[name] = (u[name] < _share(name, share, values, knobs)).to(torch.int64)
    return {name: values[name] for name in names}


def recorded(u: Mapping[str, Tensor], p: Mapping[str, Tensor], knobs: Knobs = DEFAULT) -> dict[str, Tensor]:
    """The attributes as they are written down: where underdiagnosis is planted, some findings are not.

    The image shows the finding all the same.
    """
    missed = total(knobs.planted, "underdiagnosis", p)
    if missed is None:
        return dict(p)
    return {**p, "finding": torch.where(u["recorded"] < missed, 0, p["finding"])}


def selected(u: Mapping[str, Tensor], p: Mapping[str, Tensor], knobs: Knobs = DEFAULT) -> Tensor:
    """Who gets into the data, bool `(B,)`: where selection is planted, some with the finding do not."""
    left_out = total(knobs.planted, "selection", p)
    if left_out is None:
        return torch.ones_like(p["finding"], dtype=torch.bool)
    return (p["finding"] == 0) | (u["selected"] >= left_out)


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


def _finding_probability(values: Mapping[str, Tensor], knobs: Knobs) -> Tensor:
    per_year = knobs.finding_age * FINDING_PER_DECADE / 10.0
    log_odds = knobs.finding_odds + per_year * (values["age"].to(torch.float64) - 60.0)
    log_odds = log_odds + odds_of_finding(knobs.planted, values) + _by_site(knobs, "finding", values)
    return 1.0 / (1.0 + torch.exp(-log_odds))


def _share(name: str, share: float, values: Mapping[str, Tensor], knobs: Knobs) -> Tensor | float:
    """Of the second label of `group` or `view`: 0.5 or `ap_share`, or what q says, and what is planted on it."""
    q = knobs.planted.get(name, {}).get("q")
    law: Tensor | float = share if q is None else share_given_finding(q, values["finding"])
    if name != "view":
        return law
    added = total(knobs.planted, "view", values)
    law = law + _by_site(knobs, "ap", values)
    return law if added is None else law + added


def _by_site(knobs: Knobs, law: str, values: Mapping[str, Tensor]) -> Tensor | float:
    """A law's number at the site of every row; what everybody has where there are no sites."""
    return law_of_site(knobs.sites, law, values[SITE]) if knobs.has_site else LAWS[law][3]


def _with_sites(declared: Graph, knobs: Knobs) -> Graph:
    """The graph with the site as a cause of whatever its laws differ in."""
    found = declared.to_dict()
    variables, laws = found["variables"], knobs.sites
    kind = "binary" if len(laws) == 2 else "categorical"
    site = {SITE: {"kind": kind, "labels": list(laws), "description": "The hospital."}}
    for name, of in (("race", ("asian", "black")), ("finding", ("finding",)), ("view", ("ap",))):
        if varies(laws, *of):
            variables[name]["parents"] = [SITE, *variables[name].get("parents", [])]
    if varies(laws, "exposure"):
        variables["image"]["parents"] = [*variables["image"]["parents"], SITE]
    return graph_from_dict(found | {"variables": site | variables})


@lru_cache(maxsize=64)
def _graph(
    finding: tuple[str, ...],
    group: tuple[str, ...] | None,
    view: tuple[str, ...] | None,
    image: tuple[str, ...],
) -> Graph:
    """The graph `chest` with these parents of finding, group and view (None: not there), and more of the image."""
    declared = load_graph("chest").to_dict()
    variables = declared["variables"]
    variables["finding"]["parents"] = list(finding)
    for name, labels, parents in (("group", ["A", "B"], group), ("view", ["PA", "AP"], view)):
        if parents is not None:
            variables[name] = {"kind": "binary", "labels": labels, "parents": list(parents)}
    more = (*image, *(() if view is None else ("view",)))
    variables["image"]["parents"] = list(dict.fromkeys([*variables["image"]["parents"], *more]))
    variables["image"] = variables.pop("image")  # last, as its causes come first
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
