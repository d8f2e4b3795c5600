"""What several test files need: a run that was trained once, in seconds."""

import os
import shutil
from pathlib import Path

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")

TINY_IMAGE = [
    "model.hvae.resolutions=[16,8,4,1]",
    "model.hvae.widths=[8,12,16,16]",
    "model.hvae.encoder_blocks=[1,1,1,1]",
    "model.hvae.decoder_blocks=[1,1,1,1]",
    "model.hvae.latents=[1,2,4,4]",
    "model.hvae.embedding=8",
    "model.predictor.widths=[8,12]",
    "model.evaluator.widths=[8,12]",
]
TINY_DATA = ["data.source=simulator", "data.size=32", "data.train=160", "data.val=24", "data.test=24"]
TINY_TRAINING = [
    "train.device=cpu",
    "train.stages=[attributes,predictors,image]",
    "train.attributes.steps=30",
    "train.attributes.batch_size=64",
    "train.predictors.steps=20",
    "train.predictors.batch_size=16",
    "train.outputs.steps=20",
    "train.finetune.steps=6",
    "train.finetune.batch_size=16",
    "train.image.steps=20",
    "train.image.batch_size=16",
    "train.image.warmup_steps=5",
    "train.image.validate_every=10",
    "train.log_every=5",
]


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a trained run: simulated X-rays at 32 x 32, the chest graph, a few steps. Copy it to change it."""
    from causalcxr.config import load_config
    from causalcxr.training.pipeline import train

    folder = tmp_path_factory.mktemp("tiny")
    where = [f"run={folder / 'run'}", f"data.cache={folder / 'cache'}"]
    return train(load_config([*where, *TINY_DATA, *TINY_IMAGE, *TINY_TRAINING]))


@pytest.fixture(scope="session")
def audit_run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run, with 160 test patients: enough for an audit."""
    folder = tmp_path_factory.mktemp("audit") / "run"
    shutil.copytree(tiny_run, folder)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("  test: 24\n", "  test: 160\n"))
    return folder
