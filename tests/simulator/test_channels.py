"""The noise is a pure function of (seed, subject id, channel): nothing is drawn in sequence."""

import hashlib

import pytest
import torch

from causalcxr import simulator
from causalcxr.simulator import channels
from causalcxr.simulator.channels import CHANNELS, pixel_noise
from causalcxr.support.errors import DataError

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def splitmix(state: int) -> int:
    """The published output function on Python's unbounded integers."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


@pytest.mark.parametrize("ids", [[3], [11, 3, 0], [7, 6, 5, 4, 3, 2, 1, 0], [3, 3, 10**12]])
def test_a_subject_is_the_same_in_any_batch(ids: list[int]) -> None:
    alone, batch = simulator.noise(5, range(12)), simulator.noise(5, ids)
    for name in CHANNELS:
        for row, subject in enumerate(ids):
            if subject < 12:
                assert torch.equal(batch[name][row], alone[name][subject]), name


def test_seeds_ids_and_channels_give_different_draws() -> None:
    keys = [(0, 0, "sex"), (1, 0, "sex"), (0, 1, "sex"), (0, 0, "race"), (-1, 0, "sex"), (0, -1, "sex")]
    drawn = [simulator.noise(seed, [subject])[name].item() for seed, subject, name in keys]
    assert len(set(drawn)) == len(drawn)


def test_an_added_channel_shifts_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    before = simulator.noise(0, range(4))
    monkeypatch.setattr(channels, "CHANNELS", {"added": ("normal", 3), **CHANNELS})
    after = simulator.noise(0, range(4))
    assert after["added"].shape == (4, 3)
    assert all(torch.equal(before[name], after[name]) for name in CHANNELS)


def test_the_hash_is_splitmix64() -> None:
    channel = int.from_bytes(hashlib.blake2b(b"race", digest_size=8).digest(), "little")
    for seed, subject in [(0, 0), (7, 123456789), (2**40, 2**50)]:
        key = splitmix((splitmix((seed * GOLDEN + channel) & MASK) + (subject + 1) * GOLDEN) & MASK)
        uniform = ((splitmix((key + GOLDEN) & MASK) >> 12) + 0.5) * 2.0**-52
        assert simulator.noise(seed, [subject])["race"].item() == uniform


def test_the_laws_of_the_channels() -> None:
    """Mean and variance within 5 standard errors: a false alarm in fewer than 1 of 10,000 runs over all columns
    (and none on a repeated run, since the seed is fixed)."""
    n = 20_000
    for name, values in simulator.noise(11, range(n)).items():
        law = CHANNELS[name][0]
        if law in ("key", "number"):
            continue
        mean, variance, spread = (0.5, 1 / 12, (1 / 180) ** 0.5) if law == "uniform" else (0.0, 1.0, 2.0**0.5)
        assert (values.mean(0) - mean).abs().max() < 5 * (variance / n) ** 0.5, name
        assert (values.var(0) - variance).abs().max() < 5 * spread / n**0.5, name


def test_channels_are_uncorrelated() -> None:
    n = 20_000
    u = simulator.noise(3, range(n))
    columns = torch.cat([v.reshape(n, -1) for k, v in u.items() if k not in ("pixels", "subject")], dim=1)
    correlation = torch.corrcoef(columns.T) - torch.eye(columns.shape[1])
    assert correlation.abs().max() < 5 / n**0.5  # 5 standard errors; about 2,000 pairs


def test_pixel_noise_is_standard_normal_and_finite_at_any_size() -> None:
    keys = simulator.noise(0, range(8))["pixels"]
    for size in (33, 64, 256):
        drawn = pixel_noise(keys, size)
        n = drawn.numel()
        assert drawn.shape == (8, size * size)
        assert drawn.isfinite().all()
        assert abs(drawn.mean()) < 5 / n**0.5
        assert abs(drawn.var() - 1) < 5 * (2 / n) ** 0.5
        neighbours = (drawn[:, 1:] * drawn[:, :-1]).mean()
        assert abs(neighbours) < 5 / n**0.5


@pytest.mark.parametrize("ids", [[0.5], torch.zeros(2, 2, dtype=torch.int64), torch.tensor(3), [True]])
def test_ids_that_are_no_list_of_whole_numbers_are_refused(ids: object) -> None:
    with pytest.raises(DataError, match="ids of subjects: expected a list of whole numbers"):
        simulator.noise(0, ids)  # type: ignore[arg-type]


def test_no_subjects_give_empty_noise() -> None:
    u = simulator.noise(0, [])
    assert u["sex"].shape == (0,)
    assert simulator.render(u, simulator.attributes(u)).shape == (0, 1, 64, 64)
