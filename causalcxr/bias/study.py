"""A bias study from its configuration to its report; what is done already is not done again."""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from causalcxr.bias.config import StudyConfig, check_study
from causalcxr.bias.encoding import FOLDS, encoding
from causalcxr.bias.films import Films, make_films, open_films
from causalcxr.bias.gaps import Measured, Scores, measure
from causalcxr.bias.grid import Bias, Network, all_biases, all_networks, encoded_networks, scored_biases, twin_of
from causalcxr.bias.planting import RECORD, check_channels, on_films
from causalcxr.bias.saliency import check_captum, saliency
from causalcxr.bias.training import build_network, load_networks, train_network
from causalcxr.config import read_settings, to_yaml
from causalcxr.data.cohort import Cohort
from causalcxr.data.preparation import open_cohort
from causalcxr.graph import Graph, Variable, load_graph
from causalcxr.metrics.intervals import Interval
from causalcxr.support.digest import digest
from causalcxr.support.errors import ConfigError, nearest
from causalcxr.support.files import load_metadata, load_tensors, write_atomically, write_json
from causalcxr.support.study_folder import study_folder
from causalcxr.support.workers import processes_for, run_jobs

__all__ = ["Cell", "Opened", "Study", "run_study"]

log = logging.getLogger(__name__)
FEW = 10  # test subjects of a group with or without the finding


@dataclass(frozen=True)
class Opened:
    """A study's folder, with its films."""

    folder: Path
    config: StudyConfig
    cohort: Cohort
    films: Films

    @property
    def variable(self) -> Variable:
        return self.cohort.graph[self.config.finding]

    @property
    def has_bayes(self) -> bool:
        """Whether the best classifier is known.

        Films are simulated, prevalence is 0.5 at every age, and no effusion is too small to be seen.
        """
        knobs, simulated = self.cohort.source.get("knobs", {}), self.cohort.source.get("source") == "simulator"
        even = knobs.get("finding_odds") == 0 and knobs.get("finding_age") == 0
        severe = simulated and self.cohort.source["columns"][self.config.finding] == "finding"
        return severe and even and knobs.get("finding_volume", 1) >= 4

    def best_known(self, bias: Bias) -> bool:
        """Whether it is known of this bias."""
        return not self.undefined(bias)

    def undefined(self, bias: Bias) -> set[str]:
        """Statistics that a bias has not.

        What is recorded, and of whom, changes what a group says of the finding, beyond q.
        """
        channels = bias.channels(self.config)
        if any(channels.get(channel) for channel in RECORD):
            return {"index", "attainable_index"}
        return set() if self.has_bayes else {"index"}

    def place(self, network: Network) -> Path:
        """The folder of a network: its name, and a key of all that its weights depend on."""
        return self.folder / "networks" / f"{network.name}-{network.key(self.config, self.cohort.data_hash)}"

    def probes(self, network: Network) -> Path:
        """The file of what was found inside a network, named by how it was looked for."""
        config = self.config
        parts: list[Any] = [config.probe_rows, config.saliency_rows]
        if network.is_twin:  # it is probed under every bias
            parts.append({bias.name: bias.channels(config) for bias in all_biases(config)})
        return self.place(network) / f"probes-{digest(parts)}.json"


@dataclass(frozen=True)
class Cell:
    """What was found of one bias at one q by one method, over all seeds."""

    bias: Bias
    q: float
    method: str
    measured: Measured


@dataclass(frozen=True)
class Part:
    """Of a network with several biases at once: what one of them alone does, mean over seeds."""

    network: str
    part: str
    pair_shift: Interval
    pair_gap: Interval


@dataclass(frozen=True)
class Study:
    """A finished study. `layers` and `saliency` map names of networks to what was found of them."""

    opened: Opened
    cells: list[Cell]
    parts: list[Part]
    layers: dict[str, list[dict[str, Any]]]
    saliency: dict[str, dict[str, float]]
    seconds: float  # of training, over all networks


