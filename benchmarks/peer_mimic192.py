"""Speed and memory at 192 x 192, in training and for counterfactuals, beside causal-gen's preset mimic192.

    git clone https://github.com/biomedia-mira/causal-gen
    python benchmarks/peer_mimic192.py --peer causal-gen/src

Untrained networks, float32 on the CPU. A training step is forward, backward and AdamW. A counterfactual is an
abduction, and one pass for one intervention; the peer's is that of its own trainer: encoder and decoder, then the
decoder from the latents under the factual and under the counterfactual parents. Each way has a process of its own,
and they take turns. Writes benchmarks/results/peer_mimic192.json.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from causalcxr.support.files import write_json

RESULTS = Path(__file__).parent / "results" / "peer_mimic192.json"
WAYS = ("peer", "hvae192", "flow192")
TURNS = 2
STEPS = 3  # to one timing, after one to warm up
PARENTS = 7  # numbers that describe sex, race, age and the finding


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", required=True, help="the folder src of causal-gen")
    parser.add_argument("--rows", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--one", nargs=2, metavar=("WAY", "ROWS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        way, rows = options.one[0], int(options.one[1])
        sys.stdout.write(json.dumps(measure(way, rows, options.peer)))
        return
    results: dict[str, Any] = {"threads": torch.get_num_threads()}
    for rows in options.rows:
        found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(TURNS):
            for way in WAYS:
                command = [sys.executable, __file__, "--peer", options.peer, "--one", way, str(rows)]
                found[way].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
        results[f"batches of {rows}"] = {way: _medians(of) for way, of in found.items()}
        write_json(RESULTS, results)
    sys.stdout.write(json.dumps(results, indent=2) + "\n")


def measure(way: str, rows: int, peer: str) -> dict[str, float]:
    """Images a second of both kinds of work, and by how many MiB each lets the memory's peak rise."""
    torch.set_flush_denormal(True)
    train, counterfactual, parameters = _peer(rows, peer) if way == "peer" else _ours(way, rows)
    before = _peak_mib()
    seconds = _seconds(counterfactual)
    after = _peak_mib()
    trained = _seconds(train)
    return {
        "counterfactuals_a_second": rows / seconds,
        "counterfactual_mib": after - before,
        "trained_images_a_second": rows / trained,
        "training_mib": _peak_mib() - before,
        "million_parameters": parameters / 1e6,
    }


def _ours(preset: str, rows: int) -> tuple[Callable[[], None], Callable[[], None], int]:
    from compile import model

    from causalcxr.randomness import Draws
    from causalcxr.training.objectives import ImageObjective

    scm = model(preset)
    batch, objective = scm.sample(rows, seed=0), ImageObjective(scm)
    step = _step(objective, lambda: objective(batch, Draws(0))["image"].mean())

    @torch.no_grad()
    def counterfactual() -> None:
        scm.counterfactual(batch, {"sex": "male"}, effect="direct", seed=0)

    return step, counterfactual, sum(p.numel() for p in objective.parameters())


def _peer(rows: int, folder: str) -> tuple[Callable[[], None], Callable[[], None], int]:
    sys.path.insert(0, folder)
    import hps  # pyright: ignore[reportMissingImports]
    import vae  # pyright: ignore[reportMissingImports]

    parser = argparse.ArgumentParser()
    hps.add_arguments(parser)
    settings = vars(parser.parse_args([])) | vars(hps.HPARAMS_REGISTRY["mimic192"])
    settings |= {"hps": "mimic192", "context_dim": PARENTS, "concat_pa": True}
    model = vae.HVAE(SimpleNamespace(**settings))
    image, parents = 2 * torch.rand(rows, 1, 192, 192) - 1, torch.rand(rows, PARENTS)
    maps = parents[..., None, None].expand(-1, -1, 192, 192)
    step = _step(model, lambda: model(image, maps)["elbo"])

    @torch.no_grad()
    def counterfactual() -> None:
        latents = model.abduct(image, maps)
        model.forward_latents(latents, maps)
        model.forward_latents(latents, maps.flip(0))

    return step, counterfactual, sum(p.numel() for p in model.parameters())


def _step(module: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _seconds(work: Callable[[], None]) -> float:
    work()
    begun = time.perf_counter()
    for _ in range(STEPS):
        work()
    return (time.perf_counter() - begun) / STEPS


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _medians(of: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median([one[name] for one in of]) for name in of[0]}


if __name__ == "__main__":
    main()
