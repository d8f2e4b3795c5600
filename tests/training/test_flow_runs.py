"""A run whose image is made by a flow: trained, resumed, fine-tuned with every kind of targets, and evaluated."""

import json
import shutil

import pytest
import torch

import causalcxr
from causalcxr.config import load_config
from causalcxr.data.preparation import open_cohort
from causalcxr.evaluation.evaluate import evaluate
from causalcxr.mechanisms.flow import Flow
from causalcxr.runs import open_run
from causalcxr.support.errors import GraphError, RunError
from causalcxr.support.files import load_tensors
from causalcxr.training.pipeline import train
from tests.conftest import TINY_DATA, TINY_IMAGE, TINY_TRAINING

FLOW = [
    *("model.flow.components=12", "model.flow.width=16", "model.flow.blocks=1", "model.flow.embedding=8"),
    *("model.image=flow", "model.flow.steps=2", "model.template.of=[sex,age]"),
]
TARGETS = ["none", "hard", "soft", "intervened_only", "counterfactual"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return [f"data.cache={cache}", *FLOW, *TINY_DATA, *TINY_IMAGE, *TINY_TRAINING]


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory):
    return train(load_config([f"run={tmp_path_factory.mktemp('flow') / 'run'}", *settings]))


@pytest.fixture(scope="module", params=TARGETS)
def tuned(run, request):
    words = [f"base={run}", f"finetune.targets={request.param}", "train.finetune.learning_rate=1e-2"]
    return train(load_config(words))


def test_what_is_solved_for_is_kept_and_the_velocity_is_trained(run):
    flow = causalcxr.load(run).image_mechanism
    assert isinstance(flow, Flow) and flow.event_shape == (1, 32, 32)
    assert flow.space.lost.max() > 0
    assert len(flow.template.brightness) == 3 and (flow.template.brightness.abs().amax(dim=(1, 2, 3)) > 0).all()
    assert all(parameter.abs().max() > 0 for parameter in flow.velocity.parameters())


def test_a_run_that_goes_on_ends_in_the_same_weights(run, settings, tmp_path):
    half = [f"run={tmp_path / 'half'}", *settings]
    train(load_config([*half, "train.stages=[attributes,predictors]"]))
    train(load_config(half))
    before, after = (load_tensors(folder / "model.safetensors")[0] for folder in (run, tmp_path / "half"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_fine_tuning_trains_the_velocity_alone(run, tuned):
    before, after = (load_tensors(folder / "model.safetensors")[0] for folder in (run, tuned))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(".velocity." in name for name in changed)


def test_what_it_says_of_a_test_film(run):
    opened, scm = open_run(run), causalcxr.load(run)
    batch = open_cohort(opened.config.data, opened.graph).split("test").batch(range(4))
    abduction = scm.abduct(batch)
    same, older = scm.counterfactual(abduction, [{"sex": batch["sex"]}, {"age": 85}])
    torch.testing.assert_close(same["image"], batch["image"] / 255, atol=1e-5, rtol=0)
    assert (older["image"] - batch["image"] / 255).abs().max() > 1e-3
    one, two = (scm.counterfactual(batch, {"sex": "male"}, effect="direct", seed=seed)["image"] for seed in (1, 2))
    assert torch.equal(one, two)  # nothing of the image is drawn


def test_the_report_has_no_likelihood(tuned, run):
    evaluate(
        [f"run={tuned}", "evaluate.rows=8", f"evaluate.compare=[{run}]", "evaluate.cycles=2", "evaluate.draws=3"]
    )
    found = json.loads((tuned / "metrics.json").read_text())["metrics"]
    one, expected = (found[f"exact/{who}/age/error"]["value"] for who in ("model", "expected"))
    assert one == expected  # nothing is drawn, so one counterfactual is all there is
    assert "image/bits_per_dimension" not in found and found["image/training_loss"]["value"] > 0
    assert found["composition/kept/2"]["value"] < 0.5 and "composition/redrawn/1" not in found
    assert "Composition" in (tuned / "report.html").read_text("utf-8")


def test_a_report_compares_mechanisms(run, tiny_run, tmp_path):
    """The same data, the image made by a flow and by the VAE."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    evaluate([f"run={copy}", "evaluate.rows=8", f"evaluate.compare=[{tiny_run}]", "evaluate.cycles=1"])
    written = json.loads((copy / "metrics.json").read_text())
    other = written["compared"][tiny_run.name]["metrics"]
    assert "image/bits_per_dimension" in other and "image/bits_per_dimension" not in written["metrics"]
    assert other["exact/model/sex/error"]["value"] > 0


def test_a_run_keeps_the_mechanism_that_it_was_asked_for(run):
    opened = open_run(run)
    assert opened.graph["image"].mechanism == "flow" and opened.config.graph == "chest"


def test_an_unknown_mechanism_is_refused_before_anything_is_made(settings, tmp_path):
    with pytest.raises(GraphError, match="unknown mechanism 'flw' for kind 'image'; did you mean 'flow'"):
        train(load_config([f"run={tmp_path / 'x'}", *settings, "model.image=flw"]))
    assert not (tmp_path / "x").exists()


def test_another_mechanism_is_named_where_a_run_or_a_base_has_this_one(run, settings, tmp_path):
    with pytest.raises(RunError, match=r"made with model\.image=flow, now it is hvae"):
        train(load_config([f"run={run}", *settings, "model.image=hvae"]))
    with pytest.raises(RunError, match=r"made with model\.image=flow, now it is hvae; leave it away"):
        train(load_config([f"base={run}", f"run={tmp_path / 'x'}", "model.image=hvae"]))
