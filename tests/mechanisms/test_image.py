"""The protocol of image mechanisms is enough: one of forty lines, with a known answer, goes through everything."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from causalcxr.mechanisms.image import ImageMechanism, ImageNoise
from causalcxr.metrics.images import measure_images
from causalcxr.predictors.networks import PredictorConfig
from causalcxr.predictors.predictor import NetworkPredictor
from causalcxr.randomness import Draws
from causalcxr.report.gallery import make_gallery
from causalcxr.scm import StructuralCausalModel
from causalcxr.support.errors import GraphError
from causalcxr.training.config import FinetuneConfig
from causalcxr.training.finetune import FinetuneObjective
from causalcxr.training.objectives import ImageObjective
from tests.models import tiny_scm

CHANGED = {"age": 80.0}


@dataclass(frozen=True)
class PixelNoise(ImageNoise):
    pixel: Tensor

    def __len__(self) -> int:
        return len(self.pixel)

    def repeat(self, k: int) -> "PixelNoise":
        return PixelNoise(self.pixel.repeat(k, 1, 1, 1))

    def select(self, rows) -> "PixelNoise":
        return PixelNoise(self.pixel[rows])


@dataclass(frozen=True)
class InferredLogits:
    image: Tensor
    mean: Tensor
    noise: PixelNoise
    bound = None

    @property
    def loss(self) -> Tensor:
        return 0.5 * self.noise.pixel.square().mean(dim=(1, 2, 3))

    def redrawn(self, draws) -> Tensor:
        return self.mean


class LogitImage(ImageMechanism):
    """`logit(image) := A features(parents) + e`: the counterfactual adds what the features' change is worth."""

    def __init__(self, variable, parents, config=None, size=64, template=()):
        super().__init__(variable, parents, config, size, template)
        self.effects = nn.Linear(self.parent_encoder.width, size * size)

    def sample_noise(self, n, draws=None):
        return PixelNoise(self._draws(draws).normal(n, *self.event_shape, dtype=self._dtype))

    def forward(self, noise, parents):
        assert isinstance(noise, PixelNoise)
        return torch.sigmoid(self._mean(parents) + noise.pixel)

    def infer(self, value, parents, draws=None):
        image = value.to(self._dtype) / (255 if value.dtype == torch.uint8 else 1)
        mean = self._mean(parents)
        return InferredLogits(image, mean.sigmoid(), PixelNoise(image.logit(1e-4) - mean))

    def _mean(self, parents):
        return self.effects(self.parent_encoder(parents)).view(-1, *self.event_shape)


@pytest.fixture
def scm() -> StructuralCausalModel:
    scm = tiny_scm()
    torch.manual_seed(0)
    old = scm.image_mechanism
    scm.mechanisms["image"] = LogitImage(old.variable, old.parents, size=old.event_shape[-1])
    return scm


@pytest.fixture
def batch(scm) -> dict[str, Tensor]:
    return scm.sample(6, seed=1)


@torch.no_grad()
def test_its_counterfactual_is_the_one_known_by_hand(scm, batch):
    image, names = scm.image_mechanism, scm.graph.attributes
    old, new = ({name: of[name] for name in names} for of in (batch, batch | {"age": torch.full((6,), 80.0)}))
    shift = image._mean(new) - image._mean(old)
    expected = torch.sigmoid(batch["image"].logit(1e-4) + shift)
    found = scm.counterfactual(batch, CHANGED, effect="direct")["image"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (found - batch["image"]).abs().max() > 0.01
    two = scm.counterfactual(scm.abduct(batch), [{"sex": "male"}, CHANGED], effect="direct")
    torch.testing.assert_close(two[1]["image"], expected, rtol=0, atol=1e-5)


def test_without_a_likelihood_there_is_none_and_none_is_made_up(scm, batch):
    for draws in (1, 3):
        with pytest.raises(
            GraphError, match="'image': the mechanism has no likelihood; leave the image out by do="
        ):
            scm.log_prob(batch, draws=draws)
    attributes = sum(scm.mechanism(name).log_prob(batch[name], batch, Draws(0)) for name in scm.graph.attributes)
    torch.testing.assert_close(scm.log_prob(batch, seed=0, do=["image"]), attributes)


def test_it_is_measured_and_shown(scm, batch):
    abduction, inferred = scm.infer(batch, seed=0)
    rows = measure_images(scm, abduction, inferred, batch, None, torch.arange(6), cycles=2, draws=1, seed=0)
    assert ("image", "bits_per_dimension") not in rows and rows["image", "training_loss"].shape == (6,)
    assert {key[1] for key in rows if key[0] == "composition"} == {"kept"}
    assert rows["composition", "kept", "2"].max() < 0.1  # grey levels
    gallery = make_gallery(scm, abduction, inferred, [CHANGED], None, torch.arange(6), seed=0)
    assert torch.equal(gallery.redrawn, gallery.mean)


def test_it_is_trained_and_fine_tuned(scm, batch):
    objective = ImageObjective(scm.requires_grad_(True))
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.05)
    losses = []
    for step in range(30):
        loss = objective(batch, Draws(step))["image"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    predictor = NetworkPredictor(
        [scm.graph[name] for name in scm.graph.attributes], PredictorConfig(widths=[8, 8])
    )
    predictor.fit_scaling(batch)
    finetune = FinetuneObjective(scm, predictor, FinetuneConfig(targets="soft"), batch, bound=0.0).train()
    sum(loss.mean() for loss in finetune(batch, Draws(0)).values()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in finetune.parameters())
