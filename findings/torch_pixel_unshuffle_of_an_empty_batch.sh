#!/usr/bin/env bash
# torch 2.14.1: pixel_unshuffle of an empty batch returns it unfolded on the CPU; on the meta device, and so while a
# model is traced, it is folded. pixel_shuffle, its inverse, treats both alike.
#
# A U-Net that folds blocks of pixels into channels at its door is called with no rows, for example because a filter
# left none. Layers of torch take an empty batch, so one expects (0, 4, 8, 8) of (0, 1, 16, 16) with a factor
# of 2. On the CPU the shape stays (0, 1, 16, 16), and the next convolution complains of its channels.
#
# Seen: eager (0, 1, 16, 16); meta (0, 4, 8, 8); pixel_shuffle of (0, 4, 8, 8) gives (0, 1, 16, 16) on both; with two
# rows (2, 4, 8, 8).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch.nn import functional as F

unfolded = {
    "eager": F.pixel_unshuffle(torch.zeros(0, 1, 16, 16), 2),
    "meta": F.pixel_unshuffle(torch.zeros(0, 1, 16, 16, device="meta"), 2),
    "two rows": F.pixel_unshuffle(torch.zeros(2, 1, 16, 16), 2),
}
shuffled = {device: F.pixel_shuffle(torch.zeros(0, 4, 8, 8, device=device), 2) for device in ("cpu", "meta")}
shuffled = {f"shuffled, {device}": tensor for device, tensor in shuffled.items()}
found = {name: tuple(tensor.shape) for name, tensor in (unfolded | shuffled).items()}
print(torch.__version__, found)
assert found == {
    "eager": (0, 1, 16, 16),
    "meta": (0, 4, 8, 8),
    "two rows": (2, 4, 8, 8),
    "shuffled, cpu": (0, 1, 16, 16),
    "shuffled, meta": (0, 1, 16, 16),
}, "changed"
PYTHON
echo "as described"
