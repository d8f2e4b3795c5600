"""Cohorts: one manifest and one memory-mapped image cache, whatever the source. Names are imported when used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from causalcxr.data.cohort import Cohort, Split
    from causalcxr.data.config import DataConfig
    from causalcxr.data.preparation import open_cohort, prepare, prepare_into

__all__ = ["Cohort", "DataConfig", "Split", "open_cohort", "prepare", "prepare_into"]

_HOMES = {
    "cohort": ("Cohort", "Split"),
    "config": ("DataConfig",),
    "preparation": ("open_cohort", "prepare", "prepare_into"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"causalcxr.data.{home}"), name)
    raise AttributeError(f"module 'causalcxr.data' has no attribute '{name}'")
