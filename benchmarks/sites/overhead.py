"""What the engines cost: the local one against plain training of the same steps, nvflare's simulator against it.

    python benchmarks/sites/overhead.py            a few minutes; writes results.json

One travelling model visits 8 sites of 256 films of 64 x 64, an epoch each, for 4 cycles: 256 steps of 32 films of
the default predictor. Plain training takes as many steps on all films. Both are timed in turn, five times, in this
process; the ratio is that of the medians. The simulator is timed from its start to its end, once, and its weights
are compared with the local engine's.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from run import keep

from causalcxr.building import build_predictor
from causalcxr.data.cohort import Cohort
from causalcxr.data.preparation import open_cohort
from causalcxr.federation.config import SitesConfig
from causalcxr.federation.coordinator import Coordinator
from causalcxr.federation.flare import simulate
from causalcxr.federation.local import LocalEngine
from causalcxr.federation.models import make_run
from causalcxr.federation.sites import make_sites, open_sites_graph
from causalcxr.federation.worker import Worker
from causalcxr.graph import Graph
from causalcxr.support.files import load_tensors
from causalcxr.training.loop import Fit
from causalcxr.training.objectives import PredictorObjective
from causalcxr.training.pipeline import launch

SITES, FILMS, CYCLES, REPEATS = 8, 256, 4, 5


def main() -> None:
    torch.set_flush_denormal(True)
    with tempfile.TemporaryDirectory() as folder:
        config = settings(Path(folder))
        graph = open_sites_graph(config)
        cohort = open_cohort(config.data, graph)
        local_seconds, plain_seconds = [], []
        for i in range(REPEATS):
            local_seconds.append(local(config, graph, cohort, Path(folder) / f"local{i}"))
            plain_seconds.append(plain(config, graph, cohort, Path(folder) / f"plain{i}"))
        begun = time.perf_counter()
        simulate(config, graph, make_sites(config, cohort), Path(folder) / "nvflare", "travelling", 0)
        simulated = time.perf_counter() - begun
        apart = largest_difference(Path(folder) / "nvflare", Path(folder) / "local0")
    found = {
        "engines_agree": apart < 1e-6,
        "largest_difference_of_a_weight": apart,
        "overhead_local": median(local_seconds) / median(plain_seconds),
        "overhead_nvflare": simulated / median(local_seconds),
        "overhead_seconds": {"local": local_seconds, "plain": plain_seconds, "nvflare": simulated},
    }
    keep(found)
    print(found)


def settings(folder: Path) -> SitesConfig:
    config = SitesConfig(run=str(folder), each=FILMS, validate_every=CYCLES, predict=["finding", "age"])
    config.data = replace(config.data, train=SITES * FILMS, val=64, test=64, cache=str(folder / "cache"))
    config.rounds.predictors = CYCLES
    config.train = replace(config.train, device="cpu", threads=1)
    return config


def local(config: SitesConfig, graph: Graph, cohort: Cohort, folder: Path) -> float:
    """Seconds of one travelling model."""
    run = make_run(config, graph, folder, 0)
    worker, sites = Worker(run, config, launch(run.config.train)), make_sites(config, cohort)
    begun = time.perf_counter()
    Coordinator(worker, LocalEngine(worker, sites), config, "travelling", [FILMS] * SITES).train()
    return time.perf_counter() - begun


def plain(config: SitesConfig, graph: Graph, cohort: Cohort, folder: Path) -> float:
    """Seconds of the same number of steps on all films."""
    run, steps = make_run(config, graph, folder, 0), CYCLES * SITES * FILMS // 32
    objective = PredictorObjective(build_predictor("predictor", run.config, graph), "image")
    stage = replace(config.train.predictors, steps=steps, validate_every=steps, checkpoint_every=steps)
    fabric = launch(config.train)
    train, val = cohort.split("train"), cohort.split("val")
    begun = time.perf_counter()
    Fit("predictor", objective, train, val, stage, config.train, fabric, folder, lambda line: None).run()
    return time.perf_counter() - begun


def largest_difference(one: Path, other: Path) -> float:
    """Between the weights of two runs' predictors."""
    first, second = (load_tensors(folder / "predictor.safetensors")[0] for folder in (one, other))
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


if __name__ == "__main__":
    main()
