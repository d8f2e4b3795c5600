"""Bounds are declared with a configuration's fields: every number has some, and what lies outside is refused."""

import math
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from causalcxr.config import Config
from causalcxr.support.bounds import bounded, bounded_list, check_bounds, choice
from causalcxr.support.errors import ConfigError


@dataclass
class Inner:
    share: float = bounded(0.5, above=0, most=1)
    sides: list[int] = bounded_list([4, 2], least=1)


@dataclass
class Outer:
    steps: int = bounded(10, least=1)
    rate: float = bounded(1.0, above=0)
    decay: float = bounded(0.9, least=0, below=1)
    mode: str = choice("fast", ("fast", "slow"))
    name: str = "anything"
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("steps", 0, "'steps' is 0; expected a number of at least 1"),
        ("rate", 0.0, "'rate' is 0.0; expected a number above 0"),
        ("rate", math.inf, "'rate' is inf; expected a number above 0"),
        ("decay", -1, "'decay' is -1; expected a number in [0, 1)"),
        ("decay", 1, "'decay' is 1; expected a number in [0, 1)"),
        ("mode", "fats", "'mode' is 'fats'; expected one of: fast, slow; did you mean 'fast'?"),
        ("inner.share", 0, "'inner.share' is 0; expected a number in (0, 1]"),
        ("inner.share", 1.5, "'inner.share' is 1.5; expected a number in (0, 1]"),
        (
            "inner.sides",
            [],
            "'inner.sides' is []; expected a list of at least one entry, each a number of at least 1",
        ),
        (
            "inner.sides",
            [4, 0],
            "'inner.sides' is [4, 0]; expected a list of at least one entry, each a number of at least 1",
        ),
    ],
)
def test_what_lies_outside_is_refused_by_its_key(key, value, expected):
    assert complaint_about(key, value, Outer()) == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [("steps", 1), ("rate", 1e-300), ("decay", 0), ("inner.share", 1), ("inner.sides", [1]), ("name", "")],
)
def test_what_lies_inside_passes(key, value):
    assert complaint_about(key, value, Outer()) is None


def test_defaults_of_lists_are_not_shared():
    first, second = Inner(), Inner()
    first.sides.append(0)
    assert second.sides == [4, 2]


def complaint_about(key: str, value: Any, config: Any) -> str | None:
    """What `check_bounds` says once the value is set."""
    *owners, name = key.split(".")
    owner = config
    for each in owners:
        owner = getattr(owner, each)
    setattr(owner, name, value)
    try:
        check_bounds(config)
    except ConfigError as error:
        return str(error)
    return None


@dataclass(frozen=True)
class Number:
    """A field of the configuration that holds a number, or several."""

    key: str
    kind: type  # int or float
    within: type | None  # list or dict, of several
    check: Callable[[Any], str | None] | None  # what is declared with it

    @property
    def expected(self) -> str | None:
        """The bounds in words."""
        return self.check and self.check(self.put(math.nan))

    def put(self, number: float) -> Any:
        """A value of the field that holds this number."""
        return {list: [number], dict: {"name": number}}.get(self.within, number)

    def ends(self) -> list[tuple[float, bool, float]]:
        """Each end of what is allowed, whether it is itself allowed, and the direction that leads out."""
        assert self.expected is not None
        if self.expected.endswith("finite"):
            return []
        if found := re.search(r"a number of at least (\S+)$", self.expected):
            return [(float(found[1]), True, -math.inf)]
        if found := re.search(r"a number above (\S+)$", self.expected):
            return [(float(found[1]), False, -math.inf)]
        found = re.search(r"a number in ([\[(])(\S+), (\S+)([\])])$", self.expected)
        assert found is not None, self.expected
        return [(float(found[2]), found[1] == "[", -math.inf), (float(found[3]), found[4] == "]", math.inf)]

    def beside(self, number: float, towards: float) -> float:
        """The next number of this kind; beside 0 the smallest that a process which flushes denormals can see."""
        if self.kind is int:
            return int(number) + (1 if towards > number else -1)
        return math.nextafter(number, towards) if number else math.copysign(sys.float_info.min, towards)


def numbers_of(config: Any, prefix: str = "") -> Iterator[Number]:
    """Every number of a configuration, whichever dataclass declares it."""
    hints = get_type_hints(type(config))
    for each in fields(config):
        key, hint, value = f"{prefix}{each.name}", hints[each.name], getattr(config, each.name)
        kind = next((kind for kind in (hint, *get_args(hint)) if kind in (int, float)), None)
        if is_dataclass(value):
            yield from numbers_of(value, f"{key}.")
        elif kind is not None:
            yield Number(key, kind, get_origin(hint), each.metadata.get("bounds"))


NUMBERS = list(numbers_of(Config()))


def test_every_number_of_the_configuration_has_declared_bounds():
    assert {"train.image.beta1", "model.hvae.widths", "data.knobs"} <= {number.key for number in NUMBERS}
    assert [number.key for number in NUMBERS if not number.expected] == []


@pytest.mark.parametrize("number", [n for n in NUMBERS if n.expected], ids=lambda number: number.key)
def test_the_configuration_takes_its_bounds_and_nothing_beyond(number):
    outside, inside = [math.nan, math.inf, -math.inf], [number.kind(1)] if not number.ends() else []
    for end, allowed, out in number.ends():
        outside.append(number.beside(end, out) if allowed else end)
        inside.append(number.kind(end) if allowed else number.beside(end, -out))
    for value in [*map(number.put, outside), *([[]] if number.within is list else [])]:
        expected = f"'{number.key}' is {value}; expected {number.expected}"
        assert complaint_about(number.key, value, Config()) == expected
    for value in map(number.put, inside):
        assert complaint_about(number.key, value, Config()) is None
