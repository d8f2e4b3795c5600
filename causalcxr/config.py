"""The typed configuration: dataclasses with their defaults, presets, and overrides such as `train.seed=1`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, ConfigTypeError, OmegaConfBaseException, ValidationError

from causalcxr.audit.config import AuditConfig
from causalcxr.data.config import DataConfig
from causalcxr.evaluation.config import EvaluateConfig
from causalcxr.mechanisms.registry import MechanismsConfig
from causalcxr.predictors.networks import PredictorConfig
from causalcxr.support.bounds import check_bounds, choice
from causalcxr.support.errors import ConfigError, nearest
from causalcxr.training.config import STAGES, FinetuneConfig, TrainConfig

__all__ = [
    "Config",
    "LogConfig",
    "ModelConfig",
    "check_stage_names",
    "load_config",
    "override_config",
    "read_config",
    "read_settings",
    "shipped_presets",
    "to_yaml",
]

Schema = TypeVar("Schema")


@dataclass
class ModelConfig(MechanismsConfig):
    """The mechanisms' and the classifiers' settings."""

    predictor: PredictorConfig = field(default_factory=PredictorConfig)  # fine-tunes
    evaluator: PredictorConfig = field(  # scores, and is never used in fine-tuning
        default_factory=lambda: PredictorConfig(architecture="resnet", widths=[16, 32, 64, 96])
    )


@dataclass
class LogConfig:
    """Where the curves go besides metrics.jsonl."""

    wandb: str = choice("off", ("off", "offline", "online"))
    project: str = "causalcxr"


@dataclass
class Config:
    """Everything that determines a run."""

    run: str = "runs/default"  # the folder that holds everything about the run
    base: str = ""  # a trained run whose model is fine-tuned here; empty: train from the start
    graph: str = "chest"  # a shipped graph's name, or a YAML file
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    log: LogConfig = field(default_factory=LogConfig)


def load_config(arguments: Iterable[str]) -> Config:
    """The configuration from `key=value` arguments; `preset=NAME` (or a YAML file) is applied first.

    `base=FOLDER` starts from the configuration of that run, with the stage `finetune` added.
    Raises ConfigError, one line that names the key, what came, what was expected and the nearest valid key.
    """
    pairs = [_split_argument(argument) for argument in arguments]
    presets = [value for key, value in pairs if key == "preset"]
    bases = [value for key, value in pairs if key == "base" and value]
    config = _config_of_base(bases[-1]) if bases else OmegaConf.structured(Config)
    for preset in presets:
        config.run = f"runs/{Path(preset).stem}"
        config = _merge_preset(config, preset)
    config = _merge_pairs(config, [pair for pair in pairs if pair[0] != "preset"])
    if bases and not any(key == "run" for key, _ in pairs):
        config.run = f"{bases[-1]}-{config.finetune.targets}"
    return _finish(config)


def override_config(config: Config, arguments: Iterable[str]) -> Config:
    """A copy of a configuration with `key=value` arguments put over it."""
    pairs = [_split_argument(argument) for argument in arguments]
    return _finish(_merge_pairs(OmegaConf.structured(config), pairs))


def read_config(path: Path) -> Config:
    """A configuration that `to_yaml` wrote, for example a run's `config.yaml`."""
    return _finish(_merge(OmegaConf.structured(Config), _read_yaml(path), f"in '{path}'"))


def read_settings(schema: type[Schema], path: Path, arguments: Iterable[str] = ()) -> Schema:
    """Settings of another kind, such as a study's, from a YAML file with `key=value` arguments put over it.

    Raises ConfigError, one line as `load_config` gives it.
    """
    config = _merge(OmegaConf.structured(schema), _read_yaml(path), f"in '{path}'")
    return _resolved(_merge_pairs(config, [_split_argument(argument) for argument in arguments]))


