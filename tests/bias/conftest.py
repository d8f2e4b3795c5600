"""A study that trains in seconds: 32 pixels, two biases, a hundred and twenty subjects."""

from pathlib import Path

import pytest

from causalcxr.bias.config import StudyConfig
from causalcxr.bias.study import Study, run_study
from causalcxr.config import read_settings

STUDY = """
run: {run}
data:
  size: 32
  train: 96
  val: 32
  test: 64
  cache: {cache}
  knobs: {{finding_odds: 0, finding_age: 0, finding_volume: 4}}
plant:
  marker: {{marker: 1.0}}
  nothing: {{exposure: 0.0}}
q: [0.5, 0.8]
seeds: [0, 1]
network: {{widths: [8, 8], augment: 0}}
train: {{steps: 12, batch_size: 8, clip_norm: 5, checkpoint_every: 4}}
mitigate: [reweighing, unlearning, group_models]
probe_rows: 64
saliency_rows: 4
processes: 1
"""


@pytest.fixture(scope="session")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bias")
    path = folder / "study.yaml"
    path.write_text(STUDY.format(run=folder / "run", cache=folder / "cache"))
    return path


@pytest.fixture(scope="session")
def study(study_file: Path) -> Study:
    return run_study(read_settings(StudyConfig, study_file))
