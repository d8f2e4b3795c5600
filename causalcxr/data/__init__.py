"""Cohorts: one manifest and one memory-mapped image cache, whatever the source."""

from causalcxr.data.cohort import Cohort, Split, open_cohort, prepare, prepare_into
from causalcxr.data.config import DataConfig

__all__ = ["Cohort", "DataConfig", "Split", "open_cohort", "prepare", "prepare_into"]
