"""Values in natural units, as people write them, to tensors: labels to class indices, numbers checked.

A batch is a plain dict from variable name to tensor, never mutated: binary and categorical `int64 (B,)` (class
order is the graph's label order), continuous `float32 (B,)` in the graph's unit, image `uint8 (B, C, H, W)` in
0..255 or float in [0, 1].
"""

import math
import reprlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from causalcxr.graph import Graph, Variable
from causalcxr.support.errors import GraphError, nearest

__all__ = [
    "Batch",
    "caption",
    "decode",
    "describe",
    "encode",
    "encode_intervention",
    "parse_assignments",
    "readable",
]

Batch = Mapping[str, Tensor]

_MANY = 2**62  # no class index is as high, and no tensor's integer much higher
_ROUNDING = 1e-6  # of a range: what float32 makes of a value at its end is taken as the end
_TORCH_TYPES = {"f": np.float64, "i": np.int64, "u": np.int64, "b": np.bool_}  # by numpy's kind, copied


def encode(
    variable: Variable,
    value: Any,
    n: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """One value for all rows (scalar or label), or one per row (sequence or tensor), as a tensor `(n,)`.

    A number that is outside its range by no more than rounding is set to the end of the range.
    Raises GraphError: unknown label, class index or number outside the range, NaN, or a wrong number of rows.
    """
    rows = _as_list_or_tensor(value)
    if variable.is_discrete:
        encoded = _encode_discrete(variable, rows).to(device)
    else:
        encoded = _encode_continuous(variable, rows, dtype).to(device)
    if encoded.ndim > 1 or (encoded.ndim == 1 and len(encoded) not in (1, n)):
        got = "x".join(map(str, encoded.shape))
        raise GraphError(f"'{variable.name}': expected one value or {n} (one per row), got {got}")
    return encoded.expand(n)


def encode_intervention(
    graph: Graph,
    do: Mapping[str, Any] | None,
    n: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """An intervention such as `{"sex": "female", "age": 80}` as tensors `(n,)`.

    Raises GraphError: unknown variable, the image (it has no children), or a value that `encode` refuses.
    """
    encoded = {}
    if not isinstance(do, Mapping | None):
        raise GraphError(f"do: expected names and values, such as {{'age': 80}}, got {reprlib.repr(do)}")
    for name, value in (do or {}).items():
        variable = graph[name]
        if variable.kind == "image":
            raise GraphError(f"do('{name}'): the image is an effect; intervene on {', '.join(graph.attributes)}")
        encoded[name] = encode(variable, value, n, device, dtype)
    return encoded


def decode(variable: Variable, values: Tensor) -> list[Any]:
    """Tensor `(n,)` to what a person reads: labels of a discrete variable, floats of a continuous one."""
    if variable.is_discrete:
        return [variable.labels[int(value)] for value in values]
    return [float(value) for value in values]


def parse_assignments(
    graph: Graph, pairs: Sequence[str], labels: Mapping[str, Mapping[str, str]] | None = None
) -> dict[str, Any]:
    """`["age=80", "sex=male"]`, as typed on a command line, to `{"age": 80.0, "sex": "male"}`.

    `labels`: what else an attribute's labels are called, as in `data.labels`: `{"sex": {"F": "female"}}`.

    Raises GraphError: no `name=value`, a variable given twice, or one that the graph doesn't have. Values are
    checked where they are encoded.
    """
    parsed: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = (piece.strip() for piece in pair.partition("="))
        if not equals or not value or name in parsed:
            raise GraphError(f"'{pair}': expected NAME=VALUE, each name once, for example age=80")
        variable = graph[name]
        if variable.kind == "continuous":
            with suppress(ValueError):
                parsed[name] = float(value)
        parsed.setdefault(name, (labels or {}).get(name, {}).get(value, value))
    return parsed


def describe(graph: Graph, do: Mapping[str, Any]) -> str:
    """An intervention as a person writes it: `sex = male, age = 80 years`."""
    return ", ".join(f"{name} = {readable(graph[name], value)}" for name, value in do.items())


def readable(variable: Variable, value: Any) -> str:
    """A label, or a number with about three digits and its unit."""
    if variable.is_discrete:
        return value if isinstance(value, str) else variable.labels[int(value)]
    low, high = variable.bounds
    decimals = max(0, 2 - math.floor(math.log10(high - low)))
    return f"{round(float(value), decimals):g} {variable.unit}".strip()


def caption(graph: Graph, batch: Mapping[str, Any], row: int) -> list[str]:
    """The attributes of one row in words, one line each; numbers get their name, but no unit (it is too wide)."""
    return [_caption_line(graph[name], batch[name][row]) for name in graph.attributes]


def _as_list_or_tensor(value: Any) -> Any:
    """Tensors as they are; arrays and columns of a table as tensors or lists; other sequences as lists."""
    if isinstance(value, Tensor):
        return value
    if hasattr(value, "to_numpy"):
        value = value.to_numpy()
    if isinstance(value, np.ndarray):
        kind = _TORCH_TYPES.get(value.dtype.kind)
        return value.tolist() if kind is None else torch.from_numpy(value.astype(kind))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return value


def _encode_discrete(variable: Variable, rows: Any) -> Tensor:
    if isinstance(rows, Tensor):
        classes = rows
    elif isinstance(rows, list):
        classes = torch.tensor([_class_index(variable, row) for row in rows], dtype=torch.int64)
    else:
        classes = torch.tensor(_class_index(variable, rows), dtype=torch.int64)
    bad = (classes < 0) | (classes >= len(variable.labels)) | (classes != classes.to(torch.int64))
    if bad.any():
        got = classes[bad][0].item() if classes.ndim else classes.item()
        top = len(variable.labels) - 1
        raise GraphError(f"'{variable.name}': class index {got:g} is not in 0..{top} ({_labels(variable)})")
    return classes.to(torch.int64)


def _class_index(variable: Variable, value: Any) -> int:
    if isinstance(value, str):
        alike = [label for label in variable.labels if label.casefold() == value.casefold()]
        if value not in variable.labels and len(alike) != 1:
            hint, names = nearest(value, variable.labels), _labels(variable)
            raise GraphError(
                f"'{variable.name}' has no label '{value}'; {hint}" + f" ({names})" * (names not in hint)
            )
        return variable.labels.index(value if value in variable.labels else alike[0])
    if isinstance(value, bool | int | np.integer):
        return max(-1, min(int(value), _MANY))
    got = reprlib.repr(value)
    raise GraphError(f"'{variable.name}': expected a label ({_labels(variable)}), got {got}")


def _encode_continuous(variable: Variable, rows: Any, dtype: torch.dtype) -> Tensor:
    try:
        numbers = rows if isinstance(rows, Tensor) else torch.tensor(rows, dtype=torch.float64)
    except (TypeError, ValueError, OverflowError):
        got = reprlib.repr(rows)
        raise GraphError(f"'{variable.name}': expected a number in {variable.unit}, got {got}") from None
    low, high = variable.bounds
    rounding = _ROUNDING * (high - low)
    bad = ~((numbers >= low - rounding) & (numbers <= high + rounding))  # NaN is neither
    if bad.any():
        got = numbers[bad][0].item() if numbers.ndim else numbers.item()
        shown = f"{got:g}" if not low <= float(f"{got:g}") <= high else repr(got)
        raise GraphError(
            f"'{variable.name}': {shown} is not in [{low:g}, {high:g}] {variable.unit}".rstrip()
            + "; widen 'range' in the graph if such values are meant"
        )
    return numbers.clamp(low, high).to(dtype)


def _labels(variable: Variable) -> str:
    return ", ".join(variable.labels)


def _caption_line(variable: Variable, value: Any) -> str:
    text = readable(variable, value)
    if variable.is_discrete:
        return f"{variable.name} {text}" if text.isdigit() else text
    return f"{variable.name} {text.removesuffix(variable.unit).strip()}"
