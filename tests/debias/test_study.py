"""From files to a report: what is measured has known answers on the toy, and the commands do what they say."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from causalcxr.commands import debias as command
from causalcxr.debias.parts import split_patients
from causalcxr.debias.protocol import Subject, accuracy_at_budget, floors, measure
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
    assert one.gap.low <= one.gap.value <= one.gap.high
    assert not one.is_small


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
    assert "1,200 embeddings of 12 features, 600 patients" in said and "sex: labels female, male" in said
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
    fit(files, tmp_path / "b", "--erase", "age", "--labels", "age", "--erasers", "leace", "transport", "span")
    said = capsys.readouterr().out
    assert (
        "transport refused: the smallest group of age" in said and "span refused: this eraser is fitted to" in said
    )
    assert "wrote 1 erasers" in said


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