def run_study(config: StudyConfig) -> Study:
    """Train what is left of a study, and analyse it. Raises ConfigError: what can't be, before any training."""
    check_study(config)
    graph = _graph(config)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is 'cuda' but no GPU is to be seen; set device=cpu")
    if config.saliency_rows and config.probe_rows:
        check_captum()
    folder = Path(config.run)
    cohort = open_cohort(config.data, graph)
    check_channels(config.plant, config.strengths, cohort.source.get("source") == "simulator")
    if cohort.source.get("knobs", {}).get("planted"):
        raise ConfigError("the data have a planted bias already; a study plants its own beside a twin without")
    build_network(config, graph[config.finding], _channels(cohort), 0)  # a wrong one shows now, and not later
    _check_cells(open_films(cohort, folder, config.finding, {}), config)
    with study_folder(folder):
        return _run_study(config, cohort, folder)


def _run_study(config: StudyConfig, cohort: Cohort, folder: Path) -> Study:
    begun = time.perf_counter()
    write_atomically(folder / "study.yaml", to_yaml(config))  # a larger or smaller grid of this study is welcome
    _open.cache_clear()  # of an earlier study in this folder
    biases = {bias.name: bias.channels(config) for bias in all_biases(config)}
    make_films(cohort, _films_folder(folder, cohort), biases)
    opened = _open(folder)
    processes = processes_for(config.processes, config.device)
    networks = all_networks(config)
    left = [network for network in networks if not _is_scored(opened, network)]
    run_jobs("networks", _train, folder, left, len(networks) - len(left), processes)
    looked = encoded_networks(config) if config.probe_rows else []
    probed = [n for n in looked if n.is_twin or on_films(n.bias.channels(config))]
    left = [network for network in probed if not opened.probes(network).exists()]
    run_jobs("layers", _analyse, folder, left, len(probed) - len(left), processes)
    log.info("study '%s': %.0f s", folder, time.perf_counter() - begun)
    return _collect(opened, probed)


def _graph(config: StudyConfig) -> Graph:
    graph = load_graph(config.graph)
    if graph.image is None:
        raise ConfigError(f"graph '{graph.name}' has no image, and a study is of images")
    if config.finding not in graph.attributes:
        raise ConfigError(
            f"finding '{config.finding}' is no attribute; {nearest(config.finding, graph.attributes)}"
        )
    if len(graph[config.finding].labels) != 2:
        raise ConfigError(f"finding '{config.finding}' has not two labels; a study is of a binary finding")
    return graph


def _check_cells(films: Films, config: StudyConfig) -> None:
    """A rate of nobody is not known, and nobody teaches nothing. Raises ConfigError before anything is trained."""
    for split in ("train", "test"):
        rows = films.rows(split)
        for q in config.q:
            finding, group = films.finding[rows], films.group(q)[rows]
            counts = {
                f"{'with' if y else 'without'} the finding in group {'B' if g else 'A'}": int(
                    ((finding == y) & (group == g)).sum()
                )
                for y in (True, False)
                for g in (True, False)
            }
            fewest = min(counts, key=lambda name: counts[name])
            if counts[fewest] == 0:
                raise ConfigError(
                    f"the split '{split}' has nobody {fewest} at q = {q:g}; take more subjects, or a smaller q"
                )
            if counts[fewest] < FEW and split == "test":
                log.warning("only %d test subjects %s at q = %g: wide intervals", counts[fewest], fewest, q)

    probed = films.some(config.probe_rows)
    for name, labels in (("finding", films.finding[probed]), ("group", films.group(0.5)[probed])):
        fewest = min(int(labels.sum()), int((~labels).sum()))
        if config.probe_rows and fewest < FOLDS:
            raise ConfigError(
                f"of {len(probed)} test subjects, whose layers are probed, a {name} has or lacks {fewest}; "
                f"expected at least {FOLDS}: set probe_rows higher, or to 0"
            )


def _channels(cohort: Cohort) -> int:
    assert cohort.images is not None
    return cohort.images.shape[1]


def _films_folder(folder: Path, cohort: Cohort) -> Path:
    return folder / "films" / cohort.data_hash[:12]


