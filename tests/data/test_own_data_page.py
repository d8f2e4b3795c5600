"""What docs/own-data.md shows is what the code does."""

import csv
import re
from pathlib import Path

import torch
import yaml
from omegaconf import OmegaConf

from causalcxr.data import DataConfig, open_cohort
from causalcxr.graph import load_graph

PAGE = Path(__file__).parents[2] / "docs" / "own-data.md"
TEST_ROW = {"path": "images/0004.png", "patient_id": "C01", "sex": "F", "age": "70"} | {
    "finding": "Effusion",
    "split": "test",
}


def test_the_preset_reads_the_table_shown(make_folder, monkeypatch, tmp_path):
    page = PAGE.read_text("utf-8")
    preset = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", page, re.S)[0])
    shown = re.findall(r"^    ((?:path|images/).*)$", page, re.M)
    rows = [*csv.DictReader(shown), TEST_ROW]
    made = make_folder(rows)
    monkeypatch.setenv("HOME", str(tmp_path))
    Path(made.root).rename(tmp_path / "xrays")  # ~/xrays, as in the preset
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DataConfig), preset["data"]))
    assert isinstance(config, DataConfig)
    config.cache = made.cache
    cohort = open_cohort(config, load_graph(preset["graph"]))
    assert cohort.rejected == {} and cohort.images is not None and cohort.images.shape == (4, 1, 64, 64)
    assert cohort.split("train").attributes["finding"].tolist() == [1, 0]
    assert cohort.split("val").attributes["sex"].tolist() == [1]


def test_the_python_shown_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)[0]
    names: dict = {}
    exec(code, names)
    assert names["batch"]["image"].shape == (3, 1, 32, 32) and names["batch"]["age"].dtype == torch.float32
