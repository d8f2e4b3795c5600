"""The flow on the demo's data: exact errors before and after fine-tuning, and the time.

    python benchmarks/flow/run.py --seeds 0         into benchmarks/flow/results.json

Trains `demo.yaml` beside this file, fine-tunes a copy with counterfactual targets, and evaluates both on the test
split. A run that is there
already is not trained again.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from causalcxr.config import load_config
from causalcxr.evaluation.evaluate import evaluate
from causalcxr.runs import open_run
from causalcxr.support.files import write_json
from causalcxr.training.pipeline import train

HERE = Path(__file__).parent
SETTINGS = [f"preset={HERE / 'demo.yaml'}", f"graph={HERE / 'chest.yaml'}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/flow"), help="folder of the runs")
    options = parser.parse_args()
    found = {str(seed): run(options.out / f"seed{seed}", seed) for seed in options.seeds}
    write_json(HERE / "results.json", found)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


def run(folder: Path, seed: int) -> dict[str, Any]:
    """What is found of one seed, before and after fine-tuning; seconds are by stage."""
    trained = train(load_config([*SETTINGS, f"run={folder}", f"train.seed={seed}"]))
    tuned = train(load_config([f"base={trained}", "finetune.targets=counterfactual"]))
    evaluate([f"run={tuned}", f"evaluate.compare=[{trained}]"])
    written = json.loads((tuned / "metrics.json").read_text())
    before, after = written["compared"][trained.name]["metrics"], written["metrics"]
    return {
        "before fine-tuning": _chosen(before) | {"seconds": open_run(trained).provenance["seconds"]},
        "after fine-tuning": _chosen(after) | {"seconds": open_run(tuned).provenance["seconds"]},
    }


def _chosen(metrics: dict[str, Any]) -> dict[str, Any]:
    """Value and interval of what is told of a run."""
    keys = [key for key in metrics if key.startswith("exact/model/") and key.endswith("/error")]
    keys += [key for key in metrics if key.startswith(("overshoot/", "composition/"))]
    return {key: [metrics[key][part] for part in ("value", "low", "high")] for key in [*keys, "off_target"]}


if __name__ == "__main__":
    main()
