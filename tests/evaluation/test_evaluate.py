"""Evaluation from end to end, on a run that was trained for a few steps."""

import json
import re
import shutil
import struct
from types import SimpleNamespace

import pytest
import torch
import yaml

from causalcxr.config import load_config
from causalcxr.data.preparation import open_cohort
from causalcxr.evaluation.evaluate import evaluate
from causalcxr.metrics.truth import find_truth
from causalcxr.predictors.adapters import AdaptedPredictor
from causalcxr.report.build import _warnings
from causalcxr.runs import open_run
from causalcxr.support.errors import ConfigError, GraphError, RunError
from causalcxr.training.pipeline import train

ATTRIBUTES = ("sex", "race", "age", "finding")
QUICK = ["evaluate.rows=12", "evaluate.batch_size=6", "evaluate.cycles=2", "evaluate.gallery_rows=2"]
QUICK += ["evaluate.samples=3", "evaluate.draws=2"]


def expected_keys():
    keys = {"image/bits_per_dimension", "image/training_loss", "exact/condition"}
    keys |= {f"attributes/{name}/log_likelihood" for name in ATTRIBUTES}
    keys |= {f"composition/{mode}/{cycle}" for mode in ("kept", "off", "redrawn") for cycle in (1, 2)}
    keys |= {f"reversibility/{name}" for name in ATTRIBUTES}
    keys |= {f"effect_size/{who}/{name}" for who in ("model", "exact") for name in ATTRIBUTES}
    for who in ("model", "expected", "did_nothing", "exact"):
        for name in ATTRIBUTES:
            keys |= {f"exact/{who}/{name}/{error}" for error in ("error", "error_mean", "error_median")}
            keys |= {f"exact/{who}/{name}/alpha/{other}" for other in ATTRIBUTES}
    keys |= {f"minimality/{who}/{name}" for who in ("model", "exact") for name in ATTRIBUTES}
    return keys | score_keys() | classifier_keys()


def score_keys():
    """What the evaluator says of the interventions."""
    keys = {"off_target"}
    for k in ATTRIBUTES:
        keys |= {f"{what}/{k}" for what in ("effectiveness", "overshoot", "overshoot_plain", "realism")}
        keys |= {f"effective_rows/{k}", f"error/{k}/age", f"error_gap/{k}/age"}
        for a in ATTRIBUTES:
            if a != k:
                keys |= {f"{what}/{k}/{a}" for what in ("amplification", "amplification_plain")}
                keys |= {f"{what}{exact}/{k}/{a}" for what in ("drift", "shift") for exact in ("", "_exact")}
    return keys


def classifier_keys():
    keys = set()
    for who in ("predictor", "evaluator"):
        keys |= {f"classifier/{who}/{name}/auroc" for name in ATTRIBUTES} | {f"classifier/{who}/age/error"}
        keys |= {f"calibration/{who}/{a}/{w}" for a in ("sex", "race", "finding") for w in ("before", "after")}
    return keys


@pytest.fixture(scope="module")
def evaluated(tiny_run, tmp_path_factory):
    """A copy of the tiny run, evaluated on 12 rows."""
    folder = tmp_path_factory.mktemp("evaluated") / "demo"
    shutil.copytree(tiny_run, folder)
    assert evaluate([f"run={folder}", *QUICK]) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def metrics(evaluated):
    return json.loads((evaluated / "metrics.json").read_text())["metrics"]


def test_every_metric_is_there_with_interval_n_and_definition(metrics):
    found = {key for key in metrics if not key.startswith("interventional/")}
    assert found == expected_keys()
    for key, entry in metrics.items():
        assert set(entry) == {"value", "low", "high", "n", "definition"}
        assert len(entry["definition"]) > 40
        if entry["value"] is not None:
            assert entry["low"] <= entry["value"] + 1e-9, key
            assert entry["value"] <= entry["high"] + 1e-9, key
            assert entry["n"] > 0
    assert metrics["image/bits_per_dimension"]["n"] == 12
    assert metrics["attributes/age/log_likelihood"]["n"] == 24  # the whole test split


def test_yardsticks_are_measured_and_right(metrics):
    for name in ("sex", "age", "finding"):
        assert metrics[f"exact/did_nothing/{name}/error"]["value"] == 1
        assert metrics[f"exact/exact/{name}/error"]["value"] == 0
        for other in ("sex", "age", "finding"):
            right = float(name == other)
            assert metrics[f"exact/exact/{name}/alpha/{other}"]["value"] == pytest.approx(right, abs=1e-8)
            assert metrics[f"exact/did_nothing/{name}/alpha/{other}"]["value"] == 0


