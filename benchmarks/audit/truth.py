"""The audit's effects against the truth, of classifiers that lean on an attribute to a planted extent or not.

    python benchmarks/audit/truth.py runs/flow/flow0 runs/flow/flow1 ...    into results.json beside this file
    python benchmarks/audit/truth.py runs/flow/flow0 --invariant 6000       only the invariant ones, on more people

A run is one of the simulated data at 64 x 64, its model the generator. 24 small networks are trained on its
training images, to see the finding, but a share of their labels says whether the patient is black, male, or
older than the median. So they lean on exposure, breast shadow, or age to a degree that is planted. Six are
invariant by construction: three know the true severity, with noise, and three networks see images whose
exposure and contrast are taken out (their log exposure is standardised). The true effect of a contrast is the
mean change of the score between the simulator's own counterfactuals, of the same 2,000 people, who are in no
other split.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import causalcxr
from causalcxr import simulator
from causalcxr.audit.audit import audit_model
from causalcxr.audit.conclusion import Found, conclude
from causalcxr.audit.config import AuditConfig
from causalcxr.audit.contrasts import choose_contrasts
from causalcxr.audit.material import Material, gather
from causalcxr.audit.scores import Scores
from causalcxr.data.cohort import Cohort
from causalcxr.data.preparation import open_cohort
from causalcxr.mechanisms.likelihood import image_to_float
from causalcxr.metrics.truth import Truth, find_truth
from causalcxr.predictors.networks import PredictorConfig, build_trunk
from causalcxr.predictors.predictor import Predictor
from causalcxr.runs import open_run
from causalcxr.scm import StructuralCausalModel
from causalcxr.support.files import load_tensors, save_tensors, write_json
from causalcxr.training.loop import rows_of_step

RESULTS = Path(__file__).parent / "results.json"
SHARES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6)  # of the labels that tell of the attribute
LEANING = [(name, share) for name in ("race", "sex", "age") for share in SHARES]
STANDARDISED = [("standardised", float(seed)) for seed in range(3)]
ALL = [*LEANING, *STANDARDISED]
SEVERITY_NOISE = (0.3, 0.6, 1.0)
PEOPLE, STEPS, BATCH = 2000, 400, 64
CONTRASTS = ["race=white..black", "sex=female..male", "age=40..75"]


class Classifier(nn.Module):
    """Log-odds `(B,)` of images `(B, 1, H, W)` in [0, 1], with exposure and contrast taken out or not."""

    def __init__(self, standardised: bool):
        super().__init__()
        self.standardised = standardised
        self.trunk, width = build_trunk(PredictorConfig(widths=[16, 32, 64]), 1)
        self.head = nn.Linear(width, 1)

    def forward(self, image: Tensor) -> Tensor:
        if self.standardised:
            level = torch.logit(image.clamp(1 / 510, 1 - 1 / 510))
            image = (level - level.mean(dim=(2, 3), keepdim=True)) / level.std(dim=(2, 3), keepdim=True)
        return self.head(self.trunk(image.contiguous(memory_format=torch.channels_last)))[:, 0]


def fit(cohort: Cohort, about: str, share: float, folder: Path) -> Classifier:
    """A classifier of the finding that leans on an attribute, trained, or read from the folder."""
    number = ALL.index((about, share))
    torch.manual_seed(number)
    model, path = Classifier(about == "standardised"), folder / f"{about}-{share:g}.safetensors"
    if path.exists():
        model.load_state_dict(load_tensors(path)[0])
        return model.eval()
    train = cohort.split("train")
    labels = train.attributes["finding"].float()
    if about != "standardised":
        values = train.attributes[about]
        cue = {"race": values == 2, "sex": values == 1, "age": values > values.median()}[about]
        told = torch.rand(len(labels), generator=torch.Generator().manual_seed(number)) < share
        labels = torch.where(told, cue.float(), labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, STEPS)
    for step in range(STEPS):
        rows = rows_of_step(number, step, len(train), BATCH)
        odds = model(image_to_float(train.batch(rows)["image"]))
        loss = F.binary_cross_entropy_with_logits(odds, labels[torch.from_numpy(rows)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    save_tensors(path, model.state_dict(), {"about": about, "share": share})
    return model.eval()


@torch.no_grad()
def true_effects(classifiers: list[Classifier], truth: Truth, material: Material) -> np.ndarray:
    """Mean true shift of every classifier under every contrast, `(classifiers, contrasts)`."""
    ids = torch.from_numpy(material.ids)
    totals = np.zeros((len(classifiers), len(material.contrasts)))
    for rows in ids.split(250):
        for j, contrast in enumerate(material.contrasts):
            sides = [truth.images(rows, {contrast.attribute: v}) for v in (contrast.reference, contrast.other)]
            images = (255 * torch.cat(sides)).round() / 255
            for i, model in enumerate(classifiers):
                before, after = model(images).chunk(2)
                totals[i, j] += float((after - before).double().sum())
    return totals / len(ids)


def severity_scores(truth: Truth, material: Material) -> dict[str, Scores]:
    """Twice the true severity with noise of their own for every image."""
    noise = simulator.noise(truth.seed, torch.from_numpy(material.ids))
    finding = torch.from_numpy(material.attributes["finding"])
    severity = 2 * simulator.severity(noise, {"finding": finding}).numpy()[:, None]
    levels, found = len(material.levels), {}
    for i, spread in enumerate(SEVERITY_NOISE):
        drawn = severity + spread * np.random.default_rng(i).normal(size=(len(severity), 1 + 2 * levels))
        found[f"severity {spread:g}"] = Scores(drawn[:, 0], drawn[:, 1 : 1 + levels], drawn[:, 1 + levels :])
    return found


def measure(
    folder: str, models: Path, cache: Path, people: int = PEOPLE, kinds: list[tuple[str, float]] = ALL
) -> list[dict[str, Any]]:
    """One line for every classifier and contrast."""
    run, scm = open_run(folder), causalcxr.load(folder)
    cohort = open_cohort(replace(run.config.data, test=people), run.graph)
    truth = find_truth(cohort)
    assert truth is not None
    classifiers = [fit(cohort, about, share, models) for about, share in kinds]
    config = AuditConfig(contrasts=CONTRASTS)

    material, scores, exact = _asked(
        scm, cohort, classifiers, truth, config, run.load_predictor("evaluator"), cache
    )
    lines = []
    for found in conclude(material, scores, dict.fromkeys(scores, 0.0), config):
        i, j = int(found.score.split()[1]) - 1, material.contrasts.index(found.contrast)
        lines.append(_line(found, *kinds[i], float(exact[i, j]), float(scores[found.score].real.std())))
    known = severity_scores(truth, material)
    for found in conclude(material, known, dict.fromkeys(known, 0.0), config):
        spread = float(known[found.score].real.std())
        lines.append(_line(found, "severity", float(found.score.split()[1]), 0.0, spread))
    return lines


def _asked(
    scm: StructuralCausalModel,
    cohort: Cohort,
    classifiers: list[Classifier],
    truth: Truth,
    config: AuditConfig,
    evaluator: Predictor,
    cache: Path,
) -> tuple[Material, dict[str, Scores], np.ndarray]:
    """Material, scores and true effects; the last two are kept, for they take most of the time."""

    def ask(images: Tensor) -> Tensor:
        return torch.stack([model(images) for model in classifiers], dim=1)

    if cache.exists():
        kept = {name: tensor.numpy() for name, tensor in load_tensors(cache)[0].items()}
        contrasts = choose_contrasts(scm.graph, config, cohort.split("train").attributes)
        material = gather(scm, cohort, contrasts, evaluator, config, lambda made: None)
        levels = len(material.levels)
        scores = {
            f"score {i + 1}": Scores(of[:, 0], of[:, 1 : 1 + levels], of[:, 1 + levels :])
            for i, of in enumerate(kept["scores"])
        }
        return material, scores, kept["exact"]
    audit = audit_model(scm, cohort, ask, config, evaluator, kind="values")
    exact = true_effects(classifiers, truth, audit.material)
    stacked = [np.column_stack([s.real, s.made, s.placebo]) for s in audit.scores.values()]
    save_tensors(cache, {"scores": torch.tensor(np.stack(stacked)), "exact": torch.tensor(exact)}, {})
    return audit.material, dict(audit.scores), exact


def _line(found: Found, about: str, share: float, true: float, spread: float) -> dict[str, Any]:
    assert found.effect is not None and found.dependence is not None
    return {
        "about": about,
        "share": share,
        "attribute": found.contrast.attribute,
        "true": true,
        **{name: vars(found.effect.statistics[name]) for name in ("shift", "checked", "absolute")},
        "spread": spread,
        "verdict": found.verdict.word,
        "reason": found.verdict.reason,
        "encode_p": found.dependence.p,
        "encode_effect": found.dependence.effect,
        "gates": {gate.name: gate.value for gate in found.gates},
    }


def summary(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Rank correlation, coverage, slope by attribute over the networks; and what is said of invariant ones."""
    found: dict[str, Any] = {}
    for name in ("race", "sex", "age"):
        chosen = [x for x in lines if x["attribute"] == name and x["about"] != "severity"]
        own = [x for x in chosen if x["about"] == name]
        found[name] = {
            "spearman": _spearman(chosen),
            "spearman_own": _spearman(own),
            "coverage": _coverage(chosen, "checked"),
            "coverage_of_shift": _coverage(chosen, "shift"),
            "spearman_of_checked": _spearman(chosen, "checked"),
            "slope": float(
                sum(x["true"] * x["shift"]["value"] for x in chosen) / sum(x["true"] ** 2 for x in chosen)
            ),
            "n": len(chosen),
        }
    return found | {"invariant": invariant_words(lines)}


