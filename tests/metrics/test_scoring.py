"""What an evaluator says of counterfactuals, where the right answer is known.

The evaluators are linear regressions on pixels: no network has to be trained, and age helps them to see a finding.
"""

import numpy as np
import pytest
import torch
from torch import nn

from causalcxr import simulator
from causalcxr.graph import load_graph
from causalcxr.interventions import draw_values
from causalcxr.metrics.amplification import Population, Trial, drift, measure_drift, measure_trial, off_target
from causalcxr.metrics.realism import frechet_distance, realism
from causalcxr.metrics.scoring import Scored, importance_weights, join_trials
from causalcxr.metrics.targets import define_target, measure_trials
from causalcxr.predictors.adapters import AdaptedPredictor, Output
from causalcxr.randomness import Draws
from causalcxr.scm import StructuralCausalModel
from causalcxr.support.errors import RunError
from causalcxr.training.objectives import AttributesObjective
from tests.models import TINY, tiny_scm

GRAPH = load_graph("chest")
N, SIZE, KNOBS = 2000, 32, simulator.Knobs(planted={"race": {"exposure": 0.3}}, finding_volume=0.5)
MEDIANS = {"age": 57.0}
COLUMNS = {"sex": 0, "race": 1, "age": 4, "finding": 5}


def subjects(ids, do=None):
    noise = simulator.noise(0, ids)
    with torch.no_grad():
        image = simulator.counterfactual(noise, do or {}, SIZE, "direct", KNOBS)
    return simulator.attributes(noise, knobs=KNOBS), image.float()


def answers(batch):
    """Columns that a regression is fitted to, standardised: sex, three labels of race, age, finding."""
    race = torch.nn.functional.one_hot(batch["race"], 3)
    columns = [batch["sex"], *race.T, (batch["age"] - 57) / 15, batch["finding"]]
    return torch.stack([column.double() for column in columns], dim=1)


@pytest.fixture(scope="module")
def evaluator():
    """Ridge regression of every answer on the pixels of 3,000 other subjects."""
    batch, image = subjects(range(10_000, 13_000))
    pixels = image.flatten(1).double()
    mean, wanted = pixels.mean(dim=0), answers(batch)
    centre = wanted.mean(dim=0)
    gram = (pixels - mean).T @ (pixels - mean) + 3.0 * torch.eye(pixels.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(gram, (pixels - mean).T @ (wanted - centre))

    def model(shown):
        return (6 * ((shown.flatten(1).double() - mean) @ weight + centre)).float()

    outputs = {
        "sex": Output({"male": 0}),
        "race": Output({label: 1 + i for i, label in enumerate(GRAPH["race"].labels)}),
        "age": Output({"age": 4}, kind="value", scale=15 / 6, shift=57.0),
        "finding": Output({GRAPH["finding"].labels[1]: 5}),
    }
    return AdaptedPredictor([GRAPH[name] for name in GRAPH.attributes], model, outputs)


@pytest.fixture(scope="module")
def scm():
    """The attributes' mechanisms, fitted on 6,000 simulated subjects."""
    torch.manual_seed(0)
    scm = StructuralCausalModel(GRAPH, TINY, 16)
    train = simulator.attributes(simulator.noise(1, range(6000)))
    scm.calibrate(train)
    objective = AttributesObjective(scm)
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        sum(loss.mean() for loss in objective(train, Draws(0)).values()).backward()
        optimizer.step()
    return scm.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def world(evaluator):
    """What the evaluator says of 2,000 subjects, factual and under each intervention (exact ones)."""
    factual, image = subjects(range(N))
    values = draw_values(simulator.attributes(simulator.noise(2, range(4000))), GRAPH.attributes, N, Draws(7))

    def population(batch, shown):
        with torch.no_grad():
            features = evaluator.features(shown)
            return Population(evaluator.predict(features), features[:, [0, 4, 5]], batch)

    exact = {}
    for name in GRAPH.attributes:
        _, shown = subjects(range(N), {name: values[name]})
        exact[name] = population({**factual, name: values[name]}, shown)
    # The identity as a "model": the image stays, only the label it should have changes.
    seen = population(factual, image)
    identity = {
        name: Population(seen.prediction, seen.features, {**factual, name: values[name]}) for name in exact
    }
    return population(factual, image), exact, identity


def trials(made, reference, factual):
    return [Trial(name, made[name], reference[name], factual) for name in GRAPH.attributes]


def test_exact_counterfactuals_score_ideally(world):
    factual, exact, _ = world
    found = measure_trials(GRAPH, trials(exact, exact, factual), MEDIANS, np.arange(N), simulated=True)
    for key, interval in found.items():
        if key[0] in ("overshoot", "amplification", "error_gap", "off_target", "realism"):
            assert abs(interval.value) < 1e-6, key
        if key[0] in ("drift", "shift"):
            right = found[f"{key[0]}_exact", *key[1:]]
            assert interval == right
        assert len(define_target(key)) > 40


def reweighted(scm, factual):
    train = simulator.attributes(simulator.noise(2, range(4000)))
    return {
        name: Population(
            factual.prediction,
            factual.features,
            factual.labels,
            importance_weights(scm, name, factual.labels, train),
        )
        for name in GRAPH.attributes
    }


def test_exact_counterfactuals_score_ideally_against_reweighted_real_images_too(world, scm):
    """13 of 16 intervals at least hold 0 (95 % each; false alarm about 1 %, for the cells are dependent)."""
    factual, exact, _ = world
    held = []
    for trial in trials(exact, reweighted(scm, factual), factual):
        found, _ = measure_trial(GRAPH, trial, MEDIANS, np.arange(N))
        held += [i.low <= 0 <= i.high for key, i in found.items() if key[0] in ("overshoot", "amplification")]
    assert len(held) == 16
    assert sum(held) >= 13


def test_plain_real_images_are_the_wrong_reference(world, scm):
    """Under do(finding) the link from age is cut, which costs even exact counterfactuals points on the finding."""
    factual, exact, _ = world
    trial = trials(exact, reweighted(scm, factual), factual)[-1]
    assert trial.name == "finding"
    found, _ = measure_trial(GRAPH, trial, MEDIANS, np.arange(N))
    assert found["overshoot_plain", "finding"].high < 0
    assert found["overshoot", "finding"].low <= 0 <= found["overshoot", "finding"].high


def test_the_identity_did_nothing(world):
    factual, exact, identity = world
    for trial in trials(identity, exact, factual):
        found, _ = measure_trial(GRAPH, trial, MEDIANS, np.arange(N))
        k = trial.name
        interval = found["effectiveness", k]
        assert interval.low <= 50 <= interval.high  # the image knows nothing of the new value
        assert found["overshoot", k].high < -10
        drifts = measure_drift(GRAPH, trial, np.arange(N))
        assert all(abs(i.value) < 1e-6 for i in drifts.values())


def test_weights_give_the_population_of_the_intervention(scm):
    """Roots without children keep their law; under do(finding) it no longer depends on age, and under do(age) the
    finding keeps its share. 40,000 subjects: four standard errors of a weighted correlation are about .03."""
    batch = simulator.attributes(simulator.noise(3, range(40_000)))
    train = simulator.attributes(simulator.noise(2, range(4000)))
    flat = importance_weights(scm, "sex", batch, train)
    assert np.abs(flat - 1).max() < 1e-6
    for name in ("age", "finding"):
        weights = importance_weights(scm, name, batch, train)
        assert weights.mean() == pytest.approx(1)
        x, y = batch["age"].double().numpy(), batch["finding"].double().numpy()
        plain = np.corrcoef(x, y)[0, 1]
        mx, my = np.average(x, weights=weights), np.average(y, weights=weights)
        covariance = np.average((x - mx) * (y - my), weights=weights)
        spread = np.sqrt(np.average((x - mx) ** 2, weights=weights) * np.average((y - my) ** 2, weights=weights))
        assert plain > 0.2
        assert abs(covariance / spread) < 0.04
        assert abs(mx - x.mean()) < 0.8
        assert abs(my - y.mean()) < 0.02


def test_drift_is_signed_towards_the_label():
    before, after = torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 1.5], [0.0, 1.5]])
    signed, size = drift(GRAPH["sex"], after, before, torch.tensor([1, 0]))
    assert signed.tolist() == pytest.approx([1.5, -1.5])
    assert size.tolist() == pytest.approx([1 / (1 + np.exp(-1.5)) - 0.5] * 2)
    signed, size = drift(GRAPH["age"], torch.tensor([62.0]), torch.tensor([65.0]), torch.tensor([70.0]))
    assert (signed.item(), size.item()) == (-3.0, 3.0)


