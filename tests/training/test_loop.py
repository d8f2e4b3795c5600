"""The training loop: rows, schedule, averaging, bad steps, resume after a kill, several processes."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from causalcxr.config import load_config
from causalcxr.data.cohort import Cohort
from causalcxr.data.preparation import open_cohort
from causalcxr.randomness import Draws, seed_of
from causalcxr.support.errors import DataError, RunError, TrainingError
from causalcxr.support.files import load_tensors
from causalcxr.training.config import StageConfig, TrainConfig
from causalcxr.training.loop import Fit
from causalcxr.training.objectives import AttributesObjective, ImageObjective, Objective
from causalcxr.training.pipeline import train
from causalcxr.training.steps import learning_rate, rows_of_step
from tests.models import tiny_scm

# A whole run in seconds: 32 x 32 simulated images, a toy network.
TINY = [
    "graph=chest",
    *("data.source=simulator", "data.size=32", "data.train=64", "data.val=16", "data.test=16"),
    *("model.hvae.stem=4", "model.hvae.resolutions=[8,4,1]"),
    *("model.hvae.widths=[8,8,8]", "model.hvae.latents=[2,2,4]", "model.hvae.embedding=8"),
    *("model.hvae.encoder_blocks=[1,1,1]", "model.hvae.decoder_blocks=[1,1,1]"),
    *("train.device=cpu", "train.threads=1", "train.log_every=1"),
    *("train.attributes.steps=20", "train.attributes.checkpoint_every=5", "train.attributes.batch_size=8"),
    *("train.image.steps=40", "train.image.checkpoint_every=5", "train.image.validate_every=5"),
    *("train.image.batch_size=8", "train.image.warmup_steps=5", "train.attributes.validate_every=5"),
]


def command(folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "causalcxr", "train", *TINY, f"run={folder}", *more]


def run(folder: Path, *more: str, launcher: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    """Train in a process of its own, as a user would, and return the weights."""
    words = command(folder, f"data.cache={folder.parent}/cache", *more)
    done = subprocess.run([words[0], *launcher, *words[1:]], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr[-2000:]
    return load_tensors(folder / "model.safetensors")[0]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a if a[name].numel())


TEMPLATE = "model.template.of=[sex,age]"
KINDS = {
    "plain": [],
    "warm-up and template": ["train.image.kl_warmup_steps=30", TEMPLATE],
    "flow": ["model.image=flow", TEMPLATE, "model.flow.components=12", "model.flow.width=16"],
}


@pytest.mark.parametrize("more", KINDS.values(), ids=KINDS)
def test_a_killed_run_ends_in_the_same_weights_bit_for_bit(tmp_path, more):
    straight = run(tmp_path / "straight", *more)
    killed = tmp_path / "killed"
    words = command(killed, f"data.cache={tmp_path}/cache", *more)
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment())
    metrics, waited = killed / "metrics.jsonl", time.monotonic()
    while process.poll() is None and time.monotonic() - waited < 120:  # until the middle of the image stage
        if metrics.exists() and '"stage": "image", "step": 13,' in metrics.read_text():
            break
        time.sleep(0.005)
    assert process.poll() is None, "finished before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    step = load_tensors(killed / "state" / "image.safetensors")[1]["step"]
    assert 0 < step < 40
    resumed = run(killed, *more)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    for name in ("straight", "killed"):  # and in the same curves, each step once
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        steps = [v["step"] for v in lines if v["stage"] == "image" and v["split"] == "train"]
        assert steps == list(range(1, 41))


@pytest.mark.parametrize("kind", ["plain", "flow"])
def test_two_processes_match_one_with_the_doubled_batch(tmp_path, kind):
    steps = ("train.attributes.steps=10", "train.image.steps=10", *KINDS[kind])
    one = run(tmp_path / "one", *steps, "train.image.batch_size=16", "train.attributes.batch_size=16")
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone")
    two = run(tmp_path / "two", *steps, launcher=launcher)
    # The same gradients, summed in another order: float32 rounding, through 10 steps of AdamW.
    assert difference(one, two) < 2e-4


def test_two_killed_processes_go_on_together(tmp_path):
    """SIGKILL for torchrun and both of its processes: the same command ends in the weights of a straight run."""
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone")
    steps = ("train.attributes.steps=5", "train.image.steps=20")
    straight = run(tmp_path / "straight", *steps, launcher=launcher)
    killed = tmp_path / "killed"
    words = command(killed, f"data.cache={tmp_path}/cache", *steps)
    words = [words[0], *launcher, *words[1:]]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, env=environment(), start_new_session=True)
    metrics, waited = killed / "metrics.jsonl", time.monotonic()
    while process.poll() is None and time.monotonic() - waited < 120:
        if metrics.exists() and '"stage": "image", "step": 8,' in metrics.read_text():
            break
        time.sleep(0.005)
    assert process.poll() is None, "finished before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _kill_leftovers(str(killed))
    resumed = run(killed, *steps, launcher=launcher)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def _kill_leftovers(folder: str) -> None:
    """torchrun starts its processes in sessions of their own, which its own death leaves alone for a while."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if folder in (entry / "cmdline").read_text() and int(entry.name) != os.getpid():
                os.kill(int(entry.name), signal.SIGKILL)
        except (OSError, UnicodeDecodeError):
            continue


