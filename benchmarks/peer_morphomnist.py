"""Held-out bits per dimension against training time on Morpho-MNIST, next to causal-gen's.

    CAUSALCXR_DATA=/data python benchmarks/peer_morphomnist.py --seconds 600 --seed 0 --out result.json

Protocol. Morpho-MNIST's t10k part, padded to 32 x 32: training on rows 0 to 8,999, testing on rows 9,000 to 9,511
with one draw of the evidence lower bound and the averaged weights. Batch 32, float32. Seconds are processor time
of one thread spent on training (drawing batches included, testing excluded), so that other work on the machine
counts little.

The peer is biomedia-mira/causal-gen with its own `morphomnist` preset (model, AdamW 1e-3 with betas .9 and .9,
warm-up, clipping, moving average, random crops as in its data set) on the same rows, machine and clock, run on its
own core. `PEER` holds what its plain weights reached; its moving average, an average over all steps at first, is
worse that early. Its curve ends at 360 seconds, before it reached 1.17.
"""

import argparse
import json
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from causalcxr.data.readers.morphomnist import read_idx
from causalcxr.graph import load_graph
from causalcxr.mechanisms.hvae import HVAE, HVAEConfig
from causalcxr.mechanisms.likelihood import bits_per_dimension
from causalcxr.randomness import Draws
from causalcxr.support.files import write_json