def test_frechet_distance_of_two_known_normal_laws():
    """Means apart by (3, 0), covariances I and 4 I: 9 + 2 (1 + 4 - 4) = 11; 200,000 draws know it to about .06."""
    generator = np.random.default_rng(0)
    one, other = generator.normal(size=(200_000, 2)), 2 * generator.normal(size=(200_000, 2))
    other[:, 0] += 3
    assert frechet_distance(one, other) == pytest.approx(11, abs=0.2)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    weights = np.repeat([1.0, 0.0], [100, 199_900])
    assert frechet_distance(one, one[:100], weights) == pytest.approx(0, abs=1e-9)


def test_realism_sees_a_change_that_no_label_explains(world):
    factual, exact, _ = world
    shifted = Population(exact["sex"].prediction, exact["sex"].features + 1.0, exact["sex"].labels)
    found = realism(Trial("sex", shifted, exact["sex"], factual), np.arange(N), 20)
    assert found.value == pytest.approx(3.0, rel=1e-3)  # three features, each moved by 1
    assert found.low > 2.5


def test_off_target_is_the_mean_absolute_amplification(world):
    factual, exact, identity = world
    _, cells = measure_trial(GRAPH, Trial("sex", identity["age"], exact["sex"], factual), MEDIANS, np.arange(N))
    found = off_target(list(cells.values()), N)
    assert found.value == pytest.approx(np.mean([abs(cell.value) for cell in cells.values()]))
    assert 0 <= found.low <= found.value


def test_batches_are_joined_in_order(scm):
    def sight(start):
        labels = {name: torch.arange(start, start + 2) for name in GRAPH.attributes}
        prediction = {name: torch.full((2, 2), float(start)) for name in GRAPH.attributes}
        return Scored(prediction, torch.full((2, 3), float(start)), labels)

    parts = [{"factual": sight(i), "sex": sight(i), "exact sex": sight(i)} for i in (0, 2)]
    trial = join_trials(scm, parts, ["sex"], {})[0]
    assert trial.counterfactual.labels["age"].tolist() == [0, 1, 2, 3]
    assert trial.reference.features[:, 0].tolist() == [0, 0, 2, 2]


def test_scoring_with_the_predictor_that_fine_tuned_is_refused():
    from causalcxr.evaluation.measure import EvaluatedModel

    class Run:
        folder, graph = "runs/x", GRAPH

        def finetuned(self):
            return {"predictor": predictor.fingerprint()}

    predictor = AdaptedPredictor([GRAPH["sex"]], nn.Flatten(), {"sex": Output({"male": 0})})
    with pytest.raises(RunError, match="with this very predictor"):
        EvaluatedModel(Run(), None, tiny_scm(GRAPH), None, None, predictor, [])  # pyright: ignore
