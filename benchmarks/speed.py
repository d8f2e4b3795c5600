"""How fast the parts are that decide how long people wait. Ratios of two ways, timed in turn in one run.

    python benchmarks/speed.py            a table
    python benchmarks/speed.py --json     one JSON object

`batched_interventions`: eight interventions on one abduction, all decoded together, against eight
counterfactuals made one by one in the published way (each: abduction, one pass for the reconstruction, one for
the counterfactual), for every image mechanism. `audit_images`: the images of an audit of 2,000 subjects and
four contrasts with their placebos, against a counterfactual from the image for each side. `cache_read`: random
batches from the memory-mapped cache against decoding the JPEGs. `training_step`: how often one step of the
VAE's image stage calls encoder and decoder. `finetune_step`: one step of its fine-tuning against the published
way (two passes of the encoder, four of the decoder, a trunk for every head).
"""

import argparse
import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from cache_read import cache_read
from compile import model

from causalcxr.audit.config import AuditConfig
from causalcxr.audit.contrasts import choose_contrasts, levels_of
from causalcxr.audit.making import Maker
from causalcxr.building import build_predictor
from causalcxr.config import load_config
from causalcxr.data.cohort import Split
from causalcxr.interventions import draw_one_each
from causalcxr.randomness import Draws
from causalcxr.scm import StructuralCausalModel
from causalcxr.training.config import FinetuneConfig
from causalcxr.training.finetune import FinetuneObjective
from causalcxr.training.objectives import ImageObjective
from causalcxr.training.targets import Pair
from causalcxr.values import encode_intervention

INTERVENTIONS: list[dict[str, Any]] = [
    *({"sex": label} for label in ("female", "male")),
    *({"race": label} for label in ("white", "asian", "black")),
    *({"age": age} for age in (30, 80)),
    {"finding": "Pleural Effusion"},
]
PRESETS = {"hvae": "hvae64", "flow": "quickstart"}  # one for each image mechanism


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    results = {
        "batched_interventions": {
            mechanism: batched_interventions(options.repeats, preset) for mechanism, preset in PRESETS.items()
        },
        "audit_images": audit_images(),
        "training_step": training_step(),
        "finetune_step": finetune_step(options.repeats),
        "cache_read": cache_read(),
        "threads": torch.get_num_threads(),
    }
    sys.stdout.write(json.dumps(results, indent=None if options.json else 2) + "\n")


@torch.no_grad()
def batched_interventions(repeats: int, preset: str = PRESETS["hvae"], rows: int = 8) -> dict[str, Any]:
    """Seconds of both ways at the preset's size, their ratio, and the peak memory beside each."""
    scm = _model(preset)
    batch = scm.sample(rows, seed=0)

    def ours() -> None:
        scm.counterfactual(scm.abduct(batch, seed=0), do=INTERVENTIONS)

    def published() -> None:
        for do in INTERVENTIONS:
            abduction = scm.abduct(batch, seed=0)
            scm.image_mechanism(abduction.noise["image"], abduction.factual)  # the reconstruction
            encoded = encode_intervention(scm.graph, do, rows)
            scm.image_mechanism(abduction.noise["image"], {**abduction.factual, **encoded})

    slow, fast = _in_turn(published, ours, repeats)
    return {
        "ratio": slow / fast,
        "one_by_one_seconds": slow,
        "batched_seconds": fast,
        "one_by_one_peak_mib": _peak_memory(published),
        "batched_peak_mib": _peak_memory(ours),
        "rows": rows,
        "interventions": len(INTERVENTIONS),
        "preset": preset,
    }


@torch.no_grad()
def audit_images(subjects: int = 2000, rows: int = 64, preset: str = PRESETS["flow"]) -> dict[str, Any]:
    """Seconds of both ways, batch by batch in turn, their ratio, and the peak memory beside each."""
    scm = _model(preset)
    people = scm.sample(subjects, seed=0)
    contrasts = choose_contrasts(scm.graph, AuditConfig(attributes=["sex", "race"]), people)
    common = {name: people[name][0] for name in scm.graph.attributes}
    split = SimpleNamespace(batch=lambda rows: {name: values[rows] for name, values in people.items()})
    maker = Maker(scm, cast(Split, split), levels_of(contrasts), common, AuditConfig())
    seconds = {"ours": 0.0, "one_by_one": 0.0}

    def one_by_one(chosen: np.ndarray) -> None:
        batch = split.batch(chosen)
        for contrast in contrasts:
            for value in (contrast.reference, contrast.other) * 2:  # both sides, and the placebo of each
                abduction = scm.abduct(batch, seed=0)
                do = encode_intervention(scm.graph, {contrast.attribute: value}, len(chosen))
                scm.image_mechanism(abduction.noise["image"], {**abduction.factual, **do})

    ways: dict[str, Callable[[np.ndarray], Any]] = {"ours": maker.make, "one_by_one": one_by_one}
    batches = [np.arange(start, min(start + rows, subjects)) for start in range(0, subjects, rows)]
    for chosen in batches:
        for name, way in ways.items():
            begun = time.perf_counter()
            way(chosen)
            seconds[name] += time.perf_counter() - begun
    return {
        "ratio": seconds["one_by_one"] / seconds["ours"],
        "seconds": seconds,
        "peak_mib": {name: _peak_memory(lambda way=way: way(batches[0])) for name, way in ways.items()},
        "subjects": subjects,
        "contrasts": len(contrasts),
        "preset": preset,
    }


