"""The error of the erasers."""

from causalcxr.support.errors import DataError

__all__ = ["EmbeddingsError"]


class EmbeddingsError(DataError, ValueError):
    """What an eraser is given and can't take; a ValueError too, as scikit-learn's users expect."""
