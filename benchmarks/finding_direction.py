"""Exact error of do(finding) by direction, beside that of an oracle who knows all that a film doesn't hide.

    python benchmarks/finding_direction.py runs/demo

The oracle knows every other noise channel of a subject exactly. Of the three that place and size an effusion it
knows what the film tells: of draws from their law it keeps those that leave the factual film as it is, within one
grey level (root mean square), and answers with their mean or with one of them. Where no draw is left the film says
it all, and the oracle's answer is exact. The model answers with one draw of its noise, and the mean of sixteen.
Errors: sums of norms over test subjects, as `exact/model/finding/error`.
"""

import argparse
import json
import sys
from collections.abc import Mapping

import torch
from torch import Tensor

import causalcxr
from causalcxr import simulator
from causalcxr.data.preparation import open_cohort
from causalcxr.metrics.exact import error_norms
from causalcxr.runs import open_run

HIDDEN = ("severity", "effusion_side", "effusion_share")
DRAWS = 150
MODEL_DRAWS = 16
UNSEEN = 1 / 255  # root mean square


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
    other = 1 - batch["finding"]
    drawn = torch.stack([change(scm, batch, other, seed) for seed in range(MODEL_DRAWS)])
    exact = film(u, other, cohort.size) - film(u, batch["finding"], cohort.size)
    answers = {"model_draw": drawn[0], "model_mean": drawn.mean(dim=0)}
    answers |= ask_oracle(u, batch["finding"], exact, cohort.size)
    results = {
        name: {"n": int(those.sum())} | {who: error(made[those], exact[those]) for who, made in answers.items()}
        for name, those in directions(batch["finding"]).items()
    }
    sys.stdout.write(json.dumps(results, indent=2) + "\n")


def change(scm: causalcxr.StructuralCausalModel, batch: Mapping[str, Tensor], other: Tensor, seed: int) -> Tensor:
    """The model's change of the image under do(finding = other), from one draw of its noise."""
    abduction = scm.abduct(batch, seed=seed)
    made = scm.counterfactual(abduction, do={"finding": other}, effect="direct")
    return made["image"] - abduction.factual["image"]


def directions(finding: Tensor) -> dict[str, Tensor]:
    """Rows `(B,)` in which do(finding) removes an effusion, adds one, and all."""
    return {"removed": finding == 1, "added": finding == 0, "all": finding >= 0}


def ask_oracle(u: Mapping[str, Tensor], finding: Tensor, exact: Tensor, size: int) -> dict[str, Tensor]:
    """The oracle's changes of the image: the mean over the draws that fit the film, and the first of them."""
    factual, kept = film(u, finding, size), torch.zeros(len(finding))
    total, first = torch.zeros_like(exact), exact.clone()
    for seed in range(DRAWS):
        fresh = simulator.noise(10_000 + seed, range(len(finding)))
        drawn = {**u, **{name: fresh[name] for name in HIDDEN}}
        seen = film(drawn, finding, size)
        fits = (seen - factual).flatten(1).square().mean(dim=1).sqrt() < UNSEEN
        moved = film(drawn, 1 - finding, size) - seen
        first[fits & (kept == 0)] = moved[fits & (kept == 0)]
        total[fits] += moved[fits]
        kept += fits
    mean = torch.where((kept > 0).view(-1, 1, 1, 1), total / kept.clamp_min(1).view(-1, 1, 1, 1), exact)
    return {"oracle_mean": mean, "oracle_draw": first}


def film(u: Mapping[str, Tensor], finding: Tensor, size: int) -> Tensor:
    """The subject's image with that finding, everything else as it is."""
    return simulator.counterfactual(u, {"finding": finding.long()}, size=size, effect="direct").float()


def error(made: Tensor, exact: Tensor) -> float:
    """Sum of the errors' norms over the sum of the effects' norms."""
    distance, size = error_norms(made, exact)
    return float(distance.sum() / size.sum())


if __name__ == "__main__":
    main()
