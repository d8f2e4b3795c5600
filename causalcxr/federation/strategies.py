"""How weights move between sites: each strategy is a plain function from state dicts to state dicts.

A state maps names to tensors. `visit(sites, state, round)` asks these sites to train on from a state, each by
itself, and gives what they made of it in the same order; an engine provides it, in this process or over a network.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from causalcxr.randomness import seed_of
from causalcxr.support.errors import TrainingError

__all__ = ["STRATEGIES", "Plan", "State", "Trained", "Visit", "average", "averages", "pull_towards", "site_order"]

State = Mapping[str, Tensor]


class Trained(NamedTuple):
    """What a site made of a state, and from how many rows; 0 if it had nothing to train on."""

    state: State
    rows: int


class Visit(Protocol):
    """Asks sites to train on from a state."""

    def __call__(self, sites: Sequence[int], state: State, round_: int, /) -> Iterable[Trained]: ...


@dataclass(frozen=True)
class Plan:
    """What a strategy needs to know: rows of each site, the seed, how many rounds there are.

    `enough`: rows from which a site takes part in the first half of `fedtm`.
    """

    rows: Sequence[int]
    seed: int
    rounds: int
    weighted: bool = True
    enough: int = 5

    @property
    def all_sites(self) -> list[int]:
        return list(range(len(self.rows)))


def average(states: Iterable[tuple[State, float]]) -> dict[str, Tensor]:
    """The mean of floating tensors by weight, summed in float64; others must be equal, and are copied.

    States are taken one after the other, so that only one is held.

    What some sites have not (moments of a head that they did not train) is averaged over the others. A mean of
    whole numbers (counters, indices) would be rounded without a word. Raises TrainingError: they differ.
    """
    first: dict[str, Tensor] = {}
    sums: dict[str, Tensor] = {}
    weights: dict[str, float] = {}
    for state, weight in states:
        for name, value in state.items():
            known = first.setdefault(name, value)
            if value.is_floating_point():
                added = value.double() * weight
                sums[name] = sums[name].add_(added) if name in sums else added
                weights[name] = weights.get(name, 0.0) + weight
            elif not torch.equal(value, known):
                raise TrainingError(f"'{name}' holds whole numbers that differ between sites, which have no mean")
    return {
        name: (sums[name] / weights[name]).to(value.dtype) if name in sums else value.clone()
        for name, value in first.items()
    }


def site_order(plan: Plan, cycle: int) -> list[int]:
    """The order in which one model visits the sites, drawn anew each cycle from the seed."""
    return np.random.default_rng(seed_of(plan.seed, "order", cycle)).permutation(len(plan.rows)).tolist()


def fedavg(visit: Visit, state: State, plan: Plan, round_: int) -> State:
    """Every site trains on from the same state; their mean goes on (McMahan et al. 2017)."""
    return _averaged_round(visit, state, plan, round_, plan.all_sites)


def travelling(visit: Visit, state: State, plan: Plan, round_: int) -> State:
    """One model visits every site once, in an order drawn anew (Souza et al. 2022)."""
    for site in site_order(plan, round_):
        (trained,) = visit([site], state, round_)
        state = trained.state
    return state


def fedtm(visit: Visit, state: State, plan: Plan, round_: int) -> State:
    """For half of the rounds the mean of the sites with enough rows, then one model that visits all."""
    large = [site for site in plan.all_sites if plan.rows[site] >= plan.enough]
    if averages("fedtm", plan, round_):
        return _averaged_round(visit, state, plan, round_, large)
    return travelling(visit, state, plan, round_)


def averages(strategy: str, plan: Plan, round_: int) -> bool:
    """Whether a strategy averages in this round, or passes one model on."""
    if strategy == "fedtm":
        return round_ < plan.rounds // 2 and max(plan.rows) >= plan.enough
    return strategy in ("fedavg", "fedprox")


def _averaged_round(visit: Visit, state: State, plan: Plan, round_: int, sites: Sequence[int]) -> State:
    """Raises TrainingError: no site had anything to train on."""
    trained = (each for each in visit(sites, state, round_) if each.rows)
    mean = average((each.state, each.rows if plan.weighted else 1) for each in trained)
    if not mean:
        raise TrainingError("no site has more than one label to learn from, so there is nothing to average")
    return mean


def pull_towards(parameters: Mapping[str, Tensor], target: State, mu: float) -> Callable[[], None]:
    """Adds the gradient of `mu / 2 ||w - w_target||^2` over the trainable parameters (FedProx, Li et al. 2020)."""

    def pull() -> None:
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - target[name].to(parameter.device), alpha=mu)

    return pull


# FedProx is fedavg whose sites are pulled back, which is the sites' own affair.
STRATEGIES: dict[str, Callable[[Visit, State, Plan, int], State]] = {
    "fedavg": fedavg,
    "fedprox": fedavg,
    "travelling": travelling,
    "fedtm": fedtm,
}
