"""Classifiers from elsewhere: pixel range, size, class order, kinds of output; no weights are downloaded."""

import pytest
import torch
from torch import nn

from causalcxr.graph import load_graph
from causalcxr.predictors.adapters import AdaptedPredictor, Output, from_torchxrayvision
from causalcxr.support.errors import ConfigError

GRAPH = load_graph("chest")
VARIABLES = [GRAPH[name] for name in GRAPH.attributes]


class Recorder(nn.Module):
    """Stands in for a classifier of torchxrayvision: keeps what it was shown, answers with fixed outputs."""

    def __init__(self, targets, outputs):
        super().__init__()
        self.targets, self.outputs, self.seen = targets, torch.tensor(outputs), []

    def forward(self, image):
        self.seen.append(image)
        return self.outputs.expand(len(image), -1)


def test_pixels_are_converted_to_the_range_and_size_of_the_model():
    model = Recorder(["Effusion"], [0.7])
    adapted = from_torchxrayvision(model, VARIABLES, {"finding": "Effusion"})
    image = torch.zeros(2, 1, 64, 64)
    image[1] = 1.0
    adapted(image)
    assert model.seen[0].shape == (2, 1, 224, 224)
    assert (model.seen[0][0] + 1024).abs().max() < 1e-3
    assert (model.seen[0][1] - 1024).abs().max() < 1e-3
    adapted((255 * image).to(torch.uint8))
    assert torch.equal(model.seen[0], model.seen[1])


def test_probability_of_the_second_label_alone():
    model = Recorder(["Cardiomegaly", "Effusion"], [0.1, 0.7])
    prediction = from_torchxrayvision(model, VARIABLES, {"finding": "Effusion"})(torch.rand(3, 1, 32, 32))
    assert list(prediction) == ["finding"]
    assert (prediction["finding"].softmax(dim=1)[:, 1] - 0.7).abs().max() < 1e-6


def test_class_order_is_read_by_name():
    model = Recorder(["Asian", "Black", "White"], [0.2, 0.5, 0.3])
    names = {"white": "White", "asian": "Asian", "black": "Black"}
    prediction = from_torchxrayvision(model, VARIABLES, {"race": names})(torch.rand(2, 1, 32, 32))
    expected = torch.tensor([{"white": 0.3, "asian": 0.2, "black": 0.5}[label] for label in GRAPH["race"].labels])
    assert (prediction["race"].softmax(dim=1) - expected).abs().max() < 1e-6


def test_logits_and_numbers_of_any_callable():
    def model(pixels):
        mean = pixels.mean(dim=(1, 2, 3))
        return torch.stack([mean, -mean, mean], dim=1)

    outputs = {
        "sex": Output({"female": 1, "male": 0}),
        "age": Output({"age": 2}, kind="value", scale=10.0, shift=50.0),
    }
    adapted = AdaptedPredictor(VARIABLES, model, outputs, pixel_range=(-1, 1), channels=3)
    prediction = adapted(torch.full((2, 1, 8, 8), 0.75))
    assert (prediction["sex"] - torch.tensor([-0.5, 0.5])).abs().max() < 1e-6
    assert (prediction["age"] - 55.0).abs().max() < 1e-5


def test_gradients_reach_the_image_and_certain_probabilities_stay_finite():
    image = torch.rand(2, 1, 8, 8, requires_grad=True)
    adapted = AdaptedPredictor(
        VARIABLES, lambda x: x.flatten(1)[:, :1] * 0 + 1.0, {"sex": Output({"male": 0}, kind="probabilities")}
    )
    logits = adapted(image)["sex"]
    assert logits.isfinite().all()
    linear = AdaptedPredictor(VARIABLES, lambda x: x.flatten(1).sum(1, keepdim=True), {"sex": Output({"male": 0})})
    linear(image)["sex"][:, 1].sum().backward()
    assert torch.equal(image.grad, torch.ones_like(image))


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"sexx": Output({"male": 0})}, "'sexx' is no attribute of the graph; did you mean 'sex'"),
        ({"sex": Output({"male": 0}, kind="value")}, "kind is 'value', expected logits or probabilities"),
        ({"sex": Output({"male": 0}, kind="logit")}, "kind 'logit'; did you mean 'logits'"),
        ({"age": Output({"age": 0})}, "kind is 'logits', expected value"),
        ({"race": Output({"white": 0, "black": 1})}, "columns are given for white, black; expected"),
        ({"sex": Output({"female": 0})}, "columns are given for female; expected female, male"),
    ],
)
def test_outputs_that_do_not_fit_the_graph_are_refused(outputs, message):
    with pytest.raises(ConfigError, match=message):
        AdaptedPredictor(VARIABLES, lambda x: x, outputs)


def test_an_output_that_the_model_does_not_have_is_named():
    with pytest.raises(ConfigError, match="no output 'Efusion'; did you mean 'Effusion'"):
        from_torchxrayvision(Recorder(["Effusion"], [0.5]), VARIABLES, {"finding": "Efusion"})
    with pytest.raises(ConfigError, match="neither 'pathologies' nor 'targets'"):
        from_torchxrayvision(nn.Identity(), VARIABLES, {"finding": "Effusion"})
