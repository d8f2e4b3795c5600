"""A predictor's evidence of a finding on either half of the image, which stands in for its severity."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from causalcxr.data.cohort import Split
from causalcxr.mechanisms.likelihood import image_to_float
from causalcxr.mechanisms.severity import Severity
from causalcxr.predictors.predictor import NetworkPredictor

__all__ = ["SIDES", "Evidence", "observe_split"]

SIDES = ("left of the image", "right of the image")  # in the order of the evidence


class Evidence(nn.Module):
    """The log-odds of every finding on either half of the image, `(B, 2 * names)`, left before right."""

    def __init__(self, predictor: NetworkPredictor, names: Sequence[str]):
        super().__init__()
        self.predictor, self.names = predictor, tuple(names)

    def forward(self, image: Tensor) -> Tensor:
        """Of images `(B, C, H, W)`."""
        features = self.predictor.features(image)
        return torch.cat([self.predictor.side_odds(features, name) for name in self.names], dim=1)


def observe_split(severity: Severity, rows: Split) -> Tensor:
    """The evidence `(N, K)` on all images of a split, on the CPU."""
    device = severity.encoder.loc.device
    return torch.cat([severity.observe(image_to_float(images.to(device))).cpu() for images in rows.images()])
