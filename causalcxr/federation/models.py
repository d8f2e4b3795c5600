"""The modules of one run that learn across sites: which they are, what is trained of them, how they are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from causalcxr.building import ROLES, build_predictor
from causalcxr.config import Config
from causalcxr.federation.config import RoundsConfig, SitesConfig
from causalcxr.graph import Graph, Variable
from causalcxr.mechanisms.categorical import CategoricalMechanism
from causalcxr.predictors.outputs import OutputModel
from causalcxr.predictors.predictor import NetworkPredictor
from causalcxr.randomness import seed_of, seeded
from causalcxr.runs import Run
from causalcxr.support.digest import digest
from causalcxr.support.errors import ConfigError
from causalcxr.training.config import StageConfig
from causalcxr.training.finetune import FinetuneObjective
from causalcxr.training.objectives import (
    AttributesObjective,
    ImageObjective,
    Objective,
    OutputsObjective,
    PredictorObjective,
)

__all__ = ["Models", "key_of", "make_run", "parts_of", "settings_of"]


_FREE = ("device", "log_every", "threads")  # the weights do not depend on them


def make_run(config: SitesConfig, graph: Graph, folder: Path, seed: int) -> Run:
    """The run folder of one model, as `causalcxr train` makes one."""
    image = "" if graph.image is None else graph[graph.image].mechanism
    settings = Config(
        run=str(folder),
        graph=str(folder / "graph.yaml"),
        data=config.data,
        model=replace(config.model, image=image),
        train=replace(config.train, seed=seed),
        finetune=config.finetune,
    )
    return Run(folder, settings, graph)


def key_of(config: SitesConfig, run: Run, name: str, data: Any) -> str:
    """Of all that a model's weights depend on. `data`: what is known of the films."""
    used = {settings_of(part) for part in parts_of(run.config)}
    ways = [config.by, config.each, config.sizes, config.skip, config.predict, config.epochs, config.steps]
    ways += [config.moments, config.weighted, {stage: getattr(config.rounds, stage) for stage in sorted(used)}]
    ways += [config.mu if name.startswith("fedprox") else 0, config.enough if name.startswith("fedtm") else 0]
    unused = {f.name for f in fields(RoundsConfig)} - used
    train = {key: value for key, value in asdict(run.config.train).items() if key not in {*_FREE, *unused}}
    settings = [asdict(run.config.model), train, asdict(run.config.finetune)]
    return digest([name, data, run.graph.to_dict(), ways, settings])


def parts_of(config: Config) -> list[str]:
    """What is trained one after the other: the stages, with the predictors apart and what fine-tuning needs.

    The evaluator scores counterfactuals, so that there is none without an image.
    """
    roles = ROLES if "image" in config.train.stages else ROLES[:1]
    with_outputs = config.finetune.targets == "counterfactual"
    inner = {"predictors": roles, "finetune": ("outputs", "finetune") if with_outputs else ("finetune",)}
    return [part for stage in config.train.stages for part in inner.get(stage, (stage,))]


def settings_of(part: str) -> str:
    """Where the configuration has a part's settings and rounds."""
    return "predictors" if part in ROLES else part


class Models:
    """The causal model, the predictors, and the flows of their outputs that fine-tuning needs.

    They are made from the configuration and its seed, the same at every site. Raises ConfigError: batch norm.
    """

    def __init__(self, run: Run, device: torch.device):
        self.run, self.device = run, device
        self.scm = run.build_model().to(device)
        self.predictors: dict[str, NetworkPredictor] = {}
        for role in (part for part in parts_of(run.config) if part in ROLES):
            predictor = build_predictor(role, run.config, run.graph)
            _scale_by_range(predictor)
            self.predictors[role] = predictor.to(device)
        _refuse_batch_norm(self.predictors)
        self.outputs: OutputModel | None = None

    @property
    def predictor(self) -> NetworkPredictor:
        """The one that fine-tunes."""
        return self.predictors["predictor"]

    def settings(self, part: str) -> StageConfig:
        """How a part is optimised."""
        return getattr(self.run.config.train, settings_of(part))

    def objective(self, part: str, facts: Mapping[str, Any]) -> Objective:
        """What a part minimises. `facts`: the ranges of outputs, or the bound of fine-tuning."""
        config = self.run.config
        image = self.run.graph.image or ""
        if part == "attributes":
            return AttributesObjective(self.scm)
        if part in ROLES:
            return PredictorObjective(self.predictors[part], image)
        if part == "image":
            return ImageObjective(self.scm, config.train.image.kl_warmup_steps)
        if part == "outputs":
            self.outputs = self.output_model(facts["ranges"])
            return OutputsObjective(self.outputs)
        return FinetuneObjective(self.scm, self.predictor, config.finetune, {}, facts["bound"], self.outputs)

    def output_model(self, ranges: Sequence[tuple[float, float]]) -> OutputModel:
        """Untrained flows of the predictor's outputs."""
        with seeded(seed_of(self.run.config.train.seed, "outputs")):
            model = OutputModel(self.predictor.variables, self.scm.image_mechanism.parents, ranges)
        return model.to(self.device)

    def set_law_of_site(self, by: str, shares: Sequence[float]) -> None:
        """How many people come to each site follows from the numbers of rows, which are known."""
        mechanism = self.scm.mechanism(by)
        if isinstance(mechanism, CategoricalMechanism) and not mechanism.parents:
            with torch.no_grad():
                mechanism.conditioner.bias.copy_(torch.tensor(list(shares)).clamp_min(1e-6).log())

    def save(self, trained: nn.Module | None) -> None:
        """Write the run, as `causalcxr train` does. `trained`: the objective of the last part."""
        self.run.begin()
        for role, predictor in self.predictors.items():
            self.run.save_predictor(role, predictor)
        facts = {}
        if isinstance(trained, FinetuneObjective):
            config = self.run.config.finetune
            bound = trained.constraint.limit - config.tolerance
            facts = {"targets": config.targets, "bound": bound, "tolerance": config.tolerance}
            facts |= {"predictor": self.predictor.fingerprint()}
            facts |= {"multiplier": float(trained.constraint.multiplier)}
        self.run.save_model(self.scm, list(self.run.config.train.stages), {"finetune": facts} if facts else None)


def _refuse_batch_norm(predictors: Mapping[str, NetworkPredictor]) -> None:
    """Its statistics would be those of the site that was visited last, and its counters have no mean."""
    for role, predictor in predictors.items():
        if any(isinstance(module, _BatchNorm) for module in predictor.modules()):
            raise ConfigError(
                f"model.{role}.architecture '{predictor.config.architecture}' has batch norm, whose statistics do "
                "not travel; expected convnet, resnet, or one of torchvision without it, such as convnext_tiny"
            )


def _scale_by_range(predictor: NetworkPredictor) -> None:
    """Numbers are scaled by the range that the graph gives, for no site knows the mean of all."""
    for i, variable in enumerate(predictor.variables):
        if not variable.is_discrete:
            predictor.loc[i], predictor.scale[i] = _middle(variable)
            predictor.spread[i] = predictor.scale[i]


def _middle(variable: Variable) -> tuple[float, float]:
    low, high = variable.bounds
    return (low + high) / 2, (high - low) / 4
