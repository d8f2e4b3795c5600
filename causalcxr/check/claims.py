"""What a graph says about its attributes that data can contradict: one independence for every missing edge."""

from dataclasses import dataclass

from causalcxr.graph import Graph

__all__ = ["Claim", "edges", "implied_independences"]


@dataclass(frozen=True)
class Claim:
    """`later` is independent of `earlier` given `given`, attributes all. `earlier` comes first in the graph."""

    earlier: str
    later: str
    given: tuple[str, ...]


def implied_independences(graph: Graph) -> list[Claim]:
    """A basis of the independences among the attributes: each one given its parents, of every earlier non-parent.

    This is the ordered local Markov property, pair by pair (Pearl 1988, section 3.3). Every d-separation of the
    graph follows from it unless variables depend on each other only jointly, as an exclusive or depends on its two
    inputs. Variables that could stand in either order stand in the order of the graph's file.
    """
    claims = []
    for position, later in enumerate(graph.attributes):
        given = graph[later].parents
        claims += [Claim(earlier, later, given) for earlier in graph.attributes[:position] if earlier not in given]
    return claims


def edges(graph: Graph) -> list[Claim]:
    """For every edge among the attributes, the independence that would hold without it."""
    found = []
    for later in graph.attributes:
        parents = graph[later].parents
        found += [Claim(cause, later, tuple(p for p in parents if p != cause)) for cause in parents]
    return found
