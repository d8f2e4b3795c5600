"""Does a classifier's answer depend on a sensitive attribute? Functions on arrays, without images and models."""

from causalcxr.audit.dependence import Dependence, as_published, gcm, pcm
from causalcxr.audit.yardsticks import group_gaps

__all__ = ["Dependence", "as_published", "gcm", "group_gaps", "pcm"]
