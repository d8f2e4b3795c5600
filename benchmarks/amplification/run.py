"""Attribute amplification: one model, fine-tuned every way at equal steps, measured against the truth.

    python benchmarks/amplification/run.py                     all seeds, then the table and the figures
    python benchmarks/amplification/run.py --seeds 1           one seed (two at a time fill two cores)

For each seed of everything that is trained: train a model and two classifiers,
fine-tune the model with each kind of targets, measure all on the same test subjects by the same evaluator, which
never took part. Killed, the same command goes on. Writes results.json, contrast.png and gallery.png beside this
file once every seed named by --summary is there. `none` is not fine-tuned but trained on for as many steps;
`guidance_1` and `guidance_2` are the model before fine-tuning with the guidance of its flow at these scales. With
`--modes`, `hard_held` and `soft_held` can be asked for, too: the same with the settings of `counterfactual`, under
which the likelihood is held.
"""

import argparse
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from causalcxr.config import load_config
from causalcxr.evaluation.evaluate import evaluate
from causalcxr.report.contrast import contrast_figure
from causalcxr.report.figures import save_png
from causalcxr.runs import open_run
from causalcxr.support.files import write_json
from causalcxr.training.pipeline import train

HERE = Path(__file__).parent
# As in the published method: the likelihood is hardly felt, and the predictor sees each image as it is.
PUBLISHED = [
    "finetune.tolerance=0.5",
    "finetune.multiplier_rate=5",
    "finetune.multiplier_floor=0",
    "finetune.intervened_weight=1",
    "finetune.augment=0",
]
# Every way of fine-tuning; what is not said is as by default.
VARIANTS = {
    "none": ["finetune.targets=none"],
    **{mode: [f"finetune.targets={mode}", *PUBLISHED] for mode in ("hard", "soft", "intervened_only")},
    "counterfactual": ["finetune.targets=counterfactual"],
    **{f"{mode}_held": [f"finetune.targets={mode}"] for mode in ("hard", "soft")},
}
# The model before fine-tuning, its flow guided at another scale.
GUIDANCE = {f"guidance_{scale}": scale for scale in (1, 2)}
MODES = ("none", "hard", "soft", "counterfactual", *GUIDANCE)
log = logging.getLogger("causalcxr.benchmark")
# Two-sided 95 % quantile of Student's t by the number of seeds.
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
Measured = Mapping[str, Mapping[str, Any]]  # metrics by name, of one run


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="cpu.yaml")
    parser.add_argument("--runs", type=Path, default=Path("runs/amplification"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="to run now; none only summarises")
    parser.add_argument("--summary", type=int, nargs="+", default=[0, 1, 2], help="seeds of the table")
    parser.add_argument("--modes", nargs="+", choices=[*VARIANTS, *GUIDANCE], default=MODES)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("overrides", nargs="*", help="key=value for every training")
    options = parser.parse_args()
    for seed in options.seeds:
        run_seed(seed, str(HERE / options.preset), options.runs, options.modes, options.overrides)
    folders = {seed: options.runs / f"seed{seed}" for seed in options.summary}
    if all(is_measured(folder, options.modes) for folder in folders.values()):
        summarise(folders, options.modes, options.out)
    else:
        log.info("no summary yet: seeds %s are needed", ", ".join(map(str, options.summary)))


def run_seed(seed: int, preset: str, runs: Path, modes: Sequence[str], overrides: Sequence[str]) -> None:
    """Base model, classifiers, every fine-tuning, and the measurement of all of them."""
    base = runs / f"seed{seed}"
    settings = [f"preset={preset}", f"train.seed={seed}", *overrides]
    train(load_config([*settings, f"run={base}"]))
    for name in modes:
        if name in GUIDANCE:
            copy_with_guidance(base, Path(f"{base}-{name}"), GUIDANCE[name])
        else:
            train(load_config([f"base={base}", f"run={base}-{name}", *VARIANTS[name], *overrides]))
    if not is_measured(base, modes):
        compared = ",".join(f"{base}-{name}" for name in modes)
        evaluate([f"run={base}", f"evaluate.compare=[{compared}]"])


def copy_with_guidance(base: Path, folder: Path, scale: float) -> None:
    """The same model in a run folder of its own, whose configuration has another scale of guidance."""
    if not folder.exists():
        shutil.copytree(base, folder)
        config = OmegaConf.load(folder / "config.yaml")
        OmegaConf.update(config, "model.flow.guidance", scale)
        OmegaConf.save(config, folder / "config.yaml")


def is_measured(base: Path, modes: Sequence[str]) -> bool:
    """Whether a seed has been evaluated with all of these modes."""
    path = base / "metrics.json"
    compared = json.loads(path.read_text())["compared"] if path.exists() else {}
    return all(f"{base.name}-{name}" in compared for name in modes)


def summarise(folders: Mapping[int, Path], names: Sequence[str], out: Path) -> None:
    """The table of these modes, means over seeds with Student's interval, and the figures."""
    read = {seed: json.loads((folder / "metrics.json").read_text()) for seed, folder in folders.items()}
    first = open_run(next(iter(folders.values())))
    modes: dict[str, list[Measured]] = {"before": [found["metrics"] for found in read.values()]}
    bounds: dict[str, list[dict[str, float]]] = {}
    for name in names:
        of_mode = [found["compared"][f"seed{seed}-{name}"] for seed, found in read.items()]
        modes[name] = [one["metrics"] for one in of_mode]
        bounds[name] = [one["finetune"] for one in of_mode]
    results = {
        "modes": {mode: describe(measured, bounds.get(mode, [])) for mode, measured in modes.items()},
        "evaluator": {key: over_seeds(modes["before"], key) for key in modes["before"][0] if "classifier/" in key},
        "calibration": {
            key: over_seeds(modes["before"], key) for key in modes["before"][0] if "calibration/" in key
        },
        "seeds": len(folders),
        "settings": {name: VARIANTS.get(name, [f"model.flow.guidance={GUIDANCE.get(name)}"]) for name in names},
        "steps": first.config.train.finetune.steps,
        "batch_size": first.config.train.finetune.batch_size,
        "device": first.provenance["device"],
        "n_test": next(iter(read.values()))["rows_of_images"],
        "intervals": "Student's t over seeds, all with the same test subjects; of one seed, over subjects",
    }
    if "counterfactual" in names:
        for mode in results["modes"].values():
            mode["exact_error_minus_counterfactual"] = paired(mode, results["modes"]["counterfactual"])
    write_json(out / "results.json", results)
    averaged = {mode: _as_metrics(measured) for mode, measured in modes.items()}
    figure = contrast_figure({name.replace("_", " "): averaged[name] for name in names})
    assert figure is not None
    save_png(figure, out / "contrast.png")
    shutil.copy(first.folder / "figures" / "contrast_gallery.png", out / "gallery.png")
    log.info("wrote %s", out / "results.json")


def describe(measured: Sequence[Measured], finetuned: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """One mode in numbers."""
    causes = [key.split("/")[1] for key in measured[0] if key.startswith("overshoot/")]
    seen = [(k, a) for k in causes for a in causes if a != k]

    def each(pattern: str, visible: Callable[[str], bool] = lambda key: True) -> dict[str, Any]:
        return {k: over_seeds(measured, pattern.format(k)) for k in causes if visible(pattern.format(k))}

    def has_value(key: str) -> bool:
        return all(one[key]["value"] is not None for one in measured)

    alphas = [[abs(_value(one, f"exact/model/{k}/alpha/{a}")) for k, a in seen] for one in measured]
    return {
        "off_target_abs_points": over_seeds(measured, "off_target"),
        "effectiveness": each("effectiveness/{}"),
        "overshoot_points": each("overshoot/{}"),
        "exact_error": each("exact/model/{}/error", has_value),
        "alpha": {k: over_seeds(measured, f"exact/model/{k}/alpha/{k}") for k in causes},
        "alpha_off_target": student([float(np.nanmean(one)) for one in alphas]),
        "matrix": {
            k: {a: over_seeds(measured, f"amplification/{k}/{a}") for a in causes if a != k} for k in causes
        },
        "drift_beyond_exact": {
            k: {
                a: student([_value(m, f"drift/{k}/{a}") - _value(m, f"drift_exact/{k}/{a}") for m in measured])
                for a in causes
                if a != k
            }
            for k in causes
        },
        "realism": each("realism/{}"),
        "held_out_loss": over_seeds(measured, "image/training_loss"),
        "finetune": list(finetuned),
    }


def paired(mode: Mapping[str, Any], best: Mapping[str, Any]) -> dict[str, Any]:
    """The exact error of a mode minus that of another, seed by seed: what the seeds share falls out."""
    return {
        k: student([a - b for a, b in zip(error["per_seed"], best["exact_error"][k]["per_seed"], strict=True)])
        for k, error in mode["exact_error"].items()
    }


def over_seeds(measured: Sequence[Measured], key: str) -> dict[str, Any]:
    """A metric's mean over seeds; of one seed, its own interval over subjects."""
    if len(measured) == 1 and measured[0][key]["value"] is not None:
        value, low, high = (measured[0][key][part] for part in ("value", "low", "high"))
        return {"value": value, "low": low, "high": high, "per_seed": [value]}
    return student([_value(one, key) for one in measured])


def student(values: Sequence[float]) -> dict[str, Any]:
    """Mean over seeds with Student's 95 % interval."""
    mean = float(np.mean(values))
    half = STUDENT[len(values)] * float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return {"value": mean, "low": mean - half, "high": mean + half, "per_seed": list(values)}


def _value(measured: Measured, key: str) -> float:
    value = measured[key]["value"]
    return np.nan if value is None else float(value)


def _as_metrics(measured: Sequence[Measured]) -> dict[tuple[str, ...], dict[str, Any]]:
    """The means over seeds as the figures take metrics."""
    shown = ("off_target", "overshoot", "amplification")
    return {tuple(key.split("/")): over_seeds(measured, key) for key in measured[0] if key.split("/")[0] in shown}


if __name__ == "__main__":
    main()
