"""Nothing that a browser sends is believed."""

import base64
from typing import Any

import numpy as np
import pytest

from causalcxr.explorer.question import Question, parse_question
from causalcxr.graph import load_graph
from causalcxr.support.errors import CausalCXRError

GRAPH = load_graph("chest")
GIVEN = {"sex": "male", "race": "white", "age": 50, "finding": "No Finding"}


def parse(asked: Any) -> Question:
    return parse_question(asked, GRAPH, (1, 2, 2), 10, ("kept", "off"))


def test_what_is_asked() -> None:
    question = parse(
        {"row": 3, "do": {"age": 80}, "effect": "direct", "pixel_noise": "off", "draws": 4, "seed": 1}
    )
    assert question == Question(3, {"age": 80}, "direct", "off", 4, 1)
    assert parse({"row": 0}) == Question(0)


def test_an_uploaded_film() -> None:
    pixels = np.arange(4, dtype=np.uint8).reshape(1, 2, 2)
    question = parse({"pixels": base64.b64encode(pixels.tobytes()).decode(), "given": GIVEN})
    assert question.row is None and question.given == GIVEN
    assert question.pixels is not None and np.array_equal(question.pixels, pixels)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([], "expected settings by name, got list"),
        ({"row": 3, "rwo": 1}, "unknown key 'rwo'; did you mean 'row'"),
        ({}, "row: expected a whole number from 0 to 9, got None"),
        ({"row": 10}, "row: expected a whole number from 0 to 9, got 10"),
        ({"row": True}, "row: expected"),
        ({"row": 0, "draws": 1000}, "draws: expected a whole number from 1 to 16, got 1000"),
        ({"row": 0, "seed": -1}, "seed: expected"),
        ({"row": 0, "effect": "sideways"}, "unknown effect 'sideways'"),
        ({"row": 0, "pixel_noise": "loud"}, "unknown pixel noise 'loud'"),
        ({"row": 0, "do": {"age": 180}}, "'age': 180 is not in"),
        ({"row": 0, "do": {"age": [1]}}, "do: expected a label or number"),
        ({"row": 0, "do": {"sex": True}}, "do: expected a label or number"),
        ({"row": 0, "do": {"sex": -(10**400)}}, "do: expected a label or number"),
        ({"row": 0, "do": {"age": float("nan")}}, "do: expected a label or number"),
        ({"row": 0, "do": []}, "do: expected a label or number"),
        ({"row": 0, "do": {"sex": "x" * 2000}}, "do: expected a label or number"),
        ({"row": 0, "do": {"height": 1}}, "no variable 'height'"),
        ({"row": 0, "do": {"image": 1}}, "the image is an effect"),
        ({"pixels": "AAAA", "given": GIVEN}, "expected 4 bytes, got 3"),
        ({"pixels": "?", "given": GIVEN}, "pixels: expected base64"),
        ({"pixels": "AAAAAA==", "given": {"sex": "male"}}, "'race' is not stated"),
        ({"pixels": "AAAAAA==", "given": GIVEN | {"sex": "x"}}, "'sex' has no label 'x'"),
    ],
)
def test_what_cannot_be_is_one_line(asked: Any, said: str) -> None:
    with pytest.raises(CausalCXRError) as error:
        parse(asked)
    assert said in str(error.value) and "\n" not in str(error.value)
