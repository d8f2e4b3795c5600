"""What several tests of the audit need."""

import torch


def brightness(images: torch.Tensor) -> torch.Tensor:
    """A model that leans on nothing but the film's brightness, as probabilities `(B,)`."""
    return torch.sigmoid(20 * (images.mean(dim=(1, 2, 3)) - 0.4))
