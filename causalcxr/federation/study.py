"""A study across hospitals from its configuration to its results; what is done already is not done again."""

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import yaml
from torch import Tensor

from causalcxr.config import read_settings, to_yaml
from causalcxr.data.cohort import Cohort, Split
from causalcxr.data.preparation import open_cohort
from causalcxr.federation.config import SitesConfig, check_sites_config, site_attribute
from causalcxr.federation.coordinator import Coordinator, History, histories_of
from causalcxr.federation.local import LocalEngine
from causalcxr.federation.models import key_of, make_run, parts_of
from causalcxr.federation.scores import Measured, measure, score
from causalcxr.federation.sites import Site, everybody, make_sites, open_sites_graph, site_shares
from causalcxr.federation.strategies import STRATEGIES
from causalcxr.federation.worker import Worker
from causalcxr.graph import Graph, graph_from_dict
from causalcxr.runs import Run, versions
from causalcxr.support.errors import ConfigError
from causalcxr.support.files import load_metadata, load_tensors, save_tensors, write_atomically
from causalcxr.support.study_folder import study_folder
from causalcxr.support.workers import processes_for, run_jobs
from causalcxr.training.pipeline import flushed_denormals, launch
from causalcxr.training.stages import check_stages

__all__ = ["Job", "Opened", "Study", "Trained", "all_jobs", "run_study"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One model: a strategy with a seed; of `local`, at the site with this number."""

    strategy: str
    seed: int
    site: int | None = None

    @property
    def name(self) -> str:
        return f"{self.strategy}-{self.seed}" + ("" if self.site is None else f"-{self.site + 1}")


@dataclass(frozen=True)
class Opened:
    """A study's folder with its cohort and sites."""

    folder: Path
    config: SitesConfig
    graph: Graph
    cohort: Cohort
    sites: list[Site]

    def run_of(self, job: Job) -> Run:
        """The run folder of a model."""
        return make_run(self.config, self.graph, self.folder / job.name, job.seed)

    @property
    def predicted(self) -> list[str]:
        """The attributes that predictors learn."""
        by = site_attribute(self.config)
        return [n for n in self.config.predict or self.graph.attributes if n != by]

    @property
    def test(self) -> Split:
        """All sites' test films."""
        return everybody(self.sites).test

    def groups(self) -> dict[str, np.ndarray]:
        """For every test film its group: the labels of each discrete attribute, the site, and the site's size."""
        manifest = self.cohort.manifest
        test, by = self.test, site_attribute(self.config)
        found = {
            name: manifest[name].to_numpy(dtype=str)[test.rows]
            for name in self.graph.attributes
            if self.graph[name].is_discrete and name != by
        }
        place = np.full(len(manifest), "", dtype=object)
        size = place.copy()
        for site in self.sites:
            place[site.test.rows] = site.name
            size[site.test.rows] = _size_band(len(site.train))
        return found | {"site": place[test.rows].astype(str), "site's size": size[test.rows].astype(str)}


@dataclass(frozen=True)
class Trained:
    """A finished model: what happened by part, seconds of training, and what it says of the test films."""

    job: Job
    histories: dict[str, History]
    seconds: float
    scores: dict[str, Tensor]


@dataclass(frozen=True)
class Study:
    """A finished study. `measured`: strategy to attribute to how good it is."""

    opened: Opened
    trained: list[Trained]
    measured: dict[str, dict[str, Measured]]

    def of(self, strategy: str) -> list[Trained]:
        return [each for each in self.trained if each.job.strategy == strategy]


def _size_band(films: int) -> str:
    bands = ((5, "below 5"), (20, "5 to 19"), (100, "20 to 99"), (500, "100 to 499"))
    return next((name for end, name in bands if films < end), "500 or more")


def all_jobs(config: SitesConfig, sites: Sequence[Site]) -> list[Job]:
    """Every model of a study; sites that learn alone are chosen evenly by size."""
    jobs = [Job(s, seed) for s in config.strategies if s != "local" for seed in config.seeds]
    if "local" in config.strategies:
        order = np.argsort([len(site.train) for site in sites], kind="stable")
        k = min(config.local_sites, len(sites))
        chosen = sorted(order[((np.arange(k) + 0.5) * len(sites) / k).astype(int)].tolist())
        jobs += [Job("local", seed, site) for seed in config.seeds for site in chosen]
    return jobs


def run_study(config: SitesConfig) -> Study:
    """Train what is left of a study. Raises ConfigError: what can't be, before any training."""
    graph = open_sites_graph(config)
    check_sites_config(config, graph)
    folder = Path(config.run)
    run = make_run(config, graph, folder / "central", config.seeds[0])
    check_stages(run)
    Worker(run, config, launch(config.train))  # what it refuses shows now, and not in a process of its own
    cohort = open_cohort(config.data, graph)
    sites = make_sites(config, cohort)
    if not len(everybody(sites).test):
        raise ConfigError("no site has a test film; raise data.test, or leave other sites out")
    log.info("%d sites with %d to %d training films", len(sites), *_extremes(sites))
    with study_folder(folder):
        return _run_study(config, graph, folder, sites)


def _run_study(config: SitesConfig, graph: Graph, folder: Path, sites: list[Site]) -> Study:
    declared = yaml.safe_dump(graph.to_dict(), sort_keys=False, allow_unicode=True)
    write_atomically(folder / "study.yaml", to_yaml(config))  # first: by it the folder is known to be a study's
    write_atomically(folder / "graph.yaml", declared)
    _open.cache_clear()
    opened = _open(folder)
    jobs = all_jobs(config, sites)
    left = [job for job in jobs if not _is_done(opened, job)]
    processes = 1 if config.engine == "nvflare" else processes_for(config.processes, config.train.device)
    run_jobs("models", _train, folder, left, len(jobs) - len(left), processes)
    return _collect(opened, jobs)


def _extremes(sites: Sequence[Site]) -> tuple[int, int]:
    sizes = [len(site.train) for site in sites]
    return min(sizes), max(sizes)


@lru_cache(maxsize=1)
def _open(folder: Path) -> Opened:
    """A study as its folder has it; every process opens it once."""
    config = read_settings(SitesConfig, folder / "study.yaml")
    graph = graph_from_dict(yaml.safe_load((folder / "graph.yaml").read_text("utf-8")))
    cohort = open_cohort(config.data, graph)
    return Opened(folder, config, graph, cohort, make_sites(config, cohort))


def _key(opened: Opened, job: Job) -> str:
    """Of all that a model's weights depend on."""
    return key_of(opened.config, opened.run_of(job), job.name, opened.cohort.data_hash)


def _is_done(opened: Opened, job: Job) -> bool:
    path = opened.folder / job.name / "scores.safetensors"
    return path.exists() and load_metadata(path)["key"] == _key(opened, job)


def _train(folder: Path, job: Job) -> None:
    """Train one model, unless it is there; what an earlier configuration left in its folder goes."""
    opened = _open(folder)
    run, key = opened.run_of(job), _key(opened, job)
    begun = run.folder / "key"
    if run.folder.exists() and (not begun.exists() or begun.read_text() != key):
        log.warning("'%s' was made with other settings or films; it is trained again", run.folder)
        shutil.rmtree(run.folder)
    write_atomically(begun, key)
    with flushed_denormals():
        _train_model(opened, job, run, key)


def _train_model(opened: Opened, job: Job, run: Run, key: str) -> None:
    started = time.perf_counter()
    if opened.config.engine == "nvflare" and job.strategy in STRATEGIES:
        from causalcxr.federation.flare import simulate  # an extra, and slow to import

        simulate(opened.config, opened.graph, opened.sites, run.folder, job.strategy, job.seed)
    else:
        _train_here(opened, job, run)
    seconds = time.perf_counter() - started
    run.note(versions=versions(), data_hash=opened.cohort.data_hash, seconds={"sites": seconds})
    scores: dict[str, Tensor] = {}
    if "predictor" in parts_of(run.config):
        scores = score(run.load_predictor("predictor"), opened.test, opened.predicted)
    save_tensors(run.folder / "scores.safetensors", scores, {"key": key, "seconds": seconds})


def _train_here(opened: Opened, job: Job, run: Run) -> None:
    """By the local engine."""
    worker = Worker(run, opened.config, launch(run.config.train))
    sites = opened.sites if job.site is None else [replace(opened.sites[job.site], test=opened.test)]
    engine = LocalEngine(worker, [everybody(sites)] if job.strategy == "central" else sites)
    sizes, counts = ([len(site.train) for site in of] for of in (sites, opened.sites))
    shares = site_shares(opened.config, opened.graph, [site.name for site in opened.sites], counts)
    Coordinator(worker, engine, opened.config, job.strategy, sizes, shares).train()


def _collect(opened: Opened, jobs: Sequence[Job]) -> Study:
    trained = []
    for job in jobs:
        scores, about = load_tensors(opened.folder / job.name / "scores.safetensors")
        trained.append(Trained(job, histories_of(opened.run_of(job)), about["seconds"], scores))
    groups, test, measured = opened.groups(), opened.test, {}
    for strategy in opened.config.strategies:
        runs = [each.scores for each in trained if each.job.strategy == strategy]
        names = opened.predicted if runs and runs[0] else []
        measured[strategy] = {name: measure(opened.graph[name], runs, test, groups) for name in names}
    return Study(opened, trained, measured)
