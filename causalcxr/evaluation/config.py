"""The configuration of an evaluation."""

from dataclasses import dataclass, field

from causalcxr.support.bounds import bounded

__all__ = ["EvaluateConfig"]


@dataclass
class EvaluateConfig:
    """What an evaluation measures and draws."""

    rows: int = bounded(512, least=0)  # of the test split; 0 takes all
    batch_size: int = bounded(64, least=1)
    seed: int = bounded(0, least=0)
    gallery_rows: int = bounded(6, least=1)
    samples: int = bounded(24, least=1)
    cycles: int = bounded(10, least=1)  # of the null intervention, for composition; one of runs in `compare`
    draws: int = bounded(4, least=1)  # abductions whose mean is the expected counterfactual; 1 skips it
    interventions: list[str] = field(default_factory=list)  # "age=80", ...; empty: chosen from the graph
    compare: list[str] = field(default_factory=list)  # folders of runs to measure beside it
