"""Runs that start from another: what is taken, kept, stored, refused, resumed, and compared."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch

import causalcxr
from causalcxr.config import load_config
from causalcxr.data import prepare_into
from causalcxr.data.preparation import open_cohort
from causalcxr.evaluation.evaluate import evaluate
from causalcxr.mechanisms.likelihood import image_to_float
from causalcxr.predictors.augment import augment
from causalcxr.predictors.calibration import predict_split
from causalcxr.randomness import Draws
from causalcxr.runs import open_run
from causalcxr.support.errors import ConfigError, RunError
from causalcxr.support.files import load_tensors
from causalcxr.training.pipeline import train

QUICK = ["evaluate.rows=12", "evaluate.batch_size=6", "evaluate.cycles=2", "evaluate.gallery_rows=2"]
QUICK += ["evaluate.samples=3", "evaluate.draws=2"]


def tune(base, run, *more):
    return train(load_config([f"base={base}", f"run={run}", "train.finetune.learning_rate=1e-3", *more]))


@pytest.fixture(scope="module")
def tuned(tiny_run, tmp_path_factory):
    """Folders of the tiny run fine-tuned for six steps, by targets."""
    folder = tmp_path_factory.mktemp("tuned")
    return {mode: tune(tiny_run, folder / mode, f"finetune.targets={mode}") for mode in ("hard", "counterfactual")}


@pytest.fixture(scope="module")
def compared(tiny_run, tuned, tmp_path_factory):
    """The counterfactual run's evaluation, with the base and hard targets beside it."""
    folder = tmp_path_factory.mktemp("compared") / "run"
    shutil.copytree(tuned["counterfactual"], folder)
    evaluate([f"run={folder}", f"evaluate.compare=[{tiny_run},{tuned['hard']}]", *QUICK])
    return folder


def test_only_the_image_mechanism_has_changed(tiny_run, tuned):
    before, after = (load_tensors(run / "model.safetensors")[0] for run in (tiny_run, tuned["counterfactual"]))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("mechanisms.image.") for name in changed)
    for role in ("predictor", "evaluator"):
        name = f"{role}.safetensors"
        assert (tiny_run / name).read_bytes() == (tuned["counterfactual"] / name).read_bytes()


def test_the_bound_is_measured_and_stored(tiny_run, tuned):
    base, scm = open_run(tiny_run), causalcxr.load(tiny_run)
    batch = open_cohort(base.config.data, base.graph).split("train").batch(range(160))
    loss = scm.image_mechanism.infer(batch["image"], batch, Draws(1)).nats()
    bits = float(loss.mean()) / (32 * 32 * math.log(2))
    found = {mode: open_run(folder).finetuned() for mode, folder in tuned.items()}
    for mode, facts in found.items():
        assert facts["targets"] == mode
        assert abs(facts["bound"] - bits) < 0.01  # draws of the latents spread either by 0.0012
        assert facts == open_run(tuned[mode]).provenance["finetune"]
        assert facts["predictor"] == base.load_predictor("predictor").fingerprint()
    assert found["hard"]["bound"] == found["counterfactual"]["bound"]  # of the same model, on the same rows
    assert base.finetuned() == {}


