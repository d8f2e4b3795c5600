"""A study on real films: planted on what is there already."""

import os
from pathlib import Path

import pytest

from causalcxr.bias.config import StudyConfig
from causalcxr.bias.report import write_report
from causalcxr.bias.study import run_study
from causalcxr.config import read_settings

STUDY = Path(__file__).parents[2] / "benchmarks" / "bias" / "real.yaml"
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif("CAUSALCXR_DATA" not in os.environ, reason="CAUSALCXR_DATA names no folder of real films"),
]


def test_a_marker_on_real_films(tmp_path: Path) -> None:
    few = ["data.size=32", "seeds=[0]", "q=[0.5]", "encode_q=[]", "mitigate=[]", "mitigate_q=[]"]
    where = [f"run={tmp_path / 'run'}", f"data.cache={tmp_path / 'cache'}"]
    quick = ["train.steps=5", "train.batch_size=16", "probe_rows=80", "saliency_rows=2", "processes=1"]
    study = run_study(read_settings(StudyConfig, STUDY, [*few, *where, *quick]))
    assert not study.opened.has_bayes
    assert {cell.bias.kind: "index" in cell.measured.statistics for cell in study.cells} == {
        "marker": False,
        "contrast": False,
    }
    films = study.opened.films
    changed = films.biased["marker"] != films.plain
    assert changed.any(axis=(1, 2, 3)).all() and changed.mean() < 0.02
    assert write_report(study).is_file()
