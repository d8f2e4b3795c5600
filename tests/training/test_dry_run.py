"""A dry run: what it says, and that it leaves nothing but the prepared cohort."""

import pytest

from causalcxr.commands.main import main
from causalcxr.config import load_config, shipped_presets
from causalcxr.support.errors import ConfigError
from causalcxr.training.dry_run import Estimate, as_text, dry_run
from tests.conftest import TINY_DATA, TINY_IMAGE, TINY_TRAINING

STAGES = "train.stages=[attributes,predictors,image,finetune]"


def test_every_part_is_timed_and_nothing_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["run=run", "data.cache=cache", *TINY_DATA, *TINY_IMAGE, *TINY_TRAINING, STAGES]
    assert main(["train", *arguments, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    for part in ("attributes", "predictor", "evaluator", "image", "outputs", "finetune"):
        assert f"  {part} " in said
    assert "parameters" in said


def test_hours_are_those_of_all_steps():
    estimate = Estimate({"image": 0.5, "finetune": 2.0}, {"image": 7200, "finetune": 1800}, 10, 1.5, "a CPU")
    assert estimate.hours == pytest.approx(2.0)
    assert "about 2.00 h in all" in as_text(estimate)
    assert "1.50 GiB" in as_text(estimate)


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="a dry run takes one process"):
        dry_run(load_config([]))


def test_the_preset_of_the_literatures_size_is_a_configuration():
    assert "mimic192" in shipped_presets()
    config = load_config(["preset=mimic192"])
    assert (config.data.size, config.data.source) == (192, "mimic")
    assert config.train.image.batch_size * config.train.image.accumulate == 256
