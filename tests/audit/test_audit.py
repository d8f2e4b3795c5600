"""An audit from end to end, on a small trained run."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import causalcxr
from causalcxr.audit.audit import audit_model
from causalcxr.audit.conclusion import conclude, conditioned_on
from causalcxr.audit.config import AuditConfig
from causalcxr.audit.contrasts import Contrast, choose_contrasts
from causalcxr.audit.gates import route_gates
from causalcxr.audit.scores import Scores
from causalcxr.config import override_config
from causalcxr.data.preparation import open_cohort
from causalcxr.runs import load, open_run
from causalcxr.scm import StructuralCausalModel
from causalcxr.support.errors import CausalCXRError, ConfigError, DataError, RunError

from .conftest import brightness

QUICK = AuditConfig(contrasts=["sex=female..male", "age=40..70"], summary=6, splits=1)


@pytest.fixture(scope="module")
def opened(audit_run):
    run = open_run(audit_run)
    return load(audit_run), open_cohort(run.config.data, run.graph), run.load_predictor("evaluator")


@pytest.fixture(scope="module")
def audited(opened):
    scm, cohort, evaluator = opened
    return audit_model(scm, cohort, brightness, QUICK, evaluator)


def test_contrasts_are_all_pairs_of_labels_and_two_quantiles(opened):
    scm, cohort, _ = opened
    found = choose_contrasts(scm.graph, AuditConfig(), cohort.split("train").attributes)
    assert [c.text(scm.graph) for c in found[:4]] == [
        "sex: female to male",
        "race: white to asian",
        "race: white to black",
        "race: asian to black",
    ]
    assert found[4].attribute == "age" and found[4].reference < found[4].other and len(found) == 5


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (AuditConfig(contrasts=["sex"]), "expected NAME=VALUE..VALUE"),
        (AuditConfig(contrasts=["sex=male..male"]), "compares a value with itself"),
        (AuditConfig(contrasts=["sex=male..man"]), "man"),
        (AuditConfig(contrasts=["age=40..400"]), "400"),
        (AuditConfig(attributes=["gender"]), "no attribute 'gender'"),
    ],
)
def test_impossible_contrasts_are_refused(opened, config, message):
    scm, cohort, _ = opened
    with pytest.raises(CausalCXRError, match=message):
        choose_contrasts(scm.graph, config, cohort.split("train").attributes)


def test_scores_are_those_of_the_counterfactuals(opened, audited):
    """The reported shift against counterfactuals asked for one by one."""
    scm, cohort, _ = opened
    rows = np.arange(64)  # a whole batch, and so the same draws
    test, made = cohort.split("test"), audited.scores["score"].made
    assert made is not None and made.shape == (160, 4)
    from causalcxr.randomness import seed_of

    abduction = scm.abduct(test.batch(rows), seed_of(0, 0))
    for level, (name, value) in enumerate(audited.material.levels):
        image = scm.counterfactual(abduction, {name: value}, effect="direct")["image"]
        expected = torch.logit(brightness((255 * image).round() / 255).double())
        np.testing.assert_allclose(made[:64, level], expected.numpy(), atol=0.02)
    found = audited.found[0].effect
    assert found is not None
    assert found.statistics["shift"].value == pytest.approx((made[:, 1] - made[:, 0]).mean())


def test_under_the_own_value_the_image_is_the_real_one_and_the_placebo_too(audited):
    score = audited.scores["score"]
    male = audited.material.attributes["sex"] == 1
    for of in (score.made, score.placebo):
        assert of is not None
        np.testing.assert_allclose(of[male, 1], score.real[male], atol=1e-6)
        np.testing.assert_allclose(of[~male, 0], score.real[~male], atol=1e-6)


def test_every_patient_is_abducted_once_besides_the_placebo(opened, monkeypatch):
    scm, cohort, _ = opened
    counted = {"abducted": 0, "again": 0}
    mechanism = scm.image_mechanism
    infer, abduct = type(mechanism).infer, StructuralCausalModel.infer

    def image_infer(self, value, *rest, **named):
        counted["again"] += len(value)
        return infer(self, value, *rest, **named)

    def scm_infer(self, batch, *rest):
        counted["abducted"] += len(batch["image"])
        return abduct(self, batch, *rest)

    monkeypatch.setattr(type(mechanism), "infer", image_infer)
    monkeypatch.setattr(StructuralCausalModel, "infer", scm_infer)
    audit_model(scm, cohort, brightness, QUICK)
    assert counted == {"abducted": 160, "again": 320}


def test_a_model_that_only_knows_what_the_attribute_cannot_change_is_never_dependent(opened, audited):
    """A score that is one and the same for all images of a patient."""
    material = audited.material
    patient = material.noise[:, 0] + np.random.default_rng(0).normal(size=len(material.ids))
    same = Scores(patient, np.repeat(patient[:, None], 4, 1), np.repeat(patient[:, None], 4, 1))
    for found in conclude(material, {"same": same}, {"same": 0.0}, QUICK):
        assert found.effect is not None and found.effect.statistics["shift"].value == 0
        assert found.verdict.word in ("equivalent", "inconclusive", "generator failed")


def test_a_score_of_the_attribute_itself_is_found_by_both_routes(audited):
    """With noise that knows nothing of it, as that of a trained model should."""
    rng = np.random.default_rng(0)
    material = replace(audited.material, noise=rng.normal(size=(160, 6)))
    male = material.attributes["sex"].astype(float)
    noise = 0.3 * rng.normal(size=160)
    table = np.stack([noise, noise + 1, noise + male, noise + male], axis=1)
    scores = {"sexist": Scores(male + noise, table, table)}
    found = conclude(material, scores, {"sexist": 0.0}, QUICK)[0]
    assert found.effect is not None and found.dependence is not None
    assert found.effect.p < 0.001 and found.dependence.p < 0.001
    assert found.effect.statistics["shift"].value == pytest.approx(1)
    assert found.gates[0].name == "leakage" and found.gates[0].passed


def test_conditioning_on_a_child_of_the_attribute_raises_the_leakage_gate(audited):
    material, rng = audited.material, np.random.default_rng(0)
    a = rng.integers(0, 2, 160)
    noise = rng.normal(size=(160, 4))
    child = np.c_[noise, a + 0.3 * rng.normal(size=160)]
    patients = np.arange(160)
    right, wrong = (route_gates(a, z, z, patients, 0)[0] for z in (noise, child))
    assert right.passed and right.name == "leakage"
    assert not wrong.passed and wrong.value > 0.9
    assert conditioned_on(material, "sex").shape == (160, 6 + 2 + 1 + 1)  # noise, race, age, finding
    assert conditioned_on(material, "age").shape == (160, 6 + 1 + 2 + 1)
    assert conditioned_on(material, "age", "total").shape == (160, 6 + 1 + 2)  # the finding follows age


def test_too_few_patients_are_named_in_the_verdict(opened):
    scm, cohort, _ = opened
    config = AuditConfig(contrasts=["race=white..asian", "sex=female..male"], rows=90, summary=4, splits=1)
    first, second = audit_model(scm, cohort, brightness, config).found
    assert first.verdict.word == "inconclusive" and first.effect is None
    assert re.search(r"\d+ patients are recorded with race = asian, expected at least 30", first.verdict.reason)
    assert second.effect is not None


def test_a_constant_score_is_refused(opened):
    scm, cohort, _ = opened
    with pytest.raises(DataError, match="score 'score' is constant over 160 images"):
        audit_model(scm, cohort, lambda images: torch.full((len(images),), 0.3), QUICK)


def test_the_report_says_it_in_a_sentence_and_its_tables_agree(audit_run, tmp_path):
    settings = ["audit.contrasts=[sex=female..male]", "audit.summary=4", "audit.splits=1", "audit.shown=2"]
    report = causalcxr.audit(audit_run, brightness, out=tmp_path / "report", words=settings).report
    page, found = report.read_text(), json.loads((report.parent / "audit.json").read_text())
    assert "with sex male in place of female" in page
    assert "Never" not in page and "Not for clinical use" in page and "<script" not in page
    assert found["model"] == "brightness" and found["patients"] == 160
    one = found["found"][0]
    assert set(one["gates"]) == {"leakage", "overlap", "composition", "effectiveness", "off_target"}
    assert one["verdict"] in page
    table = pd.read_csv(report.parent / "scores.csv")
    assert len(table) == 160 and {"y_true", "y_score", "sex", "race", "age"} <= set(table)
    odds = np.log(
        table[["y_score_sex=female", "y_score_sex=male"]] / (1 - table[["y_score_sex=female", "y_score_sex=male"]])
    )
    shift = odds["y_score_sex=male"] - odds["y_score_sex=female"]
    assert shift.mean() == pytest.approx(one["generate"]["statistics"]["shift"]["value"], abs=1e-4)
    assert (table["y_pred"] == (table["y_score"] > one["threshold"])).all()
    assert len(list((report.parent / "figures").glob("patient_*.png"))) == 2


def test_the_runs_own_predictor_is_audited_by_name_and_another_is_refused(audit_run, tmp_path):
    settings = ["audit.contrasts=[sex=female..male]", "audit.rows=100", "audit.splits=1", "audit.summary=4"]
    found = causalcxr.audit(audit_run, "predictor", out=tmp_path, words=settings)
    assert "Pleural Effusion" in found.report.read_text()
    with pytest.raises(ConfigError, match=r"expected predictor or evaluator, or FILE\.py:FUNCTION"):
        causalcxr.audit(audit_run, "densenet", words=settings)
    with pytest.raises(ConfigError, match=r"can't be set here; did you mean 'audit\.rows'"):
        causalcxr.audit(audit_run, words=["audits.rows=4"])


def test_a_model_from_a_file_of_the_user(audit_run, tmp_path):
    code = tmp_path / "mine.py"
    code.write_text("def build(variables):\n    return lambda images: images.mean(dim=(1, 2, 3))\n")
    settings = ["audit.contrasts=[sex=female..male]", "audit.rows=100", "audit.splits=1", "audit.summary=4"]
    found = causalcxr.audit(audit_run, f"{code}:build", words=settings)
    assert found.report == audit_run / "audit" / "mine-build" / "report.html"
    for spec, message in ((f"{code}:other", "no function 'other'"), (f"{tmp_path}/no.py:build", "no file")):
        with pytest.raises(ConfigError, match=message):
            causalcxr.audit(audit_run, spec, words=settings)
    code.write_text("1 / 0\n")
    with pytest.raises(ConfigError, match="fails with ZeroDivisionError"):
        causalcxr.audit(audit_run, f"{code}:build", words=settings)
    code.write_text("def build():\n    return 3\n")
    with pytest.raises(ConfigError, match=r"build in .* fails with TypeError"):
        causalcxr.audit(audit_run, f"{code}:build", words=settings)


def test_a_predictor_that_taught_the_model_is_not_audited_by_it(audit_run, monkeypatch):
    run = open_run(audit_run)
    taught = {"predictor": run.load_predictor("predictor").fingerprint()}
    monkeypatch.setattr(type(run), "finetuned", lambda self: taught)
    with pytest.raises(RunError, match="was fine-tuned with this very predictor"):
        causalcxr.audit(audit_run, "predictor")


def test_the_settings_are_part_of_a_configuration(audit_run):
    config = override_config(open_run(audit_run).config, ["audit.margin=0.2", "audit.attributes=[sex]"])
    assert config.audit.margin == 0.2 and config.audit.attributes == ["sex"]
    with pytest.raises(ConfigError, match=r"audit\.alpha"):
        override_config(config, ["audit.alpha=1.5"])


def test_a_contrast_reads_well(opened):
    scm, _, _ = opened
    assert Contrast("age", 40.0, 70.0).text(scm.graph) == "age: 40 years to 70 years"


def test_settings_are_words_of_the_command_line_or_keywords(audit_run, tmp_path):
    found = causalcxr.audit(
        audit_run, brightness, out=tmp_path, contrasts=["sex=female..male"], rows=100, splits=1, summary=4
    )
    assert len(found.material.ids) == 100 and found.report.exists() and found.log_odds
    with pytest.raises(ConfigError, match="no setting 'row'; did you mean 'rows'"):
        causalcxr.audit(audit_run, brightness, row=100)
    with pytest.raises(ConfigError, match=r"audit\.alpha"):
        causalcxr.audit(audit_run, brightness, alpha=2)


def fails(images: torch.Tensor) -> torch.Tensor:
    return torch.nn.Conv2d(3, 1, 3)(images).mean(dim=(1, 2, 3))


@pytest.mark.parametrize(
    ("model", "config", "message"),
    [
        (fails, QUICK, "the audited model fails on images .*x1x32x32 in .* with RuntimeError"),
        (lambda images: images.mean(dim=(1, 2, 3))[1:], QUICK, "the audited model gave 23 for 24 images"),
        (lambda images: torch.zeros(len(images), 0), QUICK, "returned no scores"),
        (lambda images: images.mean(dim=(1, 2, 3)) > 0.4, QUICK, "only 0 and 1, decisions and no probabilities"),
        (None, QUICK, "is NoneType; expected a function"),
        (brightness, replace(QUICK, rows=20), "20 patients; expected at least 30"),
        (brightness, replace(QUICK, finding="Finding"), "audit.finding: no attribute 'Finding'; did you mean"),
        (
            brightness,
            replace(QUICK, contrasts=["finding=No Finding..Pleural Effusion"]),
            "is what the scores are of",
        ),
    ],
)
def test_what_cannot_be_audited_is_said_before_an_image_is_made(opened, model, config, message, monkeypatch):
    scm, cohort, _ = opened
    monkeypatch.setattr(StructuralCausalModel, "infer", lambda *_: pytest.fail("an image was made"))
    with pytest.raises(CausalCXRError, match=message):
        audit_model(scm, cohort, model, config)


def test_a_contrast_is_asked_once_whichever_way_it_is_written(opened):
    scm, cohort, _ = opened
    config = AuditConfig(contrasts=["age=40..70", "age = 70 .. 40", "sex=female..male", "sex=female..male"])
    found = choose_contrasts(scm.graph, config, cohort.split("train").attributes)
    assert [c.text(scm.graph) for c in found] == ["age: 40 years to 70 years", "sex: female to male"]


def test_a_module_is_asked_in_evaluation_mode(opened):
    scm, cohort, _ = opened
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Dropout(0.9), torch.nn.Linear(32 * 32, 1), torch.nn.Sigmoid()
    )
    first, second = (audit_model(scm, cohort, model.train(), QUICK).scores["score"].real for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_the_overlap_of_a_rare_group_is_measured_as_if_it_were_common():
    """With an attribute that is independent of all else there is overlap, however rare it is."""
    for share in (0.05, 0.5):
        rng = np.random.default_rng(0)
        a, z = (rng.random(2000) < share).astype(int), rng.normal(size=(2000, 24))
        assert all(gate.passed for gate in route_gates(a, z, z, np.arange(2000), 0))
    apart = np.c_[z, 4 * a + rng.normal(size=2000)]
    assert not route_gates(a, z, apart, np.arange(2000), 0)[1].passed


def test_real_patients_that_contradict_take_away_the_evidence(audited):
    """Counterfactuals move the score, the real patients show that sex has nothing to do with it."""
    rng = np.random.default_rng(0)
    material = replace(audited.material, noise=rng.normal(size=(160, 6)))
    male, real = material.attributes["sex"] == 1, rng.normal(size=160)
    other = real + np.where(male, 1.0, -1.0)  # what the other sex would score: a shift of -1 from female to male
    table = np.stack([np.where(male, other, real), np.where(male, real, other), real, real], axis=1)
    found = conclude(material, {"x": Scores(real, table, table)}, {"x": 0.0}, QUICK)[0]
    assert found.effect is not None and found.effect.p < 0.001 and not found.effect.stands
    assert found.effect.statistics["shift"].value == pytest.approx(-1)
    assert found.effect.statistics["checked"].low < 0 < found.effect.statistics["checked"].high
    assert found.verdict.word != "dependence" and found.verdict.adjusted["generate"] == 1
