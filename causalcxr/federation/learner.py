"""Trains one part of a model at one site after the other, from whatever state is sent.

A visit follows from the state, the rows, the site and the round alone, so that any engine gets the same weights.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from lightning_fabric import Fabric
from torch import Tensor

from causalcxr.data.rows import Rows
from causalcxr.federation.messages import MOMENT
from causalcxr.federation.strategies import State, pull_towards
from causalcxr.randomness import seed_of
from causalcxr.support.errors import TrainingError
from causalcxr.training.config import StageConfig, TrainConfig
from causalcxr.training.objectives import Objective
from causalcxr.training.steps import Steps, learning_rate

__all__ = ["Learner", "Visiting", "visit_shape"]


@dataclass(frozen=True)
class Visiting:
    """What a site is asked to do: steps of so many rows in this round; `mu` of FedProx.

    `averaged`: whether its state will be averaged with others. `share`: of all steps of the round. `bound`: of
    fine-tuning, the image stage's loss on this site's films.
    """

    round_: int
    steps: int
    batch_size: int
    mu: float = 0.0
    averaged: bool = False
    share: float = 1.0
    bound: float | None = None


class Learner:
    """One objective and its optimiser. The learning rate follows from the round, not from a site's own steps."""

    def __init__(
        self,
        objective: Objective,
        stage: StageConfig,
        config: TrainConfig,
        fabric: Fabric,
        rounds: int,
        moments: str,
        shown: str = "sites",
    ):
        """`moments`: whether those of the optimiser `travel` with the weights, or are `reset` at every visit.

        `shown`: the part's name in messages.
        """
        self.objective, self.config, self.moments = objective, config, moments
        self.stage = replace(stage, steps=rounds, warmup_steps=0)
        key = next((f"train.{name}" for name, value in vars(config).items() if value is stage), "train")
        self.steps = Steps("sites", objective, self.stage, config, fabric, shown=shown, settings_key=key)
        # Looked up once: for small networks the lookup would cost as much as a step.
        self.tensors = {name: value.detach() for name, value in objective.state_dict(keep_vars=True).items()}

    def state(self) -> dict[str, Tensor]:
        """Weights and buffers, copied; with the optimiser's moments if they travel."""
        found = {name: value.clone() for name, value in self.tensors.items()}
        if self.moments == "travel":
            for name, parameter in self.steps.parameters.items():
                kept = self.steps.optimizer.state.get(parameter, {})
                found |= {f"{MOMENT}{key}/{name}": value.clone() for key, value in kept.items()}
        return found

    def load(self, state: State) -> None:
        """Take weights, buffers and moments; without moments the optimiser begins anew.

        Raises TrainingError: a state of another model.
        """
        weights, moments = {}, {name: {} for name in self.steps.parameters}
        for name, value in state.items():
            if name.startswith(MOMENT):
                key, _, parameter = name.removeprefix(MOMENT).partition("/")
                moments[parameter][key] = value
            else:
                weights[name] = value
        if weights.keys() != self.tensors.keys():
            different = sorted(weights.keys() ^ self.tensors.keys())[0]
            raise TrainingError(
                f"the state that was sent is of another model: '{different}' is in one of them alone"
            )
        for name, tensor in self.tensors.items():
            tensor.copy_(weights[name])
        self.steps.optimizer.state.clear()
        for name, kept in moments.items():
            if kept:
                self.steps.set_moments(self.steps.parameters[name], kept)

    def visit(
        self, name: str, rows: Rows, state: State, visiting: Visiting, left_out: Collection[str] = ()
    ) -> dict[str, Tensor]:
        """Train at the site `name` on its rows, from a state; `left_out`: variables whose loss does not count.

        Which rows a step sees follows from the seed, the site and the round.
        """
        self.load(state)
        self.objective.train()
        rate, seed = learning_rate(self.stage, visiting.round_), seed_of(self.config.seed, name)
        pull = pull_towards(self.steps.parameters, state, visiting.mu) if visiting.mu else None
        first = visiting.round_ * visiting.steps
        for step in range(first, first + visiting.steps):
            self.steps.take(rows, step, rate, seed, pull, visiting.batch_size, left_out)
        return self.state()


def visit_shape(rows: int, batch_size: int, epochs: float, steps: int) -> tuple[int, int]:
    """Steps of a visit and rows of a step: no row twice in a step, so many epochs, or so many steps if given."""
    batch = min(batch_size, rows)
    return steps or max(1, round(epochs * rows / batch)), batch
