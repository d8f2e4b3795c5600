"""The configuration of a bias study: what is planted, on which data, and which networks are trained."""

import re
from dataclasses import dataclass, field

from causalcxr.data.config import DataConfig
from causalcxr.predictors.networks import PredictorConfig
from causalcxr.support.bounds import bounded, bounded_list, check_bounds, choice
from causalcxr.support.errors import ConfigError, nearest
from causalcxr.training.config import StageConfig

__all__ = ["METHODS", "StudyConfig", "check_study"]

METHODS = ("none", "reweighing", "unlearning", "group_models")


@dataclass
class StudyConfig:
    """A study: one twin pair for each q, kind, strength and seed.

    `plant`: kind to channel to strength, such as `{marker: {marker: 1.0}}`; two channels are planted at once. A
    kind's strengths are multiplied by each of `strengths`. `q`: share of group B among those with the finding.
    `module`: `FILE.py:FUNCTION`, called with the number of channels, returns a module from images
    `(B, C, H, W)` in [0, 1] to features `(B, F)`, in the place of `network`. `mitigate`: methods that are compared
    with none, at each of `mitigate_q`; empty: the largest q. `encode_q`: where layers are probed and saliency is
    measured; empty: the smallest and the largest q.
    """

    run: str = "runs/bias"  # the folder that holds everything about the study
    graph: str = "chest"  # a shipped graph's name, or a YAML file
    finding: str = "finding"  # the binary attribute that the networks learn; its second label is positive
    data: DataConfig = field(default_factory=DataConfig)
    plant: dict[str, dict[str, float]] = field(default_factory=dict)
    strengths: list[float] = bounded_list([1.0], least=0)
    q: list[float] = bounded_list([0.5, 0.6, 0.7, 0.8, 0.9], least=0)
    seeds: list[int] = bounded_list([0, 1, 2], least=0)
    network: PredictorConfig = field(default_factory=lambda: PredictorConfig(augment=0.0))
    module: str = ""
    train: StageConfig = field(default_factory=lambda: StageConfig(steps=600, batch_size=64, clip_norm=5.0))
    mitigate: list[str] = field(default_factory=list)
    mitigate_q: list[float] = field(default_factory=list)
    unlearning: float = bounded(1.0, least=0)  # weight of the loss that makes features tell nothing of the group
    encode_q: list[float] = field(default_factory=list)
    probe_rows: int = bounded(600, least=0)  # test subjects whose features are probed; 0 probes no layer
    saliency_rows: int = bounded(24, least=0)  # test subjects; 0 measures no saliency
    device: str = choice("auto", ("auto", "cpu", "cuda"))
    processes: int = bounded(0, least=0)  # networks trained at once; 0 is one a core, or one on a GPU

    @property
    def mitigated_q(self) -> list[float]:
        """Where mitigations are compared."""
        return self.mitigate_q or [max(self.q)]

    @property
    def encoded_q(self) -> list[float]:
        """Where layers are probed."""
        return self.encode_q or sorted({min(self.q), max(self.q)})


def check_study(config: StudyConfig) -> None:
    """Refuse what can't be. Raises ConfigError, one line that names the key, what came and what was expected."""
    check_bounds(config)
    if not config.plant:
        raise ConfigError("plant: expected at least one kind of bias, such as plant={marker: {marker: 1.0}}")
    for kind, channels in config.plant.items():
        if not channels:
            raise ConfigError(
                f"plant.{kind} plants nothing; expected channels and strengths, such as {{marker: 1.0}}"
            )
        if not re.fullmatch(r"\w+", kind, re.ASCII):
            raise ConfigError(f"plant: the kind '{kind}' names a folder; use letters, digits and _")
    for key in ("q", "mitigate_q", "encode_q"):
        for q in getattr(config, key):
            if not 0.5 <= q < 1:
                raise ConfigError(f"{key} has {q:g}; expected numbers from 0.5 to below 1")
            if q not in config.q:
                raise ConfigError(f"{key} has {q:g}, which is not in q={config.q}")
    for method in config.mitigate:
        if method not in METHODS[1:]:
            raise ConfigError(f"mitigate has '{method}'; {nearest(method, METHODS[1:])}")
    for key in ("q", "strengths", "seeds", "mitigate", "mitigate_q", "encode_q"):
        values = getattr(config, key)
        if len(set(values)) < len(values):
            raise ConfigError(f"{key} is {values}; expected each value once")
    if 0 < config.probe_rows < 40:
        raise ConfigError(f"probe_rows is {config.probe_rows}; expected at least 40, or 0 for none")
    if config.data.planted:
        raise ConfigError(
            "data.planted: a study plants its own biases, so that there is a twin without; use plant"
        )
