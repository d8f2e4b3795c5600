"""How metrics are named and stored: a key of several words, values by row, and an entry with its interval."""

from typing import Any

from torch import Tensor

__all__ = ["Entry", "Key", "Metrics", "Rows"]

Key = tuple[str, ...]  # ("exact", "model", "age", "error"); joined by "/" in metrics.json
Rows = dict[Key, Tensor]  # values of every row (B,), or numerator and denominator (B, 2)
Entry = dict[str, Any]  # value, low, high, n, definition
Metrics = dict[Key, Entry]
