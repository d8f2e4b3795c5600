"""An audit in sentences: what a clinician reads first."""

from causalcxr.audit.conclusion import Found
from causalcxr.graph import Graph
from causalcxr.metrics.intervals import Interval
from causalcxr.support.html import interval_text
from causalcxr.values import readable

__all__ = ["gate_hint", "interval_of", "question", "sentence", "verdict_sentence"]

_GATES = {
    "leakage": "AUROC of the attribute from what describes the patients apart from it; 0.5 is none",
    "overlap": "share of patients who might, by all else that is known, have either value",
    "composition": "grey levels by which doing nothing changes an image",
    "effectiveness": "AUROC points by which the evaluator sees less of the intervention than it should",
    "off_target": "AUROC points by which other attributes change along",
}
_ORDER = ("sensitivity", "flagged", "shift")


def question(found: Found, graph: Graph) -> str:
    """`with sex male in place of female`."""
    contrast = found.contrast
    before, after = (readable(graph[contrast.attribute], v) for v in (contrast.reference, contrast.other))
    recorded = "recorded " if contrast.attribute == "race" else ""
    return f"with {recorded}{contrast.attribute} {after} in place of {before}"


def sentence(found: Found, graph: Graph) -> str:
    """The effect in one sentence."""
    if found.effect is None:
        return f"What the score of '{found.score}' would be {question(found, graph)} was not measured."
    statistics = found.effect.statistics
    name = next(name for name in _ORDER if name in statistics)
    what = {
        "sensitivity": "the model's sensitivity at its threshold",
        "flagged": "the share of patients that the model flags",
        "shift": "the model's score",
    }[name]
    points = "" if name == "shift" else " points"
    changed = interval_of(statistics[name])
    value, _, ends = changed.partition(" [")
    bracket = f" [{ends}" if ends else ""
    return (
        f"Were the same patients imaged {question(found, graph)}, {what} for {found.score} would change by "
        f"{value}{points}{bracket}."
    )


def verdict_sentence(found: Found) -> str:
    """What follows, and why; of an average without a shift also how far single patients' scores move."""
    words = {
        "dependence": f"The score depends on {found.contrast.attribute}",
        "equivalent": "On average it makes no difference that matters",
        "inconclusive": "The data do not decide",
        "generator failed": "The counterfactuals can't carry an answer",
    }
    said = f"{words[found.verdict.word]} ({found.verdict.reason})."
    if found.verdict.word == "equivalent" and found.effect is not None:
        said += f" Single scores move by {interval_of(found.effect.statistics['absolute'])} either way."
    return said


def gate_hint(name: str) -> str:
    """What a gate's number is."""
    return _GATES[name]


def interval_of(interval: Interval) -> str:
    """`−3.1 [−4.0, −2.2]`."""
    return interval_text(vars(interval))