def test_the_log_has_multiplier_slack_and_every_attribute(tuned):
    lines = [json.loads(line) for line in (tuned["counterfactual"] / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["stage"] == "finetune" and line["split"] == "train"]
    assert {"multiplier", "slack", "sex", "race", "age", "finding", "constraint"} <= lines[-1].keys()


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_outputs_are_fitted_on_what_the_predictor_is_shown(tiny_run, tmp_path, monkeypatch, strength):
    """Outputs of augmented images, each split with draws of its own; of plain ones without augmentation."""
    import causalcxr.training.stages as stages

    seen = {}

    def keep(predictor, rows, **options):
        seen[rows.name] = predict_split(predictor, rows, **options)
        seen[rows.name, "plain"] = predict_split(predictor, rows)
        return seen[rows.name]

    monkeypatch.setattr(stages, "predict_split", keep)
    tune(tiny_run, tmp_path / "run", f"finetune.augment={strength}", "train.finetune.steps=1")
    for split in ("train", "val"):
        assert torch.equal(seen[split]["sex"], seen[split, "plain"]["sex"]) == (strength == 0)


def test_augmented_predictions_are_those_of_augmented_images(tiny_run):
    run = open_run(tiny_run)
    rows, predictor = open_cohort(run.config.data, run.graph).split("val"), run.load_predictor("predictor")
    found = predict_split(predictor, rows, strength=1.0, draws=Draws(3))
    shown = augment(image_to_float(rows.batch(range(len(rows)))["image"]), 1.0, Draws(3))
    torch.testing.assert_close(found["age"], predictor(shown)["age"])


def test_an_interrupted_fine_tuning_ends_in_the_same_weights(tiny_run, tuned, tmp_path, monkeypatch):
    from causalcxr.training.loop import Fit

    every = ["train.finetune.checkpoint_every=2", "finetune.targets=hard", "train.finetune.steps=6"]
    straight = tune(tiny_run, tmp_path / "straight", *every)
    step = Fit._step

    def killed(self):
        if self.name == "finetune" and self.progress.step == 5:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Fit, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        tune(tiny_run, tmp_path / "broken", *every)
    monkeypatch.undo()
    assert load_tensors(tmp_path / "broken" / "state" / "finetune.safetensors")[1]["step"] == 4
    resumed = tune(tiny_run, tmp_path / "broken", *every)
    first, second = (load_tensors(run / "model.safetensors") for run in (straight, resumed))
    assert all(torch.equal(first[0][name], second[0][name]) for name in first[0])
    assert first[1]["finetune"] == second[1]["finetune"]  # the multiplier too


def test_a_prepared_folder_must_hold_the_data_of_the_base(tiny_run, tmp_path):
    run = open_run(tiny_run)
    prepare_into(tmp_path / "same", run.config.data, run.graph)
    prepare_into(tmp_path / "other", replace(run.config.data, seed=1), run.graph)
    with pytest.raises(RunError, match=r"was begun with other data than data\.prepared=.*; fine-tune on the same"):
        tune(tiny_run, tmp_path / "refused", f"data.prepared={tmp_path / 'other'}")
    assert not (tmp_path / "refused").exists()
    tuned = tune(tiny_run, tmp_path / "tuned", f"data.prepared={tmp_path / 'same'}", "train.finetune.steps=1")
    evaluate([f"run={tuned}", f"evaluate.compare=[{tiny_run}]", *QUICK])
    assert set(json.loads((tuned / "metrics.json").read_text())["compared"]) == {tiny_run.name}


def test_a_name_follows_from_the_base_and_the_targets(tiny_run):
    config = load_config([f"base={tiny_run}", "finetune.targets=soft"])
    assert config.run == f"{tiny_run}-soft"
    assert config.train.stages == ["attributes", "predictors", "image", "finetune"]


def test_bases_that_do_not_fit_are_refused(tiny_run, tuned, tmp_path):
    with pytest.raises(ConfigError, match="is not a run folder"):
        load_config([f"base={tmp_path / 'none'}"])
    with pytest.raises(RunError, match="is fine-tuned already"):
        tune(tuned["hard"], tmp_path / "again")
    with pytest.raises(RunError, match=r"was made with data\.seed=0, now it is 1; leave it away"):
        tune(tiny_run, tmp_path / "other", "data.seed=1")
    with pytest.raises(RunError, match=r"made with finetune\.targets=hard, now it is soft"):
        tune(tiny_run, tuned["hard"], "finetune.targets=soft")
    with pytest.raises(ConfigError, match=r"'finetune\.targets' is 'soff'; expected one of"):
        load_config([f"base={tiny_run}", "finetune.targets=soff"])
    untrained = tmp_path / "untrained"
    shutil.copytree(tiny_run, untrained)
    (untrained / "model.safetensors").unlink()
    with pytest.raises(RunError, match="has not finished stage 'attributes'"):
        tune(untrained, tmp_path / "none")
    assert not (tmp_path / "other").exists()


def test_a_run_without_a_predictor_says_so(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "bare")
    (tmp_path / "bare" / "predictor.safetensors").unlink()
    with pytest.raises(RunError, match="has no predictor; add the stage 'predictors'"):
        tune(tmp_path / "bare", tmp_path / "run")


def test_a_fine_tuned_run_is_loaded_with_its_own_weights(tiny_run, tuned):
    base, scm = causalcxr.load(tiny_run), causalcxr.load(tuned["counterfactual"])
    stored = load_tensors(tuned["counterfactual"] / "model.safetensors")[0]
    assert stored.keys() == scm.state_dict().keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in scm.state_dict().items())
    batch = base.sample(4, seed=0)
    before, after = (model.counterfactual(batch, {"age": 85}, seed=1) for model in (base, scm))
    assert all(torch.equal(before[name], after[name]) for name in base.graph.attributes)
    # Six steps of fine-tuning change counterfactuals by 0.0003 to 0.002; two passes of one model by 2e-6.
    moved = (before["image"] - after["image"]).abs().amax(dim=(1, 2, 3))
    assert (moved > 5e-5).all() and (moved < 0.02).all()


