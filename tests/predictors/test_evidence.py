"""Evidence on either half of the image, and what can't be asked of it."""

import pytest
import torch
from torch import nn

from causalcxr.building import build_severity
from causalcxr.config import load_config
from causalcxr.graph import load_graph
from causalcxr.predictors.evidence import Evidence
from causalcxr.predictors.networks import PredictorConfig
from causalcxr.predictors.predictor import NetworkPredictor
from causalcxr.support.errors import ConfigError

GRAPH = load_graph("chest")
ASKED = ["model.severity.of=[finding]", "train.stages=[attributes,predictors,image]"]


def test_evidence_of_a_half_is_that_half_alone():
    """Without a trunk: the map is the image, the features are mean and maximum, and weights are known."""
    predictor = NetworkPredictor([GRAPH["finding"]], PredictorConfig(widths=[1]), sided=["finding"])
    predictor.trunk = nn.Identity()
    with torch.no_grad():
        predictor.linear[0].weight.copy_(torch.tensor([[0.0, 0.0], [2.0, 3.0]]))
        predictor.linear[0].bias.copy_(torch.tensor([0.0, -1.0]))
    image = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    found = Evidence(predictor, ["finding"])(image)
    for column, half in ((0, image[..., :3]), (1, image[..., 3:])):
        odds = 2 * half.mean(dim=(1, 2, 3)) + 3 * half.amax(dim=(1, 2, 3)) - 1
        torch.testing.assert_close(found[:, column], odds)


def test_none_is_built_unless_asked_for():
    assert build_severity(load_config([]), GRAPH) is None


def test_two_sides_a_finding():
    severity = build_severity(load_config(ASKED), GRAPH)
    assert severity is not None
    assert [variable.name for variable in severity.variables] == [
        "severity of finding, left of the image",
        "severity of finding, right of the image",
    ]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.severity.of=[findng]"], ["'findng'", "'finding'"]),
        (["model.severity.of=[race]"], ["'race'", "binary"]),
        (["train.stages=[attributes,image]"], ["predictors", "train.stages"]),
        (["model.predictor.architecture=resnet18"], ["resnet18", "convnet"]),
    ],
)
def test_what_is_impossible_is_refused_in_one_line(overrides, words):
    with pytest.raises(ConfigError) as error:
        build_severity(load_config([*ASKED, *overrides]), GRAPH)
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in words)


def test_noise_must_be_above_zero():
    with pytest.raises(ConfigError, match=r"model\.severity\.noise"):
        load_config([*ASKED, "model.severity.noise=0"])