def training_step(preset: str = PRESETS["hvae"]) -> dict[str, int]:
    """Calls of encoder and decoder in one step of the VAE's image stage."""
    scm = _model(preset).requires_grad_(True)
    batch, calls = scm.sample(2, seed=0), {"encoder": 0, "decoder": 0}
    for name in calls:
        scm.mechanism("image").get_submodule(name).register_forward_hook(
            lambda *_, name=name: calls.update({name: calls[name] + 1})
        )
    sum(loss.mean() for loss in ImageObjective(scm)(batch, Draws(0)).values()).backward()  # type: ignore[union-attr]
    return calls


def finetune_step(repeats: int, preset: str = PRESETS["hvae"], rows: int = 16) -> dict[str, Any]:
    """Seconds of one step, forward and backward, both ways with the same loss; and the passes that ours takes."""
    objective, batch = _finetuning(preset, rows)
    image_mechanism, frozen = objective.mechanism, objective._frozen
    assert frozen.targets is not None
    predictor = frozen.targets.predictor
    calls = {"encoder": 0, "decoder": 0, "trunk": 0}

    def ours() -> None:
        sum(loss.mean() for loss in objective(batch, Draws(0)).values()).backward()  # type: ignore[union-attr]

    def published() -> None:
        draws, image = Draws(0), batch["image"]
        inferred = image_mechanism.infer(image, batch, draws)
        do, rows_of = draw_one_each(objective.intervene, objective.marginals, rows, draws)
        attributes = frozen.scm.intervene(batch, do, rows_of, draws)
        noise = image_mechanism.infer(image, batch, draws).noise
        rebuilt = image_mechanism(noise, batch)
        made = image_mechanism(noise, attributes.counterfactual)
        pair = Pair(inferred.image, made, attributes)
        losses = [frozen.targets.losses(pair)[variable.name].mean() for variable in predictor.variables]
        total = torch.stack(losses).sum() + inferred.loss.mean() + 0 * rebuilt.mean()
        total.backward()

    parts = {"encoder": image_mechanism.encoder, "decoder": image_mechanism.decoder, "trunk": predictor.trunk}
    hooks = [
        module.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
        for name, module in parts.items()
    ]
    ours()
    for hook in hooks:
        hook.remove()
    slow, fast = _in_turn(published, ours, repeats)
    return {
        "ratio": slow / fast,
        "published_seconds": slow,
        "ours_seconds": fast,
        "published_peak_mib": _peak_memory(published),
        "ours_peak_mib": _peak_memory(ours),
        "calls": calls,
        "rows": rows,
        "preset": preset,
    }


def _finetuning(preset: str, rows: int) -> tuple[FinetuneObjective, dict[str, torch.Tensor]]:
    config, scm = load_config([f"preset={preset}"]), _model(preset)
    batch = scm.sample(rows, seed=0)
    predictor = build_predictor("predictor", config, scm.graph)
    marginals = {name: batch[name] for name in scm.graph.attributes}
    objective = FinetuneObjective(scm, predictor, FinetuneConfig(targets="soft", augment=0), marginals, bound=0.0)
    return objective.train(), batch


def _model(preset: str) -> StructuralCausalModel:
    return model(preset).requires_grad_(False)


def _in_turn(slow: Callable[[], None], fast: Callable[[], None], repeats: int) -> tuple[float, float]:
    """Median seconds of both, run alternately so that a drift of the machine's speed hits both."""
    seconds: dict[str, list[float]] = {"slow": [], "fast": []}
    for repeat in range(repeats + 1):
        for name, function in (("slow", slow), ("fast", fast)):
            begun = time.perf_counter()
            function()
            if repeat:  # the first round warms up
                seconds[name].append(time.perf_counter() - begun)
    return statistics.median(seconds["slow"]), statistics.median(seconds["fast"])


def _peak_memory(function: Callable[[], None]) -> float | None:
    """MiB by which resident memory rises at most while `function` runs; None where that is unknown (not Linux)."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # memory kept from earlier calls would hide what this one needs
        reset.write_text("5")  # forgets the peak so far
        before = _status_mib(status, "VmRSS")
        function()
        return _status_mib(status, "VmHWM") - before
    except OSError:
        return None


def _status_mib(status: Path, key: str) -> float:
    line = next(line for line in status.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
