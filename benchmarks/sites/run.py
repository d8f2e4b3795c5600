"""From 1 to 512 films a site at equal total and equal local steps: where one travelling model and averages cross.

    python benchmarks/sites/run.py --processes 2     train what is left (about an hour), write results.json

Every strategy has 15 rounds, or cycles, over the same 2,560 films, one epoch a visit; `central` takes as many
steps, of as many films, in one place. The learning rate of each strategy and size is chosen on validation films
with the first seed; below 5 films it is the one chosen for 5. Averages reset the optimiser's moments, as is usual;
one travelling model takes them along. The error is the mean absolute one on 1,000 test films, in years, with
Student's 95 % interval over seeds.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from causalcxr.config import read_settings
from causalcxr.federation.config import MADE_BY, SitesConfig
from causalcxr.federation.study import Study, run_study
from causalcxr.metrics.intervals import seed_interval
from causalcxr.support.workers import run_jobs

HERE = Path(__file__).parent
FILMS = (1, 2, 5, 10, 20, 64, 128, 256, 512)
RATES = (1e-3, 3e-3)
LEAST_TRIED = 5  # films a site from which rates are tried; fewer take the one chosen here
AVERAGES = ("fedavg", "fedprox")
BATCH, LEAST_AVERAGED = 32, 5  # of age.yaml, and of the study's defaults


@dataclass(frozen=True)
class Cell:
    """One strategy at one size of sites, with one rate and seed."""

    films: int
    strategy: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.films}-{self.strategy}-{self.rate:g}-{self.seed}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=Path("runs/sites/age"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--films", type=int, nargs="+", default=FILMS)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    first = options.seeds[0]
    tried = [films for films in options.films if films >= LEAST_TRIED]
    pairs = [(films, strategy) for films in sorted(options.films, reverse=True) for strategy in MADE_BY]
    trial = [Cell(*pair, rate, first) for pair in pairs if pair[0] in tried for rate in RATES]
    train(options.folder, trial, options.processes)
    best = {}
    for films, strategy in pairs:
        rates = {
            rate: loss(options.folder, Cell(max(films, LEAST_TRIED), strategy, rate, first)) for rate in RATES
        }
        best[films, strategy] = min(rates, key=lambda rate, rates=rates: rates[rate])
    every = [Cell(*pair, best[pair], seed) for pair in pairs for seed in options.seeds]
    train(options.folder, every, options.processes)
    per_site: dict[str, dict[str, Any]] = {str(films): {} for films in sorted(options.films)}
    for films, strategy in pairs:
        rate = best[films, strategy]
        errors = [error(options.folder, Cell(films, strategy, rate, seed)) for seed in options.seeds]
        interval = seed_interval(errors)
        found = {"error": interval.value, "low": interval.low, "high": interval.high, "by_seed": errors}
        per_site[str(films)][strategy] = found | {"learning_rate": rate}
    keep({"per_site": per_site, "crossing_films_per_site": crossing(per_site)})
    for films, row in per_site.items():
        print(films, {strategy: round(found["error"], 2) for strategy, found in row.items()})


def train(folder: Path, cells: Sequence[Cell], processes: int) -> None:
    wanted = {same_as(cell): None for cell in cells}
    left = [cell for cell in wanted if not (folder / cell.name / "done").exists()]
    run_jobs("cells", train_cell, folder, left, len(wanted) - len(left), processes)


def same_as(cell: Cell) -> Cell:
    """The cell with the same weights that is trained in its place.

    FedProx pulls back from the second step of a visit on, and fedtm averages sites with 5 films or more.
    """
    if cell.strategy == "fedprox" and cell.films <= BATCH:
        return replace(cell, strategy="fedavg")
    if cell.strategy == "fedtm" and cell.films < LEAST_AVERAGED:
        return replace(cell, strategy="travelling")
    return cell


def train_cell(folder: Path, cell: Cell) -> None:
    study_of(folder, cell)
    (folder / cell.name / "done").touch()


def study_of(folder: Path, cell: Cell) -> Study:
    """The study of a cell; trained once."""
    cell = same_as(cell)
    moments = "reset" if cell.strategy in AVERAGES else "travel"
    settings = [f"run={folder / cell.name}", f"data.cache={folder / 'cache'}", f"each={cell.films}"]
    settings += [f"strategies=[{cell.strategy}]", f"seeds=[{cell.seed}]", f"moments={moments}"]
    return run_study(
        read_settings(SitesConfig, HERE / "age.yaml", [*settings, f"train.predictors.learning_rate={cell.rate}"])
    )


def loss(folder: Path, cell: Cell) -> float:
    """On validation films after the last round, mean over the cell's models."""
    curves = [each.histories["predictor"].curve for each in study_of(folder, cell).trained]
    return sum(curve[-1]["losses"].get("age", float("inf")) for curve in curves) / len(curves)


def error(folder: Path, cell: Cell) -> float:
    """On test films, in years."""
    return study_of(folder, cell).measured[same_as(cell).strategy]["age"].overall.value


def crossing(per_site: dict[str, dict[str, Any]]) -> int | None:
    """The fewest films a site from which an average is as good as one travelling model; None if it never is."""
    for films, row in sorted(per_site.items(), key=lambda pair: int(pair[0])):
        if min(row[name]["error"] for name in AVERAGES) <= row["travelling"]["error"]:
            return int(films)
    return None


def keep(found: dict[str, Any]) -> None:
    """Into results.json, beside what other scripts measured."""
    path = HERE / "results.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | found, indent=2) + "\n")


if __name__ == "__main__":
    main()
