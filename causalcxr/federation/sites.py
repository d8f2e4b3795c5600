"""Sites: the rows of one cohort, divided by a column of it or dealt out. Each site's rows stay its own."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from causalcxr import simulator
from causalcxr.data.cohort import Cohort, Split
from causalcxr.data.table import SPLITS
from causalcxr.federation.config import SitesConfig, site_attribute
from causalcxr.graph import Graph, load_graph
from causalcxr.mechanisms.registry import choose_image_mechanism
from causalcxr.randomness import seed_of
from causalcxr.support.errors import ConfigError, nearest

__all__ = ["Site", "everybody", "make_sites", "open_sites_graph", "site_shares"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Site:
    """A hospital's rows."""

    name: str
    train: Split
    val: Split
    test: Split


def open_sites_graph(config: SitesConfig) -> Graph:
    """The graph of a study: the simulator's own if its hospitals are simulated, so that the site is part of it."""
    data = config.data
    if data.sites and config.graph == "chest":
        graph = simulator.graph(simulator.Knobs(**data.knobs, planted=data.planted, sites=data.sites))
    else:
        graph = load_graph(config.graph)
    return choose_image_mechanism(graph, config.model.image)


def make_sites(config: SitesConfig, cohort: Cohort) -> list[Site]:
    """All sites with at least one training film.

    Raises ConfigError: no way to make sites is given, fewer films than are to be dealt out, an unknown site.
    """
    by = site_attribute(config)
    sites = _by_attribute(cohort, by) if by else _dealt(config, cohort)
    names = [site.name for site in sites]
    for name in config.skip:
        if name not in names:
            raise ConfigError(f"skip has '{name}', which is no site; {nearest(name, names)}")
    empty = [site.name for site in sites if not len(site.train)]
    if empty:
        log.info("%d sites have no training film and take no part: %s", len(empty), ", ".join(empty[:5]))
    left = [site for site in sites if len(site.train) and site.name not in config.skip]
    if not left:
        raise ConfigError(f"skip={config.skip} leaves no site")
    largest = max(len(site.train) for site in left)
    if "fedtm" in config.strategies and largest < config.enough:
        raise ConfigError(
            f"fedtm averages sites of enough={config.enough} films or more; the largest has {largest}"
        )
    return left


def everybody(sites: Sequence[Site]) -> Site:
    """All sites' rows in one place, as `central` has them."""
    return Site("everybody", *_three(lambda name: _joined([getattr(site, name) for site in sites])))


def _three(split: Callable[[str], Split]) -> tuple[Split, Split, Split]:
    return split("train"), split("val"), split("test")


def _joined(parts: Sequence[Split]) -> Split:
    first = parts[0]
    return Split(first.cohort, first.name, np.sort(np.concatenate([part.rows for part in parts])))


def site_shares(config: SitesConfig, graph: Graph, names: Sequence[str], sizes: Sequence[int]) -> list[float]:
    """Training films by label of the site's attribute, as shares; nothing without such an attribute."""
    by = site_attribute(config)
    of = dict(zip(names, sizes, strict=True))
    return [of.get(label, 0) / sum(sizes) for label in graph[by].labels] if by else []


def _by_attribute(cohort: Cohort, by: str) -> list[Site]:
    column = cohort.manifest[by].to_numpy(dtype=str)

    def rows(name: str, label: str) -> Split:
        split = cohort.split(name)
        return split.subset(np.flatnonzero(column[split.rows] == label))

    labels = cohort.graph[by].labels
    return [Site(label, *_three(lambda name, label=label: rows(name, label))) for label in labels]


def _dealt(config: SitesConfig, cohort: Cohort) -> list[Site]:
    """Training films in a shuffled order, so many a site; the others in the same proportions."""
    n = len(cohort.split("train"))
    if config.each > n:
        raise ConfigError(f"each is {config.each}, but the training split has {n} films")
    sizes = config.sizes or ([config.each] * (n // config.each) if config.each else [])
    if not sizes:
        raise ConfigError(
            "who the sites are is not said: set by= to an attribute, each= or sizes= to deal films out, or "
            "data.sites to simulate hospitals"
        )
    if sum(sizes) > n:
        raise ConfigError(f"sizes are {sum(sizes)} films together, but the training split has {n}")
    parts = {name: _deal(cohort.split(name), sizes, exact=name == "train") for name in SPLITS}
    digits = len(str(len(sizes)))
    return [Site(f"site {i + 1:0{digits}d}", *_three(lambda name, i=i: parts[name][i])) for i in range(len(sizes))]


def _deal(split: Split, sizes: Sequence[int], exact: bool) -> list[Split]:
    order = np.random.default_rng(seed_of(0, "deal", split.name)).permutation(len(split))
    ends = np.cumsum(sizes)
    if not exact:
        ends = np.round(ends * (len(order) / ends[-1])).astype(int)
    return [split.subset(order[first:last]) for first, last in zip([0, *ends[:-1]], ends, strict=True)]
