"""A run whose image is made by a flow: trained, resumed, fine-tuned with every kind of targets, and evaluated."""

import json

import pytest
import torch
import yaml

import causalcxr
from causalcxr.config import load_config
from causalcxr.data.preparation import open_cohort
from causalcxr.evaluation.evaluate import evaluate
from causalcxr.mechanisms.flow import Flow
from causalcxr.runs import open_run
from causalcxr.support.errors import ConfigError
from causalcxr.support.files import load_tensors
from causalcxr.training.pipeline import train
from tests.conftest import TINY_DATA, TINY_IMAGE, TINY_TRAINING

FLOW = [
    *("model.flow.components=12", "model.flow.width=16", "model.flow.blocks=1", "model.flow.embedding=8"),
    *("model.flow.steps=2", "model.flow.template=[sex,age]"),
]
TARGETS = ["none", "hard", "soft", "intervened_only", "counterfactual"]


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """The chest graph, whose image has the mechanism flow."""
    from causalcxr.graph import load_graph

    declared = load_graph("chest").to_dict()
    declared["variables"]["image"]["mechanism"] = "flow"
    path = tmp_path_factory.mktemp("graph") / "chest_flow.yaml"
    path.write_text(yaml.safe_dump(declared, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def settings(graph, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return [f"graph={graph}", f"data.cache={cache}", *FLOW, *TINY_DATA, *TINY_IMAGE, *TINY_TRAINING]


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory):
    return train(load_config([f"run={tmp_path_factory.mktemp('flow') / 'run'}", *settings]))


@pytest.fixture(scope="module", params=TARGETS)
def tuned(run, request):
    words = [f"base={run}", f"finetune.targets={request.param}", "train.finetune.learning_rate=1e-2"]
    return train(load_config(words))


def test_what_is_solved_for_is_kept_and_the_velocity_is_trained(run):
    flow = causalcxr.load(run).image_mechanism
    assert isinstance(flow, Flow) and flow.event_shape == (1, 32, 32) and flow.template is not None
    assert flow.components.lost.max() > 0 and flow.template.brightness.abs().max() > 0
    assert flow.template.brightness[~flow.in_template].abs().max() < 1e-12  # of race and the finding
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


def test_severities_are_of_another_mechanism(settings, tmp_path):
    with pytest.raises(ConfigError, match=r"the mechanism 'flow' has no severities; set model\.severity\.of="):
        train(load_config([f"run={tmp_path / 'x'}", *settings, "model.severity.of=[finding]"]))
    assert not (tmp_path / "x").exists()
