"""From 1 to 512 films a site at equal total and equal local steps: where one travelling model and averages cross.

    python benchmarks/sites/run.py --processes 2     train what is left (two hours), write results.json

Every strategy has 15 rounds, or cycles, over the same 2,560 films, one epoch a visit; `central` takes as many
steps, of as many films, in one place. Sites of 512 films also have 60 rounds, and laws of their own: exposures
from -0.8 to 0.8 log units. The learning rate of each strategy in each setting is chosen on validation films with
the first seed. Averages reset the optimiser's moments, as is usual; one travelling model takes them along. The
error is the mean absolute one on 1,000 test films, in years, with Student's 95 % interval over seeds.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from causalcxr.config import read_settings
from causalcxr.federation.config import MADE_BY, SitesConfig
from causalcxr.federation.pictures import COLOURS
from causalcxr.federation.study import Study, run_study
from causalcxr.metrics.intervals import seed_interval
from causalcxr.report.figures import save_png
from causalcxr.support.workers import run_jobs

HERE = Path(__file__).parent
FILMS = (1, 2, 5, 10, 20, 64, 128, 256, 512)
RATES = (1e-3, 3e-3)
AVERAGES = ("fedavg", "fedprox")
BATCH, LEAST_AVERAGED = 32, 5  # of age.yaml, and of the study's defaults
UNLIKE = "data.sites={A: {exposure: -0.8}, B: {exposure: -0.4}, C: {}, D: {exposure: 0.4}, E: {exposure: 0.8}}"


@dataclass(frozen=True)
class Setting:
    """How many films a site has, how many rounds there are, and whether sites have laws of their own."""

    films: int
    rounds: int = 15
    unlike: bool = False

    @property
    def name(self) -> str:
        return f"{self.films} films, {self.rounds} rounds, {'unlike' if self.unlike else 'like'}"


BY_SIZE = [Setting(films) for films in FILMS]
LARGE = [Setting(512, rounds, unlike) for unlike in (False, True) for rounds in (15, 60)]


@dataclass(frozen=True)
class Cell:
    """One strategy in one setting, with one rate and seed."""

    setting: Setting
    strategy: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        more = "" if self.setting.rounds == 15 else f"-{self.setting.rounds}rounds"
        more += "-unlike" if self.setting.unlike else ""
        return f"{self.setting.films}-{self.strategy}-{self.rate:g}-{self.seed}{more}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=Path("runs/sites/age"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--what", nargs="+", choices=["by_size", "large"], default=["by_size", "large"])
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    first = options.seeds[0]
    pairs = [(each, strategy) for each in settings_of(options.what) for strategy in MADE_BY]
    trial = [Cell(*pair, rate, first) for pair in pairs for rate in RATES]
    train(options.folder, trial, options.processes)
    best = {}
    for pair in pairs:
        rates = {rate: loss(options.folder, Cell(*pair, rate, first)) for rate in RATES}
        best[pair] = min(rates, key=lambda rate, rates=rates: rates[rate])
    every = [Cell(*pair, best[pair], seed) for pair in pairs for seed in options.seeds]
    train(options.folder, every, options.processes)
    measured: dict[Setting, dict[str, Any]] = {each: {} for each, _ in pairs}
    for each, strategy in pairs:
        rate = best[each, strategy]
        errors = [error(options.folder, Cell(each, strategy, rate, seed)) for seed in options.seeds]
        interval = seed_interval(errors)
        found = {"error": interval.value, "low": interval.low, "high": interval.high, "by_seed": errors}
        measured[each][strategy] = found | {"learning_rate": rate}
    if "by_size" in options.what:
        per_site = {str(each.films): measured[each] for each in BY_SIZE}
        save_png(figure(per_site), HERE.parents[1] / "docs" / "sites_by_size.png")
        keep({"per_site": per_site, "crossing_films_per_site": crossing(per_site)})
    if "large" in options.what:
        keep({"large_sites": {each.name: measured[each] for each in LARGE}})
    for each, row in measured.items():
        print(each.name, {strategy: round(found["error"], 2) for strategy, found in row.items()})


def settings_of(what: Sequence[str]) -> list[Setting]:
    """Every setting once."""
    return list(dict.fromkeys([*(BY_SIZE if "by_size" in what else []), *(LARGE if "large" in what else [])]))


def train(folder: Path, cells: Sequence[Cell], processes: int) -> None:
    wanted = {same_as(cell): None for cell in cells}
    left = [cell for cell in wanted if not (folder / cell.name / "done").exists()]
    run_jobs("cells", train_cell, folder, left, len(wanted) - len(left), processes)


def same_as(cell: Cell) -> Cell:
    """The cell with the same weights that is trained in its place.

    FedProx pulls back from the second step of a visit on, and fedtm averages sites with 5 films or more.
    """
    if cell.strategy == "fedprox" and cell.setting.films <= BATCH:
        return replace(cell, strategy="fedavg")
    if cell.strategy == "fedtm" and cell.setting.films < LEAST_AVERAGED:
        return replace(cell, strategy="travelling")
    return cell


def train_cell(folder: Path, cell: Cell) -> None:
    study_of(folder, cell)
    (folder / cell.name / "done").touch()


def study_of(folder: Path, cell: Cell) -> Study:
    """The study of a cell; trained once."""
    cell = same_as(cell)
    moments = "reset" if cell.strategy in AVERAGES else "travel"
    settings = [
        f"run={folder / cell.name}",
        f"data.cache={folder / 'cache'}",
        f"rounds.predictors={cell.setting.rounds}",
    ]
    settings += [f"strategies=[{cell.strategy}]", f"seeds=[{cell.seed}]", f"moments={moments}"]
    settings += [
        UNLIKE if cell.setting.unlike else f"each={cell.setting.films}",
        f"train.predictors.learning_rate={cell.rate}",
    ]
    return run_study(read_settings(SitesConfig, HERE / "age.yaml", settings))


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


def figure(per_site: dict[str, dict[str, Any]]) -> Figure:
    """Error by films a site, one line a strategy; bars are intervals over seeds."""
    drawn = Figure(figsize=(6.8, 3.6), facecolor="white", layout="constrained")
    axes, films = drawn.add_subplot(), [int(key) for key in per_site]
    for i, strategy in enumerate(MADE_BY):
        found = [per_site[str(n)][strategy] for n in films]
        values = [each["error"] for each in found]
        bars = [[max(0.0, each["error"] - each["low"]), max(0.0, each["high"] - each["error"])] for each in found]
        shifted = [n * 1.02 ** (i - 2) for n in films]
        low_high = list(zip(*bars, strict=True))
        axes.errorbar(shifted, values, low_high, color=COLOURS[strategy], label=strategy, marker="o", markersize=4)
    axes.set_xscale("log")
    axes.set_xticks(films, [str(n) for n in films], fontsize=8)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(0, None)
    axes.set_xlabel("films a site, of 2,560 in all", fontsize=8)
    axes.set_ylabel("age: mean absolute error (years)", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color="#dde2e8", linewidth=0.6)
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return drawn


def keep(found: dict[str, Any]) -> None:
    """Into results.json, beside what other scripts measured."""
    path = HERE / "results.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | found, indent=2) + "\n")


if __name__ == "__main__":
    main()
