"""What the page asks, checked: nothing that a browser sends is believed."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from causalcxr.graph import Graph
from causalcxr.scm import EFFECTS
from causalcxr.support.errors import ConfigError, nearest
from causalcxr.values import encode_intervention

__all__ = ["MOST_DRAWS", "Question", "parse_question"]

MOST_DRAWS = 16
LONGEST_NAME = 255  # of a file
LONGEST_LABEL = 1000
MOST = 1e15
KEYS = ("row", "pixels", "name", "given", "do", "effect", "pixel_noise", "draws", "seed")


@dataclass(frozen=True)
class Question:
    """One patient, had `do` been the case.

    `row`: the patient's number in the split that the page shows; None of an uploaded film, whose `pixels` are
    uint8 `(C, H, W)`, whose file is called `name`, and whose recorded attributes are `given`. The rest is as in
    `causalcxr.answer`.
    """

    row: int | None
    do: Mapping[str, Any] = field(default_factory=dict)
    effect: str = "total"
    pixel_noise: str = "kept"
    draws: int = 1
    seed: int = 0
    pixels: np.ndarray | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    def settings(self) -> dict[str, Any]:
        """The question as JSON, without the pixels."""
        who = {"row": self.row} if self.row is not None else {"film": self.name, "given": dict(self.given)}
        how = {"effect": self.effect, "pixel_noise": self.pixel_noise, "draws": self.draws, "seed": self.seed}
        return who | {"do": dict(self.do)} | how


def parse_question(
    asked: Any, graph: Graph, shape: Sequence[int], patients: int, modes: Sequence[str] = ("kept",)
) -> Question:
    """A question from JSON. `shape`: of an image. `patients`: how many there are. `modes`: of the pixel noise.

    Raises ConfigError: another key, no such patient, or a setting that cannot be. Raises GraphError: an attribute
    or value that the graph does not have, or an attribute of an uploaded film that is not stated.
    """
    if not isinstance(asked, Mapping):
        raise ConfigError(f"question: expected settings by name, got {type(asked).__name__}")
    for key in asked:
        if key not in KEYS:
            raise ConfigError(f"question: unknown key '{str(key)[:40]}'; {nearest(str(key)[:40], KEYS)}")
    do, given = (_assigned(asked.get(key, {}), key) for key in ("do", "given"))
    encode_intervention(graph, do, 1)
    effect, mode = asked.get("effect", EFFECTS[0]), asked.get("pixel_noise", modes[0])
    for value, possible, name in ((effect, EFFECTS, "effect"), (mode, modes, "pixel noise")):
        if value not in possible:
            raise ConfigError(f"unknown {name} '{str(value)[:40]}'; {nearest(str(value)[:40], possible)}")
    draws = _whole(asked.get("draws", 1), "draws", 1, MOST_DRAWS)
    how = {"do": do, "effect": effect, "pixel_noise": mode, "draws": draws}
    how["seed"] = _whole(asked.get("seed", 0), "seed", 0, 2**31 - 1)
    if asked.get("pixels") is None:
        return Question(_whole(asked.get("row"), "row", 0, patients - 1), **how)
    if missing := [name for name in graph.attributes if name not in given]:
        raise ConfigError(f"an uploaded film needs all recorded attributes; '{missing[0]}' is not stated")
    encode_intervention(graph, given, 1)
    name = str(asked.get("name", "film"))[:LONGEST_NAME]
    return Question(None, pixels=_pixels(asked["pixels"], shape), given=given, name=name, **how)


def _assigned(values: Any, key: str) -> dict[str, Any]:
    if not isinstance(values, Mapping) or not all(map(_is_value, values.values())):
        raise ConfigError(f"{key}: expected a label or number by attribute")
    return {str(name): value for name, value in values.items()}


def _is_value(value: Any) -> bool:
    """A label, or a number that is not absurd."""
    if isinstance(value, str):
        return len(value) <= LONGEST_LABEL
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST


def _whole(value: Any, name: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"{name}: expected a whole number from {low} to {high}, got {str(value)[:40]}")
    return value


def _pixels(text: Any, shape: Sequence[int]) -> np.ndarray:
    expected = int(np.prod(shape))
    try:
        content = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise ConfigError("pixels: expected base64") from None
    if len(content) != expected:
        raise ConfigError(f"pixels: expected {expected:,} bytes, got {len(content):,}")
    return np.frombuffer(content, np.uint8).reshape(tuple(shape)).copy()
