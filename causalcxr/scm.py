"""The structural causal model: sample, abduct, counterfactual, log_prob; a Pyro model with a site per variable."""

import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from causalcxr.graph import Graph
from causalcxr.interventions import Intervened
from causalcxr.mechanisms.base import LocalPyroModule, Mechanism
from causalcxr.mechanisms.image import ImageMechanism, ImageNoise, Inferred
from causalcxr.mechanisms.likelihood import image_to_float
from causalcxr.mechanisms.registry import MechanismsConfig, build_mechanism, choose_image_mechanism
from causalcxr.randomness import Draws
from causalcxr.support.errors import GraphError, nearest
from causalcxr.values import Batch, encode, encode_intervention

__all__ = ["EFFECTS", "Abduction", "StructuralCausalModel", "make_images"]

EFFECTS = ("total", "direct", "indirect")
Noise = Tensor | ImageNoise


@dataclass(frozen=True)
class Abduction:
    """What abduction gives: the exogenous noise of every variable and the factual values, row by row.

    Reuse it for any number of interventions: each then costs no encoder pass.
    """

    noise: Mapping[str, Noise]
    factual: Mapping[str, Tensor]

    def __repr__(self) -> str:
        return f"Abduction of {len(self)} rows: {', '.join(self.factual)}"

    def __len__(self) -> int:
        return len(next(iter(self.factual.values())))


