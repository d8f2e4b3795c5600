"""The shipped presets on the real data: Morpho-MNIST against its exact answer, the NIH table, real films."""

import gzip
import json
import os
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import causalcxr
from causalcxr.commands.main import main
from causalcxr.config import load_config
from causalcxr.data.preparation import open_cohort
from causalcxr.graph import load_graph
from causalcxr.interventions import draw_other_values
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


def test_the_attributes_of_the_nih_table_are_fitted_well(tmp_path):
    folder = tmp_path / "run"
    assert main(["train", "preset=nih", f"run={folder}", f"data.cache={tmp_path}/cache", "train.device=cpu"]) == 0
    run = open_run(folder)
    cohort = open_cohort(run.config.data, run.graph)
    assert len(cohort.manifest) == 112_120 and cohort.rejected == {}
    real = cohort.split("test").attributes
    drawn = causalcxr.load(folder).sample(200_000, seed=0)
    # Ages of the 6,161 test patients: a decile's standard error is half a year in the middle, one at the ends.
    deciles = torch.arange(0.1, 0.95, 0.1, dtype=torch.float64)
    gaps = drawn["age"].double().quantile(deciles) - real["age"].double().quantile(deciles)
    assert gaps.abs().max() < 2
    edges = torch.tensor([0.0, 20, 30, 40, 50, 60, 70, 101])
    patients = cohort.split("test").patients
    for low, high in pairwise(edges):
        of_model, of_data = [(values["age"] >= low) & (values["age"] < high) for values in (drawn, real)]
        for name in ("finding", "view"):
            model = drawn[name][of_model].double().mean().item()
            data, error = _share(real[name][of_data].numpy(), patients[of_data.numpy()])
            # Patients have several films each, one of those above 70 has 55: errors of one to four points.
            assert abs(model - data) < 0.02 + 2 * error < 0.1, (low, name, model, data, error)


def _share(ones, patients):
    """The share of ones `(N,)` and its standard error, patients drawn whole."""
    _, group = np.unique(patients, return_inverse=True)
    residuals = np.bincount(group, weights=ones - ones.mean())
    return ones.mean(), np.sqrt(np.square(residuals).sum()) / len(ones)


def test_ages_that_cannot_be_are_rejected_and_counted(tmp_path):
    table = gzip.decompress(Path(os.environ["CAUSALCXR_DATA"], "real-cxr", "nih_attributes.csv.gz").read_bytes())
    lines = table.decode().splitlines()[:301]
    for i, age in [(5, "413"), (9, "155"), (11, "058Y")]:
        cells = lines[i].split(",")
        lines[i] = ",".join([*cells[:3], age, *cells[4:]])
    (tmp_path / "nih.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    config = load_config(
        ["preset=nih", f"data.root={tmp_path}", "data.table=nih.csv.gz", f"data.cache={tmp_path}"]
    )
    cohort = open_cohort(config.data, load_graph("nih"))
    assert cohort.rejected == {"out of range": 2} and len(cohort.manifest) == 298
    assert cohort.manifest["age"][cohort.manifest["row"] == 10].tolist() == [58]  # `058Y` is 58 years


def test_the_page_tells_what_the_nih_table_says_of_two_graphs(tmp_path, capsys):
    page = (Path(__file__).parent.parent / "docs" / "graph-check.md").read_text("utf-8")
    first, found = tmp_path / "first.yaml", tmp_path / "found.json"
    first.write_text(re.findall(r"```yaml\n(.*?)```", page, re.S)[0])
    fit = ["preset=nih", "train.device=cpu", "train.attributes.steps=1000", "--json", str(found)]
    assert main(["graph", "check", str(first), *fit]) == 1
    said = json.loads(found.read_text())
    assert (said["rows"], said["patients"], said["rejected"]) == (112_120, 30_805, {})
    assert said["missing_edges"] == [["sex", "age"], ["sex", "view"]]
    assert said["unsupported_edges"] == [["sex", "finding"]]
    assert all(sentence in page for sentence in [*said["complaints"], *said["notes"]])
    capsys.readouterr()
    assert main(["graph", "check", "nih", *fit]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert "The data contradict nothing" in said and said in page


def test_real_films_from_jpeg_to_report(tmp_path):
    folder = tmp_path / "run"
    where = [f"run={folder}", f"data.cache={tmp_path}/cache"]
    assert (
        main(["train", "preset=real_cxr", *where, *QUICK, "train.attributes.steps=20", "train.predictors.steps=4"])
        == 0
    )
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
