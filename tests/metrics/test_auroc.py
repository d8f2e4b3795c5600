"""AUROC of weighted rows against its definition, and the coverage of its bootstrap interval."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from causalcxr import metrics
from causalcxr.graph import load_graph
from causalcxr.metrics.auroc import Task, auroc, make_task, task_auroc
from causalcxr.metrics.intervals import absolute_interval, bootstrap, percentile_interval


def by_pairs(scores, answers, weights):
    """The definition: the share of pairs won, ties half, each pair with the product of its weights."""
    above = (scores[:, None] > scores) + 0.5 * (scores[:, None] == scores)
    pairs = weights[:, None] * weights * (answers[:, None] & ~answers)
    return (above * pairs).sum() / pairs.sum()


def test_weighted_auroc_is_the_share_of_pairs_won():
    generator = np.random.default_rng(0)
    scores = generator.integers(0, 12, 80).astype(float)  # many ties
    answers, weights = generator.random(80) < 0.4, generator.random(80)
    assert abs(auroc(scores, answers, weights) - by_pairs(scores, answers, weights)) < 1e-12
    assert abs(auroc(scores, answers) - by_pairs(scores, answers, np.ones(80))) < 1e-12


def test_a_resample_weighs_rows_as_often_as_they_are_drawn():
    generator = np.random.default_rng(1)
    scores, answers = generator.normal(size=50), generator.random(50) < 0.5
    counts = generator.integers(0, 3, (4, 50))
    found = task_auroc(Task(scores[:, None], answers[:, None]), counts.astype(float))
    for row, value in zip(counts, found, strict=True):
        assert abs(value - auroc(np.repeat(scores, row), np.repeat(answers, row))) < 1e-12


def test_a_single_answer_has_no_auroc():
    assert np.isnan(auroc(np.arange(4.0), np.ones(4, dtype=bool)))


def test_three_labels_are_averaged_one_against_the_rest():
    graph, generator = load_graph("chest"), torch.Generator().manual_seed(0)
    logits, labels = torch.randn(200, 3, generator=generator), torch.randint(3, (200,), generator=generator)
    found = task_auroc(make_task(graph["race"], logits, labels, np.nan), np.ones((1, 200)))[0]
    probability = logits.double().softmax(dim=1).numpy()
    expected = np.mean([auroc(probability[:, k], labels.numpy() == k) for k in range(3)])
    assert abs(found - expected) < 1e-12


def test_a_number_is_asked_whether_it_lies_above_the_median():
    graph = load_graph("chest")
    age, predicted = torch.tensor([30.0, 50.0, 60.0, 80.0]), torch.tensor([70.0, 40.0, 50.0, 75.0])
    found = task_auroc(make_task(graph["age"], predicted, age, 55.0), np.ones((1, 4)))[0]
    assert found == 0.75  # of the four pairs, (60, 30) is ordered wrongly


def test_the_interval_of_an_auroc_covers_the_truth():
    """Of 500 repeats 92 to 98 % must cover: three standard errors of a 95 % interval, false alarm .3 %."""
    truth, covered = 0.5 * (1 + math.erf(0.5)), 0  # two normal scores, one deviation apart
    for repeat in range(500):
        generator = np.random.default_rng(repeat)
        answers = np.arange(200) % 2 == 0
        scores = generator.normal(size=200) + answers
        task = Task(scores[:, None], answers[:, None])
        value, drawn = bootstrap(lambda w, task=task: task_auroc(task, w)[:, None], np.arange(200), 300, repeat)
        interval = percentile_interval(value[0], drawn[:, 0], 200)
        covered += interval.low <= truth <= interval.high
    assert 0.92 * 500 <= covered <= 0.98 * 500, covered


def test_the_interval_clusters_by_patient():
    """Four identical images a patient carry no more than one does: the interval must not shrink."""
    generator = np.random.default_rng(3)
    answers = np.arange(120) % 2 == 0
    scores = generator.normal(size=120) + answers

    def width(times, patients):
        task = Task(np.tile(scores, times)[:, None], np.tile(answers, times)[:, None])
        _, drawn = bootstrap(lambda w: task_auroc(task, w)[:, None], patients)
        return np.ptp(np.quantile(drawn, [0.025, 0.975]))

    alone = width(1, np.arange(120))
    assert abs(width(4, np.tile(np.arange(120), 4)) / alone - 1) < 0.05  # the same resamples up to rounding
    assert width(4, np.arange(480)) < 0.65 * alone  # as if they were 480 patients: half


def test_the_interval_of_a_mean_of_absolute_values_undoes_their_bias():
    """Twelve cells whose truth is 0: noise gives a mean above 0, and the basic interval reaches down to it."""
    generator, reached = np.random.default_rng(5), 0
    for _ in range(200):
        cells = generator.normal(size=12) * 0.2
        drawn = np.abs(cells + 0.2 * generator.normal(size=(500, 12))).mean(axis=1)
        reached += absolute_interval(np.abs(cells).mean(), drawn, 100).low < 0.02
    assert reached > 120


def test_the_interval_covers_the_true_value_in_about_95_of_100_samples():
    """Scores N(0, 1) and N(1, 1): the AUROC is Phi(1 / sqrt 2) = 0.7602.

    200 samples of 150 patients: coverage of a percentile interval is 0.93 to 0.95; below 0.88 in fewer than one of
    500 runs of this test by the binomial law.
    """
    generator, held = np.random.default_rng(0), 0
    for seed in range(200):
        answers = generator.random(150) < 0.5
        scores = generator.normal(size=150) + answers
        found = metrics.auroc_interval(scores, answers, resamples=300, seed=seed)
        held += found.low <= 0.7602 <= found.high
    assert held >= 176


def test_rows_of_one_patient_are_drawn_together():
    """Every row ten times over is no more evidence: with patients the interval stays, without it shrinks."""
    generator = np.random.default_rng(1)
    answers = np.arange(80) % 2 == 0
    scores, people = generator.normal(size=80) + answers, np.arange(80)
    once = metrics.auroc_interval(scores, answers, people)
    tenfold = [np.repeat(x, 10) for x in (scores, answers, people)]
    clustered, naive = metrics.auroc_interval(*tenfold), metrics.auroc_interval(*tenfold[:2])
    assert clustered.value == pytest.approx(once.value) and (once.n, clustered.n) == (80, 800)
    assert clustered.high - clustered.low == pytest.approx(once.high - once.low, rel=1e-6)
    assert naive.high - naive.low < 0.5 * (once.high - once.low)


def test_lists_columns_and_tensors_are_taken():
    scores, answers = [0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]
    found = {
        metrics.auroc_interval(pack(scores), pack(answers), resamples=20).value
        for pack in (list, np.array, pd.Series, torch.tensor)
    }
    assert found == {0.75}  # three of four pairs are in order


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(([0.1], [0, 1]), "of one length"), (([0.1, np.nan], [0, 1]), "1 of 2 scores are NaN")],
)
def test_what_has_no_auroc_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        metrics.auroc_interval(*arguments)
