"""Hospitals: each with its own law of who comes, what is found, and how films are taken.

    sites = {"A": {"size": 400, "exposure": 0.3}, "B": {"size": 100, "black": 0.6, "finding": 1.0}}

Subject number i is seen at the site that stands at place i of a shuffled list of `size` places a site, over and
over: of as many subjects as there are places, each site has exactly its size.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from causalcxr.support.errors import ConfigError, nearest

__all__ = ["LAWS", "SITE", "Sites", "check_sites", "law_of_site", "places", "site_of", "varies"]

SITE = "site"  # the attribute
# what a site may have of its own: what the number is, its limits, and what a site has that says nothing
LAWS: dict[str, tuple[str, float, float, float]] = {
    "size": ("subjects of one round through all sites", 1, 1_000_000, 1),
    "exposure": ("log units of exposure", -2.0, 2.0, 0.0),
    "ap": ("added share of AP views", -1.0, 1.0, 0.0),
    "finding": ("added log-odds of the finding", -10.0, 10.0, 0.0),
    "asian": ("share of people recorded as asian", 0.0, 1.0, 0.15),
    "black": ("share of people recorded as black", 0.0, 1.0, 0.25),
}
_SEED = 83  # of the order in which subjects come to the sites

Sites = Mapping[str, Mapping[str, float]]


def check_sites(sites: Sites) -> None:
    """Raises ConfigError: one site alone, a law that no site has, a number out of its limits."""
    for name, laws in sites.items():
        for law, value in laws.items():
            key = f"sites.{name}.{law}"
            if law not in LAWS:
                raise ConfigError(f"sites.{name}: no law '{law}'; {nearest(law, LAWS)}")
            meaning, low, high, _ = LAWS[law]
            if not low <= value <= high:
                raise ConfigError(f"{key}: expected {meaning}, from {low:g} to {high:g}, got {value!r}")
        if laws.get("size", 1) != int(laws.get("size", 1)):
            raise ConfigError(f"sites.{name}.size: expected a whole number, got {laws['size']!r}")
        if _law(laws, "asian") + _law(laws, "black") > 1:
            raise ConfigError(f"sites.{name}: asian + black is more than 1")
    if len(sites) == 1:
        raise ConfigError(f"sites: expected at least two, or none, got {', '.join(sites)} alone")


def places(sites: Sites) -> int:
    """Subjects of one round through all sites."""
    return sum(int(_law(laws, "size")) for laws in sites.values())


def site_of(sites: Sites, subjects: Tensor) -> Tensor:
    """The site of every subject by number `(B,)`, int64 in the order of `sites`."""
    order = _order(tuple(int(_law(laws, "size")) for laws in sites.values())).to(subjects.device)
    return order[subjects % len(order)]


def law_of_site(sites: Sites, law: str, site: Tensor) -> Tensor:
    """A law's number for the site of every row `(B,)` float64."""
    numbers = [_law(laws, law) for laws in sites.values()]
    return torch.tensor(numbers, dtype=torch.float64, device=site.device)[site]


def varies(sites: Sites, *laws: str) -> bool:
    """Whether any site differs from what a site has that says nothing."""
    return any(_law(of, law) != LAWS[law][3] for of in sites.values() for law in laws)


def _law(laws: Mapping[str, float], law: str) -> float:
    return laws.get(law, LAWS[law][3])


@lru_cache(maxsize=8)
def _order(sizes: tuple[int, ...]) -> Tensor:
    site = np.repeat(np.arange(len(sizes)), sizes)
    return torch.from_numpy(np.random.default_rng(_SEED).permutation(site))
