"""From files to a report: what is measured has known answers on the toy, and the commands do what they say."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from causalcxr.commands import debias as command
from causalcxr.debias.opportunity import _gap
from causalcxr.debias.parts import split_patients
from causalcxr.debias.probes import fit_probe
from causalcxr.debias.protocol import Subject, accuracy_at_budget, auroc_of, floors, measure
from causalcxr.debias.registry import load_eraser, make_eraser
from causalcxr.support.errors import CausalCXRError, ConfigError, RunError
from tests.debias.toys import toy

PROBES = ("linear", "rbf")


@pytest.fixture(scope="module")
def subject() -> Subject:
    rows = toy(rows=3000).rows
    return Subject(rows, split_patients(rows.patients))


@pytest.fixture(scope="module")
def measured(subject):
    names = (None, "leace", "counterfactual", "noise")
    return {name: measure(subject, name and subject.fit(make_eraser(name)), PROBES) for name in names}


def test_leak_utility_and_edit_of_the_toy(measured) -> None:
    """Raw embeddings tell everything; the mean over counterfactuals leaves what disease tells, 0.55 at most."""
    raw, after, noise = measured[None], measured["counterfactual"], measured["noise"]
    assert raw.strongest("sex")[1].value > 0.99 and raw.edit == 0
    assert measured["leace"].leak["sex"]["linear"].value < 0.62
    assert measured["leace"].strongest("sex")[0] == "rbf" and measured["leace"].strongest("sex")[1].value > 0.85
    assert after.strongest("sex")[1].value < 0.62
    assert after.utility["disease"]["linear"].value > 0.99
    assert abs(noise.utility["disease"]["linear"].value - 0.5) < 0.08
    assert noise.edit == pytest.approx(2, rel=0.1)  # independent, of the same variance
    assert after.edit == pytest.approx(1.5**2 / toy_variance(), rel=0.6)


def toy_variance() -> float:
    return float(toy(rows=3000).z.var(axis=0).sum())


def test_the_floor_is_what_the_kept_label_tells(subject) -> None:
    """Disease in 0.3 and 0.4 of the sexes: an AUROC of 0.55, within three standard errors."""
    assert floors(subject)["sex"].value == pytest.approx(0.55, abs=0.05)
    alone = Subject(subject.rows.__class__(**{**vars(subject.rows), "keep": {}}), subject.parts)
    assert floors(alone)["sex"].value == 0.5


def test_at_the_budget_an_eraser_goes_only_as_far(subject, measured) -> None:
    """With no budget it is the raw embedding, with all of it the eraser."""
    eraser = subject.fit(make_eraser("counterfactual"))
    one = measured["counterfactual"]
    assert accuracy_at_budget(subject, eraser, 0.0, one)["sex"] > 0.98
    assert accuracy_at_budget(subject, eraser, one.edit, one)["sex"] < 0.65
    assert accuracy_at_budget(subject, eraser, 9.0, one) == accuracy_at_budget(subject, eraser, one.edit, one)


def test_who_is_missed_with_counts(subject, measured) -> None:
    (one,) = measured[None].opportunity
    score = subject.parts["score"]
    ill, male = subject.rows.keep["disease"][score] == "yes", subject.rows.erase["sex"][score] == "male"
    assert {name: of.n for name, of in one.sensitivity.items()} == {
        "female": int((ill & ~male).sum()),
        "male": int((ill & male).sum()),
    }
    said = [of.value for of in one.sensitivity.values()]
    assert one.gap.value == pytest.approx(said[1] - said[0])
    assert one.gap.low <= one.gap.value <= one.gap.high
    assert one.label == "disease = yes"  # the rarer one
    assert one.specificity > 0.9


def test_the_interval_of_a_gap_covers_the_truth() -> None:
    """Sensitivities 0.6 and 0.5 of 60 positives each, 200 times: at least 90 % of the intervals hold the gap."""
    random, held = np.random.default_rng(0), 0
    for _ in range(200):
        values = random.binomial(60, [0.6, 0.5]) / 60
        drawn = random.binomial(60, np.broadcast_to(values, (500, 2))) / 60
        interval = _gap(values, drawn, 120)
        held += interval.low <= -0.1 <= interval.high
    assert held >= 180


def test_a_class_that_the_probe_never_saw() -> None:
    """Four classes, one without rows to learn from: the others are told as well as without it."""
    random = np.random.default_rng(0)
    answers = random.integers(0, 4, 2000)
    z = random.normal(size=(2000, 4)) + 3 * np.eye(4)[answers]
    for name in ("linear", "rbf", "mlp", "boosted"):
        learned = answers[:1000] != 1
        scores = fit_probe(name, z[:1000][learned], answers[:1000][learned], classes=4)(z[1000:])
        others = answers[1000:] != 1
        told = auroc_of(scores[others], answers[1000:][others], np.arange(int(others.sum())))
        assert told.value > 0.95, name
    with pytest.raises(ValueError, match="have the same answer"):
        fit_probe("linear", z[:9], np.zeros(9, dtype=int))


def test_a_probe_that_cannot_tell_the_group_cannot_be_made_to_miss_it(measured) -> None:
    """All positives of a sex called negative: lost from raw embeddings, not from erased ones."""
    lost = {name: measured[name].poisoned[0].lost for name in (None, "counterfactual")}
    assert list(lost[None]) == [0, 0.25, 0.5, 0.75, 1] and lost[None][0] == 0
    assert lost[None][1.0] > 0.3
    assert abs(lost["counterfactual"][1.0]) < 0.1


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder, of = tmp_path_factory.mktemp("debias"), toy(rows=1200)
    np.save(folder / "z.npy", of.z.astype(np.float32))
    np.save(folder / "pairs.npy", of.pairs.astype(np.float32))
    ages = np.random.default_rng(0).integers(30, 80, 1200)
    table = pd.DataFrame({"id": np.arange(1200), "patient_id": np.arange(1200) // 2, "age": ages})
    table.assign(**of.rows.erase, **of.rows.keep).to_csv(folder / "t.csv", index=False)
    return folder


def fit(files: Path, out: Path, *more: str) -> None:
    command.run(["fit", str(files / "z.npy"), "--table", str(files / "t.csv"), "--out", str(out), *more])


def test_the_commands(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "study"
    words = ["--erase", "sex", "--keep", "disease", "--erasers", "leace", "transport", "counterfactual+leace"]
    fit(files, out, *words, "--pairs", str(files / "pairs.npy"))
    said = capsys.readouterr().out
    assert "1,200 embeddings of 12 features, 600 patients" in said and "sex: 2 labels, female, male" in said
    fit(files, out, *words, "--pairs", str(files / "pairs.npy"))  # the same again
    command.run(["report", str(out)])
    assert "the strongest probe has an AUROC of" in capsys.readouterr().out
    found = json.loads((out / "debias.json").read_text())
    assert set(found["erasers"]) == {"raw", "noise", "leace", "transport", "counterfactual+leace"}
    assert set(found["erasers"]["leace"]["leak"]["sex"]) == {"linear", "rbf", "mlp", "boosted"}
    assert found["accuracy_at_budget"]["leace"]["sex"] > 0.5
    page = (out / "report.html").read_text()
    assert "Not for clinical use" in page and page.count("data:image/png") == 2 and "http" not in page
    parts = pd.read_csv(out / "parts.csv")
    assert parts.groupby("patient_id")["part"].nunique().max() == 1 and len(parts) == 1200

    erased = tmp_path / "erased.npy"
    where = str(out / "erasers" / "leace.safetensors")
    command.run(["apply", where, str(files / "z.npy"), str(erased)])
    z = np.load(files / "z.npy")
    np.testing.assert_array_equal(np.load(erased), load_eraser(Path(where)).transform(z))
    where = str(out / "erasers" / "transport.safetensors")
    with pytest.raises(ConfigError, match="would replace"):
        command.run(["apply", where, str(files / "z.npy"), str(files / "z.npy")])
    with pytest.raises(CausalCXRError, match="needs the attributes"):
        command.run(["apply", where, str(files / "z.npy"), str(erased)])
    command.run(["apply", where, str(files / "z.npy"), str(erased), "--table", str(files / "t.csv")])
    assert not np.allclose(np.load(erased), z)


def test_what_is_refused_is_said_and_the_rest_is_done(files: Path, tmp_path: Path, capsys) -> None:
    """Age in whole years has to be called a number; transport needs rows of every race."""
    with pytest.raises(CausalCXRError, match="'age' has 50 different whole numbers"):
        fit(files, tmp_path / "a", "--erase", "sex", "age", "--erasers", "leace")
    assert not (tmp_path / "a").exists()
    fit(files, tmp_path / "a", "--erase", "sex", "age", "--numbers", "age", "--erasers", "leace")
    assert "age: a number" in capsys.readouterr().out
    fit(files, tmp_path / "b", "--erase", "sex", "--erasers", "leace", "span")
    said = capsys.readouterr().out
    assert "span refused: this eraser is fitted to" in said and "wrote 1 erasers" in said
    fit(files, tmp_path / "b", "--erase", "sex", "--erasers", "splince")
    assert json.loads((tmp_path / "b" / "study.json").read_text())["refused"].keys() == {"span"}
    with pytest.raises(ConfigError, match=r"no eraser could be fitted \(span: this eraser"):
        fit(files, tmp_path / "c", "--erase", "sex", "--erasers", "span")
    assert not (tmp_path / "c" / "study.json").exists()


def test_rare_labels_are_refused_before_anything_is_fitted(files: Path, tmp_path: Path) -> None:
    table = pd.read_csv(files / "t.csv")
    table.loc[[3, 700], "sex"] = "other"
    table.to_csv(tmp_path / "t.csv", index=False)
    words = ["--table", str(tmp_path / "t.csv"), "--erase", "sex", "--out", str(tmp_path / "a")]
    with pytest.raises(CausalCXRError, match=r"'sex' is other in \d rows of the part '\w+', which needs"):
        command.run(["fit", str(files / "z.npy"), *words])
    assert not (tmp_path / "a").exists()


def test_data_that_changed_since_the_fit_are_refused(files: Path, tmp_path: Path) -> None:
    for name in ("z.npy", "t.csv"):
        (tmp_path / name).write_bytes((files / name).read_bytes())
    fit(tmp_path, tmp_path / "a", "--erase", "sex", "--erasers", "leace")
    np.save(tmp_path / "z.npy", 2 * np.load(tmp_path / "z.npy"))
    with pytest.raises(RunError, match="have changed since the fit"):
        command.run(["report", str(tmp_path / "a")])
    (tmp_path / "a" / "study.json").write_text("{")
    with pytest.raises(RunError, match="can't be read"):
        command.run(["report", str(tmp_path / "a")])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fit"], "expected fit EMBEDDINGS"),
        (["fit", "z.npy"], "--table is missing"),
        (["report", "nowhere"], "no study.json"),
        (
            ["fit", "z.npy", "--table", "t.csv", "--erase", "sex", "--out", "x", "--erasers", "leese"],
            "did you mean 'leace'",
        ),
        (["apply", "no.safetensors", "z.npy", "out.npy"], "no file 'no.safetensors'"),
        (["apply", "no.safetensors", "z.npy", "out.csv"], "ends in .npy"),
        (["report", "a", "--erase", "sex"], "report: --erase has no place here"),
        (
            ["fit", "z.npy", "--table", "t.csv", "--erase", "sex", "--out", "x", "--seed", "-1"],
            "expected 0 or more",
        ),
    ],
)
def test_commands_that_cannot_be(words: list[str], expected: str, files: Path, monkeypatch) -> None:
    monkeypatch.chdir(files)
    with pytest.raises((ConfigError, RunError), match=expected):
        command.run(words)


def test_a_folder_with_another_study_is_kept(files: Path, tmp_path: Path) -> None:
    fit(files, tmp_path / "a", "--erase", "sex", "--erasers", "leace")
    with pytest.raises(ConfigError, match="holds a study of other data or attributes"):
        fit(files, tmp_path / "a", "--erase", "disease", "--erasers", "leace")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds something else"):
        fit(files, tmp_path / "b", "--erase", "sex", "--erasers", "leace")
