"""How weights move between sites: each strategy is a plain function from state dicts to state dicts.

A state maps names to tensors. `visit(sites, state, round)` asks these sites to train on from a state, each by
itself, and gives their states in the same order; an engine provides it, in this process or over a network.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from causalcxr.randomness import seed_of
from causalcxr.support.errors import TrainingError

__all__ = ["STRATEGIES", "Plan", "State", "Visit", "average", "pull_towards", "site_order"]

State = Mapping[str, Tensor]


class Visit(Protocol):
    """Asks sites to train on from a state."""

    def __call__(self, sites: Sequence[int], state: State, round_: int, /) -> list[State]: ...


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


def average(states: Sequence[State], weights: Sequence[float]) -> dict[str, Tensor]:
    """The weighted mean of floating tensors, summed in float64; others must be equal, and are copied.

    A mean of whole numbers (counters, indices) would be rounded without a word. Raises TrainingError: they differ.
    """
    share = torch.tensor(list(weights), dtype=torch.float64)
    share = share / share.sum()
    found = {}
    for name, first in states[0].items():
        if first.is_floating_point():
            stacked = torch.stack([state[name].double() for state in states])
            found[name] = torch.tensordot(share.to(stacked.device), stacked, dims=1).to(first.dtype)
        elif all(torch.equal(state[name], first) for state in states):
            found[name] = first.clone()
        else:
            raise TrainingError(f"'{name}' holds whole numbers that differ between sites, which have no mean")
    return found


def site_order(plan: Plan, cycle: int) -> list[int]:
    """The order in which one model visits the sites, drawn anew each cycle from the seed."""
    return np.random.default_rng(seed_of(plan.seed, "order", cycle)).permutation(len(plan.rows)).tolist()


def fedavg(visit: Visit, state: State, plan: Plan, round_: int) -> State:
    """Every site trains on from the same state; their mean goes on (McMahan et al. 2017)."""
    return _averaged_round(visit, state, plan, round_, plan.all_sites)


def travelling(visit: Visit, state: State, plan: Plan, round_: int) -> State:
    """One model visits every site once, in an order drawn anew (Souza et al. 2022)."""
    for site in site_order(plan, round_):
        (state,) = visit([site], state, round_)
    return state


def fedtm(visit: Visit, state: State, plan: Plan, round_: int) -> State:
    """For half of the rounds the mean of the sites with enough rows, then one model that visits all."""
    large = [site for site in plan.all_sites if plan.rows[site] >= plan.enough]
    if round_ < plan.rounds // 2 and large:
        return _averaged_round(visit, state, plan, round_, large)
    return travelling(visit, state, plan, round_)


def _averaged_round(visit: Visit, state: State, plan: Plan, round_: int, sites: Sequence[int]) -> State:
    states = visit(sites, state, round_)
    return average(states, [plan.rows[site] if plan.weighted else 1 for site in sites])


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