def test_runs_are_compared_on_the_same_rows(compared, tiny_run, tuned):
    found = json.loads((compared / "metrics.json").read_text())
    assert set(found["compared"]) == {tiny_run.name, "hard"}
    assert found["finetune"]["targets"] == "counterfactual"
    own, other = found["metrics"], found["compared"]["hard"]["metrics"]
    # Several draws and cycles: of the run itself only.
    costly = {key for key in own if key.startswith("exact/expected/") or key.endswith("/2")}
    assert "composition/off/2" in costly and not costly & set(other)
    assert {key for key in own if key.startswith(("overshoot/", "exact/", "composition/"))} - costly <= set(other)
    assert own["exact/did_nothing/age/error"] == other["exact/did_nothing/age/error"]  # the same truth
    assert own["exact/model/age/error"]["value"] != other["exact/model/age/error"]["value"]


def test_the_report_shows_the_contrast(compared):
    page = (compared / "report.html").read_text()
    assert "Attribute amplification" in page
    assert "Auxiliary classifiers" in page
    rows = [page.index(f"<tr><td>{title}</td>") for title in ("before", "hard", "counterfactual")]
    assert rows == sorted(rows)
    names = {path.stem for path in (compared / "figures").iterdir()}
    assert {"contrast", "contrast_gallery", "reliability"} <= names


def test_scoring_with_the_training_predictor_is_refused(tiny_run, tuned):
    predictor = open_run(tiny_run).load_predictor("predictor")
    with pytest.raises(RunError, match="with this very predictor"):
        evaluate([f"run={tuned['hard']}", *QUICK], evaluator=predictor)
    with pytest.raises(RunError, match="with this very predictor"):
        evaluate([f"run={tiny_run}", f"evaluate.compare=[{tuned['hard']}]", *QUICK], evaluator=predictor)


def test_runs_of_other_data_are_not_compared(tiny_run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tiny_run, other)
    config = (other / "config.yaml").read_text().replace("  seed: 0\n  knobs", "  seed: 7\n  knobs")
    (other / "config.yaml").write_text(config)
    with pytest.raises(RunError, match="has another graph or other data"):
        evaluate([f"run={tiny_run}", f"evaluate.compare=[{other}]", *QUICK])


def test_a_classifier_from_elsewhere_fine_tunes_and_may_not_score(tiny_run, tmp_path):
    """A linear classifier of one attribute, as a user would adapt it: calibrated, used, and remembered."""
    from causalcxr.predictors.adapters import AdaptedPredictor, Output

    torch.manual_seed(0)
    graph = open_run(tiny_run).graph
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(32 * 32, 1))
    outputs = {"finding": Output({"Pleural Effusion": 0})}
    adapted = AdaptedPredictor([graph["finding"]], network, outputs, pixel_range=(-1, 1))
    config = load_config([f"base={tiny_run}", f"run={tmp_path / 'run'}", "train.finetune.learning_rate=1e-3"])
    folder = train(config, predictor=adapted)
    assert adapted.temperature.item() != 1
    assert open_run(folder).finetuned()["predictor"] == adapted.fingerprint()
    again = AdaptedPredictor([graph["finding"]], network, outputs)  # not calibrated, still the same network
    with pytest.raises(RunError, match="with this very predictor"):
        evaluate([f"run={folder}", *QUICK], evaluator=again)
