"""The configuration of a study across hospitals: who they are, how they learn together, and what."""

from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path

from causalcxr.config import ModelConfig, check_stage_names
from causalcxr.data.config import DataConfig
from causalcxr.graph import Graph
from causalcxr.support.bounds import bounded, bounded_list, check_bounds, choice
from causalcxr.support.errors import ConfigError, nearest
from causalcxr.training.config import FinetuneConfig, TrainConfig

__all__ = [
    "ENGINES",
    "MADE_BY",
    "MOMENTS",
    "OwnDataConfig",
    "RoundsConfig",
    "SitesConfig",
    "check_nvflare",
    "check_sites_config",
    "shipped_studies",
    "site_attribute",
]

MADE_BY = ("central", "local", "fedavg", "fedprox", "travelling", "fedtm")
MOMENTS = ("travel", "reset")
ENGINES = ("local", "nvflare")


@dataclass
class RoundsConfig:
    """Rounds of each stage; in a cycle of `travelling` every site is visited once, as in a round of the others."""

    attributes: int = bounded(20, least=1)
    predictors: int = bounded(20, least=1)
    image: int = bounded(40, least=1)
    outputs: int = bounded(20, least=1)
    finetune: int = bounded(10, least=1)


@dataclass
class SitesConfig:
    """What is learned at which sites, by which strategies.

    `by`: attribute of the graph whose labels are the sites; empty: the simulator's `site`, or films are dealt out.
    `each`: training films of each site that films are dealt to. `sizes`: the same, of unequal sites. `skip`: sites
    that are left out. `strategies`: central, local, fedavg, fedprox, travelling, fedtm. `predict`: attributes that
    the predictors learn; empty: all but the site. `epochs`: of a visit, over the site's films. `steps`: of a
    visit instead, if above 0. `moments`: whether those of the optimiser `travel` with the weights or are `reset`
    at every visit. `mu`: of FedProx. `enough`: films from which a site takes part in the averaging half of fedtm.
    `weighted`: whether a mean over sites is weighted by their films. `local_sites`: how many sites also learn
    alone, evenly by size. `validate_every`: rounds from one validation to the next.
    """

    run: str = "runs/sites"  # the folder that holds everything about the study
    graph: str = "chest"  # a shipped graph's name, or a YAML file
    data: DataConfig = field(default_factory=DataConfig)
    by: str = ""
    each: int = bounded(0, least=0)
    sizes: list[int] = field(default_factory=list)
    skip: list[str] = field(default_factory=list)
    strategies: list[str] = field(default_factory=lambda: ["central", "local", "fedavg", "travelling"])
    seeds: list[int] = bounded_list([0], least=0)
    predict: list[str] = field(default_factory=list)
    rounds: RoundsConfig = field(default_factory=RoundsConfig)
    epochs: float = bounded(1.0, above=0)
    steps: int = bounded(0, least=0)
    moments: str = choice("travel", MOMENTS)
    mu: float = bounded(0.01, least=0)
    enough: int = bounded(5, least=1)
    weighted: bool = True
    local_sites: int = bounded(8, least=1)
    validate_every: int = bounded(1, least=1)
    model: ModelConfig = field(default_factory=lambda: ModelConfig(image="flow"))
    train: TrainConfig = field(default_factory=lambda: TrainConfig(stages=["predictors"]))
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    engine: str = choice("local", ENGINES)
    patience: int = bounded(600, least=1)  # seconds that nvflare waits for a site's answer
    processes: int = bounded(0, least=0)  # models trained at once; 0 is one a core, or one on a GPU


@dataclass
class OwnDataConfig:
    """A hospital's own films: the file that lies at its client, and leaves it never."""

    data: DataConfig = field(default_factory=DataConfig)


def shipped_studies() -> dict[str, Path]:
    """The studies that come with the package: name to file."""
    return {path.stem: path for path in (Path(__file__).parents[1] / "presets" / "sites").glob("*.yaml")}


def site_attribute(config: SitesConfig) -> str:
    """The attribute whose labels are the sites; empty where films are dealt out."""
    return config.by or ("site" if config.data.sites else "")


def check_sites_config(config: SitesConfig, graph: Graph) -> None:
    """Refuse what can't be. Raises ConfigError, one line that names the key, what came and what was expected."""
    check_bounds(config)
    check_stage_names(config.train.stages)
    for name in config.strategies:
        if name not in MADE_BY:
            raise ConfigError(f"strategies has '{name}'; {nearest(name, MADE_BY)}")
    if not config.strategies:
        raise ConfigError(f"strategies is empty; expected at least one of: {', '.join(MADE_BY)}")
    for key in ("strategies", "seeds", "predict", "skip"):
        values = getattr(config, key)
        if len(set(values)) < len(values):
            raise ConfigError(f"{key} is {values}; expected each value once")
    for name in config.predict:
        if name not in graph.attributes:
            raise ConfigError(f"predict has '{name}', which is no attribute; {nearest(name, graph.attributes)}")
    if config.by:
        if config.by not in graph.attributes:
            raise ConfigError(
                f"by is '{config.by}', which is no attribute; {nearest(config.by, graph.attributes)}"
            )
        if graph.parents(config.by):
            causes = ", ".join(variable.name for variable in graph.parents(config.by))
            raise ConfigError(f"by is '{config.by}', which {causes} cause; no site alone can learn how")
        if not graph[config.by].is_discrete:
            raise ConfigError(f"by is '{config.by}', which is a number; expected an attribute with labels")
    if sum((bool(config.by), config.each > 0, bool(config.sizes))) > 1:
        raise ConfigError("by, each and sizes are three ways to make sites; expected one of them")
    if config.data.sites and (config.each or config.sizes):
        raise ConfigError("data.sites makes the sites itself; expected neither each nor sizes beside it")
    by = site_attribute(config)
    if by and by in config.predict:
        raise ConfigError(f"predict has '{by}', which is the site: no site can learn what tells sites apart")
    if any(size < 1 for size in config.sizes):
        raise ConfigError(f"sizes is {config.sizes}; expected at least one film a site")
    if config.predict and "image" in config.train.stages:
        raise ConfigError(f"predict is {config.predict}; expected none, for counterfactuals are scored by all")
    for stage in (each.name for each in fields(RoundsConfig)):
        accumulate = getattr(config.train, stage).accumulate
        if accumulate > 1:
            raise ConfigError(f"train.{stage}.accumulate is {accumulate}; expected 1, and a larger batch_size")
    if config.engine == "nvflare":
        check_nvflare()
    if config.train.precision == "16-mixed":
        raise ConfigError(
            "train.precision is '16-mixed'; its scale does not travel: expected 32-true or bf16-mixed"
        )


def check_nvflare() -> None:
    """Raises ConfigError where nvflare is not installed."""
    if find_spec("nvflare") is None:
        raise ConfigError("engine is nvflare, which is not installed; pip install 'causalcxr[federation]'")
