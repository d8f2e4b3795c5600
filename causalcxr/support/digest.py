"""A short name for settings: files are named by what their content depends on."""

import hashlib
import json
from typing import Any

__all__ = ["digest"]


def digest(settings: Any) -> str:
    """16 hexadecimal digits of anything that JSON can hold; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
