"""Strategies on state dicts whose answer is known by hand; visits follow from state, site and round alone."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from causalcxr.data.rows import Table
from causalcxr.federation.learner import Learner, Site
from causalcxr.federation.local import run_strategy
from causalcxr.federation.strategies import STRATEGIES, Plan, State, average, pull_towards, site_order
from causalcxr.graph import load_graph
from causalcxr.predictors.networks import PredictorConfig
from causalcxr.predictors.predictor import NetworkPredictor
from causalcxr.randomness import seed_of, seeded
from causalcxr.support.errors import TrainingError
from causalcxr.training.config import StageConfig, TrainConfig
from causalcxr.training.objectives import PredictorObjective
from causalcxr.training.steps import Steps, learning_rate

ROWS = (1, 2, 5, 12)
ROUNDS, STEPS = 4, 2


def plus(amounts: Sequence[float], asked: list[tuple[list[int], int]]):
    """A visit that adds a site's amount, and notes who was asked in which round."""

    def visit(sites: Sequence[int], state: State, round_: int) -> list[State]:
        asked.append((list(sites), round_))
        return [{name: value + amounts[site] for name, value in state.items()} for site in sites]

    return visit


@pytest.mark.parametrize(("weighted", "expected"), [(True, (1 + 2 * 2 + 5 * 3 + 12 * 4) / 20), (False, 2.5)])
def test_fedavg_is_the_mean_of_the_sites(weighted: bool, expected: float) -> None:
    asked: list[tuple[list[int], int]] = []
    plan = Plan(ROWS, seed=0, rounds=ROUNDS, weighted=weighted)
    state = STRATEGIES["fedavg"](plus([1, 2, 3, 4], asked), {"w": torch.zeros(3)}, plan, 0)
    assert torch.allclose(state["w"], torch.full((3,), expected))
    assert asked == [([0, 1, 2, 3], 0)]


def test_travelling_visits_every_site_once_in_the_order_of_the_seed() -> None:
    asked: list[tuple[list[int], int]] = []
    plan, state = Plan(ROWS, seed=0, rounds=ROUNDS), {"w": torch.zeros(())}
    for cycle in range(ROUNDS):
        state = STRATEGIES["travelling"](plus([1, 10, 100, 1000], asked), state, plan, cycle)
    assert state["w"] == ROUNDS * 1111
    orders = [[sites[0] for sites, round_ in asked if round_ == cycle] for cycle in range(ROUNDS)]
    assert orders == [site_order(plan, cycle) for cycle in range(ROUNDS)]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert len(set(map(tuple, orders))) > 1  # drawn anew each cycle


def test_fedtm_averages_large_sites_first_and_travels_then() -> None:
    asked: list[tuple[list[int], int]] = []
    plan, state = Plan(ROWS, seed=0, rounds=ROUNDS, enough=5), {"w": torch.zeros(())}
    for round_ in range(ROUNDS):
        state = STRATEGIES["fedtm"](plus([1, 1, 1, 1], asked), state, plan, round_)
    assert asked[:2] == [([2, 3], 0), ([2, 3], 1)]
    assert sorted(site for sites, round_ in asked[2:] for site in sites) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_the_mean_is_summed_in_float64_and_keeps_its_type() -> None:
    states = [{"w": torch.full((1,), value)} for value in (1e8, 1.0, -1e8)]
    found = average(states, [1, 1, 1])["w"]
    assert found.dtype == torch.float32 and found.item() == pytest.approx(1 / 3, rel=1e-6)


def test_whole_numbers_have_no_mean() -> None:
    """Equal ones are copied; a counter that differs would be cut to a whole number without a word."""
    same = [{"step": torch.tensor(3)}, {"step": torch.tensor(3)}]
    assert average(same, [1, 2])["step"] == 3
    with pytest.raises(TrainingError, match="'step' holds whole numbers that differ"):
        average([{"step": torch.tensor(3)}, {"step": torch.tensor(4)}], [1, 2])


