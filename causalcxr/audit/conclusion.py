"""From material and scores to what the audit says of every score and contrast. No image is touched."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from causalcxr.audit.config import AuditConfig
from causalcxr.audit.contrasts import Contrast
from causalcxr.audit.dependence import FEWEST, Dependence, pcm
from causalcxr.audit.effects import Effect, measure_effect
from causalcxr.audit.gates import generator_gates, route_gates
from causalcxr.audit.leak import leak_of
from causalcxr.audit.material import Material
from causalcxr.audit.scores import Scores, finding_label
from causalcxr.audit.verdict import Gate, RouteResult, Verdict, judge
from causalcxr.audit.yardsticks import group_gaps
from causalcxr.metrics.intervals import Interval
from causalcxr.support.errors import DataError

__all__ = ["Found", "conclude", "conditioned_on", "other_causes", "positive_rows", "too_few"]


@dataclass(frozen=True)
class Found:
    """Of one score and contrast. `effect`: None where counterfactuals were not scored.

    `effect` and `dependence` are None where there are too few patients.
    """

    score: str
    contrast: Contrast
    verdict: Verdict
    effect: Effect | None
    dependence: Dependence | None
    gates: tuple[Gate, ...]
    gaps: Mapping[str, Interval]
    margin: float
    threshold: float


def conclude(
    material: Material, scores: Mapping[str, Scores], thresholds: Mapping[str, float], config: AuditConfig
) -> list[Found]:
    """Every score and contrast. `thresholds`: above which a patient is flagged, by score.

    Raises DataError: a constant score.
    """
    measured = [contrast for contrast in material.contrasts if not too_few(material, contrast)]
    generated = next(iter(scores.values())).made is not None
    gates = {contrast: _gates(material, contrast, generated, config) for contrast in measured}
    abouts = [_About.read(material, name, score, thresholds[name], config) for name, score in scores.items()]
    asked = [(about, contrast) for about in abouts for contrast in measured]
    effects = {(about.name, c): _effect(material, c, about, config) for about, c in asked}
    tests = {(about.name, c): _test(material, c, about.score, config) for about, c in asked}
    verdicts = judge(
        {key: _routes(effects[key], tests[key]) for key in tests},
        {key: gates[key[1]] for key in tests},
        {(about.name, c): about.margin for about, c in asked},
        config.alpha,
    )
    return [
        Found(
            about.name,
            c,
            verdicts.get((about.name, c)) or Verdict("inconclusive", too_few(material, c), {}),
            effects.get((about.name, c)),
            tests.get((about.name, c)),
            tuple(gates.get(c, ())),
            _gaps(material, c, about) if c in gates else {},
            about.margin,
            about.threshold,
        )
        for about in abouts
        for c in material.contrasts
    ]


@dataclass(frozen=True)
class _About:
    """A score, who has what it is of (None if that is not known), above what a patient is flagged, the margin."""

    name: str
    score: Scores
    positive: np.ndarray | None
    threshold: float
    margin: float

    @classmethod
    def read(cls, material: Material, name: str, score: Scores, threshold: float, config: AuditConfig) -> "_About":
        if np.ptp(score.real) == 0:
            raise DataError(f"score '{name}' is constant over {len(score.real)} images; there is nothing to audit")
        positive = positive_rows(material, name, config.finding)
        return cls(name, score, positive, threshold, config.margin * float(score.real.std()))


def conditioned_on(material: Material, attribute: str, effect: str = "direct") -> np.ndarray:
    """`Z` `(N, k)`: the description of the noise, and every other cause of the image as columns.

    Of a total effect without the causes that follow the attribute: what comes through them is part of it.
    """
    others = other_causes(material, _left_out(material, attribute, effect))
    return np.concatenate([material.noise, others], axis=1)


def _left_out(material: Material, attribute: str, effect: str) -> set[str]:
    """The attribute and, of a total effect, what follows it."""
    return {attribute, *(material.graph.descendants(attribute) if effect == "total" else ())}


def other_causes(material: Material, left_out: Collection[str]) -> np.ndarray:
    """The causes of the image as columns `(N, k)`, but for those left out."""
    graph = material.graph
    assert graph.image is not None
    columns = [np.empty((len(material.ids), 0))]
    for name in graph[graph.image].parents:
        values = material.attributes[name]
        if name in left_out:
            continue
        if graph[name].is_discrete:
            columns.append((values[:, None] == np.arange(1, len(graph[name].labels))).astype(float))
        else:
            columns.append(values[:, None].astype(float))
    return np.concatenate(columns, axis=1)


def too_few(material: Material, contrast: Contrast) -> str:
    """What is missing for a contrast, in words; empty if both labels have enough patients, and of a number."""
    sides = _sides(material, contrast)
    for label, side in sides.items():
        if (n := len(np.unique(material.patients[side]))) < FEWEST:
            return f"{n} patients are recorded with {contrast.attribute} = {label}, expected at least {FEWEST}"
    return ""


def _sides(material: Material, contrast: Contrast) -> dict[str, np.ndarray]:
    """Who `(N,)` has either label; nothing of a number."""
    variable, values = material.graph[contrast.attribute], material.attributes[contrast.attribute]
    if not variable.is_discrete:
        return {}
    return {label: values == variable.labels.index(label) for label in (contrast.reference, contrast.other)}


def _rows(material: Material, contrast: Contrast) -> np.ndarray:
    """The rows that have either label themselves; of a number all."""
    sides = list(_sides(material, contrast).values())
    return np.flatnonzero(sides[0] | sides[1]) if sides else np.arange(len(material.ids))


def _gates(material: Material, contrast: Contrast, generated: bool, config: AuditConfig) -> list[Gate]:
    rows, z = _rows(material, contrast), conditioned_on(material, contrast.attribute, config.effect)
    a, patients = material.attributes[contrast.attribute][rows], material.patients[rows]
    found = route_gates(a, material.noise[rows], z[rows], patients, config.seed)
    if generated:
        found += generator_gates(material.composition, material.quality.get(contrast.attribute, {}))
    return found


def _test(material: Material, contrast: Contrast, score: Scores, config: AuditConfig) -> Dependence:
    rows = _rows(material, contrast)
    a = material.attributes[contrast.attribute][rows]
    z = conditioned_on(material, contrast.attribute, config.effect)[rows]
    return pcm(score.real[rows], a, z, material.patients[rows], config.splits, config.seed)


def _effect(material: Material, contrast: Contrast, about: _About, config: AuditConfig) -> Effect | None:
    score = about.score
    if score.made is None or score.placebo is None:
        return None
    i, j, side = material.sides(contrast)
    rows = np.arange(len(side))
    placebo = score.made[rows, side], score.placebo[rows, side]
    before, after = score.made[:, i], score.made[:, j]
    leak = leak_of((before + after) / 2, *_real_side(material, contrast, config.effect))
    return measure_effect(
        before, after, placebo, about.positive, about.threshold, material.patients, leak, config.seed
    )


def _real_side(material: Material, contrast: Contrast, effect: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Own values of the patients, the other causes, and who takes part, as `leak_of` takes them."""
    variable, values = material.graph[contrast.attribute], material.attributes[contrast.attribute]
    others = other_causes(material, _left_out(material, contrast.attribute, effect))
    if variable.is_discrete:
        before, after = _sides(material, contrast).values()
        return after.astype(float), others, before | after
    own = (values.astype(float) - contrast.reference) / (contrast.other - contrast.reference)
    return own, others, np.ones(len(own), dtype=bool)


