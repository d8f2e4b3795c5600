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
    "effectiveness": "AUROC points by which the evaluator sees too much of the intervention; below 0 too little",
    "off_target": "AUROC points by which the evaluator sees other attributes change along, on average",
}


def question(found: Found, graph: Graph) -> str:
    """`with sex male in place of female`."""
    contrast = found.contrast
    before, after = (readable(graph[contrast.attribute], v) for v in (contrast.reference, contrast.other))
    recorded = "recorded " if contrast.attribute == "race" else ""
    return f"with {recorded}{contrast.attribute} {after} in place of {before}"


def sentence(found: Found, graph: Graph) -> str:
    """The effect in one sentence; no number where the generator failed."""
    if found.verdict.word == "generator failed" or found.dependence is None:
        return f"How {found.score} would be judged {question(found, graph)} can't be said."
    if found.effect is None:
        return f"How {found.score} would be judged {question(found, graph)} was not shown to the model."
    statistics = found.effect.statistics
    if "sensitivity" in statistics:
        what, changed = f"the model's sensitivity for {found.score} at its threshold", statistics["sensitivity"]
    else:
        what, changed = (
            f"the share of patients above the model's threshold for {found.score}",
            statistics["flagged"],
        )
    return (
        f"Were the same patients imaged {question(found, graph)}, {what} would change by "
        f"{_spoken(changed, ' percentage points')}, and its score by {_spoken(statistics['shift'])} on average "
        "(95 % intervals)."
    )


def verdict_sentence(found: Found) -> str:
    """What follows, and why; and what real patients say of it."""
    attribute = found.contrast.attribute
    words = {
        "dependence": f"The score depends on {attribute}",
        "equivalent": "On average it makes no difference that matters",
        "inconclusive": "Undecided",
        "generator failed": "The counterfactuals are not good enough for an answer, or the patients too unlike",
    }
    said = f"{words[found.verdict.word]} ({found.verdict.reason})."
    if found.effect is None or found.verdict.word == "generator failed":
        return said
    if found.verdict.word == "equivalent":
        said += f" Single scores move by {interval_of(found.effect.statistics['absolute'])} either way."
    if found.effect.contradicted:
        checked = interval_of(found.effect.statistics["checked"])
        said += f" Real patients contradict the counterfactuals and show {checked}."
    return said


def _spoken(interval: Interval, unit: str = "") -> str:
    """`−3.1 percentage points [−4.0, −2.2]`."""
    value, bracket, ends = interval_of(interval).partition(" [")
    return f"{value}{unit}{bracket}{ends}"


def gate_hint(name: str) -> str:
    """What a gate's number is."""
    return _GATES[name]


def interval_of(interval: Interval) -> str:
    """`−3.1 [−4.0, −2.2]`."""
    return interval_text(vars(interval))
