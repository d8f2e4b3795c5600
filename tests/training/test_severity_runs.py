"""A run whose image is made with severities and a template: what is stored, asked, fine-tuned, and refused."""

import shutil

import pytest
import torch

import causalcxr
from causalcxr.config import load_config
from causalcxr.data.preparation import open_cohort
from causalcxr.evaluation.evaluate import evaluate
from causalcxr.mechanisms.severity import Causes
from causalcxr.randomness import Draws
from causalcxr.runs import open_run
from causalcxr.support.errors import RunError
from causalcxr.support.files import load_tensors
from causalcxr.training.pipeline import train
from tests.conftest import TINY_DATA, TINY_IMAGE, TINY_TRAINING

EVIDENCE = "mechanisms.image.severity.evidence.predictor."


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """Folder of a trained run with severities of the finding, and a template."""
    folder = tmp_path_factory.mktemp("marked")
    where = [f"run={folder / 'run'}", f"data.cache={folder / 'cache'}"]
    model = ["model.severity.of=[finding]", "model.image.template=true"]
    return train(load_config([*where, *model, *TINY_DATA, *TINY_IMAGE, *TINY_TRAINING]))


@pytest.fixture(scope="module")
def tuned(marked):
    return train(load_config([f"base={marked}", "train.finetune.learning_rate=1e-3"]))


@pytest.fixture
def batch(marked):
    run = open_run(marked)
    return open_cohort(run.config.data, run.graph).split("test").batch(range(8))


def test_the_model_keeps_the_predictor_that_measures(marked):
    stored, predictor = (
        load_tensors(marked / "model.safetensors")[0],
        load_tensors(marked / "predictor.safetensors")[0],
    )
    assert all(torch.equal(stored[EVIDENCE + name], tensor) for name, tensor in predictor.items())


def test_fine_tuning_changes_neither_severities_nor_the_template(marked, tuned):
    before, after = (load_tensors(run / "model.safetensors")[0] for run in (marked, tuned))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any(".severity." in name or ".template." in name for name in changed)


def test_the_template_is_fitted_to_the_training_split(marked):
    run, template = open_run(marked), causalcxr.load(marked).image_mechanism.template
    train = open_cohort(run.config.data, run.graph).split("train")
    mean = torch.cat(list(train.images())).float().mean(dim=0) / 255
    # The mean without a finding and of people in place: it differs where fluid is, and at edges.
    assert (template.mean - mean).abs().mean() < 0.03 and mean.std() > 0.1
    moves, brightens = (effect.flatten(1).abs().amax(dim=1) for effect in (template.field, template.brightness))
    for size in (moves, brightens):
        assert (size[:6] > 1e-4).all() and (size[6:] < 1e-9).all()  # sex, race, age; and the finding's labels


def test_age_moves_the_image_and_the_finding_reaches_it_through_severities_alone(marked, batch):
    mechanism = causalcxr.load(marked).image_mechanism
    noise = mechanism.abduct(batch["image"], batch, Draws(0))
    severities = mechanism.causes(noise, batch).severities

    def make(**changed):
        return mechanism.make(noise, Causes({**batch, **changed}, severities))

    assert torch.equal(make(finding=1 - batch["finding"]), make())
    older = {"age": batch["age"] + 20}
    assert ((make(**older) - make()).abs().amax(dim=(1, 2, 3)) > 1 / 255).all()  # by a grey level somewhere
    change = mechanism.film_features({**batch, **older}) - noise.features
    carried = mechanism.template.carry(noise.pixel, change)
    assert (carried != noise.pixel).flatten(1).any(dim=1).all()


@pytest.mark.parametrize("which", ["marked", "tuned"])
def test_null_intervention_returns_the_image(which, batch, request):
    scm = causalcxr.load(request.getfixturevalue(which))
    noise = scm.abduct(batch, seed=0)
    image = noise.factual["image"]
    same = scm.counterfactual(noise, {"finding": batch["finding"]})
    # As for an image without severities: rounding of the pixel noise. The flows' own round trip comes on top.
    torch.testing.assert_close(same["image"], image, atol=1e-3, rtol=0)


def test_more_of_the_finding_shows(marked, batch):
    """They are given: a predictor that has hardly learnt may leave those of a flipped label below the floor."""
    mechanism = causalcxr.load(marked).image_mechanism
    noise = mechanism.abduct(batch["image"], batch)
    floor = mechanism.severity.floor.expand(len(batch["finding"]), -1)
    marked_film, film = (mechanism.make(noise, Causes(batch, floor + above)) for above in (3.0, -3.0))
    assert ((marked_film - film).abs().amax(dim=(1, 2, 3)) > 1e-3).all()


def test_severities_are_the_measured_ones_and_follow_the_finding(marked, batch):
    """Carried from absent to present and back, the noise keeps its place: the severities come back, too."""
    mechanism = causalcxr.load(marked).image_mechanism
    elbo = mechanism.elbo(batch["image"], batch, Draws(0))
    severity, noise = mechanism.severity, elbo.noise
    before = mechanism.causes(noise, batch).severities
    torch.testing.assert_close(
        before, elbo.severity.values, atol=1e-3, rtol=0
    )  # the flows' round trip, in float32
    flipped = {**batch, "finding": 1 - batch["finding"]}
    after = mechanism.causes(noise, flipped).severities
    assert ((before - after).abs().amin(dim=0) > 0.01).all()  # ten times what the round trip is wrong by
    flows = [
        flow.abduct(after[:, i], severity.named(Causes(flipped, after))) for i, flow in enumerate(severity.flows)
    ]
    back = severity(torch.stack(flows, dim=1), batch)
    torch.testing.assert_close(back, before, atol=1e-3, rtol=0)


def test_sampling_measures_nothing(marked):
    scm = causalcxr.load(marked)
    mechanism, calls = scm.image_mechanism, []
    for module in (mechanism.encoder, mechanism.severity.evidence):
        module.register_forward_hook(lambda module, *_: calls.append(type(module).__name__))
    sampled = scm.sample(3, do={"finding": "Pleural Effusion"}, seed=0)
    assert calls == [] and sampled["finding"].tolist() == [1, 1, 1]
    scm.abduct(sampled, seed=0)
    assert sorted(calls) == ["Encoder", "Evidence"]


def test_scoring_with_the_predictor_that_measures_is_refused(marked, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(marked, folder)
    with pytest.raises(RunError, match="with this very predictor"):
        evaluate([f"run={folder}"], evaluator=open_run(marked).load_predictor("predictor"))