class StructuralCausalModel(LocalPyroModule):
    """One mechanism per variable of a graph.

    >>> scm = StructuralCausalModel(load_graph("chest"))
    >>> noise = scm.abduct(batch)
    >>> older = scm.counterfactual(noise, do={"age": 80})
    >>> two = scm.counterfactual(noise, do=[{"sex": "male"}, {"age": 80, "finding": "Pleural Effusion"}])

    As a Pyro model, `scm(n)` has one sample site per variable inside the plate `rows`, and `pyro.condition`,
    `pyro.poutine.do` and `pyro.poutine.trace` act on these. Values are in natural units everywhere.
    """

    def __init__(self, graph: Graph, config: MechanismsConfig | None = None, size: int = 64):
        """`config`: the mechanisms' settings. `size`: side of the image, pixels."""
        super().__init__()
        self.graph = graph = choose_image_mechanism(graph)
        config = config or MechanismsConfig()
        self.mechanisms = nn.ModuleDict(
            {
                name: build_mechanism(variable, graph.parents(name), config, size)
                for name, variable in graph.variables.items()
            }
        )

    def mechanism(self, name: str) -> Mechanism:
        """The mechanism of one variable."""
        mechanism = self.mechanisms[self.graph[name].name]
        assert isinstance(mechanism, Mechanism)
        return mechanism

    @property
    def image_mechanism(self) -> ImageMechanism:
        """The mechanism of the graph's image; the graph must have one."""
        assert self.graph.image is not None
        mechanism = self.mechanism(self.graph.image)
        assert isinstance(mechanism, ImageMechanism)
        return mechanism

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the parameters, hence of continuous values."""
        return next(self.parameters()).dtype

    def forward(self, n: int = 1) -> dict[str, Tensor]:
        """The Pyro model: n rows, one sample site per variable."""
        values: dict[str, Tensor] = {}
        with pyro.plate("rows", n):
            for name in self.graph.variables:
                value = pyro.sample(name, self.mechanism(name).distribution(values, n))
                values[name] = value.expand(n) if value.ndim == 0 else value
        return values

    @torch.no_grad()
    def sample(self, n: int, do: Mapping[str, Any] | None = None, seed: int | None = None) -> dict[str, Tensor]:
        """n rows from the model, or from the model under an intervention (natural units or labels).

        Images come as float `(n, C, H, W)` in [0, 1]. With `seed=None` the draws are those that Pyro would make.
        """
        n, draws = _count(n), Draws(seed, self.device)
        values = self._sample_attributes(n, do, draws)
        if self.graph.image is not None and n == 0:
            values[self.graph.image] = self._no_images()
        elif self.graph.image is not None:
            noise = self.image_mechanism.sample_noise(n, draws)
            values[self.graph.image] = self.image_mechanism(noise, values)
        return values

    @torch.no_grad()
    def sample_attributes(
        self, n: int, do: Mapping[str, Any] | None = None, seed: int | None = None
    ) -> dict[str, Tensor]:
        """The attributes of what `sample` gives for the same seed, without decoding an image."""
        return self._sample_attributes(_count(n), do, Draws(seed, self.device))

    def abduct(self, batch: Mapping[str, Any], seed: int | None = None) -> Abduction:
        """Draw the exogenous noise of every variable given a complete batch.

        Exact for attributes; for the image a draw from the encoder. Raises GraphError: a variable is missing, or
        a value its declaration does not allow.
        """
        return self.infer(batch, seed)[0]

    def infer(self, batch: Mapping[str, Any], seed: int | None = None) -> tuple[Abduction, Inferred | None]:
        """What `abduct` gives, and all that the pass over the images gave (None without any)."""
        factual, inferred = self._check(batch), None
        draws, image = Draws(seed, self.device), self.graph.image
        if image is not None and len(factual[image]):
            inferred = self.image_mechanism.infer(factual[image], factual, draws)
        noise: dict[str, Noise] = {**self.abduct_attributes(factual, draws)}
        if image is not None:
            noise[image] = inferred.noise if inferred is not None else self.image_mechanism.no_noise()
        return Abduction(noise, factual), inferred

    def abduct_attributes(
        self, factual: Batch, draws: Draws, names: Collection[str] | None = None
    ) -> dict[str, Tensor]:
        """A draw of the noise of the attributes, or of those in `names`, given their values `(B,)`."""
        chosen = [name for name in self.graph.attributes if names is None or name in names]
        return {name: self.mechanism(name).abduct(factual[name], factual, draws) for name in chosen}

    def reached_rows(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Where `(B,)` attributes descend from one that is intervened on; `rows`: where each is, bool `(B,)`."""
        below, reached = {name: self.graph.descendants(name) for name in rows}, {}
        for name in self.graph.attributes:
            if causes := [where for cause, where in rows.items() if name in below[cause]]:
                reached[name] = torch.stack(causes).any(dim=0)
        return reached

    def predict_attributes(
        self,
        noise: Mapping[str, Noise],
        factual: Batch,
        do: Batch,
        rows: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The attributes `(B,)` after setting those in `do`, whose descendants follow by their noise.

        `rows`: where each intervention is made, bool `(B,)` by name; None: everywhere. What an intervention does
        not reach keeps its factual value bit for bit, so only the noise of descendants is looked at.
        """
        if rows is None:
            everywhere = torch.ones(len(factual[self.graph.attributes[0]]), dtype=torch.bool, device=self.device)
            rows = dict.fromkeys(do, everywhere)
        reached, after = self.reached_rows(rows), {}
        for name in self.graph.attributes:
            value = factual[name]
            if name in reached:
                value = torch.where(reached[name], self.mechanism(name)(noise[name], after), value)
            after[name] = torch.where(rows[name], do[name], value) if name in do else value
        return after

    @overload
    def counterfactual(
        self, batch_or_noise: Any, do: Mapping[str, Any], effect: str = "total", seed: int | None = None
    ) -> dict[str, Tensor]: ...
    @overload
    def counterfactual(
        self, batch_or_noise: Any, do: Sequence[Mapping[str, Any]], effect: str = "total", seed: int | None = None
    ) -> list[dict[str, Tensor]]: ...
    def counterfactual(
        self,
        batch_or_noise: Mapping[str, Any] | Abduction,
        do: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        effect: str = "total",
        seed: int | None = None,
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """What the same rows would have been under `do`, by abduction, action and prediction.

        `do` maps variables to a label or number for all rows, or one per row; a list of such gives a list of
        batches, and all their images go through the decoder together. Variables that the intervention cannot
        reach are returned bit for bit. `seed` is used only where a batch has still to be abducted.

        `effect`: `total` (descendants follow), `direct` (only the edge from the intervened variables into the
        image changes; descendants stay as observed), `indirect` (the image sees only what comes through
        descendants; the intervened variables stay as observed). The attributes returned are those that the
        image was made with.
        """
        if effect not in EFFECTS:
            raise GraphError(f"unknown effect '{effect}'; {nearest(effect, EFFECTS)}")
        if not isinstance(do, Mapping | Sequence) or isinstance(do, str):
            raise GraphError(
                f"do: expected names and values, such as {{'age': 80}}, or a list of such, got {do!r}"
            )
        abduction = batch_or_noise
        if not isinstance(abduction, Abduction):
            abduction = self.abduct(abduction, seed)
        many = [do] if isinstance(do, Mapping) else list(do)
        encoded = [encode_intervention(self.graph, one, len(abduction), self.device, self.dtype) for one in many]
        batches = [self._counterfactual_attributes(abduction, one, effect) for one in encoded]
        seen = [batch for batch, one in zip(batches, encoded, strict=True) if self._reaches_image(one, effect)]
        self._predict_images(abduction, seen)
        return batches[0] if isinstance(do, Mapping) else batches

    def log_prob(
        self,
        batch: Mapping[str, Any],
        seed: int | None = None,
        draws: int = 1,
        do: Collection[str] = (),
    ) -> Tensor:
        """Log-density of each row `(B,)` in nats.

        With an image it is an estimate of a lower bound, and without a seed another one at each call: with one
        draw of the latents the evidence lower bound, which varies by some tens of nats; with several `draws` the
        importance-weighted bound (Burda et al. 2016), which is tighter and varies less. `do` names variables that
        an intervention has set: their terms are left out, which gives the interventional log-density.
        Raises GraphError: fewer than one draw, or an unknown variable.
        """
        if not isinstance(draws, int) or draws < 1:
            raise GraphError(f"draws: expected a whole number of at least 1, got {draws}")
        values, given = self._check(batch), {self.graph[name].name for name in do}
        source, total = Draws(seed, self.device), torch.zeros(len(next(iter(values.values()))), device=self.device)
        for name in self.graph.variables:
            if name in given or not len(total):
                continue
            mechanism = self.mechanism(name)
            if isinstance(mechanism, ImageMechanism) and draws > 1:
                total = total + mechanism.importance_weighted_bound(values[name], values, draws, source)
            else:
                total = total + mechanism.log_prob(values[name], values, source)
        return total

    def calibrate(self, batch: Batch) -> None:
        """Set the fixed scalings of every mechanism from the attributes of the training split."""
        for name in self.graph.variables:
            self.mechanism(name).calibrate(batch)

    @torch.no_grad()
    def intervene(self, batch: Batch, do: Batch, rows: Mapping[str, Tensor], draws: Draws) -> Intervened:
        """Abduction, action and prediction of the attributes; `rows` (bool): where each of `do` is done."""
        reached = self.reached_rows(rows)
        noise = self.abduct_attributes(batch, draws, reached)
        factual = {name: batch[name] for name in self.graph.attributes}
        return Intervened(factual, self.predict_attributes(noise, factual, do, rows), rows, reached)

    def _sample_attributes(self, n: int, do: Mapping[str, Any] | None, draws: Draws) -> dict[str, Tensor]:
        fixed = encode_intervention(self.graph, do, n, self.device, self.dtype)
        values: dict[str, Tensor] = {}
        for name in self.graph.attributes:
            noise = self.mechanism(name).sample_noise(n, draws)  # drawn even where unused: do shifts no other draw
            values[name] = fixed[name] if name in fixed else self.mechanism(name)(noise, values)
        return values

    def _counterfactual_attributes(
        self, abduction: Abduction, do: Mapping[str, Tensor], effect: str
    ) -> dict[str, Tensor]:
        """The attributes that the counterfactual image is made with; the image is still the factual one."""
        factual = abduction.factual
        if effect == "direct":
            return {**factual, **do}
        after = {**factual, **self.predict_attributes(abduction.noise, factual, do)}
        return after if effect == "total" else after | {name: factual[name] for name in do}

    def _reaches_image(self, do: Mapping[str, Tensor], effect: str) -> bool:
        """Whether the image can change; where no path of this effect leads to it, it stays bit for bit."""
        if self.graph.image is None:
            return False
        parents, below = set(self.graph[self.graph.image].parents), self.graph.descendants(*do)
        if effect == "direct":
            return not parents.isdisjoint(do)
        return self.graph.image in below if effect == "total" else not parents.isdisjoint(below - set(do))

    def _predict_images(self, abduction: Abduction, batches: list[dict[str, Tensor]]) -> None:
        """Fill in the images of all batches with one pass of the decoder."""
        image = self.graph.image
        if image is None or not batches or not len(abduction):
            return
        noise = abduction.noise[image]
        assert isinstance(noise, ImageNoise)
        made = make_images(self.image_mechanism, noise, abduction.factual, batches)
        for batch, decoded in zip(batches, made, strict=True):
            batch[image] = decoded

    def _no_images(self) -> Tensor:
        return torch.zeros(0, *self.image_mechanism.event_shape, dtype=self.dtype, device=self.device)

    def _check(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """A complete batch on the model's device, every value allowed by its declaration."""
        if not hasattr(batch, "keys"):
            expected = ", ".join(self.graph.variables)
            raise GraphError(f"expected a batch of {expected} by name, got {type(batch).__name__}")
        missing = [name for name in self.graph.variables if name not in batch]
        if missing:
            expected = ", ".join(self.graph.variables)
            raise GraphError(f"the batch has no '{missing[0]}'; abduction needs all of: {expected}")
        image = self.graph.image
        values = {}
        if image is not None:
            values[image] = self._check_image(batch[image])
        n = len(values[image]) if image is not None else _rows(batch, self.graph)
        for name in self.graph.attributes:
            values[name] = encode(self.graph[name], batch[name], n, self.device, self.dtype)
        return {name: values[name] for name in self.graph.variables}

    def _check_image(self, image: Any) -> Tensor:
        shape = tuple(self.image_mechanism.event_shape)
        kind = type(image).__name__
        if not isinstance(image, Tensor):
            image = _as_tensor(image)
        if image is not None and image.ndim == 3 and shape[0] == 1:
            image = image[:, None]  # grey images without a channel
        if image is None or image.ndim != 4 or image.shape[1:] != shape:
            expected = "x".join(map(str, ("B", *shape)))
            got = kind if image is None else "x".join(map(str, image.shape))
            raise GraphError(
                f"'{self.graph.image}': expected images {expected} (a tensor, an array or a list), got {got}"
                f"{_mend(image, shape)}"
            )
        image = image_to_float(image.to(self.device), self.dtype)
        if not bool(((image >= 0) & (image <= 1)).all()):
            raise GraphError(
                f"'{self.graph.image}': pixels must be uint8, or floats in [0, 1] without NaN; divide them by "
                "the highest level they could have"
            )
        return image

    def __repr__(self) -> str:
        """The graph and its mechanisms, a line each."""
        parameters = sum(parameter.numel() for parameter in self.parameters())
        lines = [f"StructuralCausalModel of graph '{self.graph.name}', {parameters:,} parameters"]
        width = max(map(len, self.graph.variables))
        for name, variable in self.graph.variables.items():
            causes = f" <- {', '.join(variable.parents)}" if variable.parents else ""
            lines.append(f"  {name:{width}}  {_describe(self.mechanism(name))}{causes}  [{variable.mechanism}]")
        return "\n".join(lines)


def _count(n: Any) -> int:
    try:
        count = operator.index(n)
    except TypeError:
        count = -1
    if count < 0:
        raise GraphError(f"n: expected a whole number of rows, 0 or more, got {n!r}")
    return count


def _mend(image: Tensor | None, shape: tuple[int, ...]) -> str:
    """What to do with images of another shape."""
    if image is None:
        return ""
    if image.ndim in (3, 4) and image.shape[-1] in (3, 4) and shape[0] == 1:
        return "; convert them to grey"
    if image.ndim < 4:
        return "; put a single one into a list"
    return f"; resize them to {shape[1]} x {shape[2]}" if image.shape[1] == shape[0] else ""


def _as_tensor(image: Any) -> Tensor | None:
    """Arrays and nested lists as a tensor, uint8 as such; None of what is no image."""
    array = np.asarray(image)
    if array.dtype.kind not in "fiu":
        return None
    whole = array.dtype.kind in "iu" and array.size > 0 and 0 <= array.min() <= array.max() <= 255
    return torch.from_numpy(array.astype(np.uint8) if whole else array.copy())  # a list of levels is int64 here


def _describe(mechanism: Mechanism) -> str:
    """What a variable can be, in words."""
    variable = mechanism.variable
    if variable.is_discrete:
        return ", ".join(variable.labels)
    if variable.kind == "image":
        return "image " + " x ".join(map(str, getattr(mechanism, "event_shape", ())))
    low, high = variable.bounds
    return f"{low:g} to {high:g} {variable.unit}".rstrip()


def make_images(
    mechanism: ImageMechanism, noise: ImageNoise, factual: Batch, batches: Sequence[Batch]
) -> list[Tensor]:
    """The images of all batches, in one pass; `noise`: of the factual rows.

    A row whose parents are the factual ones keeps its image, which is what its noise makes of them.
    """
    names, own = [parent.name for parent in mechanism.parents], factual[mechanism.variable.name]
    changed = [torch.stack([batch[name] != factual[name] for name in names]).any(dim=0) for batch in batches]
    rows = torch.cat([where.nonzero()[:, 0] for where in changed])
    if not len(rows):
        return [own for _ in batches]
    parents = {
        name: torch.cat([batch[name][where] for batch, where in zip(batches, changed, strict=True)])
        for name in names
    }
    made, filled = mechanism(noise.select(rows), parents), []
    for where, images in zip(changed, made.split([int(where.sum()) for where in changed]), strict=True):
        filled.append(images if where.all() else own.clone().index_copy(0, where.nonzero()[:, 0], images))
    return filled


def _rows(batch: Mapping[str, Any], graph: Graph) -> int:
    return max(
        (
            len(batch[n])
            for n in graph.attributes
            if hasattr(batch[n], "__len__") and not isinstance(batch[n], str)
        ),
        default=1,
    )