def to_yaml(config: Any) -> str:
    """A resolved configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True)


def shipped_presets() -> dict[str, Any]:
    """The presets that come with the package: name to readable resource."""
    folder = files("causalcxr") / "presets"
    return {Path(f.name).stem: f for f in folder.iterdir() if f.name.endswith(".yaml")}


def _config_of_base(folder: str) -> DictConfig:
    path = Path(folder)
    if not (path / "config.yaml").is_file():
        raise ConfigError(f"base '{folder}' is not a run folder: it has no 'config.yaml'; train it first")
    config = OmegaConf.structured(read_config(path / "config.yaml"))
    config.graph = str(path / "graph.yaml")
    config.train.stages = [*(stage for stage in config.train.stages if stage != "finetune"), "finetune"]
    return config


def _split_argument(argument: str) -> tuple[str, str]:
    key, equals, value = argument.partition("=")
    if not equals or not key:
        raise ConfigError(f"argument '{argument}': expected key=value, for example train.seed=1")
    return key, value


def _merge_pairs(config: DictConfig, pairs: Sequence[tuple[str, str]]) -> DictConfig:
    for key, value in pairs:
        try:
            override = OmegaConf.from_dotlist([f"{key}={value}"])
        except yaml.YAMLError:
            raise ConfigError(
                f"'{key}={value}': the value is not valid YAML; quote it or close its brackets"
            ) from None
        config = _merge(config, override, "on the command line")
    return config


def _merge_preset(config: DictConfig, name: str, within: tuple[str, ...] = ()) -> DictConfig:
    """Its includes first; `within`: the presets that include it."""
    if name in within:
        raise ConfigError(f"preset '{name}' includes itself ({' -> '.join([*within, name])})")
    shipped = shipped_presets()
    if name not in shipped and not Path(name).is_file():
        raise ConfigError(f"no preset '{name}': not a file and not a shipped preset; {nearest(name, shipped)}")
    declared = _read_yaml(shipped.get(name, Path(name)))
    for included in declared.pop("include", []):
        config = _merge_preset(config, str(included), (*within, name))
    return _merge(config, declared, f"in preset '{name}'")


def _read_yaml(source: Any) -> DictConfig:
    try:
        declared = OmegaConf.create(yaml.safe_load(source.read_text(encoding="utf-8")) or {})
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"'{source}' is no YAML: {error.problem}{where}") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"'{source}' can't be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(declared, DictConfig):
        raise ConfigError(f"'{source}': expected keys and values, got a list")
    return declared


def _merge(config: DictConfig, override: Any, where: str) -> DictConfig:
    try:
        merged = OmegaConf.merge(config, override)
    except ConfigKeyError as error:
        key = error.full_key or str(error.key)
        known = list(_leaves(config)) + list(_branches(config))
        raise ConfigError(f"unknown key '{key}' {where}; {nearest(key, [*known, 'preset'])}") from None
    except (ValidationError, ConfigTypeError, TypeError) as error:  # a plain TypeError for a list in place of keys
        key = _known_part(config, getattr(error, "full_key", None) or _first_key(override))
        expected, got = _expected(config, key), OmegaConf.select(override, key)
        raise ConfigError(f"'{key}' {where} is '{got}'; expected {expected}") from None
    except OmegaConfBaseException as error:
        raise ConfigError(f"configuration {where}: {str(error).splitlines()[0]}") from None
    assert isinstance(merged, DictConfig)
    return merged


def _finish(config: DictConfig) -> Config:
    finished = _resolved(config)
    check_stage_names(finished.train.stages)
    return finished


def _resolved(config: DictConfig) -> Any:
    try:
        OmegaConf.resolve(config)
        finished = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise ConfigError(f"configuration: {str(error).splitlines()[0]}") from None
    check_bounds(finished)
    return finished


def check_stage_names(stages: Sequence[str]) -> None:
    """Raises ConfigError: a stage that there is not, with the nearest that there is."""
    for stage in stages:
        if stage not in STAGES:
            raise ConfigError(f"'train.stages' has '{stage}'; {nearest(stage, STAGES)}")


def _leaves(config: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in config:
        value, name = config._get_node(key), f"{prefix}{key}"
        if isinstance(value, DictConfig):
            found |= _leaves(value, f"{name}.")
        else:
            found[name] = list(value) if isinstance(value, ListConfig) else value._value()
    return found


def _branches(config: DictConfig, prefix: str = "") -> list[str]:
    inner = [(f"{prefix}{key}", config._get_node(key)) for key in config]
    return [
        name for key, node in inner if isinstance(node, DictConfig) for name in (key, *_branches(node, f"{key}."))
    ]


def _first_key(override: Any) -> str:
    return next(iter(_leaves(override)), "?") if isinstance(override, DictConfig) else "?"


def _known_part(config: DictConfig, key: str) -> str:
    """The key, or that part of it which the configuration has: `train.stages` of `train.stages.a`."""
    try:
        OmegaConf.select(config, key)
    except OmegaConfBaseException:  # a name where a list has its numbers
        return _known_part(config, key.rpartition(".")[0])
    return key


def _expected(config: DictConfig, key: str) -> str:
    """What the key takes, in words, with its present value as the example."""
    value = OmegaConf.select(config, key)
    if isinstance(value, DictConfig):
        return f"keys such as {key}.{next(iter(value), 'name')}=..."
    kinds = {bool: "true or false", int: "a whole number", float: "a number", ListConfig: "a list"}
    return f"{kinds.get(type(value), 'text')} such as {key}={value}"
