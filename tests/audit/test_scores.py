"""Scores of models of every kind, on one scale."""

import numpy as np
import pytest
import torch

from causalcxr.audit.scores import finding_label, on_scale, score_sets, scorer_of, threshold_on_scale
from causalcxr.graph import load_graph
from causalcxr.metrics.auroc import youden_threshold
from causalcxr.predictors.adapters import AdaptedPredictor, Output
from causalcxr.support.errors import ConfigError, DataError

GRAPH = load_graph("chest")


def bright(images: torch.Tensor) -> torch.Tensor:
    return images.mean(dim=(1, 2, 3))


def test_any_function_of_images_is_scored_in_one_pass_of_8_bits():
    calls = []

    def model(images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        assert torch.equal((255 * images).round() / 255, images)
        return torch.stack([bright(images), 1 - bright(images)], dim=1)

    sets = [torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    found = score_sets(scorer_of(model, GRAPH, "finding"), sets)
    assert calls == [15] and list(found) == ["score 1", "score 2"] and found["score 1"].shape == (5, 3)
    mean = ((255 * sets[1]).round() / 255).mean(dim=(1, 2, 3)).double()
    np.testing.assert_allclose(found["score 1"][:, 1], torch.logit(mean), atol=1e-5)
    np.testing.assert_allclose(found["score 2"], -found["score 1"], atol=1e-5)


def test_a_predictor_gives_the_log_odds_of_the_finding():
    variables = [GRAPH[name] for name in GRAPH.attributes]
    outputs = {
        "finding": Output({"Pleural Effusion": 0}),
        "race": Output({n: i for i, n in enumerate(GRAPH["race"].labels)}),
    }
    model = AdaptedPredictor(variables, lambda images: bright(images)[:, None].expand(-1, 3), outputs)
    images = torch.rand(4, 1, 8, 8)
    found = scorer_of(model, GRAPH, "finding")(images)
    assert list(found) == ["Pleural Effusion"]
    torch.testing.assert_close(found["Pleural Effusion"], bright(images))
    by_label = scorer_of(model, GRAPH, "race")(images)
    assert list(by_label) == ["asian", "black"]
    torch.testing.assert_close(by_label["black"].sigmoid(), torch.full((4,), 1 / 3))
    with pytest.raises(DataError, match="the model predicts finding, race, not 'age'"):
        scorer_of(model, GRAPH, "age")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.2, 1.4], r"score 'x': expected probabilities in \[0, 1\], got 0.2 to 1.4; say kind=values"),
        ([0.2, float("nan")], "score 'x': 1 of 2 are not finite"),
    ],
)
def test_what_is_no_score_is_refused(values, message):
    with pytest.raises(DataError, match=message):
        on_scale("x", np.array(values), "probabilities")


def test_a_model_that_returns_something_else_is_refused():
    with pytest.raises(DataError, match=r"returned Tensor \(2, 1, 8, 8\); expected a tensor or array"):
        scorer_of(lambda images: images, GRAPH, "finding")(torch.zeros(2, 1, 8, 8))
    with pytest.raises(DataError, match="returned str;"):
        scorer_of(lambda images: "x", GRAPH, "finding")(torch.zeros(2, 1, 8, 8))


def test_the_threshold_is_the_best_of_all_there_are():
    rng = np.random.default_rng(0)
    answers = rng.random(200) < 0.4
    scores = (rng.normal(size=200) + answers).round(1)

    def gain(threshold: float) -> float:
        flagged = scores > threshold
        return flagged[answers].mean() - flagged[~answers].mean()

    assert gain(youden_threshold(scores, answers)) == max(map(gain, scores))


def test_scores_may_come_as_arrays_and_by_name():
    images = torch.rand(3, 1, 8, 8)
    named = scorer_of(lambda x: {"Pleural Effusion": bright(x), "Nodule": bright(x).numpy()}, GRAPH, "finding")(
        images
    )
    assert list(named) == ["Pleural Effusion", "Nodule"]
    torch.testing.assert_close(named["Nodule"], torch.logit(bright(images).double()))
    assert list(scorer_of(lambda x: bright(x).numpy(), GRAPH, "finding")(images)) == ["score"]


def test_a_score_is_judged_against_the_finding_only_by_its_name():
    labels = {
        name: finding_label(GRAPH, name, "finding") for name in ("Pleural Effusion", "score", "score 2", "Nodule")
    }
    assert labels == {"Pleural Effusion": 1, "score": 1, "score 2": None, "Nodule": None}
    assert finding_label(GRAPH, "asian", "race") == 1 and finding_label(GRAPH, "score", "race") is None


@pytest.mark.parametrize("value", ["high", float("nan"), 30, -1, None])
def test_a_threshold_is_a_number_on_the_scores_scale(value):
    with pytest.raises(ConfigError, match="threshold of 'x': expected a probability between 0 and 1"):
        threshold_on_scale("x", value, "probabilities")
    assert threshold_on_scale("x", "30", "values") == 30