TRAIN, TEST = slice(0, 9000), slice(9000, 9512)
MODEL = HVAEConfig(
    stem=2,
    resolutions=[16, 8, 4, 1],
    widths=[32, 64, 96, 128],
    encoder_blocks=[1, 1, 1, 1],
    decoder_blocks=[1, 1, 1, 1],
    latents=[4, 8, 16, 32],
    baseline=False,  # digits do not lie on top of each other
)
RECIPE = {
    "batch_size": 32,
    "learning_rate": 5e-3,
    "betas": [0.9, 0.99],
    "weight_decay": 0.01,
    "warmup_steps": 100,
    "clip_norm": 1.0,  # of the gradient of nats per dimension
    "ema_decay": 0.995,
}
TEST_AT = [15, 30, 45, 60, 90, 120, 180, 240, 360, 480, 600, 720, 900, 1200, 1500, 1800]  # seconds
PEER: dict[str, Any] = {
    "model": "causal-gen, preset morphomnist",
    "seed": 7,
    "curve": [
        {"seconds": 15.4, "images": 480, "bits_per_dim": 3.2776},
        {"seconds": 30.9, "images": 992, "bits_per_dim": 2.3608},
        {"seconds": 60.1, "images": 2016, "bits_per_dim": 1.9207},
        {"seconds": 90.5, "images": 2976, "bits_per_dim": 1.7132},
        {"seconds": 120.8, "images": 4000, "bits_per_dim": 1.6399},
        {"seconds": 180.5, "images": 6272, "bits_per_dim": 1.5658},
        {"seconds": 240.5, "images": 8704, "bits_per_dim": 1.4539},
        {"seconds": 360.6, "images": 13376, "bits_per_dim": 1.3025},
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=240.0, help="of training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file to write; standard output without it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # tiny activations of dark pixels slow a CPU down otherwise
    result = {
        "protocol": " ".join(__doc__.split("Protocol. ")[1].split("\n\n")[0].split()),
        "ours": {
            "model": vars(MODEL),
            "recipe": RECIPE,
            "seed": arguments.seed,
            "curve": train(read_data(), arguments.seconds, arguments.seed),
        },
        "peer": PEER,
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    if arguments.out:
        write_json(arguments.out, result)
    else:
        print(json.dumps(result, indent=2))


def read_data() -> dict[str, Tensor]:
    """Digits `uint8 (10000, 1, 32, 32)` with their attributes."""
    if "CAUSALCXR_DATA" not in os.environ:
        raise SystemExit("CAUSALCXR_DATA is not set; it names the folder that holds morphomnist/t10k-*")
    folder = Path(os.environ["CAUSALCXR_DATA"]) / "morphomnist"
    table = pd.read_csv(folder / "t10k-morpho.csv")
    images = torch.from_numpy(read_idx(folder / "t10k-images-idx3-ubyte.gz").copy())
    return {
        "digit": torch.from_numpy(read_idx(folder / "t10k-labels-idx1-ubyte.gz").astype("int64")),
        "thickness": torch.tensor(table["thickness"].to_numpy(), dtype=torch.float32),
        "intensity": torch.tensor(table["intensity"].to_numpy(), dtype=torch.float32),
        "image": F.pad(images[:, None], (2, 2, 2, 2)),
    }


def train(data: dict[str, Tensor], seconds: float, seed: int) -> list[dict[str, float]]:
    """Train for that long; the curve of held-out bits per dimension."""
    torch.manual_seed(seed)
    graph = load_graph("morphomnist")
    hvae = HVAE(graph["image"], graph.parents("image"), MODEL, 32)
    rows = {name: values[TRAIN] for name, values in data.items()}
    hvae.calibrate(rows)
    parameters = list(hvae.parameters())
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(
        parameters, lr=RECIPE["learning_rate"], betas=tuple(RECIPE["betas"]), weight_decay=RECIPE["weight_decay"]
    )
    draws, order, curve, spent, step = Draws(seed), torch.empty(0, dtype=torch.int64), [], 0.0, 0
    due = [s for s in TEST_AT if s < seconds] + [seconds]
    begun = time.process_time()
    while due:
        if len(order) < RECIPE["batch_size"]:
            order = torch.randperm(len(rows["image"]))
        index, order = order.split([RECIPE["batch_size"], len(order) - RECIPE["batch_size"]])
        _step(hvae, optimizer, {name: values[index] for name, values in rows.items()}, draws, step)
        decay = min(RECIPE["ema_decay"], (1 + step) / (10 + step))
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
        step += 1
        if spent + time.process_time() - begun >= due[0]:
            spent += time.process_time() - begun
            tested = test(hvae, average, {name: values[TEST] for name, values in data.items()})
            images = step * RECIPE["batch_size"]
            curve.append({"seconds": round(spent, 1), "images": images, **tested})
            print(json.dumps(curve[-1]), flush=True)
            due = [s for s in due if s > spent]
            begun = time.process_time()
    return curve


def _step(hvae: HVAE, optimizer: torch.optim.Optimizer, batch: dict[str, Tensor], draws: Draws, step: int) -> None:
    warm = min(1.0, (step + 1) / RECIPE["warmup_steps"])
    for group in optimizer.param_groups:
        group["lr"] = RECIPE["learning_rate"] * warm
    loss = hvae.elbo(batch["image"], batch, draws).nats().mean() / math.prod(hvae.event_shape)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if torch.nn.utils.clip_grad_norm_(hvae.parameters(), RECIPE["clip_norm"]).isfinite():
        optimizer.step()


@torch.no_grad()
def test(hvae: HVAE, average: list[Tensor], rows: dict[str, Tensor]) -> dict[str, float]:
    """Bits per dimension of the averaged weights, its two parts, and the error of the mean reconstruction."""
    trained = [p.detach().clone() for p in hvae.parameters()]
    torch._foreach_copy_(list(hvae.parameters()), average)
    nll, kl, error = 0.0, 0.0, 0.0
    for start in range(0, len(rows["image"]), 64):
        batch = {name: values[start : start + 64] for name, values in rows.items()}
        elbo = hvae.elbo(batch["image"], batch, Draws(start))
        nll, kl = nll + elbo.nll.sum(), kl + elbo.kl.sum()
        error += 255 * (elbo.loc.clamp(0, 1) - batch["image"] / 255).abs().mean(dim=(1, 2, 3)).sum().item()
    torch._foreach_copy_(list(hvae.parameters()), trained)
    n, shape = len(rows["image"]), tuple(hvae.event_shape)
    parts = [bits_per_dimension(torch.as_tensor(part) / n, shape).item() for part in (nll + kl, nll, kl)]
    named = dict(zip(("bits_per_dim", "nll", "kl"), parts, strict=True))
    return {name: round(value, 4) for name, value in (named | {"reconstruction_l1": error / n}).items()}


if __name__ == "__main__":
    main()
