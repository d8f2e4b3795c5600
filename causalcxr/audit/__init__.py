"""Does a classifier's answer depend on a sensitive attribute? An audit with counterfactuals, and tests on arrays.

>>> causalcxr.audit("runs/demo", model)                        # a report; model: any function of images
>>> causalcxr.audit.pcm(y, a, z, groups=patients).p            # a test, without any image

Calling the module is calling `causalcxr.audit.runs.audit`. Names are imported when they are first used.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from causalcxr.audit.audit import Audit, audit_model
    from causalcxr.audit.dependence import Dependence, as_published, gcm, pcm
    from causalcxr.audit.exchange import export_images, read_scores
    from causalcxr.audit.yardsticks import group_gaps

__all__ = [
    "Audit",
    "Dependence",
    "as_published",
    "audit_model",
    "export_images",
    "gcm",
    "group_gaps",
    "pcm",
    "read_scores",
]

_HOMES = {
    "audit": ("Audit", "audit_model"),
    "dependence": ("Dependence", "as_published", "gcm", "pcm"),
    "exchange": ("export_images", "read_scores"),
    "yardsticks": ("group_gaps",),
}


class _Callable(ModuleType):
    """A module that can be called: one name for the audit and for its parts."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from causalcxr.audit.runs import audit

        return audit(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
