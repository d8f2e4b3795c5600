"""The erasers by name, one after another as `first+second`, and their files."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from causalcxr.debias.base import Eraser, Fitting
from causalcxr.debias.coding import Coding
from causalcxr.debias.counterfactual import Counterfactual, Span
from causalcxr.debias.errors import EmbeddingsError
from causalcxr.debias.independence import Distilled, Independence, Published
from causalcxr.debias.linear import LEACE, SPLINCE
from causalcxr.debias.noise import Noise
from causalcxr.debias.residual import Residual
from causalcxr.debias.transport import Transport
from causalcxr.support.errors import ConfigError, RunError, nearest
from causalcxr.support.files import load_tensors, save_tensors

__all__ = ["ERASERS", "Chain", "load_eraser", "make_eraser", "save_eraser"]

ERASERS: dict[str, type[Eraser]] = {
    "leace": LEACE,
    "splince": SPLINCE,
    "transport": Transport,
    "residual": Residual,
    "counterfactual": Counterfactual,
    "distilled": Distilled,
    "span": Span,
    "independence": Independence,
    "published": Published,
    "noise": Noise,
}


class Chain(Eraser):
    """One eraser after another; the second is fitted to what the first leaves."""

    def __init__(self, first: Eraser, second: Eraser):
        self.first, self.second = first, second

    @property
    def NEEDS(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys([*self.first.NEEDS, *self.second.NEEDS]))

    def _fit(self, given: Fitting) -> None:
        if "pairs" in self.second.NEEDS:
            raise EmbeddingsError(
                f"{type(self.second).__name__} takes counterfactuals of the raw embeddings; put it first"
            )
        z, keep, groups = given.z, given.keep, given.groups
        self.first.fit(z, given.attributes, keep, groups, given.pairs)
        left = self.first.transform(z, given.attributes, given.pairs)
        self.second.fit(left, given.attributes, keep, groups)

    def _transform(
        self, z: np.ndarray, attributes: dict[str, np.ndarray] | None, pairs: np.ndarray | None, rows: slice
    ) -> np.ndarray:
        return self.second.transform(self.first.transform(z, attributes, pairs), attributes)


def make_eraser(name: str, **settings: Any) -> Eraser:
    """An eraser that is not fitted yet, by its name in `ERASERS`. Raises ConfigError: no such name."""
    first, plus, rest = name.partition("+")
    if plus and not rest:
        raise ConfigError(f"eraser '{name}': nothing follows the plus")
    if first not in ERASERS:
        raise ConfigError(f"no eraser '{first}'; {nearest(first, ERASERS)}")
    if rest:
        return Chain(make_eraser(first), make_eraser(rest))
    return ERASERS[first](**settings)


def save_eraser(eraser: Eraser, path: Path) -> None:
    """As safetensors, with all that is no array as JSON in its header."""
    tensors, about = _packed(eraser)
    save_tensors(path, tensors, about)


def load_eraser(path: Path) -> Eraser:
    """What `save_eraser` wrote. Raises RunError: missing, damaged, or not ours."""
    if not path.is_file():
        raise RunError(f"no file '{path}'; expected an eraser that causalcxr debias fit wrote")
    tensors, about = load_tensors(path)
    try:
        return _unpacked({name: tensor.numpy() for name, tensor in tensors.items()}, about)
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise RunError(
            f"'{path}' is no eraser that this version can read ({' '.join(str(error).split())})"
        ) from None


def _packed(eraser: Eraser) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    about: dict[str, Any] = {"coding": eraser.coding_.to_list(), "features": eraser.n_features_in_}
    if isinstance(eraser, Chain):
        found: dict[str, torch.Tensor] = {}
        for place in ("first", "second"):
            inner, facts = _packed(getattr(eraser, place))
            found |= {f"{place}/{name}": tensor for name, tensor in inner.items()}
            about[place] = facts
        return found, about
    (about["eraser"],) = [name for name, of in ERASERS.items() if type(eraser) is of]
    about["settings"] = eraser.get_params()
    return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in eraser.arrays().items()}, about


def _unpacked(arrays: dict[str, np.ndarray], about: dict[str, Any]) -> Eraser:
    if "first" in about:
        parts = []
        for place in ("first", "second"):
            start = f"{place}/"
            inner = {name.removeprefix(start): a for name, a in arrays.items() if name.startswith(start)}
            parts.append(_unpacked(inner, about[place]))
        eraser: Eraser = Chain(*parts)
    else:
        eraser = ERASERS[about["eraser"]](**about["settings"])
    eraser.coding_, eraser.n_features_in_ = Coding.from_list(about["coding"]), about["features"]
    if not isinstance(eraser, Chain):
        eraser.take_arrays(arrays)
    return eraser
