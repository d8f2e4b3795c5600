"""What a configuration's values may be, declared with the fields: `steps: int = bounded(1000, least=1)`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import field, fields, is_dataclass
from typing import Any

from causalcxr.support.errors import ConfigError, nearest

__all__ = ["bounded", "bounded_list", "check_bounds", "choice", "finite_numbers"]

_KEY = "bounds"  # under which a field's metadata has its check


def bounded(
    default: float,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> Any:
    """A finite number of at least `least` or above `above`, and of at most `most` or below `below`."""
    return field(default=default, metadata={_KEY: _interval(least, above, most, below)})


def bounded_list(default: Sequence[float], least: float) -> Any:
    """A list of at least one number, each of at least `least`."""
    number = _interval(least, None, None, None)

    def check(value: Any) -> str | None:
        if len(value) and not any(number(each) for each in value):
            return None
        return f"a list of at least one entry, each {number(math.nan)}"

    return field(default_factory=lambda: list(default), metadata={_KEY: check})


def finite_numbers() -> Any:
    """Numbers by name, none by default, each finite."""

    def check(value: Any) -> str | None:
        return None if all(map(math.isfinite, value.values())) else "numbers by name, each finite"

    return field(default_factory=dict, metadata={_KEY: check})


def choice(default: str, options: Sequence[str]) -> Any:
    """One of a few words."""

    def check(value: Any) -> str | None:
        if value in options:
            return None
        close = nearest(value, options)
        return f"one of: {', '.join(options)}" + (f"; {close}" if close.startswith("did") else "")

    return field(default=default, metadata={_KEY: check})


def check_bounds(config: Any, prefix: str = "") -> None:
    """Check every field of a dataclass, and of the dataclasses in it, against what is declared with it.

    Raises ConfigError, one line that names the key, what came and what was expected.
    """
    for each in fields(config):
        value, key = getattr(config, each.name), f"{prefix}{each.name}"
        if is_dataclass(value):
            check_bounds(value, f"{key}.")
        elif expected := each.metadata.get(_KEY, lambda value: None)(value):
            shown = f"'{value}'" if isinstance(value, str) else value
            raise ConfigError(f"'{key}' is {shown}; expected {expected}")


def _interval(
    least: float | None, above: float | None, most: float | None, below: float | None
) -> Callable[[Any], str | None]:
    """A check that gives what was expected in words, or None where it holds."""
    expected = _in_words(least, above, most, below)

    def check(value: Any) -> str | None:
        inside = (
            isinstance(value, int | float)
            and math.isfinite(value)
            and (least is None or value >= least)
            and (above is None or value > above)
            and (most is None or value <= most)
            and (below is None or value < below)
        )
        return None if inside else expected

    return check


def _in_words(least: float | None, above: float | None, most: float | None, below: float | None) -> str:
    """An interval where both ends are given, else the one that is."""
    low, high = (least if above is None else above), (most if below is None else below)
    if low is not None and high is not None:
        return f"a number in {'[' if above is None else '('}{low:g}, {high:g}{']' if below is None else ')'}"
    ends = {"of at least": least, "above": above, "of at most": most, "below": below}
    given = [f"{words} {end:g}" for words, end in ends.items() if end is not None]
    return f"a number {given[0]}" if given else "a finite number"
