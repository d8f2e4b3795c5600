"""The configuration of an audit."""

from dataclasses import dataclass, field

from causalcxr.support.bounds import bounded, choice

__all__ = ["AuditConfig"]


@dataclass
class AuditConfig:
    """What an audit asks.

    `contrasts`: `race=white..black`, `age=40..70`; empty: all pairs of labels, and the 10 % and 90 % quantiles of
    a number. `attributes`: whose contrasts are chosen; empty: all causes of the image but the finding.
    """

    attributes: list[str] = field(default_factory=list)
    contrasts: list[str] = field(default_factory=list)
    finding: str = "finding"  # the attribute that the audited scores are of
    effect: str = choice("direct", ("direct", "total"))  # direct: the finding and all else stay as they are
    rows: int = bounded(0, least=0)  # of the test split; 0 takes all
    batch_size: int = bounded(64, least=1)
    margin: float = bounded(0.1, above=0)  # the largest shift that does not matter, in deviations of the score
    alpha: float = bounded(0.05, above=0, below=1)
    summary: int = bounded(24, least=1)  # numbers that describe a patient's noise in the encode route
    splits: int = bounded(3, least=1)  # into halves, of the encode route
    shown: int = bounded(6, least=1)  # patients in the picture
    seed: int = bounded(0, least=0)
