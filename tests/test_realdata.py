"""The shipped presets on the real data: Morpho-MNIST against its exact answer, real films from JPEG to report."""

import json
import os
from pathlib import Path

import pytest
import torch

import causalcxr
from causalcxr.cli import main
from causalcxr.data.cohort import open_cohort
from causalcxr.metrics.interventions import draw_other_values
from causalcxr.runs import open_run

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(
        "CAUSALCXR_DATA" not in os.environ, reason="CAUSALCXR_DATA names no folder with the real data"
    ),
]
QUICK = ["train.device=cpu", "train.image.steps=3", "train.image.validate_rows=16", "train.image.batch_size=4"]


def test_do_thickness_moves_intensity_to_its_exact_answer(tmp_path):
    folder = tmp_path / "run"
    arguments = ["preset=morphomnist", f"run={folder}", f"data.cache={tmp_path}/cache", "train.device=cpu"]
    assert main(["train", *arguments, "train.stages=[attributes]", "train.attributes.steps=1000"]) == 0
    scm, run = causalcxr.load(folder), open_run(folder)
    cohort = open_cohort(run.config.data, run.graph)
    a = cohort.split("test").attributes
    drawn = draw_other_values(scm.graph, a, cohort.split("train").attributes, seed=0)["thickness"]
    mechanism = scm.mechanism("intensity")
    answer = mechanism(mechanism.abduct(a["intensity"], a), {"thickness": drawn})
    logit = torch.logit(((a["intensity"].double() - 64) / 191).clamp(1e-9, 1 - 1e-9))
    exact = 64 + 191 * torch.sigmoid(logit + 2 * (drawn - a["thickness"]).double())
    assert (exact - a["intensity"]).abs().mean() > 40  # what doing nothing would cost
    assert (answer - exact).abs().mean() < 2  # of 255, on all 10,000 test rows; .2 after the preset's 2,000 steps


def test_real_films_from_jpeg_to_report(tmp_path):
    folder = tmp_path / "run"
    where = [f"run={folder}", f"data.cache={tmp_path}/cache"]
    assert main(["train", "preset=real_cxr", *where, *QUICK, "train.attributes.steps=20"]) == 0
    assert main(["evaluate", f"run={folder}", "evaluate.rows=12"]) == 0
    assert (folder / "report.html").stat().st_size > 50_000
    assert json.loads((folder / "metrics.json").read_text())
    cohort = open_cohort(open_run(folder).config.data, open_run(folder).graph)
    assert [len(cohort.split(name)) for name in ("train", "val", "test")] == [1329, 258, 283]
    assert sum(cohort.rejected.values()) == 2811 - 1329 - 258 - 283
    image = Path(os.environ["CAUSALCXR_DATA"], "real-cxr", cohort.manifest["path"].iloc[0])
    patient = ["--with", "sex=male", "age=80", "finding=No Finding", "--do", "finding=Pleural Effusion"]
    out = tmp_path / "answer.png"
    assert main(["counterfactual", str(folder), str(image), *patient, "--out", str(out)]) == 0
    answer = json.loads(out.with_suffix(".json").read_text())
    assert answer["counterfactual"] == answer["factual"] | {"finding": "Pleural Effusion"}
