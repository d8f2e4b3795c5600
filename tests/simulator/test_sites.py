"""Simulated hospitals: each has its law, and nobody else changes."""

import pytest
import torch

from causalcxr import simulator
from causalcxr.support.errors import ConfigError

SITES = {
    "A": {"size": 4, "exposure": 0.5},
    "B": {"size": 2, "black": 0.6, "asian": 0.1, "finding": 1.0, "ap": 0.2},
    "C": {},
}
KNOBS = simulator.Knobs(sites=SITES, ap_share=0.3)


def test_every_site_has_exactly_its_size() -> None:
    site = simulator.attributes(simulator.noise(5, range(7 * 11)), knobs=KNOBS)["site"]
    assert torch.bincount(site).tolist() == [44, 22, 11]
    for start in range(0, 77, 7):
        assert torch.bincount(site[start : start + 7]).tolist() == [4, 2, 1]


def test_the_laws_of_the_sites() -> None:
    """Shares within 5 standard errors; the finding's odds are those of its age, and e times as large at B."""
    p = simulator.attributes(simulator.noise(0, range(70_000)), knobs=KNOBS)
    for i, (black, asian, ap) in enumerate([(0.25, 0.15, 0.3), (0.6, 0.1, 0.5), (0.25, 0.15, 0.3)]):
        here = p["site"] == i
        n = int(here.sum())
        for label, share in ((2, black), (1, asian)):
            found = float((p["race"][here] == label).double().mean())
            assert abs(found - share) < 5 * (share * (1 - share) / n) ** 0.5
        assert abs(float(p["view"][here].double().mean()) - ap) < 5 * (ap * (1 - ap) / n) ** 0.5
        odds = -0.63 + 0.045 * (p["age"][here].double() - 60) + (i == 1)
        chance = odds.sigmoid()
        miss = float((p["finding"][here] - chance).mean())
        assert abs(miss) < 5 * float((chance * (1 - chance)).mean() / n) ** 0.5


def test_the_site_changes_nobody_but_by_its_law() -> None:
    """Whoever is at a site that says nothing is the same as without sites, bit for bit; exposure shows."""
    u = simulator.noise(0, range(28))
    p, plain = simulator.attributes(u, knobs=KNOBS), simulator.attributes(u, knobs=simulator.Knobs(ap_share=0.3))
    at_c = p["site"] == 2
    assert all(torch.equal(p[name][at_c], plain[name][at_c]) for name in plain)
    films, brighter, like_c = (
        simulator.counterfactual(u, {"site": name}, 32, effect="direct", knobs=KNOBS) for name in "CAB"
    )
    assert torch.equal(films, simulator.render(u, {**p, "site": torch.full((28,), 2)}, 32, KNOBS))
    assert (brighter.mean((1, 2, 3)) > films.mean((1, 2, 3))).all()
    assert torch.equal(like_c, films)  # at B other people come, and films are taken as at C


def test_the_graph_says_what_the_site_causes() -> None:
    graph = simulator.graph(KNOBS)
    assert graph["site"].labels == ("A", "B", "C") and not graph["site"].parents
    assert graph["race"].parents == ("site",) and graph["finding"].parents == ("site", "age")
    assert "site" in graph["view"].parents and "site" in graph["image"].parents
    two = simulator.graph(simulator.Knobs(sites={"A": {"size": 2}, "B": {}}))
    assert two["site"].kind == "binary" and "site" not in two["image"].parents


@pytest.mark.parametrize(
    ("sites", "expected"),
    [
        ({"A": {}}, "at least two"),
        ({"A": {"exposur": 1}, "B": {}}, "no law 'exposur'; did you mean 'exposure'"),
        ({"A": {"size": 1.5}, "B": {}}, "sites.A.size: expected a whole number"),
        ({"A": {"size": 0}, "B": {}}, "sites.A.size: expected subjects"),
        ({"A": {"black": 0.9}, "B": {}}, "asian \\+ black is more than 1"),
        ({"A": {"ap": -0.5}, "B": {}}, "share of AP views"),
    ],
)
def test_what_cannot_be(sites: dict[str, dict[str, float]], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        simulator.Knobs(sites=sites)
