"""The protocol of image mechanisms is enough: the one of docs/new-mechanism.md goes through everything."""

import sys
import types
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from causalcxr.graph import load_graph
from causalcxr.mechanisms import registry
from causalcxr.mechanisms.registry import MechanismsConfig
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
from tests.models import SIZE

CHANGED = {"age": 80.0}


PAGE = Path(__file__).parents[2] / "docs" / "new-mechanism.md"


def load_page() -> Any:
    """The module that the page's code makes."""
    module = types.ModuleType("logit")
    sys.modules["logit"] = module  # dataclasses look their module up
    exec(PAGE.read_text("utf-8").split("```python\n")[1].split("```")[0], module.__dict__)
    return module


LOGIT = load_page()


@pytest.fixture
def scm(monkeypatch) -> StructuralCausalModel:
    """With the mechanism entered in the registry as the page says."""
    monkeypatch.setitem(registry.IMAGE_MECHANISMS, "logit", LOGIT.Logit)
    config = make_dataclass("Config", [("logit", Any, None)], bases=(MechanismsConfig,))(
        logit=LOGIT.LogitConfig(0.3)
    )
    torch.manual_seed(0)
    scm = StructuralCausalModel(load_graph("chest").with_image_mechanism("logit"), config, SIZE)
    return scm.requires_grad_(False)


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
