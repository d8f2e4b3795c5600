"""The speed benchmark compares what it says it compares: passes are counted here, and no time is looked at."""

import importlib
import json
from collections import Counter
from pathlib import Path

import pytest


@pytest.fixture
def speed(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module("speed")


@pytest.fixture
def passes(speed, monkeypatch):
    """Passes of the networks by way: `_in_turn` counts them, and returns the passes of both instead of seconds."""
    calls, found = Counter(), {}

    def count(name, module):
        module.register_forward_hook(lambda *_: calls.update([name]))

    def build_model(preset, build=speed._model):
        scm = build(preset)
        for name in ("encoder", "decoder"):
            count(name, scm.mechanism("image").get_submodule(name))
        return scm

    def build_predictor(*arguments, build=speed.build_predictor):
        predictor = build(*arguments)
        count("trunk", predictor.trunk)
        return predictor

    def count_in_turn(slow, fast, repeats):
        for name, way in (("published", slow), ("ours", fast)):
            calls.clear()
            way()
            found[name] = dict(calls)
        return sum(found["published"].values()), sum(found["ours"].values())

    monkeypatch.setattr(speed, "_model", build_model)
    monkeypatch.setattr(speed, "build_predictor", build_predictor)
    monkeypatch.setattr(speed, "_in_turn", count_in_turn)
    monkeypatch.setattr(speed, "_peak_memory", lambda function: None)
    return found


def test_a_training_step_runs_the_encoder_and_the_decoder_once(speed):
    assert speed.training_step() == {"encoder": 1, "decoder": 1}


def test_a_fine_tuning_step_runs_the_encoder_once_and_the_trunk_once_a_set_of_images(speed, passes):
    found = speed.finetune_step(repeats=1, rows=2)
    assert passes["ours"] == found["calls"] == {"encoder": 1, "decoder": 2, "trunk": 2}
    # Abducted twice, rebuilt, and decoded; a trunk for each of four heads, on given and made images.
    assert passes["published"] == {"encoder": 2, "decoder": 4, "trunk": 8}
    assert found["ratio"] == 14 / 5


def test_eight_interventions_share_one_abduction_and_one_decoder_pass(speed, passes):
    found = speed.batched_interventions(repeats=1, rows=2)
    assert found["interventions"] == len(speed.INTERVENTIONS) == 8
    assert passes["ours"] == {"encoder": 1, "decoder": 2}
    assert passes["published"] == {"encoder": 8, "decoder": 24}  # abducted, rebuilt and decoded, one by one
    assert found["ratio"] == 32 / 3


def test_both_ways_are_timed_in_turn_and_the_first_round_does_not_count(speed, monkeypatch):
    clock, order = [0.0], []

    def way(name, *seconds):
        left = list(seconds)
        return lambda: (order.append(name), clock.__setitem__(0, clock[0] + left.pop(0)))

    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])
    found = speed._in_turn(way("slow", 99, 6, 4, 5), way("fast", 99, 3, 1, 2), repeats=3)
    assert found == (5, 2) and order == ["slow", "fast"] * 4


def test_the_gpu_script_runs_on_a_cpu_and_keeps_what_other_devices_found(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    gpu = importlib.import_module("gpu")
    monkeypatch.setattr(gpu, "REPEATS", 1)
    out = tmp_path / "gpu.json"
    out.write_text('{"another device": {"rows": 1}}')
    parts = [part for part in gpu.PARTS if part != "compile"]
    monkeypatch.setattr(
        "sys.argv",
        ["gpu.py", "--out", str(out), "--presets", "hvae32", "flow192", "--rows", "2", "--parts", *parts],
    )
    gpu.main()
    found = json.loads(out.read_text())
    assert found.pop("another device") == {"rows": 1}
    (mine,) = found.values()
    same = {"largest_levels": 0, "mean_levels": 0}  # the device is the CPU itself
    assert mine["agreement"] == {"hvae32": same, "flow192": same}
    assert set(mine["training"]["hvae32"]) == {"32", "32 with tf32", "bf16-mixed"}
    assert all(one["images_a_second"] > 0 for one in mine["training"]["hvae32"].values())
    monkeypatch.setattr(gpu, "SECONDS", -1)  # the time is up before anything has begun
    gpu.main()
    assert json.loads(out.read_text()) == {"another device": {"rows": 1}} | found
