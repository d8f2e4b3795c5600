"""Does a classifier's answer depend on a sensitive attribute? Tests on arrays, without images and models."""

from causalcxr.audit.dependence import Dependence, as_published, gcm, pcm

__all__ = ["Dependence", "as_published", "gcm", "pcm"]
