"""What an audit concludes of each contrast: from p-values, intervals and gates to one word and its reason.

`dependence`: every route rejects that the score does not depend on the attribute. `equivalent`: the effect lies
inside the margin, by both one-sided tests, and no route without an interval rejects. `inconclusive`: all else.
`generator failed`: a gate is not passed, so nothing can be said. A p-value above alpha alone is no evidence of
invariance: conditional independence does not imply it (Fawkes and Evans 2023).
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from causalcxr.metrics.p_values import holm

__all__ = ["Gate", "RouteResult", "Verdict", "judge"]

ALPHA = 0.05
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Gate:
    """A number that must lie between two limits for the audit to say anything. NaN does not.

    With an interval it fails where all of that lies outside: noise alone is no failure.
    """

    name: str
    value: float
    low: float = float("-inf")
    high: float = float("inf")
    interval: tuple[float, float] | None = None

    @property
    def passed(self) -> bool:
        smallest, largest = self.interval or (self.value, self.value)
        return self.value == self.value and largest >= self.low and smallest <= self.high

    def __str__(self) -> str:
        limits = f"at least {self.low:g}" if self.value < self.low else f"at most {self.high:g}"
        return f"{self.name} is {self.value:.3g}, expected {limits}"


@dataclass(frozen=True)
class RouteResult:
    """Of one route and contrast: the p-value of no effect, and the 90 % interval of the effect, if it has one."""

    p: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Verdict:
    """`word`: `dependence`, `equivalent`, `inconclusive` or `generator failed`. `adjusted`: p-values by route."""

    word: str
    reason: str
    adjusted: Mapping[str, float]


def judge(
    contrasts: Mapping[K, Mapping[str, RouteResult]],
    gates: Mapping[K, Sequence[Gate]],
    margins: Mapping[K, float],
    alpha: float = ALPHA,
) -> dict[K, Verdict]:
    """A verdict for every contrast (of every score): what each route found of it, its gates, and its margin.

    p-values are corrected for the number of all that is asked within a route (Holm). A margin is the largest
    effect that does not matter, in units of the interval.
    """
    adjusted: dict[K, dict[str, float]] = {name: {} for name in contrasts}
    for route in dict.fromkeys(route for found in contrasts.values() for route in found):
        names = [name for name, found in contrasts.items() if route in found]
        p_values = holm([contrasts[name][route].p for name in names])
        for name, p in zip(names, p_values, strict=True):
            adjusted[name][route] = p
    verdicts = {}
    for name, found in contrasts.items():
        failed = "; ".join(str(gate) for gate in gates.get(name, ()) if not gate.passed)
        verdicts[name] = (
            Verdict("generator failed", failed, adjusted[name])
            if failed
            else _judge(found, adjusted[name], margins[name], alpha)
        )
    return verdicts


def _judge(found: Mapping[str, RouteResult], p: Mapping[str, float], margin: float, alpha: float) -> Verdict:
    rejecting = [route for route in found if p[route] < alpha]
    silent = [route for route in found if route not in rejecting]
    inside = [
        route
        for route, result in found.items()
        if result.interval is not None and -margin < result.interval[0] <= result.interval[1] < margin
    ]
    if rejecting and not silent:
        small = f", and the effect is smaller than the margin of {margin:.3g}" if inside else ""
        return Verdict("dependence", f"{_names(rejecting)} p < {alpha:g}{small}", p)
    if inside and set(rejecting) <= set(inside):
        though = f", though p < {alpha:g}" if rejecting else ""
        return Verdict("equivalent", f"{_names(inside)} inside the margin of {margin:.3g}{though}", p)
    if rejecting:
        return Verdict("inconclusive", f"{_names(rejecting)} p < {alpha:g}, {_names(silent)} not", p)
    return Verdict("inconclusive", f"no p < {alpha:g}, and no interval inside the margin of {margin:.3g}", p)


def _names(routes: Sequence[str]) -> str:
    return " and ".join(routes) + ":"
