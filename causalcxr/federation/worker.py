"""A site's side: answers the coordinator with its own rows, and gives nothing away but weights and numbers.

The modules belong to the process, the rows to a site; in one process several sites may share the modules, for
every visit begins by taking the state that was sent.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from causalcxr.building import ROLES
from causalcxr.data.cohort import Split
from causalcxr.data.rows import Rows, Table
from causalcxr.data.table import SPLITS
from causalcxr.federation.config import SitesConfig, site_attribute
from causalcxr.federation.learner import Learner, Visiting
from causalcxr.federation.messages import Message
from causalcxr.federation.models import Models
from causalcxr.federation.sites import Site
from causalcxr.federation.strategies import State
from causalcxr.mechanisms.image import ImageMechanism, ObservedImages
from causalcxr.predictors.calibration import calibrate_on
from causalcxr.predictors.outputs import output_ranges
from causalcxr.randomness import Draws, seed_of
from causalcxr.runs import Run
from causalcxr.support.errors import CausalCXRError, TrainingError
from causalcxr.training.finetune import FinetuneObjective
from causalcxr.training.objectives import (
    ImageObjective,
    Objective,
    OutputsObjective,
)
from causalcxr.training.stages import measure_bound, observed_images, outputs_of
from causalcxr.values import Batch

__all__ = ["Worker"]


class Worker:
    """What is done with the modules of one run at a site. `answer` and `take_in` are the only ways in."""

    def __init__(self, run: Run, config: SitesConfig, fabric: Fabric):
        self.run, self.config, self.fabric = run, config, fabric
        self.models, self.by = Models(run, fabric.device), site_attribute(config)
        self.learner: Learner | None = None
        self._outputs_rows: dict[tuple[str, str], Table] = {}

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

    @property
    def _present(self) -> Learner:
        """Of the part that has begun."""
        assert self.learner is not None, "no part has begun"
        return self.learner

    def _begin(self, message: Message) -> None:
        """Make the objective of a part; the same at every site before the first visit."""
        objective, stage = self.models.objective(message.part, message.facts), self.models.settings(message.part)
        config, rounds = self.run.config.train, message.facts["rounds"]
        self.learner = Learner(objective, stage, config, self.fabric, rounds, self.config.moments, message.part)

    def _keep(self, message: Message) -> None:
        """Take the final state of a part. What stands in later parts stands on it."""
        self._present.load(message.state)
        self._present.objective.eval()
        shares = message.facts.get("site_shares")
        if shares:
            self.models.set_law_of_site(self.by, shares)

    def _save(self, message: Message) -> None:
        """Write the run, as `causalcxr train` does."""
        self.models.save(None if self.learner is None else self.learner.objective)

    def state(self) -> dict[str, Tensor]:
        """Of the present part."""
        return self._present.state()

    def _rows(self, part: str, site: Site, split: Split) -> Rows:
        if part == "attributes":
            return Table(split.attributes)
        if part != "outputs":
            return split
        key = (site.name, split.name)
        if key not in self._outputs_rows:
            self._outputs_rows[key] = Table(outputs_of(self.run.config, self.models.predictor.eval(), split))
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
        return self.models.scm.image_mechanism.to(self.fabric.device)

    def _observed(self, site: Site) -> ObservedImages:
        return observed_images(self._image_mechanism(), site.train, self.fabric, self.run.config.train.seed)

    def _prepare(self, site: Site, message: Message) -> Message:
        """Solve for what needs no gradient on this site's films: principal components, scalings of outputs."""
        if message.part == "image":
            mechanism = self._image_mechanism()
            mechanism.template.load_state_dict(message.state)
            mechanism.solve_space(self._observed(site))
            return Message("prepare", "image", state=_copied(ImageObjective(self.models.scm)))
        rows = self._rows("outputs", site, site.train)
        assert isinstance(rows, Table)
        ranges = output_ranges(rows.values.outputs)
        model = self.models.output_model(ranges)
        model.calibrate(rows.values)
        return Message("prepare", "outputs", {"ranges": ranges}, _copied(OutputsObjective(model)))

    def _bound(self, site: Site, message: Message) -> Message:
        """The image stage's loss on this site's films."""
        n = self.run.config.finetune.calibration_rows
        loss = measure_bound(self.models.scm, site.train, n, self.run.config.train.seed)
        return Message("bound", message.part, {"loss": loss, "rows": len(site.train)})

    def _visit(self, site: Site, message: Message) -> Message:
        """Train on from a state."""
        visiting, objective = Visiting(**message.facts), self._present.objective
        left_out = self._left_out(message.part, site.train if visiting.averaged else None)
        if all(name in left_out for name in objective.names):
            return Message("visit", message.part, {"rows": 0}, message.state)
        if isinstance(objective, FinetuneObjective):
            objective.marginals = self._on_device(site.train.attributes)
        if isinstance(objective, ImageObjective):
            warmup = self.run.config.train.image.kl_warmup_steps
            objective.kl_warmup_steps = math.ceil(warmup * visiting.share)
        rows = self._rows(message.part, site, site.train)
        with _held_to(objective, visiting.bound):
            state = self._present.visit(site.name, rows, message.state, visiting, left_out)
        if not _all_finite(state):
            raise TrainingError(
                f"weights are not finite after round {visiting.round_ + 1} of {message.part}; check its films, "
                f"lower its learning_rate, or leave it out: skip=[{site.name}]"
            )
        return Message("visit", message.part, {"rows": len(rows)}, state)

    @torch.no_grad()
    def _losses(self, site: Site, message: Message) -> Message:
        """Mean loss by variable on the rows of a split, of the state sent; the draws are always the same."""
        self._present.load(message.weights)
        split = site.test if message.facts["split"] == "test" else site.val
        n, losses = len(split), {}
        if n:
            losses = self._mean_losses(self._rows(message.part, site, split), self._left_out(message.part, None))
        for name, loss in losses.items():
            if not math.isfinite(loss):
                key = self._present.steps.key
                raise TrainingError(
                    f"the loss of '{name}' on its {split.name} films is not finite; lower {key}.learning_rate"
                )
        return Message("losses", message.part, {"rows": n, "losses": losses})

    def _mean_losses(self, rows: Rows, left_out: set[str]) -> dict[str, float]:
        objective, size = self._present.objective.eval(), 4 * self._present.stage.batch_size
        if isinstance(objective, FinetuneObjective) and isinstance(rows, Split):
            objective.marginals = self._on_device(rows.attributes)
        sums: dict[str, float] = {name: 0.0 for name in objective.names if name not in left_out}
        for i, start in enumerate(range(0, len(rows), size)):
            batch = self.fabric.to_device(rows.batch(np.arange(start, min(start + size, len(rows)))))
            losses = objective(batch, Draws(seed_of(self.run.config.train.seed, i), self.fabric.device))
            for name in sums:
                sums[name] += float(losses[name].sum())
        return {name: total / len(rows) for name, total in sums.items()}

    def _calibrate(self, site: Site, message: Message) -> Message:
        """Temperature and spread on this site's validation films; nothing of a site without any."""
        self._present.load(message.weights)
        predictor = self.models.predictors[message.part].eval()
        if not len(site.val):
            return Message("calibrate", message.part, {"rows": 0})
        calibrate_on(predictor, site.val)
        found = {"temperature": predictor.temperature, "spread": predictor.spread}
        state = {f"predictor.{name}": value.detach().clone() for name, value in found.items()}
        return Message("calibrate", message.part, {"rows": len(site.val)}, state)

    def _on_device(self, values: Batch) -> Batch:
        return {name: value.to(self.fabric.device) for name, value in values.items()}

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


@contextmanager
def _held_to(objective: Objective, bound: float | None) -> Iterator[None]:
    """Fine-tuning holds a site's films to what their own loss was before, not to the mean over sites."""
    if bound is None or not isinstance(objective, FinetuneObjective):
        yield
        return
    constraint = objective.constraint
    mean, constraint.limit = constraint.limit, bound + objective.config.tolerance
    yield
    constraint.limit = mean


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _all_finite(state: State) -> bool:
    """In one pass: the largest magnitude of every tensor with decimals is finite."""
    tensors = [value for value in state.values() if value.is_floating_point() and value.numel()]
    return bool(torch.stack(torch._foreach_norm(tensors, float("inf"))).isfinite().all())  # pyright: ignore
