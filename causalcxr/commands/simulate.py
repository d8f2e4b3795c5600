"""`causalcxr simulate OUT`: simulated X-rays as PNGs with a CSV, a data set with known truth for any tool."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from causalcxr import simulator
from causalcxr.commands.arguments import Parser, say
from causalcxr.report.figures import save_png
from causalcxr.simulator.gallery import contact_sheet, counterfactual_grid
from causalcxr.support.errors import ConfigError
from causalcxr.support.files import write_atomically
from causalcxr.support.progress import progress_bar
from causalcxr.values import decode, parse_assignments

__all__ = ["run", "simulate"]

BATCH = 64
SIZES = (32, 256)
FACTS = "simulation.json"  # written first: a killed process's folder says what it was to hold


def run(arguments: list[str]) -> None:
    """Write the folder that is asked for."""
    parser = Parser("causalcxr simulate")
    parser.add_argument("out", help="folder to write: images, metadata.csv, contact sheet, counterfactual grid")
    parser.add_argument("--n", type=int, default=100, help="subjects")
    parser.add_argument("--size", type=int, default=128, help="pixels a side, 32 to 256")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--do", nargs="+", default=[], metavar="NAME=VALUE", help="an intervention on everyone")
    options = parser.parse_args(arguments)
    folder = simulate(options.out, options.n, options.size, options.seed, options.do)
    say(f"wrote {options.n} X-rays to {folder}")


def simulate(out: str | Path, n: int, size: int, seed: int, do: Sequence[str] = ()) -> Path:
    """Write n subjects as `images/*.png` and `metadata.csv`, a contact sheet, and exact counterfactuals.

    `do` such as `["age=80"]` is applied to everyone. Raises ConfigError: impossible n, size or intervention.
    """
    if n < 1 or not SIZES[0] <= size <= SIZES[1]:
        raise ConfigError(f"simulate: expected n >= 1 and size in {SIZES[0]}..{SIZES[1]}, got n={n}, size={size}")
    folder, graph = Path(out), simulator.graph()
    intervention, tables = parse_assignments(graph, do), []
    facts = json.dumps({"seed": seed, "n": n, "size": size, "do": intervention}, indent=2) + "\n"
    _refuse_other_content(folder, facts)
    write_atomically(folder / FACTS, facts)
    with progress_bar("simulate", n) as advance:
        for ids in torch.arange(n).split(BATCH):
            u = simulator.noise(seed, ids)
            p = simulator.attributes(u, intervention)
            images = (simulator.render(u, p, size=size) * 255).round().to(torch.uint8).numpy()
            table = pd.DataFrame({name: decode(graph[name], p[name]) for name in graph.attributes})
            table.insert(0, "path", [f"images/{int(i):07d}.png" for i in ids])
            table.insert(1, "patient_id", [f"sim-{int(i):07d}" for i in ids])
            for path, image in zip(table["path"], images, strict=True):
                _save_image(folder / path, image[0])
                advance("")
            tables.append(table)
    _save_pictures(folder, n, seed)
    write_atomically(folder / "metadata.csv", pd.concat(tables).to_csv(index=False))
    return folder


def _refuse_other_content(folder: Path, facts: str) -> None:
    """Only a folder that a killed process left, of the same X-rays, may have anything in it."""
    if not folder.name:
        raise ConfigError("simulate: expected the name of a folder to write")
    if (folder / "metadata.csv").exists():
        raise ConfigError(f"simulate: '{folder}' holds X-rays already; choose another folder or delete it")
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if there and (FACTS not in there or (folder / FACTS).read_text("utf-8", "replace") != facts):
        raise ConfigError(f"simulate: '{folder}' holds something else; choose another folder or delete it")


def _save_image(path: Path, pixels: np.ndarray) -> None:
    write_atomically(path, lambda file: Image.fromarray(pixels).save(file, format="PNG"))


def _save_pictures(folder: Path, n: int, seed: int) -> None:
    save_png(contact_sheet(seed, range(min(n, 24))), folder / "contact_sheet.png", dpi=100)
    save_png(counterfactual_grid(seed, range(min(n, 4))), folder / "counterfactuals.png", dpi=100)