def test_a_run_of_another_configuration_is_not_overwritten(tmp_path):
    config = [*TINY, f"run={tmp_path}/run", f"data.cache={tmp_path}/cache", "train.stages=[attributes]"]
    train(load_config(config))
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    with pytest.raises(RunError, match=r"made with train\.seed=0, now it is 1; choose another run="):
        train(load_config([*config, "train.seed=1"]))
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_rows_of_a_step_cover_every_epoch_once():
    n, batch, world = 10, 3, 2
    seen = [rows_of_step(0, step, n, batch, rank, world) for step in range(5) for rank in range(world)]
    stream = np.concatenate(seen)
    for epoch in range(3):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))
    assert not np.array_equal(stream[:n], stream[n : 2 * n])
    one_process = [rows_of_step(0, step, n, batch * world) for step in range(5)]
    assert np.array_equal(np.concatenate(one_process), stream)


def test_seeds_differ_by_every_part_and_repeat():
    parts = [(0,), (1,), (0, "image"), (0, "imagf"), (0, "image", 1), (0, "image", 2), (2**40,)]
    assert len({seed_of(*p) for p in parts}) == len(parts)
    assert seed_of(0, "image", 1) == seed_of(0, "image", 1)


def test_learning_rate_warms_up_and_decays():
    stage = StageConfig(steps=1000, warmup_steps=100, learning_rate=1.0, final_learning_rate=0.1)
    rates = [learning_rate(stage, step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01, rel=1e-3)
    assert max(rates) == pytest.approx(0.98, abs=0.01)
    assert rates[-1] == pytest.approx(0.1, abs=1e-4)
    assert all(a >= b for a, b in itertools.pairwise(rates[100:]))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Cohort:
    config = load_config([*TINY, f"data.cache={tmp_path_factory.mktemp('cache')}"])
    from causalcxr.graph import load_graph

    return open_cohort(config.data, load_graph("chest"))


def stage_of(objective: Objective, cohort: Cohort, folder: Path, stage: StageConfig, **config) -> Fit:
    return Fit(
        name="attributes",
        objective=objective,
        train=cohort.split("train"),
        val=cohort.split("val"),
        stage=stage,
        config=TrainConfig(**config),
        fabric=Fabric(accelerator="cpu"),
        folder=folder,
        record=lambda values: None,
    )


class Poisoned(AttributesObjective):
    """The loss of `age` is NaN at some calls."""

    def __init__(self, scm, bad_calls: range):
        super().__init__(scm)
        self.bad_calls, self.calls = bad_calls, 0

    def forward(self, batch, draws):
        losses = super().forward(batch, draws)
        self.calls += 1
        return losses | {"age": losses["age"] * math.nan} if self.calls in self.bad_calls else losses


def test_a_non_finite_step_is_skipped_and_training_goes_on(cohort, tmp_path, caplog):
    scm = tiny_scm().requires_grad_(True)
    objective = Poisoned(scm, range(3, 5))
    progress = stage_of(objective, cohort, tmp_path, StageConfig(steps=8, validate_every=100)).run()
    assert (progress.step, progress.bad_steps) == (8, 2)
    assert "step 2: the loss of 'age' is not finite; this step is skipped" in caplog.text
    assert all(p.isfinite().all() for p in objective.parameters())


def test_training_stops_after_a_bounded_number_of_bad_steps(cohort, tmp_path):
    objective = Poisoned(tiny_scm().requires_grad_(True), range(1, 1000))
    stage = stage_of(objective, cohort, tmp_path, StageConfig(steps=50), max_bad_steps=3)
    with pytest.raises(
        TrainingError, match=r"stage 'attributes', step 3: the loss of 'age' is not finite"
    ) as caught:
        stage.run()
    assert "\n" not in str(caught.value)


def test_the_message_names_the_key_that_has_the_settings(cohort, tmp_path):
    """Stages can share their settings, as predictor and evaluator do."""
    settings = StageConfig(steps=50)
    objective = Poisoned(tiny_scm().requires_grad_(True), range(1, 1000))
    stage = stage_of(objective, cohort, tmp_path, settings, max_bad_steps=0, outputs=settings)
    with pytest.raises(TrainingError, match=r"lower train\.outputs\.learning_rate"):
        stage.run()


def test_gradient_accumulation_equals_the_larger_batch(cohort, tmp_path):
    weights = []
    for i, (batch, accumulate) in enumerate([(8, 1), (4, 2)]):
        objective = AttributesObjective(tiny_scm().requires_grad_(True))
        stage = StageConfig(steps=5, batch_size=batch, accumulate=accumulate)
        stage_of(objective, cohort, tmp_path / str(i), stage).run()
        weights.append({name: p.detach() for name, p in objective.named_parameters()})
    assert difference(*weights) < 1e-5  # float32 sums in another order


def compile_with(monkeypatch, backend) -> list[torch.nn.Module]:
    """Make torch.compile use a backend; what it compiles is listed."""
    compiler, compiled = torch.compile, []

    def compile_and_list(module, **options):
        compiled.append(module)
        return compiler(module, backend=backend)

    monkeypatch.setattr(torch, "compile", compile_and_list)
    return compiled


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch warns itself as it captures
def test_a_compiled_stage_trains_the_same_model(tmp_path, monkeypatch):
    # the graph is captured as ever, but run by torch's own operators: no compiler is needed
    compiled = compile_with(monkeypatch, "eager")
    steps = ["train.attributes.steps=5", "train.image.steps=3", f"data.cache={tmp_path}/cache"]
    weights = []
    for choice in ("false", "true"):
        folder = train(load_config([*TINY, *steps, f"run={tmp_path}/{choice}", f"train.image.compile={choice}"]))
        weights.append(load_tensors(folder / "model.safetensors")[0])
    assert {type(module) for module in compiled} == {ImageObjective}
    assert difference(*weights) < 1e-6


def test_a_failure_of_the_compiler_is_one_line(cohort, tmp_path, monkeypatch):
    def backend(graph, inputs):
        raise ValueError("no compiler\nwas found")

    compile_with(monkeypatch, backend)
    objective = AttributesObjective(tiny_scm().requires_grad_(True))
    stage = stage_of(objective, cohort, tmp_path, StageConfig(steps=3, compile=True))
    with pytest.raises(
        TrainingError, match=r"compile failed, .*ValueError: no compiler; set train.attributes.compile=false$"
    ):
        stage.run()


def test_the_average_is_kept_and_the_best_is_loaded(cohort, tmp_path):
    objective = AttributesObjective(tiny_scm().requires_grad_(True))
    config = StageConfig(steps=30, batch_size=16, learning_rate=0.05, warmup_steps=0, validate_every=5)
    stage = stage_of(objective, cohort, tmp_path, config)
    before = sum(stage.validate().values())
    progress = stage.run()
    assert progress.best < before - 0.05
    kept, metadata = load_tensors(tmp_path / "attributes.best.safetensors")
    assert all(torch.equal(kept[name], p) for name, p in objective.named_parameters())
    assert metadata["loss"] == progress.best
    raw = load_tensors(tmp_path / "attributes.safetensors")[0]
    assert any(not torch.equal(raw[f"weights/{name}"], value) for name, value in kept.items())


def test_one_image_step_calls_encoder_and_decoder_once():
    scm = tiny_scm()
    objective = ImageObjective(scm.requires_grad_(True))
    batch, calls = scm.sample(4, seed=0), {"encoder": 0, "decoder": 0}
    mechanism = scm.mechanism("image")
    for name in calls:
        getattr(mechanism, name).register_forward_hook(
            lambda *_, name=name: calls.__setitem__(name, calls[name] + 1)
        )
    torch.stack(list(objective(batch, Draws(0)).values())).sum().backward()
    assert calls == {"encoder": 1, "decoder": 1}


def test_the_kl_term_grows_to_its_full_weight_in_training_alone():
    """Loss against its parts: a quarter of the KL at the first of four steps, all of it from the fourth on."""
    scm = tiny_scm()
    batch, mechanism = scm.sample(4, seed=0), scm.mechanism("image")
    objective = ImageObjective(scm, kl_warmup_steps=4)
    with torch.no_grad():
        elbo = mechanism.elbo(batch["image"], batch, Draws(0))
        for training, step, share in ((True, 0, 0.25), (True, 2, 0.75), (True, 3, 1), (True, 9, 1), (False, 0, 1)):
            objective.train(training).step.fill_(step)
            nats = elbo.nll + share * mechanism.config.beta * elbo.kl + elbo.auxiliary
            expected = nats / (math.log(2) * batch["image"][0].numel())
            torch.testing.assert_close(objective(batch, Draws(0))["image"], expected)


def test_an_empty_split_is_refused(cohort, tmp_path):
    class Nothing:
        def __len__(self):
            return 0

    with pytest.raises(DataError, match="stage 'attributes': the split 'val' is empty"):
        Fit(
            "attributes",
            AttributesObjective(tiny_scm().requires_grad_(True)),
            cohort.split("train"),
            Nothing(),  # type: ignore[arg-type]
            StageConfig(),
            TrainConfig(),
            Fabric(accelerator="cpu"),
            tmp_path,
            lambda values: None,
        )


def test_training_leaves_the_callers_arithmetic_as_it_was(tmp_path):
    """Denormal numbers count as 0 in training alone."""
    tiny = torch.tensor(1e-310, dtype=torch.float64)
    steps = ["train.stages=[attributes]", "train.attributes.steps=2", f"data.cache={tmp_path}/cache"]
    train(load_config([*TINY, *steps, f"run={tmp_path}/run"]))
    assert float(tiny * 1.0) > 0
