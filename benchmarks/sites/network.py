"""83 hospitals of a real network's sizes: AUROC of the finding by strategy, with intervals.

    python benchmarks/sites/network.py --folder runs/sites/network83     train what is left (about an hour)

The study is the preset `network83`. The learning rate of each strategy is chosen on validation films with the
first seed. Averages reset the optimiser's moments, as is usual. Intervals are over 2,820 test patients and
three seeds.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from run import AVERAGES, keep

from causalcxr.config import read_settings
from causalcxr.federation.config import MADE_BY, SitesConfig, shipped_studies
from causalcxr.federation.study import Study, run_study

RATES = (1e-3, 3e-3)
MORE_RATES = {"fedavg": (1e-2,), "fedprox": (1e-2,)}  # a round of 83 sites is one step of their mean


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=Path("runs/sites/network83"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("settings", nargs="*")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for strategy in MADE_BY:
        rates = (*RATES, *MORE_RATES.get(strategy, ()))
        losses = {rate: loss(study_of(options, strategy, rate, options.seeds[:1])) for rate in rates}
        rate = min(losses, key=lambda rate: losses[rate])
        measured = study_of(options, strategy, rate, options.seeds).measured[strategy]["finding"]
        auroc = measured.overall
        found[strategy] = {"auroc": auroc.value, "low": auroc.low, "high": auroc.high, "by_seed": measured.by_seed}
        found[strategy] |= {"learning_rate": rate, "validation_loss_by_rate": losses}
        print(strategy, json.dumps(found[strategy]))
    keep({"network83": found})


def study_of(options: argparse.Namespace, strategy: str, rate: float, seeds: list[int]) -> Study:
    """The study of one strategy with one rate; what is trained is not trained again."""
    moments = "reset" if strategy in AVERAGES else "travel"
    settings = [f"run={options.folder}/{strategy}-{rate:g}", f"strategies=[{strategy}]", f"seeds={seeds}"]
    settings += [f"moments={moments}", f"train.predictors.learning_rate={rate}", *options.settings]
    return run_study(read_settings(SitesConfig, shipped_studies()["network83"], settings))


def loss(study: Study) -> float:
    """On validation films after the last round, mean over the models."""
    curves = [each.histories["predictor"].curve for each in study.trained]
    return sum(curve[-1]["losses"]["finding"] for curve in curves) / len(curves)


if __name__ == "__main__":
    main()
