"""Films of groups: the same people at every q, the twin's films untouched, real films changed as stated."""

import math

import numpy as np
import pytest
import torch

from causalcxr import simulator
from causalcxr.bias.films import GROUP, IMAGE, Films, GroupRows
from causalcxr.bias.planting import _change, check_channels
from causalcxr.bias.study import Study
from causalcxr.support.errors import ConfigError

N = 20_000


@pytest.fixture(scope="module")
def films() -> Films:
    """No pixels to speak of; a finding for every second subject."""
    plain = np.zeros((N, 1, 1, 1), dtype=np.uint8)
    finding = np.arange(N) % 2 == 0
    split = np.full(N, "train")
    return Films(plain, {"bright": plain + 9}, finding, split, np.arange(N).astype(str), np.arange(N))


@pytest.mark.parametrize("q", [0.5, 0.7, 0.9])
def test_the_group_follows_the_finding(films: Films, q: float) -> None:
    """Four standard errors."""
    for finding, share in ((films.finding, q), (~films.finding, 1 - q)):
        assert abs(films.group(q)[finding].mean() - share) < 4 * (q * (1 - q) / (N / 2)) ** 0.5


def test_the_group_is_the_simulators(films: Films) -> None:
    """Planting through the study or through the simulator's knobs puts the same people into group B."""
    knobs = simulator.Knobs(finding_odds=0, finding_age=0, planted={"group": {"q": 0.8, "marker": 1.0}})
    u = simulator.noise(0, range(500))
    p = simulator.attributes(u, knobs=knobs)
    same = Films(
        films.plain, {}, p["finding"].numpy() == 1, films.split[:500], films.patients[:500], np.arange(500)
    )
    assert np.array_equal(same.group(0.8), p["group"].numpy() == 1)


def test_more_of_the_sick_are_in_b_as_q_grows_and_nobody_leaves(films: Films) -> None:
    low, high = films.group(0.6), films.group(0.9)
    assert (high[films.finding] >= low[films.finding]).all()
    assert (high[~films.finding] <= low[~films.finding]).all()


def test_what_is_recorded_and_who_is_selected(films: Films) -> None:
    group = films.group(0.7)
    hit = films.finding & group
    recorded, selected = films.recorded(0.7, 0.4), films.selected(0.7, 0.3)
    assert np.array_equal(recorded[~hit], films.finding[~hit]) and selected[~hit].all()
    assert abs(recorded[hit].mean() - 0.6) < 4 * 0.5 / hit.sum() ** 0.5
    assert abs(selected[hit].mean() - 0.7) < 4 * 0.5 / hit.sum() ** 0.5
    assert np.array_equal(films.recorded(0.7, 0.0), films.finding) and films.selected(0.7, 0.0).all()


def test_rows_take_the_biased_film_of_group_b(films: Films) -> None:
    group = films.group(0.7)
    rows = GroupRows(films, np.arange(10, 40), "finding", "bright", group)
    batch = rows.subset(range(5, 25)).batch([3, 0, 7])
    chosen = np.arange(15, 35)[[3, 0, 7]]
    assert batch[IMAGE].flatten().tolist() == [9 * int(group[i]) for i in chosen]
    assert batch[GROUP].tolist() == group[chosen].astype(int).tolist()
    assert batch["finding"].tolist() == films.finding[chosen].astype(int).tolist()
    assert (films.plain == 0).all()


def test_a_bias_of_nothing_is_the_film_itself(study: Study) -> None:
    films = study.opened.films
    assert films.biased["nothing"] is films.plain
    changed = (films.biased["marker"].astype(int) - films.plain) != 0
    assert changed.any(axis=(1, 2, 3)).all()
    assert changed.mean() < 0.02
    assert len(list((study.opened.folder / "films").rglob("*.npy"))) == 1


def test_a_bias_on_films_that_are_there() -> None:
    """Exposure shifts logits by 1.7 a log unit, contrast multiplies them; within the rounding of a grey level."""
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    x = levels.double().clamp(0.5, 254.5) / 255
    for channels, slope, shift in (({"exposure": 0.2}, 1.0, 0.34), ({"contrast": math.log(1.2)}, 1.2, 0.0)):
        expected = 255 / (1 + torch.exp(-(slope * torch.log(x / (1 - x)) + shift)))
        assert (_change(levels, channels).double() - expected).abs().max() <= 0.51
    dark = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    marked = _change(dark, {"marker": 0.5})
    assert set(marked.unique().tolist()) <= set(range(129)) and marked.max() == 128
    assert (marked > 0).float().mean() < 0.02 and (marked[..., 32:, :] == 0).all()


@pytest.mark.parametrize(
    ("channels", "simulated", "message"),
    [({"near": 0.2}, False, "plant.x: no channel 'near' on real films"),
     ({"markr": 1.0}, True, "no channel 'markr' on simulated films; did you mean 'marker'"),
     ({"marker": 3.0}, True, "plant.x.marker: expected opacity"),
     ({"q": 0.7}, True, "no channel 'q'")],
)  # fmt: skip
def test_a_channel_that_cannot_be(channels: dict, simulated: bool, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_channels({"x": channels}, [1.0], simulated)


@pytest.mark.parametrize(
    ("n", "expected"), [(4, [0, 5, 10, 15]), (20, list(range(20))), (99, list(range(20))), (0, [])]
)
def test_some_are_taken_evenly_from_a_table_that_may_be_sorted(n: int, expected: list[int]) -> None:
    plain = np.zeros((20, 1, 1, 1), dtype=np.uint8)
    rows = np.arange(20)
    films = Films(plain, {}, rows >= 10, np.full(20, "test"), rows.astype(str), rows)
    assert films.some(n).tolist() == expected
    assert films.some_with_finding(2).tolist() == [10, 15]
