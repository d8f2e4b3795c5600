"""Cohorts: one manifest and one memory-mapped image cache, whatever the source."""

from causalcxr.data.cohort import Cohort, Split
from causalcxr.data.config import DataConfig
from causalcxr.data.preparation import open_cohort, prepare, prepare_into

__all__ = ["Cohort", "DataConfig", "Split", "open_cohort", "prepare", "prepare_into"]
