"""What to read, from where, and how its columns and labels map to the variables of the graph."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from causalcxr.support.bounds import bounded, check_bounds, choice, finite_numbers
from causalcxr.support.errors import ConfigError

__all__ = ["SOURCES", "DataConfig", "check_config", "expand"]

SOURCES = (
    *("simulator", "folder", "morphomnist", "mimic", "chexpert", "chexpert_plus", "nih", "padchest", "brax"),
    *("taixray", "mira", "dicom"),
)


@dataclass
class DataConfig:
    """One cohort. `docs/own-data.md` shows the keys at work."""

    source: str = choice("simulator", SOURCES)
    root: str = ""  # folder that holds the images and the table; ~ and $VARIABLES are expanded
    table: str = "metadata.csv"  # CSV or .xlsx, relative to root (folder, mira, dicom)
    cache: str = "cache"  # folder in which prepared cohorts are kept
    prepared: str = ""  # folder that `causalcxr data prepare` wrote; then no other key but size is read
    size: int = bounded(64, least=1)  # pixels a side
    columns: dict[str, str] = field(default_factory=dict)  # what we need -> column of the table
    labels: dict[str, dict[str, str]] = field(default_factory=dict)  # attribute -> {value in table: label}
    other: dict[str, str] = field(default_factory=dict)  # attribute -> label of values without one
    uncertain: str = choice("reject", ("reject", "positive", "negative"))  # what a finding marked uncertain does
    views: list[str] = field(default_factory=lambda: ["AP", "PA"])  # projections that are kept; empty: all
    separator: str = "|"  # between the values of one cell ("Atelectasis|Effusion"); empty: a cell is one value
    patient_spelling: str = choice("merge", ("merge", "exact"))  # merge: 123, 123.0 and 0123 are one person
    shared_pixels: str = choice("refuse", ("refuse", "keep"))  # what a picture does that lies in two splits
    for_processing: str = choice("reject", ("reject", "keep"))  # dicom: films that no person was to look at
    hand_labels: str = choice("test", ("test", "all", "ignore"))  # mimic: films whose labels read by hand count
    label_file: str = ""  # chexpert_plus: findings_fixed.json, impression_fixed.json or report_fixed.json
    study_labels: str = choice("any", ("any", "all", "first"))  # chexpert_plus: films of one study that differ
    open_age: float = bounded(87, least=0)  # brax: years that "85 or more" stands for; 0 rejects it
    present_grade: int = bounded(1, least=1, most=4)  # taixray: the grade from which a finding is present
    sides: str = choice("any", ("any", "both", "left", "right"))  # taixray: the lungs in which it must be present
    validation_fraction: float = bounded(0.1, above=0, below=1)  # of the patients, without a split column
    test_fraction: float = bounded(0.2, above=0, below=1)  # the same; Morpho-MNIST has its own test part
    split_seed: int = bounded(0, least=0)  # which patients these are
    limit: int = bounded(0, least=0)  # rows read of each split, the first ones; 0 reads all
    train: int = bounded(8000, least=1)  # simulated subjects
    val: int = bounded(1000, least=1)
    test: int = bounded(1000, least=1)
    seed: int = bounded(0, least=0)  # of the simulated subjects
    knobs: dict[str, float] = finite_numbers()  # of the simulator; others keep their default
    planted: dict[str, dict[str, float]] = field(default_factory=dict)  # attribute -> {channel: strength}
    sites: dict[str, dict[str, float]] = field(default_factory=dict)  # simulated hospitals: {name: {law: number}}
    workers: int = bounded(0, least=0)  # threads that decode images; 0 is the number of cores


def check_config(config: DataConfig) -> None:
    """Refuse impossible values.

    Raises ConfigError, one line that names the key, what came and what was expected.
    """
    check_bounds(config, "data.")
    if config.validation_fraction + config.test_fraction >= 1:
        raise ConfigError(
            "data.validation_fraction + data.test_fraction leave nothing to train on: "
            f"{config.validation_fraction:g} + {config.test_fraction:g} must be below 1"
        )


def expand(path: str) -> Path:
    """A path as people write it: `~` and environment variables filled in, made absolute."""
    return Path(os.path.expandvars(path)).expanduser().absolute()
