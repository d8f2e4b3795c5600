"""Counterfactuals against the truth, where it is known: the exact error, and alpha, which attributes moved.

An effect image is a counterfactual minus its factual image. All functions take effect images, so that the
rounding of the stored factual image to 8 bits cancels in the model's effect and is absent from the true one.
"""

import torch
from torch import Tensor

__all__ = [
    "ALPHA_DEFINITION",
    "CONDITION_DEFINITION",
    "ERROR_DEFINITIONS",
    "VISIBLE",
    "coefficients",
    "error_norms",
    "relative_error",
    "size_in_grey_levels",
]

VISIBLE = 1.0  # grey level, root mean square: a smaller true effect has no ratio and no alpha
_ERROR = (
    "Exact counterfactual error ||made - exact|| / ||exact - factual|| of the direct effect of do({name} = a drawn"
)
_ERROR += " other value): 0 is exact, 1 as good as doing nothing. "
_SEEN = "over the rows whose true effect is above 1 grey level (root mean square)."
ERROR_DEFINITIONS = {
    "error": _ERROR + "Ratio of the norms' sums over all rows.",
    "error_mean": _ERROR + "Mean " + _SEEN,
    "error_median": _ERROR + "Median " + _SEEN,
}
ALPHA_DEFINITION = (
    "How much of the true direct effect of '{other}' is in the image's change under do({name} = a drawn other "
    "value): least squares, row by row, of made - factual on the true effect images of every attribute; mean over "
    "rows. Right is {right}. Rows with an effect of '{other}' below 1 grey level (root mean square) don't count."
)
CONDITION_DEFINITION = (
    "Condition number of the Gram matrix of the true effect images, each scaled to norm 1: median over rows. 1 is "
    "orthogonal; a large number says that alpha can't tell the attributes' effects apart."
)


def error_norms(effect: Tensor, true_effect: Tensor) -> tuple[Tensor, Tensor]:
    """`||made - exact||` and `||exact - factual||` of each row, `(B,)`, from effect images `(B, ...)`."""
    return (effect - true_effect).flatten(1).norm(dim=1), true_effect.flatten(1).norm(dim=1)


def relative_error(error: Tensor, size: Tensor, pixels: int) -> Tensor:
    """`||made - exact|| / ||exact - factual||` `(B,)`; NaN where the true effect is invisible."""
    return torch.where(_is_visible(size, pixels), error / size, torch.nan)


def size_in_grey_levels(effect: Tensor) -> Tensor:
    """Root mean square of each effect image, `(B,)`, in grey levels (0..255)."""
    return 255 * effect.flatten(1).square().mean(dim=1).sqrt()


def coefficients(effects: Tensor, true_effects: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares of each effect on the true effects of all attributes, every row by itself.

    `effects` `(B, m, ...)`, `true_effects` `(B, k, ...)` in image units. Returns alpha `(B, m, k)` in float64, NaN
    where a true effect is invisible, and the condition number of the Gram matrix `(B,)` of the unit-norm effects.
    """
    effects, truths = effects.flatten(2).double(), true_effects.flatten(2).double()
    size = truths.norm(dim=2)
    present = size > 0  # a faint effect is fitted too, or it would be laid to the others' account
    unit = torch.where(present[..., None], truths / size.clamp_min(torch.finfo(size.dtype).tiny)[..., None], 0)
    gram = unit @ unit.mT + torch.diag_embed((~present).double())
    projected = unit @ effects.mT  # (B, k, m)
    solved = torch.linalg.pinv(gram, hermitian=True, rtol=1e-9) @ projected
    visible = _is_visible(size, truths.shape[2])
    alpha = torch.where(visible[..., None], solved / size[..., None], torch.nan).mT
    spectrum = torch.linalg.eigvalsh(gram)
    return alpha, spectrum[:, -1] / spectrum[:, 0].clamp_min(torch.finfo(torch.float64).tiny)


def _is_visible(size: Tensor, pixels: int) -> Tensor:
    return size * 255 / pixels**0.5 > VISIBLE
