"""Exact error of do(finding) by direction, and what an oracle could reach where it adds an effusion.

    python benchmarks/finding_direction.py runs/demo

A film without fluid does not show on which side, and how much, fluid would be. The oracle knows every other noise
channel of the subject exactly and draws these: `added_oracle_mean` answers with the mean over the draws,
`added_oracle_draw` with one of them. Errors are sums of norms over test subjects, as `exact/model/finding/error`.
"""

import argparse
import json
import sys

import torch
from torch import Tensor

import causalcxr
from causalcxr import simulator
from causalcxr.data.cohort import open_cohort
from causalcxr.runs import open_run

HIDDEN = ("severity", "effusion_side", "effusion_share")
DRAWS = 60


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--rows", type=int, default=256)
    options = parser.parse_args()
    run, scm = open_run(options.run), causalcxr.load(options.run)
    cohort = open_cohort(run.config.data, run.graph)
    rows = range(min(options.rows, len(cohort.split("test"))))
    batch = cohort.split("test").batch(rows)
    u = simulator.noise(cohort.source["seed"], cohort.split("test").ids[: len(rows)])
    abduction = scm.abduct(batch, seed=0)
    other = {"finding": 1 - batch["finding"]}
    made = scm.counterfactual(abduction, do=other, effect="direct")["image"] - abduction.factual["image"]
    exact = effect(u, other["finding"], cohort.size)
    removed, added = batch["finding"] == 1, batch["finding"] == 0
    hidden = {name: channel[added] for name, channel in u.items()}
    draws = [effect(redrawn(hidden, seed), torch.ones(int(added.sum())), cohort.size) for seed in range(DRAWS)]
    results = {
        "removed": error(made[removed], exact[removed]),
        "added": error(made[added], exact[added]),
        "added_oracle_mean": error(torch.stack(draws).mean(dim=0), exact[added]),
        "added_oracle_draw": error(draws[0], exact[added]),
        "n": {"removed": int(removed.sum()), "added": int(added.sum())},
    }
    sys.stdout.write(json.dumps(results, indent=2) + "\n")


def effect(u: dict[str, Tensor], finding: Tensor, size: int) -> Tensor:
    """Exact change of the image under do(finding)."""
    changed = simulator.counterfactual(u, {"finding": finding.long()}, size=size, effect="direct")
    return changed - simulator.counterfactual(u, {}, size=size, effect="direct")


def redrawn(u: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The same subjects with other hidden channels."""
    fresh = simulator.noise(10_000 + seed, range(len(u["sex"])))
    return {**u, **{name: fresh[name] for name in HIDDEN}}


def error(made: Tensor, exact: Tensor) -> float:
    """Sum of the errors' norms over the sum of the effects' norms."""
    return float((made - exact).flatten(1).norm(dim=1).sum() / exact.flatten(1).norm(dim=1).sum())


if __name__ == "__main__":
    main()
