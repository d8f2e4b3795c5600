"""The networks of a study, and which is whose twin.

One without the bias is the twin of all that share its seed, at every q and of every kind: the group does not enter
its films, so that the same people, weights and batches give the same network.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from causalcxr.bias.config import StudyConfig
from causalcxr.support.digest import digest

__all__ = ["Bias", "Network", "all_biases", "all_networks", "encoded_networks", "scored_biases", "twin_of"]


@dataclass(frozen=True)
class Bias:
    """What is planted: a kind and the factor of its strengths; the twin has no kind."""

    kind: str = ""
    strength: float = 1.0

    @property
    def name(self) -> str:
        """Of its films' file; empty without a bias."""
        return self.kind if self.strength == 1 else f"{self.kind}-{self.strength:g}"

    def channels(self, study: StudyConfig) -> dict[str, float]:
        """Channel to strength."""
        planted = study.plant[self.kind] if self.kind else {}
        return {channel: self.strength * size for channel, size in planted.items()}


@dataclass(frozen=True)
class Network:
    """One network to train: bias, q (0 for a twin), method of mitigation, seed of weights and batches."""

    bias: Bias
    q: float
    seed: int
    method: str = "none"

    @property
    def is_twin(self) -> bool:
        return not self.bias.kind

    @property
    def name(self) -> str:
        """Readable and unique in a study: `marker-q0.8-seed0`."""
        if self.is_twin:
            return f"twin-seed{self.seed}"
        method = "" if self.method == "none" else f"-{self.method}"
        return f"{self.bias.name}-q{self.q:g}{method}-seed{self.seed}"

    def key(self, study: StudyConfig, data_hash: str) -> str:
        """Of everything that its weights depend on; a network with another key is trained anew."""
        parts: dict[str, Any] = {"channels": self.bias.channels(study), "q": self.q, "seed": self.seed}
        parts |= {"method": self.method, "data": data_hash, "finding": study.finding}
        parts["module"] = _content(study.module) if study.module else ""
        parts |= {"network": asdict(study.network), "train": asdict(study.train), "unlearning": study.unlearning}
        return digest(parts)


def all_biases(study: StudyConfig) -> list[Bias]:
    """Every kind at every strength."""
    return [Bias(kind, strength) for kind in study.plant for strength in study.strengths]


def all_networks(study: StudyConfig) -> list[Network]:
    """Twins first, then the biased ones, then those with a mitigation."""
    twins = [Network(Bias(), 0.0, seed) for seed in study.seeds]
    cells = list(_cells(study, study.q, ["none"]))
    return [*twins, *cells, *_cells(study, study.mitigated_q, study.mitigate)]


def encoded_networks(study: StudyConfig) -> list[Network]:
    """Those whose layers are probed: of the first strength and seed, and their twin."""
    of = StudyConfig(plant=study.plant, strengths=study.strengths[:1], seeds=study.seeds[:1])
    return [Network(Bias(), 0.0, study.seeds[0]), *_cells(of, study.encoded_q, ["none"])]


def scored_biases(network: Network, study: StudyConfig) -> dict[str, dict[str, float]]:
    """What a network is scored under, name to channels: its own bias, and each of several; of a twin all."""
    biases = all_biases(study)
    if network.is_twin:
        return {bias.name: bias.channels(study) for bias in biases}
    own = network.bias.channels(study).items()
    parts = [bias for bias in biases if bias == network.bias or bias.channels(study).items() < own]
    return {bias.name: bias.channels(study) for bias in parts}


def twin_of(network: Network) -> Network:
    """The network with the same weights at the start and the same batches, of films without the bias."""
    return Network(Bias(), 0.0, network.seed)


def _content(module: str) -> list[str]:
    """The user's function and its file, wherever that is: a network of another one is another."""
    file, _, function = module.rpartition(":")
    return [function, Path(file).read_text("utf-8")]


def _cells(study: StudyConfig, qs: list[float], methods: list[str]) -> Iterator[Network]:
    for bias in all_biases(study):
        for q in qs:
            for method in methods:
                yield from (Network(bias, q, seed, method) for seed in study.seeds)
