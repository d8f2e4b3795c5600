"""What an audit compares: the same patients with one value of an attribute and with another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from causalcxr.audit.config import AuditConfig
from causalcxr.graph import Graph
from causalcxr.interventions import low_and_high
from causalcxr.support.errors import ConfigError, nearest
from causalcxr.values import Batch, encode_intervention, parse_assignments, readable

__all__ = ["Contrast", "choose_contrasts", "levels_of"]


@dataclass(frozen=True)
class Contrast:
    """`do(attribute = other)` against `do(attribute = reference)`, labels or numbers."""

    attribute: str
    reference: Any
    other: Any

    def text(self, graph: Graph) -> str:
        """`sex: female to male`."""
        before, after = (readable(graph[self.attribute], value) for value in (self.reference, self.other))
        return f"{self.attribute}: {before} to {after}"


def choose_contrasts(graph: Graph, config: AuditConfig, train: Batch) -> list[Contrast]:
    """The contrasts that are named, or those of each attribute. Raises ConfigError, GraphError: an unknown one."""
    if config.finding not in (*graph.attributes, AuditConfig().finding):
        raise ConfigError(
            f"audit.finding: no attribute '{config.finding}'; {nearest(config.finding, graph.attributes)}"
        )
    if config.contrasts:
        named = [_parse(graph, text) for text in config.contrasts]
        if any(contrast.attribute == config.finding for contrast in named):
            raise ConfigError(
                f"audit.contrasts: '{config.finding}' is what the scores are of; name another attribute"
            )
        pairs = {(c.attribute, frozenset((c.reference, c.other))): c for c in reversed(named)}
        return list(dict.fromkeys(contrast for contrast in named if contrast in pairs.values()))
    for name in config.attributes:
        if name not in graph.attributes:
            raise ConfigError(f"audit.attributes: no attribute '{name}'; {nearest(name, graph.attributes)}")
    found = []
    for name in config.attributes or [name for name in graph.causes_of_image if name != config.finding]:
        if graph[name].is_discrete:
            labels = graph[name].labels
            found += [Contrast(name, a, b) for i, a in enumerate(labels) for b in labels[i + 1 :]]
        else:
            found.append(Contrast(name, *low_and_high(graph[name], train[name])))
    return found


def levels_of(contrasts: Sequence[Contrast]) -> list[tuple[str, Any]]:
    """Every attribute and value that takes part, once."""
    pairs = ((c.attribute, value) for c in contrasts for value in (c.reference, c.other))
    return list(dict.fromkeys(pairs))


def _parse(graph: Graph, text: str) -> Contrast:
    name, equals, values = (part.strip() for part in text.partition("="))
    before, dots, after = (part.strip() for part in values.partition(".."))
    if not (equals and dots and before and after):
        raise ConfigError(f"audit.contrasts: '{text}'; expected NAME=VALUE..VALUE, for example age=40..70")
    parsed = [parse_assignments(graph, [f"{name}={value}"])[name] for value in (before, after)]
    for value in parsed:
        encode_intervention(graph, {name: value}, 1)
    if parsed[0] == parsed[1]:
        raise ConfigError(f"audit.contrasts: '{text}' compares a value with itself")
    return Contrast(name, *parsed)
