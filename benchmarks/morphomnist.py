"""Morpho-MNIST: our model beside the published HVAE row, and the attribute counterfactual beside its exact answer.

    python benchmarks/morphomnist.py --run runs/morphomnist      trains preset=morphomnist first if it must
    python benchmarks/morphomnist.py --run runs/digits --preset benchmarks/flow/digits.yaml --out FILE
    ... --guidance 1 1.2 1.4 --split val --rows 1000      of a flow, effectiveness alone, to choose the scale

FILE is benchmarks/results/morphomnist_flow.json for the flow.

Effectiveness needs predictors of the attributes, trained here on the real training images (a small residual
network, kept in the run folder). Intensity is also measured without one, by its definition: the median of the
pixels at or above half of the image's range. Interventions are drawn from the training marginal, one a test row.
Writes benchmarks/results/morphomnist.json.

Published HVAE row: De Sousa Ribeiro et al. 2023, "High Fidelity Image Counterfactuals with Probabilistic Causal
Models", Table 1.
"""

import argparse
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import causalcxr
from causalcxr.config import load_config
from causalcxr.data.cohort import Cohort, Split
from causalcxr.data.preparation import open_cohort
from causalcxr.interventions import draw_other_values
from causalcxr.mechanisms.likelihood import image_to_float
from causalcxr.metrics.composition import grey_levels
from causalcxr.randomness import Draws
from causalcxr.runs import open_run
from causalcxr.scm import StructuralCausalModel
from causalcxr.support.files import load_tensors, save_tensors, write_json
from causalcxr.training.pipeline import train
from causalcxr.training.steps import rows_of_step

log = logging.getLogger("causalcxr.benchmark")
RESULTS = Path(__file__).parent / "results" / "morphomnist.json"
PUBLISHED = {
    "composition_l1": {"1 cycle": 0.438, "10 cycles": 1.550},
    "thickness_mae": {"thickness": 0.086, "intensity": 0.224, "digit": 0.117},
    "intensity_mae": {"thickness": 1.99, "intensity": 3.52, "digit": 2.10},
    "digit_accuracy": {"thickness": 0.985, "intensity": 0.935, "digit": 0.972},
}
BATCH = 250


class Predictor(nn.Module):
    """Digit logits `(B, 10)`, thickness `(B,)` and intensity `(B,)` of an image `(B, 1, 32, 32)` in [0, 1]."""

    def __init__(self, width: int = 32):
        super().__init__()
        blocks: list[nn.Module] = [nn.Conv2d(1, width, 3, padding=1)]
        for wider in (width, 2 * width, 4 * width):
            blocks += [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, wider, 3, stride=2, padding=1)]
            blocks += [nn.BatchNorm2d(wider), nn.ReLU(), nn.Conv2d(wider, wider, 3, padding=1)]
            width = wider
        self.trunk = nn.Sequential(*blocks, nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(width * 16, 128), nn.ReLU(), nn.Linear(128, 12))
        self.register_buffer("scale", torch.tensor([[2.5, 0.63], [158.0, 48.0]]))  # mean, sd of the training split

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        out = self.head(self.trunk(image.contiguous(memory_format=torch.channels_last)))
        (t_mean, t_sd), (i_mean, i_sd) = self.scale
        return {
            "digit": out[:, :10],
            "thickness": t_mean + t_sd * out[:, 10],
            "intensity": i_mean + i_sd * out[:, 11],
        }

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        predicted = self(image_to_float(batch["image"]))
        numbers = [
            F.smooth_l1_loss(predicted[name] / sd, batch[name] / sd, beta=0.05)
            for name, sd in (("thickness", 0.63), ("intensity", 48.0))
        ]
        return F.cross_entropy(predicted["digit"], batch["digit"]) + 5 * sum(numbers)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="runs/morphomnist")
    parser.add_argument("--preset", default="morphomnist", help="of the run, where it must be trained")
    parser.add_argument("--predictor-steps", type=int, default=3000)
    parser.add_argument("--split", choices=("test", "val"), default="test")
    parser.add_argument("--rows", type=int, default=0, help="of the split; 0 takes all")
    parser.add_argument("--composition-rows", type=int, default=1000, help="ten cycles each")
    parser.add_argument("--guidance", type=float, nargs="*", default=[], help="print effectiveness for each scale")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("overrides", nargs="*", help="key=value for the training, as of train.py")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    train(load_config([f"preset={options.preset}", f"run={options.run}", *options.overrides]))
    scm, run = causalcxr.load(options.run), open_run(options.run)
    cohort = open_cohort(run.config.data, run.graph)
    predictor = fit_predictor(cohort, run.folder / "predictor.safetensors", options.predictor_steps)
    split = cohort.split(options.split)
    rows = options.rows or len(split)
    if options.guidance:
        compare_guidance(scm, cohort, predictor, split, rows, options.guidance)
        return
    composed = min(rows, options.composition_rows)
    found = measure(scm, cohort, predictor, split, rows)
    results = {
        "published": PUBLISHED,
        "ours": found | {"composition_l1": composition(scm, split, composed)},
        "attribute_counterfactual": attribute_counterfactual(scm, cohort),
        "parameters": sum(p.numel() for p in scm.parameters()),
        "provenance": run.provenance,
        "training": {"image": vars(run.config.train.image), "seed": run.config.train.seed},
        "n": rows,
        "n_composition": composed,
        "split": options.split,
    }
    write_json(options.out, results)
    log.info("wrote %s", options.out)


