"""The page's answers against the model, the simulator and the training data."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import causalcxr
from causalcxr.commands.explore import open_explorer
from causalcxr.explorer.explorer import Explorer, packed
from causalcxr.explorer.patients import FEW, near_rows, nearness_text
from causalcxr.explorer.question import Question
from causalcxr.metrics.truth import find_truth
from causalcxr.support.errors import CausalCXRError
from causalcxr.values import encode

OLDER = Question(3, {"age": 80})


def levels(image: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(image["data"]), np.uint8).reshape(image["shape"])


def test_pixels_are_those_of_the_model(explorer: Explorer, runs: list[Path]) -> None:
    """Bit for bit in 8 bits: every run's `causalcxr.answer`, and the cohort's film."""
    film, given = explorer.patients.film(3)
    answer = explorer.answer(OLDER)
    assert np.array_equal(levels(answer["factual"]["image"]), film.numpy())
    for folder, shown in zip(runs, answer["runs"], strict=True):
        found = causalcxr.answer(causalcxr.load(folder), film, given, {"age": 80}, seed=0)
        assert np.array_equal(levels(shown["image"]), (255 * found.image.double()).round().numpy())
        assert shown["change"]["mean"] == pytest.approx(float(found.change.abs().mean()), rel=1e-4)
    assert answer["runs"][0]["image"] != answer["runs"][1]["image"]


@pytest.mark.parametrize("effect", ["total", "direct", "indirect"])
def test_the_exact_counterfactual(explorer: Explorer, effect: str) -> None:
    """Image and attributes are the simulator's, and the error is its definition."""
    truth, subject = find_truth(explorer.patients.cohort), torch.tensor([int(explorer.patients.split.ids[3])])
    assert truth is not None
    answer = explorer.answer(Question(3, {"age": 80}, effect))
    exact = truth.images(subject, {"age": 80}, effect)[0]
    assert np.array_equal(levels(answer["exact"]["image"]), (255 * exact.double()).round().numpy())
    after = truth.attributes(subject, {"age": 80})
    followed = explorer.graph["finding"].labels[int(after["finding"][0])]
    words = answer["exact"]["attributes"]
    assert words["finding"] == (followed if effect != "direct" else answer["factual"]["attributes"]["finding"])
    assert (words["age"] == "80 years") == (effect != "indirect")
    shown = answer["runs"][0]
    true_effect = exact - truth.images(subject)[0]
    size = float(true_effect.norm())
    if 255 * size / true_effect.numel() ** 0.5 > 1:
        film, given = explorer.patients.film(3)
        found = causalcxr.answer(explorer.runs[0].scm, film, given, {"age": 80}, effect, seed=0)
        made = found.image - found.factual["image"][0]
        assert shown["error"] == pytest.approx(float((made - true_effect).norm()) / size, rel=1e-3)
    else:
        assert shown["error"] is None


def test_the_python_lines_give_exactly_this(explorer: Explorer) -> None:
    """Run as they are, also with several interventions and draws."""
    answer = explorer.answer(Question(5, {"age": 30, "sex": "female"}, "total", "off", 3, 7))
    names: dict[str, Any] = {}
    exec(answer["python"], names)
    for shown in answer["runs"]:
        assert packed(names["found"][shown["name"]].image) == shown["image"]


def test_the_null_edit(explorer: Explorer) -> None:
    """With its noise kept a patient is what the model says; without, what the decoder can say of the film."""
    kept, off = (explorer.answer(Question(2, {}, pixel_noise=mode))["runs"][0]["null"] for mode in ("kept", "off"))
    assert kept["change"]["largest"] < 0.01
    assert off["change"]["mean"] > 0.1


def test_without_pixel_noise_changes_are_the_intervention_s(explorer: Explorer) -> None:
    """Relative to the null edit: an age that is set to what it is changes no picture and no reading."""
    age = float(explorer.patients.split.attributes["age"][2])
    for do in ({}, {"age": age}):
        shown = explorer.answer(Question(2, do, pixel_noise="off", draws=3))["runs"][0]
        assert shown["image"] == shown["null"]["image"] == shown["base"]
        assert shown["change"]["largest"] < 0.01
        assert all(one["before"] == pytest.approx(one["after"], abs=1e-4) for one in shown["reads"].values())
    near = explorer.answer(Question(2, {"age": age + 0.5}, "direct", pixel_noise="off"))["runs"][0]
    assert near["change"]["mean"] < 0.5 * near["null"]["change"]["mean"]


