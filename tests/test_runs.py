"""Run folders: stages may be added, damage is noticed, a start that fails leaves nothing, kills change nothing."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch

import causalcxr
from causalcxr.config import load_config
from causalcxr.runs import open_run
from causalcxr.support.errors import ConfigError, RunError
from causalcxr.support.files import load_tensors, save_tensors
from causalcxr.training.pipeline import train
from tests.conftest import TINY_DATA, TINY_IMAGE, TINY_TRAINING


@pytest.fixture
def copied(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "run")


def settings(folder, cache, *more):
    return [f"run={folder}", f"data.cache={cache}", *TINY_DATA, *TINY_IMAGE, *TINY_TRAINING, *more]


def test_stages_are_added_to_a_finished_run_and_what_is_trained_stays(tiny_run, tmp_path):
    cache = tiny_run.parent / "cache"
    short = settings(tmp_path / "run", cache, "train.stages=[attributes,image]")
    train(load_config(short))
    before = load_tensors(tmp_path / "run" / "model.safetensors")[0]
    train(load_config([*short, "train.stages=[attributes,image,predictors]"]))
    after = load_tensors(tmp_path / "run" / "model.safetensors")[0]
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    run = open_run(tmp_path / "run")
    assert run.finished_stages() == run.config.train.stages == ["attributes", "image", "predictors"]
    train(load_config([f"base={tmp_path / 'run'}", f"run={tmp_path / 'tuned'}", "train.finetune.steps=1"]))
    assert open_run(tmp_path / "tuned").finetuned()["targets"] == "counterfactual"
    with pytest.raises(RunError, match=r"made with train\.stages="):  # none is taken away
        train(load_config(short))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["train.stages=[attributes,image,finetune]"], "'finetune' needs 'predictors' before it"),
        (["train.stages=[attributes,attributes]"], "expected each stage once"),
        (["train.stages=[]"], "at least one"),
        (["graph=morphomnist_without_image"], "no graph"),
        (["model.hvae.widths=[8,12]"], r"hvae\.widths: 2 entries, expected 4"),
        (["model.predictor.architecture=resnet19"], "no predictor architecture 'resnet19'"),
        (["model.template.of=[findng]"], "'findng'"),
        (
            ["finetune.intervene=[sexx]", "train.stages=[attributes,predictors,image,finetune]"],
            r"finetune\.intervene has 'sexx'",
        ),
    ],
)
def test_what_the_configuration_alone_can_tell_is_told_before_the_first_byte(tmp_path, more, message):
    with pytest.raises(causalcxr.CausalCXRError, match=message):
        train(load_config(settings(tmp_path / "run", tmp_path / "cache", *more)))
    assert list(tmp_path.iterdir()) == []


def test_a_base_without_predictors_is_refused_and_leaves_no_folder(tiny_run, tmp_path):
    cache = tiny_run.parent / "cache"
    train(load_config(settings(tmp_path / "run", cache, "train.stages=[attributes,image]")))
    with pytest.raises(ConfigError, match=r"needs 'predictors' before it.*train the base with them"):
        train(load_config([f"base={tmp_path / 'run'}"]))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("name", ["model", "predictor", "state/image"])
def test_a_changed_byte_is_noticed(copied, name):
    """One bit in the middle of the tensors, where no reader of the format would see it."""
    path = copied / f"{name}.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"is damaged .*its checksum is another") as caught:
        load_tensors(path)
    assert "\n" not in str(caught.value)
    assert ("finished stages are taken from state/" in str(caught.value)) == (name == "model")


def test_a_damaged_model_is_made_again_from_its_stages(copied, tiny_run):
    before = load_tensors(copied / "model.safetensors")[0]
    (copied / "model.safetensors").unlink()
    words = settings(copied, tiny_run.parent / "cache")
    train(load_config(words))
    after = load_tensors(copied / "model.safetensors")[0]
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    lines = (copied / "metrics.jsonl").read_text().splitlines()
    original = (tiny_run / "metrics.jsonl").read_text().splitlines()
    assert lines == original  # not a step was taken again


def test_every_kind_of_tensor_has_a_checksum(tmp_path):
    tensors = {
        "bool": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "scalar": torch.tensor(3),
        "strided": torch.arange(6.0).view(2, 3).T,
    }
    save_tensors(tmp_path / "t.safetensors", tensors, {"a": 1})
    found, about = load_tensors(tmp_path / "t.safetensors")
    assert about == {"a": 1} and all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


PROGRAM = """
import os, random, signal, sys, torch
torch.set_num_threads(1)
from causalcxr.config import load_config
from causalcxr.training.loop import Fit
from causalcxr.training.pipeline import train

def fork(run, events):
    child = os.fork()
    if child == 0:
        sys.stderr = open(os.devnull, "w")
        die_after(events)
        train(load_config([*sys.argv[1:], f"run={run}"]))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def die_after(events):
    left, step, flush = events, Fit._step, os.fsync
    def tick():
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    Fit._step = lambda self: (step(self), tick())[0]  # between two steps
    os.fsync = lambda file: (tick(), flush(file))[1]  # in the middle of a file

moments = random.Random(0)
print(fork("whole", 0), [fork("killed", moments.randint(1, 9)) for _ in range(10)], fork("killed", 0))
"""


def test_ten_kills_at_random_moments_of_fine_tuning_change_no_byte(tiny_run, tmp_path):
    """Each process dies after one to nine steps or files; the last ends in the bytes of an uninterrupted one."""
    steps = ["train.finetune.steps=30", "train.finetune.checkpoint_every=2", "train.finetune.validate_every=10"]
    steps += ["train.outputs.steps=30", "train.outputs.checkpoint_every=3", "train.outputs.validate_every=10"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, f"base={tiny_run}", *steps],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == f"0 {[-signal.SIGKILL.value] * 10} 0"
    for name in ("model.safetensors", "predictor.safetensors", "graph.yaml"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name
