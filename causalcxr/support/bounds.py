"""What a configuration's values may be, declared with the fields: `steps: int = bounded(1000, least=1)`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import field, fields, is_dataclass
from typing import Any

from causalcxr.support.errors import ConfigError, nearest

__all__ = ["bounded", "bounded_list", "check_bounds", "choice"]

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
    low = f"of at least {least:g}" if least is not None else f"above {above:g}"
    expected = f"a number {low}"
    if most is not None or below is not None:
        open_or_closed = ("[" if least is not None else "(", "]" if most is not None else ")")
        ends = [end for end in (least, above, most, below) if end is not None]
        expected = f"a number in {open_or_closed[0]}{ends[0]:g}, {ends[1]:g}{open_or_closed[1]}"

    def check(value: Any) -> str | None:
        inside = (
            math.isfinite(value)
            and (least is None or value >= least)
            and (above is None or value > above)
            and (most is None or value <= most)
            and (below is None or value < below)
        )
        return None if inside else expected

    return check
