"""What one site does on a visit: take the state, train a few steps on its own rows, give the state back.

A visit follows from the state, the rows, the site and the round alone, so that any engine gets the same weights.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lightning_fabric import Fabric
from torch import Tensor

from causalcxr.data.rows import Rows
from causalcxr.federation.strategies import State, pull_towards
from causalcxr.randomness import seed_of
from causalcxr.training.config import StageConfig, TrainConfig
from causalcxr.training.objectives import Objective
from causalcxr.training.steps import Steps, learning_rate

__all__ = ["Learner", "Site"]

MOMENT = "moment/"  # before the name of an optimiser's moment that travels with the weights


@dataclass(frozen=True)
class Site:
    """A cohort that stays where it is."""

    name: str
    rows: Rows


class Learner:
    """One objective, trained at one site after the other.

    The learning rate follows from the round (`stage.steps` is the number of rounds), not from a site's own steps.
    """

    def __init__(
        self,
        objective: Objective,
        stage: StageConfig,
        config: TrainConfig,
        fabric: Fabric,
        moments: str = "reset",
        mu: float = 0.0,
    ):
        self.objective, self.stage, self.config, self.fabric = objective, stage, config, fabric
        self.moments, self.mu = moments, mu
        self.steps = Steps("sites", objective, stage, config, fabric)

    def state(self) -> dict[str, Tensor]:
        """Weights and buffers, copied; with the optimiser's moments if they travel."""
        found = {name: value.detach().clone() for name, value in self.objective.state_dict().items()}
        if self.moments == "travel":
            for name, parameter in self.steps.parameters.items():
                kept = self.steps.optimizer.state.get(parameter, {})
                found |= {f"{MOMENT}{key}/{name}": value.detach().clone() for key, value in kept.items()}
        return found

    def load(self, state: State) -> None:
        """Take weights, buffers and moments; without moments the optimiser begins anew."""
        weights = {name: value for name, value in state.items() if not name.startswith(MOMENT)}
        self.objective.load_state_dict(weights)
        self.steps.optimizer.state.clear()
        for name, parameter in self.steps.parameters.items():
            ending = f"/{name}"
            moments = {
                key.removeprefix(MOMENT).removesuffix(ending): value
                for key, value in state.items()
                if key.startswith(MOMENT) and key.endswith(ending)
            }
            if moments:
                self.steps.set_moments(parameter, moments)

    def visit(self, site: Site, state: State, round_: int, steps: int) -> dict[str, Tensor]:
        """Train `steps` steps at a site, from a state; the rows follow from the seed, the site and the round."""
        self.load(state)
        self.objective.train()
        rate = learning_rate(self.stage, round_)
        pull: Callable[[], None] | None = pull_towards(self.steps.parameters, state, self.mu) if self.mu else None
        seed = seed_of(self.config.seed, site.name)
        for step in range(round_ * steps, (round_ + 1) * steps):
            self.steps.take(site.rows, step, rate, seed, pull)
        return self.state()
