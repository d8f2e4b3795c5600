"""Declares and validates a causal graph: variables, their kinds, labels, units and ranges, and the edges.

A graph is a YAML file; nothing about particular variables is written in Python. See `scm_graphs/chest.yaml`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from causalcxr.support.errors import GraphError, nearest

__all__ = ["Graph", "Variable", "graph_from_dict", "load_graph", "shipped_graphs"]

# By kind. An image may name another (mechanisms/registry.py).
MECHANISMS = {"binary": "categorical", "categorical": "categorical", "continuous": "spline", "image": "hvae"}
GRAPH_KEYS = ("name", "description", "variables")
VARIABLE_KEYS = ("kind", "labels", "range", "unit", "channels", "parents", "mechanism", "description")
KEYS_OF_KIND = {
    "binary": {"labels"},
    "categorical": {"labels"},
    "continuous": {"range", "unit"},
    "image": {"channels"},
}


@dataclass(frozen=True)
class Variable:
    """One node of the graph.

    `kind` is binary, categorical, continuous or image. Discrete variables have `labels` (class order is label
    order); continuous ones an inclusive `range` in `unit`; an image has `channels`.
    """

    name: str
    kind: str
    parents: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    range: tuple[float, float] | None = None
    unit: str = ""
    channels: int = 1
    mechanism: str = ""
    description: str = ""

    @property
    def is_discrete(self) -> bool:
        """Whether the values are class indices."""
        return self.kind in ("binary", "categorical")

    @property
    def bounds(self) -> tuple[float, float]:
        """The inclusive range of a continuous variable."""
        assert self.range is not None, f"{self.name} is not continuous"
        return self.range


@dataclass(frozen=True)
class Graph:
    """A validated causal graph.

    `variables` is in topological order: the image last, otherwise ties keep the order of the file.
    """

    name: str
    variables: Mapping[str, Variable]
    description: str = field(default="", compare=False)

    def __getitem__(self, name: str) -> Variable:
        try:
            return self.variables[name]
        except KeyError:
            hint = nearest(name, self.variables)
            raise GraphError(f"graph '{self.name}' has no variable '{name}': {hint}") from None

    @cached_property
    def image(self) -> str | None:
        """Name of the image variable, or None for a graph of attributes only."""
        return next((v.name for v in self.variables.values() if v.kind == "image"), None)

    @cached_property
    def attributes(self) -> tuple[str, ...]:
        """Names of all variables but the image, in topological order."""
        return tuple(name for name in self.variables if name != self.image)

    def parents(self, name: str) -> tuple[Variable, ...]:
        """The parents of a variable, in the order of its declaration."""
        return tuple(self.variables[parent] for parent in self[name].parents)

    def descendants(self, *names: str) -> frozenset[str]:
        """Every variable reachable from any of `names`, these excluded unless reachable from one another."""
        found: set[str] = set()
        for variable in self.variables.values():  # topological: parents come before children
            if any(parent in found or parent in names for parent in variable.parents):
                found.add(variable.name)
        return frozenset(found)

    @cached_property
    def causes_of_image(self) -> tuple[str, ...]:
        """The attributes with a path to the image: those whose intervention can be seen in it."""
        return tuple(name for name in self.attributes if self.image in self.descendants(name))

    def without_image(self) -> "Graph":
        """The graph of the attributes alone; they have no cause outside it."""
        return Graph(self.name, {name: self.variables[name] for name in self.attributes}, self.description)

    def with_image_mechanism(self, name: str) -> "Graph":
        """The same graph whose image, if it has one, is made by another mechanism."""
        changed = {v: replace(self[v], mechanism=name) if v == self.image else self[v] for v in self.variables}
        return Graph(self.name, changed, self.description)

    def to_dict(self) -> dict[str, Any]:
        """The plain form that `graph_from_dict` reads, as stored with a run."""
        return {"name": self.name, "description": self.description} | {
            "variables": {v.name: _variable_to_dict(v) for v in self.variables.values()}
        }


def shipped_graphs() -> dict[str, Any]:
    """The graphs that come with the package: name to readable resource."""
    folder = files("scm_graphs")
    return {Path(f.name).stem: f for f in folder.iterdir() if f.name.endswith(".yaml")}


def load_graph(path_or_name: str | Path) -> Graph:
    """Load a graph from a YAML file, or one of the shipped graphs by its name (`chest`).

    Raises GraphError: no such graph, invalid YAML, or a declaration that `graph_from_dict` refuses.
    """
    path, shipped = Path(path_or_name), shipped_graphs()
    if str(path_or_name) in shipped:
        source = shipped[str(path_or_name)]
    elif path.is_file():
        source = path
    else:
        hint = nearest(path.stem, shipped)
        raise GraphError(f"no graph '{path_or_name}': not a file and not a shipped graph; {hint}")
    try:
        declared = yaml.load(source.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise GraphError(f"graph '{path_or_name}' is not valid YAML: {reason}") from None
    return graph_from_dict(declared, default_name=path.stem)


def graph_from_dict(declared: Any, default_name: str = "graph") -> Graph:
    """Validate a declaration and return the Graph.

    Raises GraphError, one line each: cycle, unknown parent, unknown key, unknown kind, duplicate label, range
    upside down, a second image, an image with
    children or without parents.
    """
    if not isinstance(declared, Mapping):
        raise GraphError(f"graph '{default_name}': expected a mapping with 'variables', got {declared!r}")
    name = str(declared.get("name", default_name))
    _refuse_unknown_keys(declared, GRAPH_KEYS, f"graph '{name}'")
    variables = declared.get("variables")
    if not isinstance(variables, Mapping) or not variables:
        raise GraphError(f"graph '{name}': 'variables' must be a mapping of at least one variable")
    parsed = {str(key): _parse_variable(str(key), value) for key, value in variables.items()}
    _check_edges(name, parsed)
    return Graph(name, _topological(name, parsed), str(declared.get("description", "")))


class _StrictLoader(yaml.SafeLoader):
    """YAML that refuses a key given twice, which the standard loader would silently overwrite."""


def _mapping_without_duplicates(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[no-untyped-call]
    for key in keys:
        if keys.count(key) > 1:
            raise GraphError(f"the key '{key}' is given twice near line {node.start_mark.line + 1}")
    return {
        key: loader.construct_object(value, deep=True)  # type: ignore[no-untyped-call]
        for key, (_, value) in zip(keys, node.value, strict=True)
    }


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates)


def _refuse_unknown_keys(mapping: Mapping[Any, Any], known: tuple[str, ...], where: str) -> None:
    for key in mapping:
        if key not in known:
            raise GraphError(f"{where}: unknown key '{key}'; {nearest(str(key), known)}")


def _parse_variable(name: str, declared: Any) -> Variable:
    where = f"variable '{name}'"
    if not isinstance(declared, Mapping):
        raise GraphError(f"{where}: expected a mapping with 'kind', got {declared!r}")
    _refuse_unknown_keys(declared, VARIABLE_KEYS, where)
    kind = declared.get("kind")
    if kind not in MECHANISMS:
        raise GraphError(f"{where}: unknown kind '{kind}'; {nearest(str(kind), MECHANISMS)}")
    for key in set(declared) & ({"labels", "range", "unit", "channels"} - KEYS_OF_KIND[kind]):
        raise GraphError(f"{where}: '{key}' does not belong to kind '{kind}'; remove it or change the kind")
    mechanism = str(declared.get("mechanism", MECHANISMS[kind]))
    if kind != "image" and mechanism != MECHANISMS[kind]:
        hint = nearest(mechanism, [MECHANISMS[kind]])
        raise GraphError(f"{where}: unknown mechanism '{mechanism}' for kind '{kind}'; {hint}")
    return Variable(
        name=name,
        kind=kind,
        parents=_parse_names(declared.get("parents", []), f"{where}: 'parents'"),
        labels=_parse_labels(declared, kind, where),
        range=_parse_range(declared.get("range"), where) if kind == "continuous" else None,
        unit=str(declared.get("unit", "")),
        channels=_parse_channels(declared.get("channels", 1), where),
        mechanism=mechanism,
        description=str(declared.get("description", "")),
    )


def _parse_names(names: Any, where: str) -> tuple[str, ...]:
    if not isinstance(names, list):
        raise GraphError(f"{where} must be a list, got {names!r}")
    parsed = tuple(str(name) for name in names)
    for name in parsed:
        if parsed.count(name) > 1:
            raise GraphError(f"{where} has '{name}' twice")
    return parsed


def _parse_labels(declared: Mapping[str, Any], kind: str, where: str) -> tuple[str, ...]:
    if kind not in ("binary", "categorical"):
        return ()
    labels = declared.get("labels")
    if not isinstance(labels, list):
        raise GraphError(f"{where}: 'labels' must be a list of names, got {labels!r}")
    parsed = tuple(str(label) for label in labels)
    for label in parsed:
        if parsed.count(label) > 1:
            raise GraphError(f"{where}: duplicate label '{label}'")
    if (kind == "binary" and len(parsed) != 2) or len(parsed) < 2:
        expected = "exactly 2" if kind == "binary" else "at least 2"
        raise GraphError(f"{where}: kind '{kind}' needs {expected} labels, got {len(parsed)}")
    return parsed


def _parse_range(declared: Any, where: str) -> tuple[float, float]:
    try:
        low, high = (float(bound) for bound in declared)
    except (TypeError, ValueError):
        raise GraphError(f"{where}: 'range' must be [low, high], got {declared!r}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise GraphError(f"{where}: range upside down or not finite: [{low:g}, {high:g}]; low must be below high")
    return low, high


def _parse_channels(declared: Any, where: str) -> int:
    if not isinstance(declared, int) or isinstance(declared, bool) or declared < 1:
        raise GraphError(f"{where}: 'channels' must be a whole number above 0, got {declared!r}")
    return declared


def _check_edges(graph: str, variables: Mapping[str, Variable]) -> None:
    images = [v.name for v in variables.values() if v.kind == "image"]
    if len(images) > 1:
        raise GraphError(f"graph '{graph}': a second image '{images[1]}'; one image per graph is supported")
    if images and not variables[images[0]].parents:
        raise GraphError(f"image '{images[0]}' has no parents, so no intervention could reach it; list its causes")
    for variable in variables.values():
        for parent in variable.parents:
            if parent not in variables:
                hint = nearest(parent, variables)
                raise GraphError(f"variable '{variable.name}': unknown parent '{parent}'; {hint}")
            if parent in images:
                raise GraphError(f"image '{parent}' has a child, '{variable.name}'; an image cannot be a cause")


def _topological(graph: str, variables: dict[str, Variable]) -> dict[str, Variable]:
    ordered: dict[str, Variable] = {}
    while len(ordered) < len(variables):
        ready = [v for v in variables.values() if v.name not in ordered and set(v.parents) <= set(ordered)]
        ready.sort(key=lambda v: v.kind == "image")  # an image has no children: it comes last
        if not ready:
            cycle = " -> ".join(_find_cycle({n: v for n, v in variables.items() if n not in ordered}))
            raise GraphError(f"graph '{graph}' has a cycle: {cycle}; remove one of these edges")
        ordered[ready[0].name] = ready[0]
    return ordered


def _find_cycle(remaining: dict[str, Variable]) -> list[str]:
    """Walk from child to parent until a variable repeats; every remaining one has a remaining parent."""
    path = [next(iter(remaining))]
    while path.count(path[-1]) == 1:
        path.append(next(p for p in remaining[path[-1]].parents if p in remaining))
    return path[path.index(path[-1]) :][::-1]


def _variable_to_dict(variable: Variable) -> dict[str, Any]:
    declared: dict[str, Any] = {"kind": variable.kind, "mechanism": variable.mechanism}
    if variable.is_discrete:
        declared["labels"] = list(variable.labels)
    if variable.range is not None:
        declared |= {"range": list(variable.range), "unit": variable.unit}
    if variable.kind == "image":
        declared["channels"] = variable.channels
    return declared | {"parents": list(variable.parents), "description": variable.description}
