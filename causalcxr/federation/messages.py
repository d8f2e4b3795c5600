"""What passes between a site and the coordinator, and nothing else does: a few numbers, and weights by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from causalcxr.federation.strategies import State
from causalcxr.support.files import pack_tensors, unpack_tensors

__all__ = ["MOMENT", "Message", "size_of", "weights_of"]

MOMENT = "moment/"  # before the name of an optimiser's moment that travels with the weights


@dataclass(frozen=True)
class Message:
    """A question of the coordinator, or a site's answer.

    `kind`: what is asked (see `worker.py`). `part`: of the model. `facts`: numbers of rows, losses and settings,
    as JSON has them. `state`: weights, buffers and the optimiser's moments.
    """

    kind: str
    part: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    state: State = field(default_factory=dict)

    def pack(self) -> bytes:
        """As one safetensors file, which needs no pickle."""
        return pack_tensors(self.state, {"kind": self.kind, "part": self.part, "facts": dict(self.facts)})

    @property
    def weights(self) -> State:
        """The state without the optimiser's moments."""
        return weights_of(self.state)

    @classmethod
    def unpack(cls, content: bytes) -> "Message":
        """Raises RunError: damaged, or not a message."""
        state, about = unpack_tensors(content, "a message")
        return cls(about["kind"], about["part"], about["facts"], state)


def weights_of(state: State) -> dict[str, Tensor]:
    """A state without the optimiser's moments."""
    return {name: value for name, value in state.items() if not name.startswith(MOMENT)}


def size_of(state: State) -> int:
    """Bytes of a state on its way."""
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())
