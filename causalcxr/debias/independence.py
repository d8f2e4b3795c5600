"""Codes that are independent of the attributes, from which a decoder that is given them makes embeddings.

What the decoder is given the code need not hold, and a penalty takes away what it holds all the same: HSIC, or an
adversary in closed form. A linear head that reads the labels to keep keeps them in the code. `independence` makes
the embedding again, averaged over all values of the attributes; `distilled` the mean over a row's counterfactuals.
`published` is the loop of arXiv:2502.04386 as a negative control: its encoder gets no gradient of the adversary,
and the weight of its KL term lets codes collapse to noise.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causalcxr.debias.adversary import Adversary
from causalcxr.debias.base import Eraser, Fitting, pairs_of
from causalcxr.debias.networks import Skipped, finite_weights, hsic, mlp, state_arrays, take_state, train
from causalcxr.debias.noise import gaussian_of
from causalcxr.randomness import seeded
from causalcxr.support.errors import nearest

__all__ = ["Distilled", "Independence", "Published"]

STRENGTHS = {"hsic": 3000.0, "adversary": 5.0}
FEATURES = 128  # of the adversary
MOST_COMBINATIONS = 64  # of labels, over which the decoder's answers are averaged


class _Coded(Eraser):
    """What both have in common: scaling, encoder and decoder, and their file."""

    ARRAYS = ("mean_", "scale_")
    steps: int
    hidden: int
    batch: int
    seed: int
    latent: int

    def _prepare(self, given: Fitting, told: int) -> tuple[Tensor, Tensor]:
        """Embeddings and codes as tensors; makes the networks. `told`: columns that the decoder is told."""
        self.mean_, spread = given.scaling()
        self.scale_ = np.where(spread > 0, spread, 1.0)
        with seeded(self.seed):
            self._build(told)
        return self._scaled(given.z).float(), torch.from_numpy(given.codes).float()

    def _build(self, told: int) -> None:
        self.encoder_ = Skipped(self.n_features_in_, self.hidden, 2 * self.latent)
        self.decoder_ = Skipped(self.latent + told, self.hidden, self.n_features_in_)

    def _finish(self) -> None:
        finite_weights(self, self.encoder_, self.decoder_)

    def _scaled(self, z: np.ndarray) -> Tensor:
        return torch.from_numpy((z - self.mean_) / self.scale_)

    def _encode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the code."""
        mean, logvar = self.encoder_(z).chunk(2, dim=1)
        return mean, logvar.clamp(-8, 4)

    def _back(self, made: Tensor, z: np.ndarray) -> np.ndarray:
        return (made.numpy() * self.scale_ + self.mean_).astype(z.dtype)

    def arrays(self) -> dict[str, np.ndarray]:
        return super().arrays() | state_arrays(self.encoder_, "encoder") | state_arrays(self.decoder_, "decoder")

    def take_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        super().take_arrays(arrays)
        self._build(arrays["decoder.linear.weight"].shape[1] - self.latent)
        self._finish()
        take_state(self.encoder_, arrays, "encoder")
        take_state(self.decoder_, arrays, "decoder")


