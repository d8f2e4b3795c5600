"""Strategies on state dicts whose answer is known by hand; visits follow from state, site and round alone."""

from collections.abc import Sequence

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from causalcxr.data.rows import Table
from causalcxr.federation.learner import Learner, Visiting, visit_shape
from causalcxr.federation.messages import Message
from causalcxr.federation.strategies import STRATEGIES, Plan, State, Trained, average, pull_towards, site_order
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


def plus(amounts: Sequence[float], asked: list[tuple[list[int], int]], idle: Sequence[int] = ()):
    """A visit that adds a site's amount, and notes who was asked in which round; `idle` sites had no rows."""

    def visit(sites: Sequence[int], state: State, round_: int) -> list[Trained]:
        asked.append((list(sites), round_))
        return [
            Trained(
                {name: value + amounts[site] for name, value in state.items()}, 0 if site in idle else ROWS[site]
            )
            for site in sites
        ]

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


def test_who_had_nothing_to_train_on_does_not_count() -> None:
    plan = Plan(ROWS, seed=0, rounds=ROUNDS)
    state = STRATEGIES["fedavg"](plus([1, 2, 3, 4], [], idle=[0, 3]), {"w": torch.zeros(())}, plan, 0)
    assert state["w"].item() == pytest.approx((2 * 2 + 5 * 3) / 7)
    with pytest.raises(TrainingError, match="nothing to average"):
        STRATEGIES["fedavg"](plus([1, 2, 3, 4], [], idle=range(4)), {"w": torch.zeros(())}, plan, 0)


def test_moments_that_some_sites_have_not_are_averaged_over_the_others() -> None:
    found = average([({"w": torch.zeros(1)}, 1), ({"w": torch.ones(1), "moment/m/w": torch.full((1,), 5.0)}, 3)])
    assert found["w"].item() == 0.75 and found["moment/m/w"].item() == 5.0


def test_the_mean_is_summed_in_float64_and_keeps_its_type() -> None:
    found = average(({"w": torch.full((1,), value)}, 1) for value in (1e8, 1.0, -1e8))["w"]
    assert found.dtype == torch.float32 and found.item() == pytest.approx(1 / 3, rel=1e-6)


def test_whole_numbers_have_no_mean() -> None:
    """Equal ones are copied; a counter that differs would be cut to a whole number without a word."""
    assert average([({"step": torch.tensor(3)}, 1), ({"step": torch.tensor(3)}, 2)])["step"] == 3
    with pytest.raises(TrainingError, match="'step' holds whole numbers that differ"):
        average([({"step": torch.tensor(3)}, 1), ({"step": torch.tensor(4)}, 2)])


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


def learner(moments: str = "reset") -> Learner:
    with seeded(0):
        predictor = NetworkPredictor([load_graph("chest")["age"]], PredictorConfig(widths=[8], augment=0.0), 1)
    stage, fabric = StageConfig(batch_size=2, learning_rate=1e-2), Fabric(accelerator="cpu", devices=1)
    objective = PredictorObjective(predictor, "image")
    return Learner(objective, stage, TrainConfig(device="cpu"), fabric, ROUNDS, moments)


def sites() -> list[Table]:
    return [Table(batch(n)) for n in ROWS]


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def run(strategy: str, of: Learner, mu: float = 0.0) -> State:
    """All rounds of a strategy, by hand."""
    plan, rows, state = Plan(ROWS, seed=0, rounds=ROUNDS), sites(), of.state()

    def visit(asked: Sequence[int], given: State, round_: int) -> list[Trained]:
        visiting = Visiting(round_, STEPS, 1, mu)
        return [Trained(of.visit(f"s{i}", rows[i], given, visiting), ROWS[i]) for i in asked]

    for round_ in range(ROUNDS):
        state = STRATEGIES[strategy](visit, state, plan, round_)
    return state


@pytest.mark.parametrize("moments", ["reset", "travel"])
def test_a_visit_follows_from_the_state_the_site_and_the_round(moments: str) -> None:
    one, start, rows = learner(moments=moments), learner().state(), sites()[2]
    first = one.visit("s2", rows, start, Visiting(1, STEPS, 2))
    one.visit("s3", sites()[3], start, Visiting(0, STEPS, 2))  # another visit in between
    assert same(one.visit("s2", rows, start, Visiting(1, STEPS, 2)), first)
    assert not same(one.visit("s2", rows, start, Visiting(2, STEPS, 2)), first)
    assert not same(one.visit("another", rows, start, Visiting(1, STEPS, 2)), first)


def test_one_site_of_a_travelling_model_is_plain_training() -> None:
    """The moments travel, so that every step is that of a training without any sites; bit for bit."""
    travelled, site = learner(moments="travel"), sites()[-1]
    state: State = travelled.state()
    for round_ in range(ROUNDS):
        state = travelled.visit("s", site, state, Visiting(round_, STEPS, 2))
    plain = learner()
    steps = Steps("plain", plain.objective, plain.stage, plain.config, Fabric(accelerator="cpu", devices=1))
    plain.objective.train()
    for step in range(ROUNDS * STEPS):
        rate = learning_rate(plain.stage, step // STEPS)
        steps.take(site, step, rate, seed_of(plain.config.seed, "s"), batch_size=2)
    assert same(Message("", "", state=state).weights, plain.objective.state_dict())


def test_fedprox_stays_nearer_to_where_the_round_began() -> None:
    start = learner().state()
    free, held = run("fedavg", learner()), run("fedprox", learner(), mu=1.0)

    def moved(state: State) -> float:
        return float(
            sum((state[n] - start[n]).double().square().sum() for n in start if start[n].is_floating_point())
        )

    assert moved(held) < moved(free)


@pytest.mark.parametrize(
    ("rows", "how", "expected"),
    [
        (1, {"epochs": 1.0, "steps": 0}, (1, 1)),
        (7, {"epochs": 1.0, "steps": 0}, (1, 7)),
        (100, {"epochs": 1.0, "steps": 0}, (3, 32)),
        (100, {"epochs": 2.0, "steps": 0}, (6, 32)),
        (3, {"epochs": 1.0, "steps": 5}, (5, 3)),
    ],
)
def test_a_step_never_sees_a_film_twice(rows: int, how: dict[str, float], expected: tuple[int, int]) -> None:
    assert visit_shape(rows, 32, how["epochs"], int(how["steps"])) == expected
