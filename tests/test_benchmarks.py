"""The speed benchmark runs, and counts the passes that it says it counts. What it times is not looked at."""

import importlib
from pathlib import Path

import pytest


@pytest.fixture
def speed(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module("speed")


def test_a_training_step_runs_the_encoder_and_the_decoder_once(speed):
    assert speed.training_step() == {"encoder": 1, "decoder": 1}


def test_a_fine_tuning_step_runs_the_encoder_once_and_the_trunk_once_a_set_of_images(speed):
    found = speed.finetune_step(repeats=1, rows=2)
    assert found["calls"] == {"encoder": 1, "decoder": 2, "trunk": 2}
    assert found["ratio"] > 0


def test_interventions_are_timed_both_ways(speed):
    found = speed.batched_interventions(repeats=1, rows=2)
    assert found["ratio"] > 0 and found["interventions"] == len(speed.INTERVENTIONS)
