"""Sums up a study, with an oracle beside it, in results.json beside this file. Seconds.

    causalcxr bias benchmarks/bias/study.yaml               the study: 80 minutes
    cp runs/bias/study.json benchmarks/bias/study.json
    python benchmarks/bias/summary.py

The oracle knows the severity and the group of simulated people, and answers with their log-odds.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from causalcxr import simulator
from causalcxr.bias.bayes import informed, optimum
from causalcxr.bias.gaps import Scores, measure
from causalcxr.support.files import write_json

HERE = Path(__file__).parent
KNOBS: dict[str, Any] = {"finding_odds": 0, "finding_age": 0, "finding_volume": 4}  # those of study.yaml
PEOPLE = 100_000

Statistics = dict[str, dict[str, float]]


def main() -> None:
    study = json.loads((HERE / "study.json").read_text("utf-8"))
    plain = [cell for cell in study["cells"] if cell["method"] == "none"]
    mitigated = {cell["q"] for cell in study["cells"] if cell["method"] != "none"}
    compared = [cell for cell in study["cells"] if cell["q"] in mitigated and "index" in cell["statistics"]]
    found = {
        "oracle": {q: oracle(float(q)) for q in study["bayes"]},
        "twin_gap": {f"{cell['q']:g}": cell["statistics"]["twin_gap"] for cell in plain},
        "index": by_kind(plain, index_or_gap),
        "pair_gap": by_kind(plain, lambda statistics: statistics["pair_gap"]),
        "mitigation": mitigation(compared),
        "time_ratio": json.loads((HERE / "throughput.json").read_text("utf-8"))["ratio"],
    }
    write_json(HERE / "results.json", found)
    sys.stdout.write(json.dumps({key: found[key] for key in ("oracle", "index", "time_ratio")}, indent=2) + "\n")


def oracle(q: float) -> dict[str, Any]:
    """Gap, index and accuracy of one who knows the severity, with intervals, beside what is expected."""
    u = simulator.noise(0, torch.arange(PEOPLE))
    people = simulator.attributes(u, {}, simulator.Knobs(**KNOBS, planted={"group": {"q": q}}))
    blind = 2.0 * simulator.severity(u, people).numpy()[None]
    aware = informed(blind, q)
    finding, group = (people[name].numpy() == 1 for name in ("finding", "group"))
    scores = Scores(aware[..., 0], aware[..., 1], np.zeros_like(blind))  # relative to one who calls nobody
    statistics = measure(scores, finding, group, np.arange(PEOPLE), q).statistics
    best = optimum(q)
    expected = {"gap": best.gap, "tpr_gap": best.tpr_gap, "fpr_gap": best.fpr_gap, "accuracy": best.accuracy}
    found = {name: vars(statistics[name]) | {"expected": expected[name]} for name in expected}
    return {"gap": statistics["gap"].value, "expected": best.gap, "statistics": found}


def by_kind(cells: list[dict[str, Any]], of: Callable[[Statistics], Any]) -> dict[str, dict[str, Any]]:
    """Kind of bias, then q."""
    table: dict[str, dict[str, Any]] = {}
    for cell in cells:
        table.setdefault(cell["bias"], {})[f"{cell['q']:g}"] = of(cell["statistics"])
    return table


def index_or_gap(statistics: Statistics) -> dict[str, Any]:
    """The shortcut index; where there is none (q = 0.5, underdiagnosis) the gap, and that it is one."""
    name = "index" if "index" in statistics else "gap"
    return statistics[name] | {"statistic": name}


def mitigation(cells: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Kind of bias, then method: index and accuracy."""
    table: dict[str, dict[str, Any]] = {}
    for cell in cells:
        kept = {name: cell["statistics"][name] for name in ("index", "accuracy")}
        table.setdefault(cell["bias"], {})[cell["method"]] = kept | {"q": cell["q"]}
    return table


if __name__ == "__main__":
    main()