def test_draws_say_how_often_the_finding_follows(explorer: Explorer) -> None:
    """Counted from the draws themselves; where all agree nothing is said."""
    for row in range(10):
        film = explorer.patients.film(row)
        found = causalcxr.answer(explorer.runs[0].scm, *film, {"age": 85}, draws=8, seed=0).drawn["finding"]
        shown = explorer.answer(Question(row, {"age": 85}, draws=8))["runs"][0]
        label = explorer.graph["finding"].labels.index(shown["attributes"]["finding"])
        count = int((found == label).sum())
        assert shown["shares"] == ({} if count == 8 else {"finding": f"{count} of 8"})
        assert [one["attributes"]["finding"] for one in shown["draws"]] == [
            explorer.graph["finding"].labels[int(drawn)] for drawn in found[:4]
        ]


@pytest.mark.parametrize(
    ("effect", "moved"), [("total", ["age", "finding"]), ("direct", ["age"]), ("indirect", ["finding"])]
)
def test_what_an_effect_lets_change(explorer: Explorer, effect: str, moved: list[str]) -> None:
    answer = explorer.answer(Question(3, {"age": 80}, effect))
    assert answer["moved"] == moved
    assert [name for name, one in answer["runs"][0]["reads"].items() if not one["stays"]] == moved


def test_draws(explorer: Explorer) -> None:
    """Several draws: their mean, the first of them, and how far they are apart."""
    answer = explorer.answer(Question(3, {"age": 80}, pixel_noise="off", draws=6))
    shown, film = answer["runs"][0], explorer.patients.film(3)
    found = causalcxr.answer(explorer.runs[0].scm, *film, {"age": 80}, draws=6, seed=0, pixel_noise="off")
    assert len(shown["draws"]) == 4 and shown["spread"] == pytest.approx(found.spread) and found.spread > 0
    assert explorer.answer(OLDER)["runs"][0]["spread"] is None


