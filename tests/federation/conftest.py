"""Studies that train in seconds: 32 pixels, three hospitals with a law each, or films dealt out to four sites."""

from pathlib import Path

import pytest

from causalcxr.config import read_settings
from causalcxr.federation.config import SitesConfig
from causalcxr.federation.study import Study, run_study

HOSPITALS = """
run: {run}
data:
  size: 32
  train: 60
  val: 24
  test: 60
  cache: {cache}
  sites:
    A: {{size: 5, exposure: 0.4, black: 0.6}}
    B: {{size: 3, exposure: -0.2}}
    C: {{size: 2}}
strategies: [central, local, fedavg, travelling]
local_sites: 2
model:
  template: {{of: [sex]}}
  flow: {{components: 8, width: 16, blocks: 1, embedding: 8}}
  predictor: {{widths: [8], augment: 0}}
  evaluator: {{architecture: convnet, widths: [8], augment: 0}}
train:
  stages: [attributes, predictors, image, finetune]
  device: cpu
  attributes: {{batch_size: 32}}
  predictors: {{batch_size: 32}}
  image: {{batch_size: 32}}
  outputs: {{batch_size: 32}}
  finetune: {{batch_size: 8}}
rounds: {{attributes: 2, predictors: 2, image: 2, outputs: 2, finetune: 2}}
processes: 1
"""

DEALT = """
run: {run}
data: {{size: 32, train: 60, val: 24, test: 120, cache: {cache}}}
sizes: [30, 16, 6, 1]
predict: [finding, age]
strategies: [central, local, fedavg, fedprox, travelling, fedtm]
seeds: [0, 1]
local_sites: 2
model: {{predictor: {{widths: [8], augment: 0}}, flow: {{components: 8}}}}
train: {{device: cpu, predictors: {{batch_size: 8}}}}
rounds: {{predictors: 3}}
processes: 1
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(text.format(run=folder / "run", cache=folder / "cache"))
    return path


@pytest.fixture(scope="session")
def hospitals_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("hospitals"), HOSPITALS)


@pytest.fixture(scope="session")
def dealt_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("dealt"), DEALT)


@pytest.fixture(scope="session")
def hospitals(hospitals_file: Path) -> Study:
    return run_study(read_settings(SitesConfig, hospitals_file))


@pytest.fixture(scope="session")
def dealt(dealt_file: Path) -> Study:
    return run_study(read_settings(SitesConfig, dealt_file))