@lru_cache(maxsize=1)
def _open(folder: Path) -> Opened:
    """A study as its folder has it; every process opens it once."""
    config = read_settings(StudyConfig, folder / "study.yaml")
    cohort = open_cohort(config.data, load_graph(config.graph))
    biases = {bias.name: bias.channels(config) for bias in all_biases(config)}
    films = open_films(cohort, _films_folder(folder, cohort), config.finding, biases)
    return Opened(folder, config, cohort, films)


def _is_scored(opened: Opened, network: Network) -> bool:
    """Under every bias that it is to be scored under; a grid may have grown."""
    path = opened.place(network) / "scores.safetensors"
    wanted = scored_biases(network, opened.config)
    return path.exists() and wanted.items() <= load_metadata(path)["biases"].items()


def _train(folder: Path, network: Network) -> None:
    opened = _open(folder)
    train_network(network, opened.config, opened.variable, opened.films, opened.place(network))


def _analyse(folder: Path, network: Network) -> None:
    """Layers and saliency of one network; of a twin by every bias at once."""
    opened = _open(folder)
    config, films = opened.config, opened.films
    model = load_networks(opened.place(network), config, opened.variable, films.plain.shape[1])[0]
    names = [b.name for b in all_biases(config) if on_films(b.channels(config))]
    found = {}
    for name in names if network.is_twin else [network.bias.name]:
        layers = [asdict(layer) for layer in encoding(model, films, name, config.probe_rows)]
        seen = {}
        if config.saliency_rows:
            seen = asdict(saliency(model, films, opened.cohort, name, config.saliency_rows))
        found[name] = {"layers": layers, "saliency": seen}
    write_json(opened.probes(network), found)


def _collect(opened: Opened, probed: Sequence[Network]) -> Study:
    config, films = opened.config, opened.films
    test = films.rows("test")
    cells, seconds = [], 0.0
    for bias in all_biases(config):
        for method in ("none", *config.mitigate):
            for q in config.q if method == "none" else config.mitigated_q:
                networks = [Network(bias, q, seed, method) for seed in config.seeds]
                scores = _scores(opened, bias.name, networks)
                group = films.group(q)[test]
                of = films.finding[test], group, films.patients[test]
                found = measure(scores, *of, q, opened.undefined(bias))
                cells.append(Cell(bias, q, method, found))
    for network in all_networks(config):
        seconds += load_metadata(opened.place(network) / "network.safetensors")["seconds"]
    layers, saliencies = {}, {}
    for network in probed:
        written = json.loads(opened.probes(network).read_text("utf-8"))
        for name, found in written.items():
            key = f"twin of {name}" if network.is_twin else network.name
            layers[key] = found["layers"]
            if found["saliency"]:
                saliencies[key] = found["saliency"]
    return Study(opened, cells, _parts(opened), layers, saliencies, seconds)


def _parts(opened: Opened) -> list[Part]:
    """Every network of several biases, under each of these that the study has by itself, and under all."""
    config, films = opened.config, opened.films
    channels = {bias.name: on_films(bias.channels(config)) for bias in all_biases(config)}
    test, found = films.rows("test"), []
    for bias in all_biases(config):
        names = list(scored_biases(Network(bias, 0.5, 0), config))
        names = [name for name in names if name == bias.name or channels[name] != channels[bias.name]]
        for q in config.q if len(names) > 1 else []:
            networks = [Network(bias, q, seed) for seed in config.seeds]
            for name in names:
                scores = _scores(opened, name, networks)
                measured = measure(scores, films.finding[test], films.group(q)[test], films.patients[test], q)
                shift, gap = (measured.statistics[key] for key in ("pair_shift", "pair_gap"))
                found.append(Part(f"{bias.name}, q = {q:g}", name, shift, gap))
    return found


def _scores(opened: Opened, bias: str, networks: Sequence[Network]) -> Scores:
    own = [load_tensors(opened.place(n) / "scores.safetensors")[0] for n in networks]
    twins = [load_tensors(opened.place(twin_of(n)) / "scores.safetensors")[0] for n in networks]
    return Scores(
        np.stack([scores["plain"].numpy() for scores in own]),
        np.stack([scores[f"biased/{bias}"].numpy() for scores in own]),
        np.stack([scores["plain"].numpy() for scores in twins]),
    )