def fit_predictor(cohort: Cohort, path: Path, steps: int) -> Predictor:
    """Train on the real training images (Adam, cosine decay), or read what an earlier call trained."""
    torch.manual_seed(100)
    predictor = Predictor().to(memory_format=torch.channels_last)
    if path.exists():
        predictor.load_state_dict(load_tensors(path)[0])
        return predictor.eval()
    rows, batch_size, begun = cohort.split("train"), 128, time.perf_counter()
    optimizer = torch.optim.AdamW(predictor.parameters(), lr=2e-3, weight_decay=0.01, foreach=True)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
        loss = predictor.loss(rows.batch(rows_of_step(100, step, len(rows), batch_size)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 250 == 0:
            log.info("predictor: step %d of %d, loss %.3f", step, steps, loss.item())
    seconds = time.perf_counter() - begun
    save_tensors(path, predictor.state_dict(), {"steps": steps, "seconds": seconds})
    return predictor.eval()


@torch.no_grad()
def measure(
    scm: StructuralCausalModel, cohort: Cohort, predictor: Predictor, split: Split, rows: int
) -> dict[str, Any]:
    """Effectiveness under each intervention, and the predictor's own error on real images."""
    attributes = scm.graph.attributes
    drawn = draw_other_values(scm.graph, split.attributes, cohort.split("train").attributes, seed=0)
    errors: dict[str, list[dict[str, Tensor]]] = {name: [] for name in ("real images", *attributes)}
    for start in range(0, rows, BATCH):
        index = np.arange(start, min(start + BATCH, rows))
        batch = split.batch(index)
        abduction = scm.abduct(batch, seed=start)
        interventions = [{name: drawn[name][index]} for name in attributes]
        errors["real images"].append(score(predictor, batch | {"image": image_to_float(batch["image"])}))
        for name, result in zip(attributes, scm.counterfactual(abduction, do=interventions), strict=True):
            errors[name].append(score(predictor, result))
        log.info("measured %d of %d rows", index[-1] + 1, rows)
    means = {name: {k: _mean([e[k] for e in of]) for k in of[0]} for name, of in errors.items()}
    return {key: {name: means[name][key] for name in means} for key in means["real images"]}


@torch.no_grad()
def composition(scm: StructuralCausalModel, split: Split, rows: int) -> dict[str, float]:
    """L1 (0-255) of null counterfactuals without pixel noise, after one cycle and after ten."""
    starts = range(0, rows, BATCH)
    parts = [
        compose(scm, scm.abduct(split.batch(np.arange(start, min(start + BATCH, rows))), seed=start), start)
        for start in starts
    ]
    return {cycles: _mean([part[cycles] for part in parts]) for cycles in parts[0]}


def compare_guidance(
    scm: StructuralCausalModel,
    cohort: Cohort,
    predictor: Predictor,
    split: Split,
    rows: int,
    scales: Sequence[float],
) -> None:
    """Print the effectiveness of a flow under each scale of its guidance."""
    flow = scm.image_mechanism
    for scale in scales:
        flow.config = replace(flow.config, guidance=scale)
        found = measure(scm, cohort, predictor, split, rows)
        log.info("guidance %g: %s", scale, json.dumps(found))


def score(predictor: Predictor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each row's error against the attributes that its image was made with."""
    predicted = predictor(batch["image"])
    return {
        "thickness_mae": (predicted["thickness"] - batch["thickness"]).abs(),
        "intensity_mae": (predicted["intensity"] - batch["intensity"]).abs(),
        "intensity_mae_by_definition": (measured_intensity(batch["image"]) - batch["intensity"]).abs(),
        "digit_accuracy": (predicted["digit"].argmax(-1) == batch["digit"]).float(),
    }


def measured_intensity(image: Tensor) -> Tensor:
    """Median grey level of the pixels at or above half of the image's range `(B,)`."""
    pixels = (image * 255).flatten(1)
    low, high = pixels.amin(1, keepdim=True), pixels.amax(1, keepdim=True)
    return pixels.where(pixels >= (low + high) / 2, pixels.new_tensor(math.nan)).nanmedian(dim=1).values


def compose(scm: StructuralCausalModel, abduction: Any, seed: int, cycles: int = 10) -> dict[str, Tensor]:
    """L1 (0-255) of the null counterfactual without pixel noise, after one cycle and after more."""
    factual, found = abduction.factual, {}
    image = factual["image"]
    for cycle in range(1, cycles + 1):
        noise = abduction.noise["image"].with_pixel_noise("off", Draws(seed))
        image = scm.mechanism("image")(noise, factual)
        if cycle in (1, cycles):
            found["1 cycle" if cycle == 1 else f"{cycles} cycles"] = grey_levels(image, factual["image"])
        abduction = scm.abduct(factual | {"image": image}, seed=seed + cycle)
    return found


def attribute_counterfactual(scm: StructuralCausalModel, cohort: Cohort) -> dict[str, float]:
    """Error of the intensity under do(thickness) against the exact answer, on the whole test split."""
    test: Split = cohort.split("test")
    a = test.attributes
    drawn = draw_other_values(scm.graph, a, cohort.split("train").attributes, seed=0)["thickness"]
    mechanism = scm.mechanism("intensity")
    with torch.no_grad():
        answer = mechanism(mechanism.abduct(a["intensity"], a), {"thickness": drawn})
    logit = torch.logit(((a["intensity"].double() - 64) / 191).clamp(1e-9, 1 - 1e-9))
    exact = 64 + 191 * torch.sigmoid(logit + 2 * (drawn - a["thickness"]).double())
    return {
        "mean_absolute_error": float((answer - exact).abs().mean()),
        "largest_error": float((answer - exact).abs().max()),
        "mean_change_asked_for": float((exact - a["intensity"]).abs().mean()),
        "n": len(test),
    }


def _mean(parts: list[Tensor]) -> float:
    return float(torch.cat(parts).double().mean())


if __name__ == "__main__":
    main()
