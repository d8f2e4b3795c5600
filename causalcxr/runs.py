"""A run is a folder: configuration, graph, weights, curves, provenance; and the way back from it to a model."""

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from causalcxr.building import build_model, build_predictor, open_graph
from causalcxr.config import Config, read_config, to_yaml
from causalcxr.graph import Graph, graph_from_dict
from causalcxr.predictors.predictor import NetworkPredictor
from causalcxr.scm import StructuralCausalModel
from causalcxr.support.errors import ConfigError, GraphError, RunError
from causalcxr.support.files import load_metadata, load_tensors, save_tensors, write_atomically, write_json

__all__ = ["Run", "load", "open_run", "plan_run", "versions"]

BASE_FILES = ("model.safetensors", "predictor.safetensors", "evaluator.safetensors")
FREE = ("data.cache", "data.prepared", "data.workers", "train.threads", "train.log_every")  # of the weights
REPORTED_PACKAGES = ("causalcxr", "torch", "pyro-ppl", "normflows", "numpy", "lightning-fabric", "safetensors")


@dataclass(frozen=True)
class Run:
    """A run folder with its configuration and graph."""

    folder: Path
    config: Config
    graph: Graph

    @property
    def state(self) -> Path:
        """Folder of the checkpoints from which a killed run goes on."""
        return self.folder / "state"

    @property
    def provenance(self) -> dict[str, Any]:
        """What made this run: versions, data, device, seconds by stage."""
        path = self.folder / "provenance.json"
        return json.loads(path.read_text()) if path.exists() else {"seconds": {}}

    def begin(self) -> None:
        """Make the folder with its configuration and graph, unless it is there; note stages that are added."""
        config = self.folder / "config.yaml"
        if not config.exists():
            self._copy_base()
            declared = yaml.safe_dump(self.graph.to_dict(), sort_keys=False, allow_unicode=True)
            write_atomically(self.folder / "graph.yaml", declared)
            write_atomically(config, to_yaml(self.config))
        elif open_run(self.folder).config.train.stages != self.config.train.stages:
            write_atomically(config, to_yaml(self.config))

    def finetuned(self) -> dict[str, Any]:
        """How `model.safetensors` was fine-tuned: targets, bound, tolerance, predictor; empty if it was not."""
        path = self.folder / "model.safetensors"
        return load_metadata(path).get("finetune", {}) if path.exists() else {}

    def _copy_base(self) -> None:
        """Take the weights of the run that is to be fine-tuned, and its predictors."""
        if not self.config.base:
            return
        for name in BASE_FILES:
            source = Path(self.config.base) / name
            if source.exists():
                write_atomically(self.folder / name, source.read_bytes())

    def note(self, **facts: Any) -> None:
        """Add to the provenance; `seconds` are merged stage by stage."""
        known = self.provenance
        seconds = known.get("seconds", {}) | facts.pop("seconds", {})
        write_json(self.folder / "provenance.json", {**known, **facts, "seconds": seconds})

    @property
    def begun(self) -> "Run":
        """The run whose cohort this one began with: itself, or the one that it fine-tunes."""
        base = self.config.base if "data_hash" not in self.provenance else ""
        return open_run(base) if base else self

    def refuse_other_data(self, data_hash: str) -> None:
        """Raises RunError if `data.prepared`, which may have moved, is not the cohort that the run began with."""
        begun = self.begun
        begun_with = begun.provenance.get("data_hash", data_hash)
        if self.config.data.prepared and begun_with != data_hash:
            advice = "fine-tune on the same" if begun is not self else "choose another run=, or delete the folder"
            raise RunError(
                f"run '{begun.folder}' was begun with other data than data.prepared={self.config.data.prepared} "
                f"holds (hash {begun_with[:12]}, now {data_hash[:12]}); {advice}"
            )

    def build_model(self) -> StructuralCausalModel:
        """An untrained model of this run's graph, the same for the same `train.seed`."""
        return build_model(self.config, self.graph)

    def save_model(
        self, scm: StructuralCausalModel, stages: list[str], facts: Mapping[str, Any] | None = None
    ) -> None:
        """Write `model.safetensors` with the names of the stages that are finished, and facts about the last."""
        metadata = {"graph": self.graph.to_dict(), "stages": stages, **(facts or {})}
        save_tensors(self.folder / "model.safetensors", scm.state_dict(), metadata)

    def save_predictor(self, role: str, predictor: NetworkPredictor) -> None:
        """Write `predictor.safetensors` or `evaluator.safetensors`."""
        metadata: dict[str, Any] = {
            "attributes": [variable.name for variable in predictor.variables],
            "config": asdict(predictor.config),
            "fingerprint": predictor.fingerprint(),
        }
        save_tensors(self.folder / f"{role}.safetensors", predictor.state_dict(), metadata)

    def load_predictor(self, role: str) -> NetworkPredictor:
        """The trained predictor or evaluator, frozen. Raises RunError: not trained, broken, or another shape."""
        path = self.folder / f"{role}.safetensors"
        if not path.exists():
            raise RunError(
                f"run '{self.folder}' has no {role}; add the stage 'predictors' to train.stages and train"
            )
        predictor = build_predictor(role, self.config, self.graph)
        tensors, _ = load_tensors(path)
        expected = {name: tensor.shape for name, tensor in predictor.state_dict().items()}
        if {name: tensor.shape for name, tensor in tensors.items()} != expected:
            raise RunError(f"'{path}' does not fit its configuration; train again with another run=")
        predictor.load_state_dict(tensors)
        return predictor.eval().requires_grad_(False)

    def finished_stages(self) -> list[str]:
        """The stages whose weights `model.safetensors` holds."""
        path = self.folder / "model.safetensors"
        return load_metadata(path)["stages"] if path.exists() else []

    def load_weights(self, scm: StructuralCausalModel) -> None:
        """Put the stored weights into a model. Raises RunError: another graph, other shapes, broken file."""
        path = self.folder / "model.safetensors"
        tensors, metadata = load_tensors(path)
        if metadata["graph"] != scm.graph.to_dict():
            other = metadata["graph"]["name"]
            raise RunError(
                f"'{path}' holds a model of another graph ('{other}', variables "
                f"{', '.join(metadata['graph']['variables'])}), not of this '{scm.graph.name}'; train again"
            )
        expected = {name: tuple(tensor.shape) for name, tensor in scm.state_dict().items()}
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        different = sorted(name for name in expected | found if expected.get(name) != found.get(name))
        if different:
            name = different[0]
            raise RunError(
                f"'{path}' does not fit its configuration: '{name}' is {found.get(name)}, expected "
                f"{expected.get(name)} ({len(different)} differ); train again with another run="
            )
        scm.load_state_dict(tensors)