def _routes(effect: Effect | None, dependence: Dependence) -> dict[str, RouteResult]:
    """A shift that real patients contradict is no evidence of one."""
    found = {}
    if effect is not None:
        found["generate"] = RouteResult(effect.p if effect.stands else 1.0, effect.within)
    return found | {"encode": RouteResult(dependence.p)}


def positive_rows(material: Material, score: str, finding: str) -> np.ndarray | None:
    """Who has what the score is of, `(N,)`; None if that is not recorded, or all have it, or none."""
    label = finding_label(material.graph, score, finding)
    if label is None:
        return None
    found = material.attributes[finding] == label
    return found if 0 < found.sum() < len(found) else None


def _gaps(material: Material, contrast: Contrast, about: _About) -> dict[str, Interval]:
    """Group fairness of the real patients; of a number of those on either side of its median."""
    if about.positive is None:
        return {}
    variable, values = material.graph[contrast.attribute], material.attributes[contrast.attribute]
    if variable.is_discrete:
        group, reference = (variable.labels.index(v) for v in (contrast.other, contrast.reference))
    else:
        higher = contrast.other > contrast.reference
        values, group, reference = values > np.median(values), higher, not higher
    try:
        flagged = about.score.real > about.threshold
        return group_gaps(flagged, about.positive, values, group, reference, material.patients)
    except DataError:  # a group without positives has no error rates
        return {}