class Independence(_Coded):
    """A variational autoencoder with a conditional decoder, and a penalty on what its code tells.

    `penalty`: `hsic`, or `adversary` (what one reads beyond the labels to keep). `strength`: its weight. `kl`:
    of the KL term, per dimension of the code and below 1. `kept`: of the head's loss. `latent`: dimensions of
    the code; in many, HSIC sees little.
    """

    ARRAYS = ("mean_", "scale_", "told_")

    def __init__(
        self,
        penalty: str = "adversary",
        strength: float | None = None,
        kl: float = 0.3,
        kept: float = 1.0,
        latent: int = 8,
        steps: int = 600,
        hidden: int = 256,
        batch: int = 1024,
        seed: int = 0,
    ):
        self.penalty, self.strength, self.kl, self.kept, self.latent = penalty, strength, kl, kept, latent
        self.steps, self.hidden, self.batch, self.seed = steps, hidden, batch, seed

    def _fit(self, given: Fitting) -> None:
        if self.penalty not in STRENGTHS:
            raise ValueError(f"penalty is '{self.penalty}'; {nearest(self.penalty, STRENGTHS)}")
        z, codes = self._prepare(given, self._told(given.codes).shape[1])
        told, target = self._told(codes), self._target(given).float()
        self.told_ = self._told_in_turn(given)
        strength = STRENGTHS[self.penalty] if self.strength is None else self.strength
        noise = torch.Generator().manual_seed(self.seed)
        adversary = Adversary(given, FEATURES, self.seed)
        kept = adversary.kept
        with seeded(self.seed + 1):
            head = nn.Linear(self.latent, max(1, kept.shape[1]))

        def loss(rows: Tensor) -> Tensor:
            mean, logvar = self._encode(z[rows])
            drawn = mean + (logvar / 2).exp() * torch.randn(mean.shape, generator=noise)
            made = self.decoder_(torch.cat([drawn, told[rows]], dim=1))
            found = (made - target[rows]).square().mean() + self.kl * _divergence(mean, logvar)
            if kept.shape[1]:
                found = found + self.kept * _head_loss(head(mean), kept[rows])
            if self.penalty == "hsic":
                return found + strength * hsic(mean, codes[rows])
            return found + strength * adversary.explained(mean, rows)

        networks = [*self.encoder_.parameters(), *self.decoder_.parameters(), *head.parameters()]
        train(networks, loss, len(z), self.steps, self.batch, self.seed)
        self._finish()

    def _told(self, codes: Any) -> Any:
        """What the decoder is given of the attributes' columns `(N, A)`."""
        return codes

    def _told_in_turn(self, given: Fitting) -> np.ndarray:
        """What it is given for every row alike: the combinations of labels that are most frequent, numbers 0."""
        numbers = np.concatenate(
            [np.full(max(1, len(a.labels)), not a.is_discrete) for a in given.coding.attributes]
        )
        different, counts = np.unique(np.where(numbers, 0.0, given.codes), axis=0, return_counts=True)
        return different[np.argsort(-counts, kind="stable")[:MOST_COMBINATIONS]]

    def _target(self, given: Fitting) -> Tensor:
        """What the decoder is to make, scaled."""
        return self._scaled(given.z)

    @torch.no_grad()
    def _transform(self, z: np.ndarray, attributes: object, pairs: object, rows: slice) -> np.ndarray:
        code = self._encode(self._scaled(z))[0]
        made = torch.zeros(z.shape, dtype=torch.float64)
        for value in torch.from_numpy(self.told_):
            made += self.decoder_(torch.cat([code, value.expand(len(z), -1)], dim=1))
        return self._back(made / len(self.told_), z)


class Distilled(Independence):
    """Independent codes whose decoder makes the mean over a row's counterfactuals, which it is fitted to.

    For rows without images at hand: the code comes from the embedding alone.
    """

    def _told(self, codes: Any) -> Any:
        return codes[:, :0]

    def _told_in_turn(self, given: Fitting) -> np.ndarray:
        return np.zeros((1, 0))

    def _target(self, given: Fitting) -> Tensor:
        return self._scaled(pairs_of(given).mean(axis=1, dtype=np.float64))


class Published(_Coded):
    """The loop of arXiv:2502.04386: a negative control, not an eraser to use.

    Its adversary learns from codes without a gradient to the encoder, and a KL term of weight 1, summed over
    the code's dimensions, against the mean squared error lets the posterior collapse to the prior. The erased
    embedding is a draw of the code, as wide as the embedding.
    """

    def __init__(self, steps: int = 2000, hidden: int = 256, batch: int = 256, seed: int = 0):
        self.steps, self.hidden, self.batch, self.seed = steps, hidden, batch, seed

    @property
    def latent(self) -> int:  # type: ignore[override]
        return self.n_features_in_

    def _fit(self, given: Fitting) -> None:
        z, codes = self._prepare(given, 0)
        noise = torch.Generator().manual_seed(self.seed)
        with seeded(self.seed + 1):
            adversary = mlp(self.latent, self.hidden, codes.shape[1])

        def loss(rows: Tensor) -> Tensor:
            mean, logvar = self._encode(z[rows])
            drawn = mean + (logvar / 2).exp() * torch.randn(mean.shape, generator=noise)
            fooled = (adversary(drawn.detach()) - codes[rows]).square().mean()
            kl = self.latent * _divergence(mean, logvar)
            return (self.decoder_(drawn) - z[rows]).square().mean() + kl + fooled

        networks = [*self.encoder_.parameters(), *self.decoder_.parameters(), *adversary.parameters()]
        train(networks, loss, len(z), self.steps, self.batch, self.seed)
        self._finish()

    @torch.no_grad()
    def _transform(self, z: np.ndarray, attributes: object, pairs: object, rows: slice) -> np.ndarray:
        mean, logvar = self._encode(self._scaled(z))
        return self._back(mean + (logvar / 2).exp() * torch.from_numpy(gaussian_of(z)), z)


def _divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """From the standard normal law, per dimension."""
    return (mean.square() + logvar.exp() - 1 - logvar).mean() / 2


def _head_loss(said: Tensor, kept: Tensor) -> Tensor:
    """Of columns of zeros and ones their cross-entropy, of standardised numbers the squared error."""
    one_hot = ((kept == 0) | (kept == 1)).all(dim=0)
    labels = F.binary_cross_entropy_with_logits(said[:, one_hot], kept[:, one_hot], reduction="sum")
    numbers = (said[:, ~one_hot] - kept[:, ~one_hot]).square().sum()
    return (labels + numbers) / len(kept)
