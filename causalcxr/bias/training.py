"""Trains one network of a study on the one loop, and scores every test subject with and without the bias."""

import copy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from causalcxr.bias.config import StudyConfig
from causalcxr.bias.films import IMAGE, Films, GroupRows
from causalcxr.bias.grid import Network, scored_biases
from causalcxr.bias.objectives import FindingObjective, UnlearningObjective, reweighing
from causalcxr.graph import Variable
from causalcxr.mechanisms.likelihood import image_to_float
from causalcxr.predictors.calibration import calibrate
from causalcxr.predictors.predictor import NetworkPredictor
from causalcxr.randomness import seed_of, seeded
from causalcxr.support.errors import ConfigError
from causalcxr.support.files import load_tensors, save_tensors
from causalcxr.support.user_code import call_function
from causalcxr.training.config import TrainConfig
from causalcxr.training.loop import Fit

__all__ = ["build_network", "load_networks", "log_odds", "train_network", "training_rows"]

_BATCH = 256


def build_network(study: StudyConfig, variable: Variable, channels: int, seed: int) -> NetworkPredictor:
    """An untrained network, the same for the same seed, whatever is planted."""
    with seeded(seed_of(seed, "bias")):
        predictor = NetworkPredictor([variable], study.network, channels)
        if study.module:
            _replace_trunk(predictor, study, channels)
    return predictor


def _replace_trunk(predictor: NetworkPredictor, study: StudyConfig, channels: int) -> None:
    """The user's own module in the place of the trunk, and a head that fits it."""
    trunk = call_function(study.module, "module", channels)
    if not isinstance(trunk, nn.Module):
        raise ConfigError(f"module '{study.module}' returned {type(trunk).__name__}; expected a torch module")
    image = torch.zeros(2, channels, study.data.size, study.data.size)
    try:
        features = trunk.eval()(image)
    except Exception as error:
        raise ConfigError(f"module '{study.module}' fails with {type(error).__name__}: {error}") from error
    if not isinstance(features, Tensor) or features.ndim != 2:
        got = tuple(getattr(features, "shape", ())) or type(features).__name__
        raise ConfigError(f"module '{study.module}' made {got} of two images; expected features (2, F)")
    if not features.requires_grad:
        raise ConfigError(f"module '{study.module}': no gradient reaches its features, so it can't be trained")
    predictor.trunk = trunk
    predictor.linear = nn.ModuleList([nn.Linear(features.shape[1], 2)])


def training_rows(films: Films, study: StudyConfig, network: Network, split: str) -> GroupRows:
    """What a network is trained on, or calibrated: the biased films of group B, the finding as recorded.

    Who is not selected stays in the batches of training with weight 0, so that these are the twin's.
    """
    rows = films.rows(split)
    if network.is_twin:
        return GroupRows(films, rows, study.finding)
    channels = network.bias.channels(study)
    group = films.group(network.q)
    recorded = films.recorded(network.q, channels.get("underdiagnosis", 0.0))
    selected = films.selected(network.q, channels.get("selection", 0.0))
    chosen, weight = rows[selected[rows]], selected.astype(np.float64)
    if network.method == "reweighing":
        weight[chosen] = reweighing(torch.from_numpy(recorded[chosen]), torch.from_numpy(group[chosen])).numpy()
    kept = rows if split == "train" else chosen
    return GroupRows(films, kept, study.finding, network.bias.name, group, recorded, weight)


def train_network(network: Network, study: StudyConfig, variable: Variable, films: Films, folder: Path) -> None:
    """Train, calibrate and score; `folder` then holds network.safetensors and scores.safetensors.

    A killed training goes on from its checkpoint; a trained network is only scored.
    """
    if (folder / "network.safetensors").exists():
        models = load_networks(folder, study, variable, films.plain.shape[1])
    else:
        models, seconds = _train(network, study, variable, films, folder)
        tensors = {f"{i}/{name}": v for i, model in enumerate(models) for name, v in model.state_dict().items()}
        save_tensors(folder / "network.safetensors", tensors, {"models": len(models), "seconds": seconds})
    models = [model.to(_device(study)) for model in models]
    biases = scored_biases(network, study)
    scores = _score_test(models, films, list(biases))
    save_tensors(folder / "scores.safetensors", scores, {"name": network.name, "biases": biases})
    shutil.rmtree(folder / "state", ignore_errors=True)


