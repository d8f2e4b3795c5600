"""A site's side: answers the coordinator with its own rows, and gives nothing away but weights and numbers.

The modules belong to the process, the rows to a site; in one process several sites may share the modules, for
every visit begins by taking the state that was sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from causalcxr.building import ROLES, build_predictor
from causalcxr.config import Config
from causalcxr.data.cohort import Split
from causalcxr.data.rows import Rows, Table
from causalcxr.data.table import SPLITS
from causalcxr.federation.config import SitesConfig
from causalcxr.federation.learner import Learner, Visiting
from causalcxr.federation.messages import Message
from causalcxr.federation.sites import Site, site_attribute
from causalcxr.federation.strategies import State
from causalcxr.graph import Graph, Variable
from causalcxr.mechanisms.categorical import CategoricalMechanism
from causalcxr.mechanisms.image import ImageMechanism, ObservedImages
from causalcxr.predictors.calibration import calibrate_on
from causalcxr.predictors.outputs import OutputModel, output_ranges
from causalcxr.predictors.predictor import NetworkPredictor
from causalcxr.randomness import Draws, seed_of, seeded
from causalcxr.runs import Run
from causalcxr.support.errors import CausalCXRError, ConfigError, TrainingError
from causalcxr.training.config import StageConfig
from causalcxr.training.finetune import FinetuneObjective
from causalcxr.training.objectives import (
    AttributesObjective,
    ImageObjective,
    Objective,
    OutputsObjective,
    PredictorObjective,
)
from causalcxr.training.stages import measure_bound, observed_images, outputs_of

__all__ = ["Worker", "make_run", "parts_of"]


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


def parts_of(config: Config) -> list[str]:
    """What is trained one after the other: the stages, with the predictors apart and what fine-tuning needs.

    The evaluator scores counterfactuals, so that there is none without an image.
    """
    roles = ROLES if "image" in config.train.stages else ROLES[:1]
    with_outputs = config.finetune.targets == "counterfactual"
    inner = {"predictors": roles, "finetune": ("outputs", "finetune") if with_outputs else ("finetune",)}
    return [part for stage in config.train.stages for part in inner.get(stage, (stage,))]


@dataclass
class Worker:
    """The modules of one run, and what is done with them at a site. `answer` is the only way in."""

    run: Run
    config: SitesConfig
    fabric: Fabric
    learner: Learner | None = None
    outputs: OutputModel | None = None
    _outputs_rows: dict[tuple[str, str], Table] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scm = self.run.build_model().to(self.fabric.device)
        self.predictors: dict[str, NetworkPredictor] = {}
        for role in (part for part in parts_of(self.run.config) if part in ROLES):
            predictor = build_predictor(role, self.run.config, self.run.graph)
            _scale_by_range(predictor)
            self.predictors[role] = predictor.to(self.fabric.device)
        self.by = site_attribute(self.config)
        _refuse_batch_norm(self.predictors)

    def answer(self, site: Site, message: Message) -> Message:
        """What the site has to say. Raises what training raises, with the site's name in it."""
        handlers = {
            "rows": self._count,
            "template": self._template,
            "prepare": self._prepare,
            "bound": self._bound,
            "visit": self._visit,
            "losses": self._losses,
            "calibrate": self._calibrate,
        }
        try:
            return handlers[message.kind](site, message)
        except CausalCXRError as error:
            raise type(error)(f"site '{site.name}': {error}") from None

    def take_in(self, message: Message) -> None:
        """What every site is told, and need not answer."""
        {"begin": self._begin, "keep": self._keep, "save": self._save}[message.kind](message)

    def _begin(self, message: Message) -> None:
        """Make the objective of a part; the same at every site before the first visit."""
        part, rounds = message.part, message.facts["rounds"]
        self.learner = Learner(
            self._objective(message), self.settings(part), self.run.config.train, self.fabric, rounds,
            self.config.moments,
        )  # fmt: skip

    def _keep(self, message: Message) -> None:
        """Take the final state of a part. What stands in later parts stands on it."""
        assert self.learner is not None
        self.learner.load(message.state)
        self.learner.objective.eval()
        shares = message.facts.get("site_shares")
        if shares:
            self._set_law_of_site(shares)

    def state(self) -> dict[str, Tensor]:
        """Of the present part."""
        assert self.learner is not None
        return self.learner.state()

    def settings(self, part: str) -> StageConfig:
        """How a part is optimised."""
        train = self.run.config.train
        return {
            "attributes": train.attributes,
            "predictor": train.predictors,
            "evaluator": train.predictors,
            "image": train.image,
            "outputs": train.outputs,
            "finetune": train.finetune,
        }[part]

    def _save(self, message: Message) -> None:
        """Write the run, as `causalcxr train` does."""
        self.run.begin()
        for role, predictor in self.predictors.items():
            self.run.save_predictor(role, predictor)
        facts = {}
        if self.learner is not None and isinstance(self.learner.objective, FinetuneObjective):
            tuned, config = self.learner.objective, self.run.config.finetune
            bound = tuned.constraint.limit - config.tolerance
            facts = {"targets": config.targets, "bound": bound, "tolerance": config.tolerance}
            facts |= {"predictor": self.predictors["predictor"].fingerprint()}
            facts |= {"multiplier": float(tuned.constraint.multiplier)}
        self.run.save_model(self.scm, list(self.run.config.train.stages), {"finetune": facts} if facts else None)

    def _objective(self, message: Message) -> Objective:
        part, config = message.part, self.run.config
        image = self.run.graph.image or ""
        if part == "attributes":
            return AttributesObjective(self.scm)
        if part in ROLES:
            return PredictorObjective(self.predictors[part], image)
        if part == "image":
            return ImageObjective(self.scm, config.train.image.kl_warmup_steps)
        if part == "outputs":
            self.outputs = self._output_model(message.facts["ranges"])
            return OutputsObjective(self.outputs)
        bound, predictor = message.facts["bound"], self.predictors["predictor"]
        return FinetuneObjective(self.scm, predictor, config.finetune, {}, bound, self.outputs)

    def _output_model(self, ranges: list[tuple[float, float]]) -> OutputModel:
        with seeded(seed_of(self.run.config.train.seed, "outputs")):
            variables = self.predictors["predictor"].variables
            model = OutputModel(variables, self.scm.image_mechanism.parents, ranges)
        return model.to(self.fabric.device)

    def _rows(self, part: str, site: Site, split: Split) -> Rows:
        if part == "attributes":
            return Table(split.attributes)
        if part != "outputs":
            return split
        key = (site.name, split.name)
        if key not in self._outputs_rows:
            self._outputs_rows[key] = Table(
                outputs_of(self.run.config, self.predictors["predictor"].eval(), split)
            )
        return self._outputs_rows[key]

    def _count(self, site: Site, message: Message) -> Message:
        """Films by split."""
        counts = {name: len(getattr(site, name)) for name in SPLITS}
        return Message("rows", message.part, {"rows": counts["train"], "by_split": counts})

    def _template(self, site: Site, message: Message) -> Message:
        """What parents alone predict of this site's films."""
        mechanism = self._image_mechanism()
        mechanism.solve_template(self._observed(site))
        return Message("template", "image", {"rows": len(site.train)}, _copied(mechanism.template))

    def _image_mechanism(self) -> ImageMechanism:
        return self.scm.image_mechanism.to(self.fabric.device)

    def _observed(self, site: Site) -> ObservedImages:
        return observed_images(self._image_mechanism(), site.train, self.fabric, self.run.config.train.seed)

    def _prepare(self, site: Site, message: Message) -> Message:
        """Solve for what needs no gradient on this site's films: principal components, scalings of outputs."""
        if message.part == "image":
            mechanism = self._image_mechanism()
            mechanism.template.load_state_dict(message.state)
            mechanism.solve_space(self._observed(site))
            return Message("prepare", "image", state=_copied(ImageObjective(self.scm)))
        rows = self._rows("outputs", site, site.train)
        assert isinstance(rows, Table)
        ranges = output_ranges(rows.values.outputs)
        model = self._output_model(ranges)
        model.calibrate(rows.values)
        return Message("prepare", "outputs", {"ranges": ranges}, _copied(OutputsObjective(model)))

    def _bound(self, site: Site, message: Message) -> Message:
        """The image stage's loss on this site's films."""
        n = self.run.config.finetune.calibration_rows
        loss = measure_bound(self.scm, site.train, n, self.run.config.train.seed)
        return Message("bound", message.part, {"loss": loss, "rows": len(site.train)})

    def _visit(self, site: Site, message: Message) -> Message:
        """Train on from a state."""
        assert self.learner is not None
        visiting, objective = Visiting(**message.facts), self.learner.objective
        left_out = self._left_out(message.part, site.train if visiting.averaged else None)
        if all(name in left_out for name in objective.names):
            return Message("visit", message.part, {"rows": 0}, message.state)
        if isinstance(objective, FinetuneObjective):
            objective.marginals = site.train.attributes
        if isinstance(objective, ImageObjective):
            warmup = self.run.config.train.image.kl_warmup_steps
            objective.kl_warmup_steps = round(warmup * visiting.share)
        rows = self._rows(message.part, site, site.train)
        state = self.learner.visit(site.name, rows, message.state, visiting, left_out)
        if not _all_finite(state):
            raise TrainingError(
                f"weights are not finite after round {visiting.round_ + 1} of {message.part}; check its films, "
                f"lower its learning_rate, or leave it out: skip=[{site.name}]"
            )
        return Message("visit", message.part, {"rows": len(rows)}, state)

    @torch.no_grad()
    def _losses(self, site: Site, message: Message) -> Message:
        """Mean loss by variable on the rows of a split, of the state sent; the draws are always the same."""
        assert self.learner is not None
        self.learner.load(message.weights)
        split = site.test if message.facts["split"] == "test" else site.val
        n, losses = len(split), {}
        if n:
            losses = self._mean_losses(self._rows(message.part, site, split), self._left_out(message.part, None))
        return Message("losses", message.part, {"rows": n, "losses": losses})

    def _mean_losses(self, rows: Rows, left_out: set[str]) -> dict[str, float]:
        assert self.learner is not None
        objective, size = self.learner.objective.eval(), 4 * self.learner.stage.batch_size
        if isinstance(objective, FinetuneObjective) and isinstance(rows, Split):
            objective.marginals = rows.attributes
        sums: dict[str, float] = {name: 0.0 for name in objective.names if name not in left_out}
        for i, start in enumerate(range(0, len(rows), size)):
            batch = self.fabric.to_device(rows.batch(np.arange(start, min(start + size, len(rows)))))
            losses = objective(batch, Draws(seed_of(self.run.config.train.seed, i), self.fabric.device))
            for name in sums:
                sums[name] += float(losses[name].sum())
        return {name: total / len(rows) for name, total in sums.items()}

    def _calibrate(self, site: Site, message: Message) -> Message:
        """Temperature and spread on this site's validation films; nothing of a site without any."""
        assert self.learner is not None
        self.learner.load(message.weights)
        predictor = self.predictors[message.part].eval()
        if not len(site.val):
            return Message("calibrate", message.part, {"rows": 0})
        calibrate_on(predictor, site.val)
        found = {"temperature": predictor.temperature, "spread": predictor.spread}
        state = {f"predictor.{name}": value.detach().clone() for name, value in found.items()}
        return Message("calibrate", message.part, {"rows": len(site.val)}, state)

    def _left_out(self, part: str, averaged_at: Split | None) -> set[str]:
        """Variables whose loss does not count.

        That of the site itself, for nobody can learn at one place what tells places apart. What is not to be
        predicted. And, where states are averaged, labels of which the site has only one: its head alone would
        learn to say nothing else.
        """
        names = {self.by} if self.by else set()
        if part == "attributes":
            return names
        if part == "image":
            return set()
        attributes = self.run.graph.attributes
        names |= {name for name in attributes if self.config.predict and name not in self.config.predict}
        if averaged_at is not None and part in ROLES:
            values = averaged_at.attributes
            names |= {n for n in attributes if self.run.graph[n].is_discrete and values[n].unique().numel() < 2}
        if part == "outputs":
            return set()
        return names

    def _set_law_of_site(self, shares: list[float]) -> None:
        """How many people come to each site follows from the numbers of rows, which are known."""
        mechanism = self.scm.mechanism(self.by)
        if isinstance(mechanism, CategoricalMechanism) and not mechanism.parents:
            with torch.no_grad():
                mechanism.conditioner.bias.copy_(torch.tensor(shares).clamp_min(1e-6).log())


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _all_finite(state: State) -> bool:
    """In one pass: the largest magnitude of every tensor with decimals is finite."""
    tensors = [value for value in state.values() if value.is_floating_point() and value.numel()]
    return bool(torch.stack(torch._foreach_norm(tensors, float("inf"))).isfinite().all())  # pyright: ignore


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
