"""Exogenous noise of the simulator: every draw is a hash of (seed, subject id, channel name, counter).

Nothing is drawn in sequence, so a subject's noise depends on no other row, on no batch order and on no other
channel; a channel added later shifts nothing. The hash is splitmix64 (Steele, Lea, Flood, OOPSLA 2014).
"""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

from causalcxr.support.errors import DataError

__all__ = ["CHANNELS", "noise", "pixel_noise"]

# name: (law, numbers per subject). The laws: uniform on (0, 1), standard normal, key (64 random bits), and number:
# that of the subject itself.
CHANNELS: dict[str, tuple[str, int]] = {
    "subject": ("number", 1),
    "sex": ("uniform", 1),
    "race": ("uniform", 1),
    "age": ("uniform", 1),
    "finding": ("uniform", 1),
    "view": ("uniform", 1),
    "group": ("uniform", 1),
    "recorded": ("uniform", 1),
    "selected": ("uniform", 1),
    "severity": ("normal", 1),
    "effusion_side": ("uniform", 1),
    "effusion_share": ("uniform", 1),
    "position": ("normal", 4),  # field of view: zoom, rotation, shift to the side, shift down
    "warp": ("normal", 16),  # coefficients of the diffeomorphism
    "chest": ("normal", 3),  # half-width, height, depth
    "build": ("normal", 2),  # wall thickness, shoulder height
    "heart": ("normal", 3),  # transverse size, elongation, tilt
    "aorta": ("normal", 1),
    "inspiration": ("normal", 2),  # both domes; left against right
    "ribs": ("normal", 4),  # spacing, phase, slope, width
    "clavicles": ("normal", 2),
    "spine": ("normal", 2),
    "bone": ("normal", 1),
    "breast": ("normal", 3),  # size, height, droop
    "vessels": ("uniform", 8),  # phases of the lung markings
    "stomach": ("uniform", 2),  # size and place of the gastric bubble
    "film": ("normal", 2),  # exposure, contrast
    "bump": ("normal", 1),  # a planted magnification
    "texture": ("uniform", 6),  # phases and directions of the acquisition texture
    "pixels": ("key", 1),  # the pixel noise is drawn from this key when an image of some size is asked for
}

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def noise(seed: int, ids: Iterable[int] | Tensor, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """The noise of the subjects `ids`: channel name to a tensor `(B,)`, or `(B, k)` for k numbers.

    Uniform and normal channels are float64, `pixels` is an int64 key, `subject` the id. Raises DataError: ids that
    are not whole numbers in one dimension.
    """
    subjects = ids if isinstance(ids, Tensor) else torch.as_tensor(list(ids) or torch.zeros(0, dtype=torch.int64))
    if subjects.ndim != 1 or subjects.is_floating_point() or subjects.dtype == torch.bool:
        got = f"{subjects.dtype} of shape {tuple(subjects.shape)}"
        raise DataError(f"ids of subjects: expected a list of whole numbers, got {got}; give e.g. range(8)")
    subjects = subjects.to(device=device, dtype=torch.int64)
    return {name: _channel(seed, subjects, name, *law) for name, law in CHANNELS.items()}


def pixel_noise(keys: Tensor, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal noise `(B, size * size)` from the keys `(B,)`: the same for every intervention."""
    pairs = (size * size + 1) // 2
    counter = torch.arange(1, pairs + 1, device=keys.device)
    bits = _mix(keys[:, None] + counter * _signed(_GOLDEN))
    halves = torch.stack([bits & 0x7FFFFF, (bits >> 23) & 0x7FFFFF], dim=-1).flatten(1)[:, : size * size]
    return torch.special.ndtri((halves.to(dtype) + 0.5) * 2.0**-23)


def _channel(seed: int, subjects: Tensor, name: str, law: str, count: int) -> Tensor:
    if law == "number":
        return subjects
    channel = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    start = _mix(torch.tensor(_signed(seed * _GOLDEN + channel), device=subjects.device))
    keys = _mix(start + (subjects + 1) * _signed(_GOLDEN))
    if law == "key":
        return keys
    counter = torch.arange(1, count + 1, device=subjects.device)
    uniform = _to_uniform(_mix(keys[:, None] + counter * _signed(_GOLDEN)))
    drawn = uniform if law == "uniform" else torch.special.ndtri(uniform)
    return drawn[:, 0] if count == 1 else drawn


def _to_uniform(bits: Tensor) -> Tensor:
    """53 bits to (0, 1), never 0 or 1, so that a normal quantile is finite."""
    return (_shift(bits, 12).to(torch.float64) + 0.5) * 2.0**-52


def _mix(state: Tensor) -> Tensor:
    """The output function of splitmix64, a bijection on 64 bits. int64 arithmetic wraps as uint64 does."""
    state = (state ^ _shift(state, 30)) * _signed(_FIRST)
    state = (state ^ _shift(state, 27)) * _signed(_SECOND)
    return state ^ _shift(state, 31)


def _shift(state: Tensor, by: int) -> Tensor:
    """Shift right and fill with zeros; torch's int64 shift fills with the sign."""
    return (state >> by) & ((1 << (64 - by)) - 1)


def _signed(constant: int) -> int:
    """The int64 with the same 64 bits as an unsigned constant."""
    constant &= (1 << 64) - 1
    return constant - (1 << 64) if constant >= 1 << 63 else constant