def plan_run(config: Config) -> Run:
    """The run of a configuration, new or begun earlier; nothing is written yet.

    Raises RunError where the folder belongs to another configuration.
    """
    folder = Path(config.run)
    config, graph = open_graph(config)
    if (folder / "config.yaml").exists():
        _refuse_other_config(open_run(folder), config, graph)
    elif config.base:
        _check_base(open_run(config.base), config, graph)
    return Run(folder, config, graph)


def open_run(folder: str | Path) -> Run:
    """An existing run folder. Raises RunError: no such folder, or files missing or unreadable."""
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"no run folder '{folder}'; train one with: causalcxr train preset=quickstart run={folder}")
    for name in ("config.yaml", "graph.yaml"):
        if not (folder / name).is_file():
            raise RunError(f"'{folder}' is not a run folder: it has no '{name}'; train into it first")
    try:
        config = read_config(folder / "config.yaml")
        graph = graph_from_dict(yaml.safe_load((folder / "graph.yaml").read_text(encoding="utf-8")))
    except (ConfigError, GraphError, yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        advice = "if an older version made it, train again"
        raise RunError(f"run folder '{folder}' can't be read: {reason}; {advice}") from None
    config.run = str(folder)
    return Run(folder, config, graph)


def load(folder: str | Path, device: str = "cpu") -> StructuralCausalModel:
    """The trained model of a run, ready to query: `causalcxr.load("runs/demo").counterfactual(...)`.

    Raises RunError: no such run, unfinished training, or files that don't fit each other.
    """
    run = open_run(folder)
    missing = [stage for stage in run.config.train.stages if stage not in run.finished_stages()]
    if missing:
        raise RunError(f"run '{folder}' has not finished stage '{missing[0]}'; train with run={folder} to go on")
    scm = run.build_model()
    run.load_weights(scm)
    return scm.to(device).eval().requires_grad_(False)


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on, and the commit of the checkout if there is one."""
    found = {"python": platform.python_version()}
    for package in REPORTED_PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    commit = _git_commit()
    return found | ({"git_commit": commit} if commit else {})


def _git_commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    with suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return ""


def _refuse_other_config(run: Run, config: Config, graph: Graph) -> None:
    """Evaluation and logging may change from one call to the next; what determines the weights may not."""
    if run.graph.with_image_mechanism("") != graph.with_image_mechanism(""):
        raise RunError(
            f"run '{run.folder}' was made with another graph; to go on, repeat its settings (preset=...), else "
            "choose another run= or delete it"
        )
    for key, before, now in _changes(run.config, config, ("data", "model", "train", "finetune", "base")):
        if key == "train.stages" and set(before) <= set(now):
            continue  # stages may be added: what is trained stays
        raise RunError(
            f"run '{run.folder}' was made with {key}={before}, now it is {now}; choose another run=, "
            "or delete the folder to start over"
        )


def _check_base(base: Run, config: Config, graph: Graph) -> None:
    """A model can be fine-tuned if it is trained, not fine-tuned yet, and keeps its data and its shape."""
    missing = [stage for stage in config.train.stages if stage != "finetune"]
    missing = [stage for stage in missing if stage not in base.finished_stages()]
    if missing:
        raise RunError(f"base '{base.folder}' has not finished stage '{missing[0]}'; train with run={base.folder}")
    if base.finetuned():
        raise RunError(f"base '{base.folder}' is fine-tuned already; choose the run that it started from")
    if base.graph.with_image_mechanism("") != graph.with_image_mechanism(""):
        raise RunError(f"base '{base.folder}' was made with another graph; leave graph= away")
    for key, before, now in _changes(base.config, config, ("data", "model")):
        raise RunError(f"base '{base.folder}' was made with {key}={before}, now it is {now}; leave it away")


def _changes(old: Config, new: Config, sections: Sequence[str]) -> list[tuple[str, Any, Any]]:
    """What differs of that which determines the weights: key, old and new value."""
    before, now = yaml.safe_load(to_yaml(old)), yaml.safe_load(to_yaml(new))
    found = [d for section in sections for d in _differences(before[section], now[section], section)]
    return [d for d in found if d[0] not in FREE]


def _differences(old: Any, new: Any, key: str) -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        return [d for k in keys for d in _differences(old.get(k), new.get(k), f"{key}.{k}")]
    return [] if old == new else [(key, old, new)]
