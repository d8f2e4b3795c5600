"""Simulated cohorts: the simulator's own images and attributes, which it can make again."""

import dataclasses

import pytest
import torch

from causalcxr import simulator
from causalcxr.data import DataConfig, open_cohort, prepare
from causalcxr.graph import graph_from_dict, load_graph
from causalcxr.support.errors import ConfigError, DataError


@pytest.fixture
def config(tmp_path) -> DataConfig:
    return DataConfig(cache=str(tmp_path), size=32, train=70, val=5, test=6, seed=3)


def test_a_cohort_can_be_simulated_again(config):
    config.planted = {"race": {"exposure": 0.3}}
    cohort = open_cohort(config, load_graph("chest"))
    test = cohort.split("test")
    assert cohort.source["seed"] == 3 and cohort.source["knobs"] == {"planted": {"race": {"exposure": 0.3}}}
    assert test.ids.tolist() == list(range(75, 81)) and test.patients[0] == "sim-0000075"
    knobs = simulator.Knobs(**cohort.source["knobs"])
    noise = simulator.noise(cohort.source["seed"], test.ids.tolist())
    attributes = simulator.attributes(noise, knobs=knobs)
    batch = test.batch(range(6))
    for name in ("sex", "race", "age", "finding"):
        assert torch.equal(batch[name], attributes[name]), name
    image = simulator.render(noise, attributes, size=32, knobs=knobs)
    # Rounded to 8 bits: at most half a level, and the few bits by which sums in another batch may differ.
    assert (batch["image"] / 255 - image).abs().max() <= 0.5 / 255 + 1e-5


def test_a_smaller_graph_takes_what_it_names(config):
    chest = open_cohort(config, load_graph("chest"))
    smaller = open_cohort(config, load_graph("chest_without_race"))
    assert list(smaller.manifest) == [name for name in chest.manifest if name != "race"]
    assert (smaller.images == chest.images).all()
    assert [len(smaller.split(name)) for name in ("train", "val", "test")] == [70, 5, 6]


def test_the_bytes_do_not_depend_on_the_number_of_workers(config, tmp_path):
    graph = load_graph("chest")
    one = prepare(dataclasses.replace(config, workers=1, cache=str(tmp_path / "one")), graph)
    four = prepare(dataclasses.replace(config, workers=4, cache=str(tmp_path / "four")), graph)
    assert {f.name: f.read_bytes() for f in one.iterdir()} == {f.name: f.read_bytes() for f in four.iterdir()}


def test_seed_and_knobs_and_counts_make_other_cohorts(config):
    graph = load_graph("chest")
    changes = ({}, {"seed": 4}, {"knobs": {"sex_breast": 0.0}}, {"val": 6})
    assert len({prepare(dataclasses.replace(config, **change), graph) for change in changes}) == 4


def test_an_attribute_of_the_knobs(config):
    declared = load_graph("chest").to_dict()
    declared["variables"]["view"] = {"kind": "binary", "labels": ["PA", "AP"]}
    graph = graph_from_dict(declared)
    with pytest.raises(DataError, match="the simulator has no attribute 'view'"):
        prepare(config, graph)
    config.knobs = {"ap_share": 0.4}
    assert set(open_cohort(config, graph).manifest["view"]) == {"PA", "AP"}


def test_settings_that_do_not_fit(config):
    declared = load_graph("chest").to_dict()
    declared["variables"]["image"]["channels"] = 3
    with pytest.raises(DataError, match="simulated images have 1 channel"):
        prepare(config, graph_from_dict(declared))
    config.knobs = {"sex_brest": 1.0}
    with pytest.raises(ConfigError, match="no knob 'sex_brest'; did you mean 'sex_breast'"):
        prepare(config, load_graph("chest"))