def invariant_words(lines: list[dict[str, Any]]) -> dict[str, int]:
    """How often each verdict falls on a classifier that does not depend on the attribute."""
    invariant = [x for x in lines if x["about"] == "severity"]
    invariant += [x for x in lines if (x["about"], x["attribute"]) == ("standardised", "race")]
    words = [x["verdict"] for x in invariant]
    return {word: words.count(word) for word in sorted(set(words))}


def _coverage(lines: list[dict[str, Any]], name: str) -> float:
    """How often the 95 % interval holds the true effect."""
    return float(np.mean([x[name]["low"] <= x["true"] <= x[name]["high"] for x in lines]))


def _spearman(lines: list[dict[str, Any]], name: str = "shift") -> float:
    pairs = np.array([[x["true"], x[name]["value"]] for x in lines])
    ranks = pairs.argsort(axis=0).argsort(axis=0)
    return float(np.corrcoef(ranks.T)[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", help="trained runs on the simulator's data at 64 x 64")
    parser.add_argument("--models", type=Path, default=Path("runs/audited"), help="folder of the classifiers")
    parser.add_argument("--invariant", type=int, default=0, metavar="PEOPLE", help="these alone, on more people")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    key = f"invariant, {options.invariant} people" if options.invariant else "classifiers"
    kinds = STANDARDISED if options.invariant else ALL
    by_run = results.setdefault(key, {})
    for folder in options.runs:
        name = Path(folder).name
        cache = options.models / f"scores of {name}, {options.invariant or PEOPLE} people.safetensors"
        lines = measure(folder, options.models, cache, options.invariant or PEOPLE, kinds)
        by_run[name] = lines
        write_json(RESULTS, results)
        print(
            name, json.dumps(invariant_words(lines) if options.invariant else summary(lines), indent=1), flush=True
        )


if __name__ == "__main__":
    main()