def test_the_pull_is_the_gradient_of_the_proximal_term() -> None:
    weight, target = torch.nn.Parameter(torch.tensor([1.0, -2.0])), torch.tensor([0.5, 0.5])
    (weight**2).sum().backward()
    pull_towards({"w": weight}, {"w": target}, 0.3)()
    other = weight.detach().clone().requires_grad_()
    ((other**2).sum() + 0.15 * ((other - target) ** 2).sum()).backward()
    assert torch.allclose(weight.grad, other.grad)


def batch(n: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(n)
    image = torch.randint(256, (n, 1, 16, 16), generator=generator).to(torch.uint8)
    return {"image": image, "age": 20 + 70 * torch.rand(n, generator=generator)}


def learner(**how: float | str) -> Learner:
    with seeded(0):
        predictor = NetworkPredictor([load_graph("chest")["age"]], PredictorConfig(widths=[8], augment=0.0), 1)
    stage = StageConfig(steps=ROUNDS, batch_size=2, learning_rate=1e-2, warmup_steps=0)
    fabric = Fabric(accelerator="cpu", devices=1)
    return Learner(PredictorObjective(predictor, "image"), stage, TrainConfig(device="cpu"), fabric, **how)  # type: ignore[arg-type]


def sites() -> list[Site]:
    return [Site(f"s{i}", Table(batch(n))) for i, n in enumerate(ROWS)]


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def run(strategy: str, folder: Path, **how: float | str) -> State:
    plan = Plan(ROWS, seed=0, rounds=ROUNDS)
    return run_strategy(strategy, learner(**how), sites(), plan, STEPS, folder, lambda round_, state: None)


def test_a_visit_follows_from_the_state_the_site_and_the_round(tmp_path: Path) -> None:
    one, start = learner(), learner().state()
    first = one.visit(sites()[2], start, 1, STEPS)
    one.visit(sites()[3], start, 0, STEPS)  # another visit in between
    assert same(one.visit(sites()[2], start, 1, STEPS), first)
    assert not same(one.visit(sites()[2], start, 2, STEPS), first)


def test_one_site_of_a_travelling_model_is_plain_training(tmp_path: Path) -> None:
    """The moments travel, so that every step is that of a training without any sites; bit for bit."""
    plan, site = Plan(ROWS[-1:], seed=0, rounds=ROUNDS), sites()[-1]
    travelled = run_strategy(
        "travelling", learner(moments="travel"), [site], plan, STEPS, tmp_path, lambda *_: None
    )
    plain = learner()
    steps = Steps("plain", plain.objective, plain.stage, plain.config, plain.fabric)
    plain.objective.train()
    for step in range(ROUNDS * STEPS):
        rate = learning_rate(plain.stage, step // STEPS)
        steps.take(site.rows, step, rate, seed_of(plain.config.seed, site.name))
    weights = {name: value for name, value in travelled.items() if not name.startswith("moment/")}
    assert same(weights, plain.objective.state_dict())


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("moments", ["reset", "travel"])
def test_a_killed_run_ends_where_a_whole_one_does(strategy: str, moments: str, tmp_path: Path) -> None:
    whole = run(strategy, tmp_path / "whole", moments=moments)

    def killed(round_: int, state: State) -> None:
        if round_ == 2:
            raise KeyboardInterrupt

    plan = Plan(ROWS, seed=0, rounds=ROUNDS)
    with pytest.raises(KeyboardInterrupt):
        run_strategy(strategy, learner(moments=moments), sites(), plan, STEPS, tmp_path / "killed", killed)
    assert same(run(strategy, tmp_path / "killed", moments=moments), whole)


def test_fedprox_stays_nearer_to_where_the_round_began(tmp_path: Path) -> None:
    start = learner().state()
    free, held = run("fedavg", tmp_path / "a"), run("fedprox", tmp_path / "b", mu=1.0)

    def moved(state: State) -> float:
        return float(
            sum((state[n] - start[n]).double().square().sum() for n in start if start[n].is_floating_point())
        )

    assert moved(held) < moved(free)