def _train(
    network: Network, study: StudyConfig, variable: Variable, films: Films, folder: Path
) -> tuple[list[NetworkPredictor], float]:
    """The calibrated network, or both group models, and the seconds of their training."""
    train, val = (training_rows(films, study, network, split) for split in ("train", "val"))
    predictor = build_network(study, variable, films.plain.shape[1], network.seed)
    seen = train.numbers[train.weight[train.numbers] > 0]
    predictor.fit_scaling({variable.name: torch.from_numpy(train.recorded[seen].astype(np.int64))})
    fit, steps = _fitter(study, network.seed, folder / "state"), study.train.steps
    models, held_out = [predictor], [val]
    if network.method == "unlearning":
        with seeded(seed_of(network.seed, "unlearning")):
            objective = UnlearningObjective(predictor, study.unlearning)
        seconds = fit("unlearning", objective, train, val, steps)
    elif network.method == "group_models":
        half = max(1, steps // 2)
        seconds = fit("all", FindingObjective(predictor), train, val, half)
        models, held_out = [copy.deepcopy(predictor) for _ in range(2)], [val.of_group(g) for g in (0, 1)]
        for g, model in enumerate(models):
            parts = train.of_group(g), held_out[g]
            seconds += fit(f"group{g}", FindingObjective(model), *parts, max(1, steps - half))
    else:
        seconds = fit("finding", FindingObjective(predictor), train, val, steps)
    for model, rows in zip(models, held_out, strict=True):
        _calibrate(model.to(_device(study)), rows)
    return models, seconds


def load_networks(folder: Path, study: StudyConfig, variable: Variable, channels: int) -> list[NetworkPredictor]:
    """A trained network in evaluation mode; of group models that of A, then that of B."""
    tensors, facts = load_tensors(folder / "network.safetensors")
    models = []
    for i in range(facts["models"]):
        predictor = build_network(study, variable, channels, 0)
        prefix = f"{i}/"
        predictor.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        models.append(predictor.eval())
    return models


def log_odds(predictor: NetworkPredictor, image: Tensor) -> Tensor:
    """What the image says for the finding, `(B,)`: calibrated log-odds less those of the training split's share.

    0 is the threshold that is best where both answers are equally frequent.
    """
    output = predictor(image)[predictor.variables[0].name]
    prior = predictor.log_prior[0, 1] - predictor.log_prior[0, 0]
    return output[:, 1] - output[:, 0] - prior


def _fitter(study: StudyConfig, seed: int, folder: Path) -> Callable[..., float]:
    config = TrainConfig(seed=seed, device=study.device)
    cuda = study.device != "cpu" and torch.cuda.is_available()
    fabric = Fabric(accelerator="cuda" if cuda else "cpu", devices=1, precision="32-true")

    def fit(name: str, objective: FindingObjective, train: GroupRows, val: GroupRows, steps: int) -> float:
        stage = replace(study.train, steps=steps, validate_every=steps)
        done = Fit(name, objective, train, val, stage, config, fabric, folder, _forget, shown=False).run()
        return done.seconds

    return fit


def _forget(line: dict[str, Any]) -> None:
    """Curves of some hundred small networks are kept by nobody."""


def _device(study: StudyConfig) -> torch.device:
    return torch.device("cuda" if study.device != "cpu" and torch.cuda.is_available() else "cpu")


@torch.no_grad()
def _calibrate(predictor: NetworkPredictor, val: GroupRows) -> None:
    """Temperature from the validation split, as recorded there."""
    name, found = predictor.variables[0].name, []
    for start in range(0, len(val), _BATCH):
        batch = val.batch(range(start, min(start + _BATCH, len(val))))
        image = image_to_float(batch[IMAGE].to(predictor.temperature.device))
        found.append(predictor.heads(predictor.features(image))[name].cpu())
    labels = torch.from_numpy(val.recorded[val.numbers].astype(np.int64))
    device = predictor.temperature.device
    calibrate(predictor, {name: torch.cat(found).to(device)}, {name: labels.to(device)})


@torch.no_grad()
def _score_test(models: list[NetworkPredictor], films: Films, biases: list[str]) -> dict[str, Tensor]:
    """Log-odds `(N,)` of every test subject: `plain`, and `biased/NAME` of each bias."""
    rows = films.rows("test")
    plain = {"plain": _scores(models[0], films.plain, rows)}
    return plain | {f"biased/{name}": _scores(models[-1], films.biased[name], rows) for name in biases}


def _scores(model: NetworkPredictor, images: np.ndarray, rows: np.ndarray) -> Tensor:
    device, found = model.temperature.device, []
    for chosen in np.split(rows, range(_BATCH, len(rows), _BATCH)):
        image = image_to_float(torch.from_numpy(images[chosen]).to(device))
        found.append(log_odds(model, image).float().cpu())
    return torch.cat(found)