def test_a_patient_is_abducted_once(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of the slider costs each run one pass of the decoder, over one row, and no abduction."""
    explorer.answer(Question(7))
    calls: list[int] = []
    for run in explorer.runs:
        mechanism = run.scm.image_mechanism
        monkeypatch.setattr(mechanism, "infer", None)
        decode = mechanism.forward

        def forward(noise: Any, parents: Any, decode: Any = decode) -> Any:
            calls.append(len(noise))
            return decode(noise, parents)

        monkeypatch.setattr(mechanism, "forward", forward)
    for age in (30, 40, 50):
        explorer.answer(Question(7, {"age": age}))
    assert calls == [1] * 6


def test_an_uploaded_film_is_not_remembered(explorer: Explorer) -> None:
    """The same answer as for the patient of the cohort, and nothing of it stays."""
    film, given = explorer.patients.film(3)
    attributes = {
        name: explorer.graph[name].labels[int(v)] if explorer.graph[name].is_discrete else float(v)
        for name, v in given.items()
    }
    before = explorer._remembered.cache_info().currsize
    answer = explorer.answer(Question(None, {"age": 80}, pixels=film.numpy(), given=attributes))
    assert answer["exact"] is None and answer["runs"][0]["error"] is None
    assert answer["runs"][0]["image"] == explorer.answer(OLDER)["runs"][0]["image"]
    explorer.answer(OLDER)
    assert explorer._remembered.cache_info().currsize <= before + len(explorer.runs)


def test_readings(explorer: Explorer) -> None:
    """What the evaluator says of both images; sex and race should stay under do(age), the finding may follow."""
    reads = explorer.answer(OLDER)["runs"][0]["reads"]
    assert {name: one["stays"] for name, one in reads.items()} == {
        "sex": True,
        "race": True,
        "age": False,
        "finding": False,
    }
    film, given = explorer.patients.film(3)
    evaluator = explorer.runs[0].evaluator
    assert evaluator is not None
    said = evaluator(film[None])
    assert reads["age"]["before"] == pytest.approx(float(said["age"]), rel=1e-4)
    label = int(given["sex"][0])
    assert reads["sex"]["before"] == pytest.approx(float(said["sex"].softmax(1)[0, label]), abs=1e-5)
    assert reads["sex"]["what"] == f"P(sex = {explorer.graph['sex'].labels[label]})"


def test_who_is_near(explorer: Explorer) -> None:
    """The same labels, and age within a twentieth of its range; counted by hand. Few are warned of."""
    graph = explorer.graph
    train = {
        name: encode(graph[name], values, 4)
        for name, values in {
            "sex": ["male", "male", "male", "female"],
            "race": ["white", "white", "black", "white"],
            "age": [50.0, 59.0, 50.0, 50.0],
            "finding": ["No Finding"] * 4,
        }.items()
    }
    asked = {name: values[:1] for name, values in train.items()}
    assert near_rows(graph, train, asked).tolist() == [True, False, False, False]
    assert nearness_text(graph, FEW) == ""
    assert "3 are like this" in nearness_text(graph, 3) and "none is like this" in nearness_text(graph, 0)
    assert "the same labels, age within 4.1 years" in nearness_text(graph, 1)


def test_nobody_like_this_is_said(explorer: Explorer) -> None:
    """The counts are of the training split, at the attributes after the intervention."""
    answer = explorer.answer(Question(3, {"age": 100, "race": "asian"}))
    assert answer["near"] < FEW and "Extrapolation" in answer["warning"]


def test_runs_that_do_not_stand_side_by_side(runs: list[Path], tmp_path: Path) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(runs[0], other)
    graph = (other / "graph.yaml").read_text()
    (other / "graph.yaml").write_text(graph.replace("- female", "- woman"))
    with pytest.raises(CausalCXRError, match="different graphs"):
        open_explorer([str(runs[0]), str(other)])


def test_same_names_are_told_apart(runs: list[Path], tmp_path: Path) -> None:
    import shutil

    shutil.copytree(runs[0], tmp_path / runs[0].name)
    both = open_explorer([str(runs[0]), str(tmp_path / runs[0].name)])
    assert len({run.name for run in both.runs}) == 2


def test_a_graph_that_allows_more_than_the_simulator(runs: list[Path], tmp_path: Path) -> None:
    """The model answers; what is exact is not known there."""
    import shutil

    other = tmp_path / "wide"
    shutil.copytree(runs[0], other)
    explorer = open_explorer([str(other)])
    assert explorer.simulated is not None
    wide = explorer.graph.to_dict()
    wide["variables"]["age"]["range"] = [0, 120]
    explorer.graph = explorer.runs[0].scm.graph = causalcxr.graph_from_dict(wide)
    assert explorer.answer(Question(0, {"age": 80}))["exact"] is not None
    answer = explorer.answer(Question(0, {"age": 110}))
    assert answer["exact"] is None and answer["runs"][0]["error"] is None


def test_runs_of_other_data_are_refused(runs: list[Path], tmp_path: Path) -> None:
    """The patients of one may be among those that the other was trained on."""
    import json
    import shutil

    other = tmp_path / "other"
    shutil.copytree(runs[0], other)
    provenance = json.loads((other / "provenance.json").read_text())
    (other / "provenance.json").write_text(json.dumps(provenance | {"data_hash": "0" * 64}))
    with pytest.raises(CausalCXRError, match="trained on different data"):
        open_explorer([str(runs[0]), str(other)])


def test_the_python_lines_know_where_the_data_are(runs: list[Path], tmp_path: Path) -> None:
    explorer = open_explorer([str(runs[0])], [f"data.cache={tmp_path}"])
    answer, names = explorer.answer(OLDER), {}
    assert f"data.cache={tmp_path}" in answer["python"]
    exec(answer["python"], names)
    assert packed(next(iter(names["found"].values())).image) == answer["runs"][0]["image"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "expected causalcxr explore RUN"),
        (["runs/x", "--patients", "3"], "--patients is of a page that is written"),
        (["runs/x", "--static", "page.pdf"], "expected an ending of .html"),
        (["runs/x", "--static", "no/such/folder/page.html"], "is in no folder that can be written to"),
        (["runs/x", "--port", "99999"], "--port expects 1 to 65535"),
        (["runs/x", "train.seed=1"], "'train.seed=1' can't be set here"),
        (["runs/x", "data.size=32"], "'data.size' can't be set here"),
        (["runs/no-such-run"], "no run folder"),
    ],
)
def test_what_the_command_refuses(arguments: list[str], said: str) -> None:
    from causalcxr.commands.explore import run

    with pytest.raises(CausalCXRError, match=said) as error:
        run(arguments)
    assert "\n" not in str(error.value)


def test_how_good_the_evaluator_is(runs: list[Path], tmp_path: Path) -> None:
    """From the run's own evaluation; nothing is said of a run that was not evaluated."""
    import json
    import shutil

    from causalcxr.explorer.readings import quality
    from causalcxr.graph import load_graph

    other = tmp_path / "evaluated"
    shutil.copytree(runs[0], other)
    assert quality(load_graph("chest"), other) == {}
    metrics = {
        "classifier/evaluator/sex/auroc": {"value": 94.68},
        "classifier/evaluator/age/error": {"value": 4.891},
    }
    (other / "metrics.json").write_text(json.dumps({"metrics": metrics}))
    reads = open_explorer([str(other)]).answer(OLDER)["runs"][0]["reads"]
    said = {name: one["quality"] for name, one in reads.items()}
    assert said == {"sex": "AUROC 0.95", "race": "", "age": "error 4.89 years", "finding": ""}
