"""Time of a study of 40 pairs beside 80 separate `train.py predictors` runs, on the same machine, in turn.

    python benchmarks/bias/throughput.py --samples 4

Four kinds at five q and two seeds, 64 x 64; every network takes the same number of steps. The study runs whole.
Of the 80 separate runs (40 with the bias, 40 twins) `--samples` are run, each with the cohort that it needs, and
their mean is taken 80 times. Such a run trains a predictor and an evaluator, `predictor_alone` not the latter.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from causalcxr.bias.config import StudyConfig
from causalcxr.bias.study import run_study
from causalcxr.config import read_settings
from causalcxr.support.files import write_json

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAIRS = 40
KNOBS = "data.knobs={finding_odds: 0, finding_age: 0, finding_volume: 4}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=4, help="separate runs that are timed")
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = time_study(Path(folder), options.steps)
        runs = [time_run(Path(folder), options.steps, sample) for sample in range(options.samples)]
    separate, alone = (
        2 * PAIRS * sum(run[key] for run in runs) / len(runs) for key in ("wall", "predictor_alone")
    )
    found = {"pairs": PAIRS, "steps": options.steps, "study_seconds": study, "separate_seconds": separate}
    found |= {"predictor_alone_seconds": alone, "ratio": study / separate, "ratio_predictor_alone": study / alone}
    write_json(HERE / "throughput.json", found | {"sampled_runs": runs})
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


def time_study(folder: Path, steps: int) -> float:
    """Seconds of the whole study, films and scores with it, without its layers and report."""
    settings = [f"run={folder / 'study'}", f"data.cache={folder / 'study_cache'}", f"train.steps={steps}", KNOBS]
    settings += [
        "data.train=4000",
        "data.val=500",
        "data.test=500",
        "seeds=[0,1]",
        "mitigate=[]",
        "saliency_rows=0",
    ]
    config = read_settings(StudyConfig, HERE / "study.yaml", settings)
    for kind in ("contrast_and_far", "marker_underdiagnosed"):
        del config.plant[kind]
    config.probe_rows, config.encode_q = 40, [0.5]
    begun = time.perf_counter()
    run_study(config)
    return time.perf_counter() - begun


def time_run(folder: Path, steps: int, sample: int) -> dict[str, float]:
    """One separate run, as somebody would start it: half of the samples with a bias, half without."""
    bias = ["data.planted={group: {q: 0.8, marker: 1.0}}"] if sample % 2 else []
    words = [f"run={folder / f'run{sample}'}", f"data.cache={folder / f'cache{sample}'}", *bias, KNOBS]
    words += [
        "train.stages=[attributes,predictors]",
        "train.attributes.steps=1",
        f"train.predictors.steps={steps}",
    ]
    words += ["data.train=4000", "data.val=500", "data.test=500", "train.predictors.batch_size=64"]
    words += ["model.predictor.widths=[16,32,64]", "model.predictor.augment=0", "train.predictors.clip_norm=5"]
    begun = time.perf_counter()
    subprocess.run([sys.executable, str(ROOT / "train.py"), *words], check=True, capture_output=True)
    wall = time.perf_counter() - begun
    seconds = json.loads((folder / f"run{sample}" / "provenance.json").read_text())["seconds"]
    return {"wall": wall, "predictor_alone": wall - seconds["evaluator"]}


if __name__ == "__main__":
    main()
