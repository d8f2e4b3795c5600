"""Composition and reversibility: doing nothing must change nothing, and undoing must bring the image back.

Both are mean absolute pixel differences (L1) on the scale 0..255; 0 is right.
"""

import torch
from torch import Tensor

from causalcxr.mechanisms.image import ImageMechanism, ImageNoise
from causalcxr.randomness import Draws
from causalcxr.scm import StructuralCausalModel
from causalcxr.values import Batch

__all__ = [
    "COMPOSITION_DEFINITION",
    "REVERSIBILITY_DEFINITION",
    "composition",
    "grey_levels",
    "reversibility",
]

COMPOSITION_DEFINITION = (
    "Null intervention: abduct the image, decode it under its own parents, {cycles}; mean absolute difference "
    "from the factual image in grey levels (0 to 255), 0 is right. Pixel noise, or a flow's residual, {mode}."
)
REVERSIBILITY_DEFINITION = (
    "Do({name} = a drawn other value), then undo it, abducting anew from the counterfactual image and its "
    "attributes; mean absolute difference from the factual image in grey levels (0 to 255), 0 is right. Direct "
    "effects, pixel noise kept."
)


def grey_levels(image: Tensor, other: Tensor) -> Tensor:
    """Mean absolute difference of each row, `(B,)`, in grey levels; images are float `(B, C, H, W)` in [0, 1]."""
    return 255 * (image - other).abs().flatten(1).mean(dim=1)


@torch.no_grad()
def composition(
    mechanism: ImageMechanism, image: Tensor, parents: Batch, noise: ImageNoise, cycles: int, draws: Draws
) -> dict[tuple[str, int], Tensor]:
    """L1 `(B,)` after 1 and after `cycles` null interventions, by what is done with the pixel noise.

    `noise` is what abduction of `image` gave. With the noise kept, one cycle gives the image back by construction;
    off is the decoder's mean, redrawn a fresh draw: these two show what the latents carry. Every further cycle
    abducts the image that the one before it made.
    """
    found = {}
    for mode in mechanism.pixel_noise:
        abducted = noise
        for cycle in range(1, cycles + 1):
            decoded = mechanism(abducted.with_pixel_noise(mode, draws), parents)
            if cycle in (1, cycles):
                found[mode, cycle] = grey_levels(decoded, image)
            if cycle < cycles:
                abducted = mechanism.abduct(decoded, parents, draws)
    return found


@torch.no_grad()
def reversibility(
    scm: StructuralCausalModel, factual: Batch, counterfactual: Batch, seed: int | None = None
) -> Tensor:
    """L1 `(B,)` between the factual image and the counterfactual one with all attributes set back.

    Batches are complete; the counterfactual is abducted anew. Only the edges into the image are undone (direct
    effect), so a descendant that had followed is set back as well.
    """
    assert scm.graph.image is not None
    undo = {name: factual[name] for name in scm.graph.attributes}
    undone = scm.counterfactual(counterfactual, undo, effect="direct", seed=seed)
    return grey_levels(undone[scm.graph.image], factual[scm.graph.image])