def test_race_has_no_true_effect_so_no_error_but_a_size(metrics):
    assert metrics["effect_size/exact/race"]["value"] == 0
    assert metrics["effect_size/model/race"]["value"] > 0
    assert metrics["exact/model/race/error"]["value"] is None
    assert metrics["exact/model/race/error_mean"]["n"] == 0


def test_keeping_the_pixel_noise_is_exact(metrics):
    assert metrics["composition/kept/1"]["value"] < 1e-3  # float32 at 255
    assert metrics["composition/off/1"]["value"] > 0.5


def test_the_law_under_interventions_is_there_for_model_and_simulator(metrics):
    found = {key.split("/")[1]: key for key in metrics if key.startswith("interventional/")}
    assert "nothing" in found
    assert sum(where.startswith("age = ") for where in found) == 2
    for where in found:
        for who in ("model", "exact"):
            share = metrics[f"interventional/{where}/finding/P(Pleural Effusion)/{who}"]
            assert 0 < share["low"] < share["high"] < 1


def test_report_stands_alone(evaluated):
    page = (evaluated / "report.html").read_text()
    assert not re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?\s*(?:https?:|//|/|file:)", page)
    assert "<script" not in page
    for place in (str(evaluated), str(evaluated.parent), open_run(evaluated).config.data.cache):
        assert place not in page
    assert set(re.findall(r'src="([^,"]{0,22})', page)) == {"data:image/png;base64"}
    assert "Not for clinical use" in page
    assert "label recorded by people" in page
    for key in expected_keys():
        assert key in page


def test_contents_lead_to_every_section_and_no_other(evaluated):
    page = (evaluated / "report.html").read_text()
    contents = page.partition("<nav")[2].partition("</nav>")[0]
    assert re.findall(r'href="#([^"]+)"', contents) == re.findall(r'<h2 id="([^"]+)"', page)
    assert page.count("<h2") == page.count('<h2 id="') > 6


def test_a_model_that_guesses_is_named_so(evaluated, metrics):
    bits = metrics["image/bits_per_dimension"]["value"]
    assert ("no better than a guess" in (evaluated / "report.html").read_text()) == (bits >= 8)
    results = SimpleNamespace(cohort=SimpleNamespace(data_hash="a"))
    for value, expected in [(7.99, 0), (8.0, 1), (9.5, 1), (float("nan"), 1)]:
        results.metrics = {("image", "bits_per_dimension"): {"value": value}}
        assert len(_warnings(results, {"data_hash": "a"})) == expected
        assert len(_warnings(results, {"data_hash": "b"})) == expected + 1


def test_figures_are_pictures(evaluated):
    names = {path.stem for path in (evaluated / "figures").iterdir()}
    expected = {
        "graph",
        "attributes",
        "curves",
        "contrast",
        "reconstructions",
        "reliability",
        "samples",
        "counterfactuals_1",
        "counterfactuals_2",
    }
    assert names == expected
    for path in (evaluated / "figures").iterdir():
        content = path.read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        assert content[-8:-4] == b"IEND"
        width, height = struct.unpack(">II", content[16:24])
        assert 100 < width < 4000
        assert 100 < height < 4000


def test_time_is_noted(evaluated):
    seconds = open_run(evaluated).provenance["seconds"]
    assert seconds["evaluate"] > 0
    assert seconds["image"] > 0


def test_same_seed_same_numbers(evaluated, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(evaluated, again, ignore=shutil.ignore_patterns("metrics.json", "figures", "report.html"))
    evaluate([f"run={again}", *QUICK])
    first, second = (json.loads((folder / "metrics.json").read_text()) for folder in (evaluated, again))
    assert first["metrics"] == second["metrics"]


def test_named_interventions_stand_over_the_gallery(evaluated, tmp_path):
    folder = tmp_path / "named"
    shutil.copytree(evaluated, folder)
    few = [*QUICK, "evaluate.gallery_rows=1"]
    evaluate([f"run={folder}", *few, 'evaluate.interventions=["age=80,finding=Pleural Effusion","sex=male"]'])
    assert not (folder / "figures" / "counterfactuals_2.png").exists()  # of the larger gallery before
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    assert not any(key.startswith("interventional/age") for key in metrics)  # the finding is set: nothing follows


def test_truth_makes_the_images_of_the_cohort_again(tiny_run):
    run = open_run(tiny_run)
    cohort = open_cohort(run.config.data, run.graph)
    test, truth = cohort.split("test"), find_truth(cohort)
    assert truth is not None
    stored = test.batch(range(8))
    torch.testing.assert_close(
        255 * truth.images(test.ids[:8]), stored["image"].float(), atol=0.5 + 1e-3, rtol=0
    )  # rounded to 8 bits
    again = truth.attributes(test.ids[:8])
    assert torch.equal(again["finding"], stored["finding"])
    torch.testing.assert_close(again["age"], stored["age"])  # through the manifest's decimal text


def test_attributes_alone(tmp_path):
    """A graph without an image: likelihoods and laws under interventions, no galleries."""
    graph = {
        "name": "two",
        "variables": {
            "age": {"kind": "continuous", "range": [18, 100], "unit": "years"},
            "finding": {"kind": "binary", "labels": ["No Finding", "Pleural Effusion"], "parents": ["age"]},
        },
    }
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(graph))
    arguments = [f"run={tmp_path / 'run'}", f"graph={tmp_path / 'two.yaml'}", f"data.cache={tmp_path / 'cache'}"]
    arguments += ["data.train=200", "data.val=20", "data.test=40", "train.stages=[attributes]"]
    folder = train(load_config([*arguments, "train.attributes.steps=20", "train.device=cpu"]))
    evaluate([f"run={folder}"])
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    assert metrics["attributes/finding/log_likelihood"]["n"] == 40
    assert not any(key.startswith(("image/", "exact/", "composition/")) for key in metrics)
    assert {path.stem for path in (folder / "figures").iterdir()} == {"graph", "attributes", "curves"}
    assert "Counterfactuals</h2>" not in (folder / "report.html").read_text()


def test_an_image_that_is_not_trained_is_not_measured(tiny_run, tmp_path):
    """The chest graph, only its attributes trained."""
    settings = yaml.safe_load((tiny_run / "config.yaml").read_text())
    settings["train"]["stages"] = ["attributes"]
    (tmp_path / "preset.yaml").write_text(yaml.safe_dump(settings))
    folder = train(load_config([f"preset={tmp_path / 'preset.yaml'}", f"run={tmp_path / 'run'}"]))
    evaluate([f"run={folder}", *QUICK])
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    assert "attributes/sex/log_likelihood" in metrics
    assert "image/bits_per_dimension" not in metrics
    assert {path.stem for path in (folder / "figures").iterdir()} == {"graph", "attributes", "curves"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected one run=FOLDER"),
        (["train.seed=1"], "can't be changed|expected one run"),
        (["run=RUN", "train.seed=1"], "'train.seed' can't be changed"),
        (["run=RUN", "evaluate.row=1"], "evaluate.rows"),
        (["run=RUN", "evaluate.rows=-1"], "at least 0"),
        (["run=RUN", "evaluate.interventions=[age]"], "NAME=VALUE"),
    ],
)
def test_wrong_arguments_are_one_line(tiny_run, arguments, message):
    with pytest.raises((ConfigError, GraphError), match=message) as caught:
        evaluate([argument.replace("RUN", str(tiny_run)) for argument in arguments])
    assert "\n" not in str(caught.value)


def test_wrong_runs_are_refused(tiny_run, tmp_path):
    with pytest.raises(RunError, match="no run folder"):
        evaluate([f"run={tmp_path / 'none'}"])
    untrained = tmp_path / "untrained"
    shutil.copytree(tiny_run, untrained)
    (untrained / "model.safetensors").unlink()
    with pytest.raises(RunError, match="has not finished"):
        evaluate([f"run={untrained}"])
    with pytest.raises(GraphError, match="female"):
        evaluate([f"run={tiny_run}", "evaluate.interventions=[sex=femal]"])


def test_an_evaluator_without_an_attribute_is_refused_before_anything_is_measured(tiny_run):
    blind = AdaptedPredictor([], lambda image: image, {})
    with pytest.raises(ConfigError, match="got one without sex, race, age, finding"):
        evaluate([f"run={tiny_run}", *QUICK], evaluator=blind)
