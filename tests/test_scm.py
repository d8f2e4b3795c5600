"""The structural causal model: abduction, action, prediction; effects; batched interventions; refusals."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from causalcxr.graph import graph_from_dict, load_graph
from causalcxr.support.errors import ConfigError, GraphError
from tests.models import chest_batch, tiny_scm

INTERVENTIONS = [
    {"sex": "female"},
    {"race": "black"},
    {"age": 80},
    {"finding": "Pleural Effusion"},
    {"sex": "male", "age": 25.5},
    {"age": [20, 30, 40, 50, 60, 70, 80, 90]},
    {"race": ["white", "asian", "black", "white"] * 2, "finding": torch.arange(8) % 2},
]


@pytest.mark.parametrize("effect", ["total", "direct", "indirect"])
@pytest.mark.parametrize("do", INTERVENTIONS, ids=str)
def test_what_an_intervention_cannot_reach_is_bit_identical(do, effect):
    scm, batch = tiny_scm(), chest_batch()
    result = scm.counterfactual(batch, do=do, effect=effect, seed=0)
    reached = scm.graph.descendants(*do) | set(do)
    for name in set(scm.graph.attributes) - reached:
        assert torch.equal(result[name], batch[name]), name
    assert set(result) == set(batch)


def test_total_direct_and_indirect_differ_where_they_should():
    # sex -> image ; age -> finding -> image ; age -> image
    scm, batch = tiny_scm(), chest_batch(64)
    noise = scm.abduct(batch, seed=0)
    total = scm.counterfactual(noise, do={"age": 85}, effect="total")
    direct = scm.counterfactual(noise, do={"age": 85}, effect="direct")
    indirect = scm.counterfactual(noise, do={"age": 85}, effect="indirect")
    assert torch.equal(direct["finding"], batch["finding"])
    assert (direct["age"] == 85).all()
    flipped = total["finding"] != batch["finding"]
    assert flipped.any() and not flipped.all()
    assert torch.equal(indirect["finding"], total["finding"])
    assert torch.equal(indirect["age"], batch["age"])
    same = ~flipped  # where the finding did not follow, total is direct and indirect is nothing (float rounding)
    torch.testing.assert_close(total["image"][same], direct["image"][same], atol=1e-5, rtol=0)
    factual = noise.factual["image"]
    torch.testing.assert_close(indirect["image"][same], factual[same], atol=1e-5, rtol=0)
    assert (indirect["image"][flipped] - factual[flipped]).abs().amax(dim=(1, 2, 3)).min() > 1e-4


@pytest.mark.parametrize("name", ["sex", "race", "age", "finding"])
def test_null_intervention_gives_the_image_back(name):
    scm, batch = tiny_scm(), chest_batch()
    result = scm.counterfactual(batch, do={name: batch[name]}, seed=0)
    for attribute in scm.graph.attributes:
        assert torch.equal(result[attribute], batch[attribute])
    levels = (result["image"] * 255).round().to(torch.uint8)
    assert torch.equal(levels, batch["image"])


def test_interventions_together_equal_interventions_one_by_one():
    scm, batch = tiny_scm(), chest_batch()
    noise = scm.abduct(batch, seed=0)
    together = scm.counterfactual(noise, do=INTERVENTIONS)
    for do, batched in zip(INTERVENTIONS, together, strict=True):
        single = scm.counterfactual(noise, do=do)
        for name in scm.graph.attributes:
            assert torch.equal(single[name], batched[name])
        torch.testing.assert_close(single["image"], batched["image"], atol=1e-5, rtol=0)


def test_interventions_together_call_the_decoder_once(monkeypatch):
    scm, batch = tiny_scm(), chest_batch()
    image, calls = scm.mechanism("image"), []
    forward = image.forward
    monkeypatch.setattr(image, "forward", lambda *a: calls.append(1) or forward(*a))
    scm.counterfactual(scm.abduct(batch, seed=0), do=INTERVENTIONS)
    assert len(calls) == 1


def test_an_image_out_of_reach_is_left_alone():
    graph = graph_from_dict(
        {
            "variables": {
                "site": {"kind": "binary", "labels": ["a", "b"]},
                "sex": {"kind": "binary", "labels": ["f", "m"], "parents": ["site"]},
                "other": {"kind": "binary", "labels": ["no", "yes"], "parents": ["sex"]},
                "image": {"kind": "image", "parents": ["sex"]},
            }
        }
    )
    scm = tiny_scm(graph)
    batch = scm.sample(8, seed=0)
    result = scm.counterfactual(batch, do={"other": "yes"}, seed=1)
    assert torch.equal(result["image"], batch["image"])
    assert not torch.equal(
        scm.counterfactual(batch, do={"site": 1 - batch["site"]}, seed=1)["image"], batch["image"]
    )


def test_sampling_under_do_cuts_the_edges_into_the_intervened():
    # An effusion must not make anyone older: age under do(finding) keeps its law.
    scm = tiny_scm()
    free, fixed = scm.sample(256, seed=0), scm.sample(256, do={"finding": "Pleural Effusion"}, seed=0)
    assert torch.equal(free["age"], fixed["age"]) and torch.equal(free["sex"], fixed["sex"])
    assert (fixed["finding"] == 1).all()


def test_sampled_rows_are_what_their_noise_says():
    scm = tiny_scm()
    batch = scm.sample(32, seed=3)
    assert all(torch.equal(value, scm.sample(32, seed=3)[name]) for name, value in batch.items())
    back = scm.counterfactual(batch, do={"sex": batch["sex"]}, seed=0)
    torch.testing.assert_close(back["image"], batch["image"], atol=1e-4, rtol=0)


def test_log_prob_is_the_sum_over_variables():
    scm, batch = tiny_scm(), chest_batch()
    attributes = sum(scm.mechanism(n).log_prob(batch[n], batch) for n in scm.graph.attributes)
    whole = scm.log_prob(batch, seed=0)
    assert whole.shape == (8,)
    from causalcxr.randomness import Draws

    image = scm.mechanism("image").log_prob(batch["image"], batch, Draws(0))
    torch.testing.assert_close(whole, attributes + image)


def test_rgb_many_classes_and_one_more_edge_are_only_a_graph():
    graph = graph_from_dict(
        {
            "variables": {
                "device": {"kind": "categorical", "labels": [f"d{i}" for i in range(7)]},
                "dose": {"kind": "continuous", "range": [-1, 1], "parents": ["device"]},
                "scan": {"kind": "image", "channels": 3, "parents": ["device", "dose"]},
            }
        }
    )
    scm = tiny_scm(graph)
    batch = scm.sample(5, seed=0)
    assert batch["scan"].shape == (5, 3, 16, 16)
    result = scm.counterfactual(batch, do={"device": "d6"}, seed=0)
    assert (result["device"] == 6).all() and not torch.equal(result["dose"], batch["dose"])


@pytest.mark.parametrize(
    ("do", "expected"),
    [
        ({"sx": "female"}, "no variable 'sx': did you mean 'sex'"),
        ({"sex": "femal"}, "no label 'femal'; did you mean 'female'"),
        ({"sex": 2}, "class index 2 is not in 0..1"),
        ({"age": 413}, "413 is not in [18, 100] years"),
        ({"age": float("nan")}, "nan is not in [18, 100]"),
        ({"age": "old"}, "expected a number in years"),
        ({"age": [30, 40]}, "expected one value or 8 (one per row), got 2"),
        ({"image": 0}, "the image is an effect"),
        ({"race": 1.5}, "expected a label"),
    ],
)
def test_interventions_that_make_no_sense_are_refused(do, expected):
    with pytest.raises(GraphError) as caught:
        tiny_scm().counterfactual(chest_batch(), do=do)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"age": None}, "the batch has no 'age'"),
        ({"image": torch.zeros(8, 1, 32, 32)}, "images Bx1x16x16 (a tensor, an array or a list), got 8x1x32"),
        ({"image": torch.full((8, 1, 16, 16), float("nan"))}, "floats in [0, 1] without NaN"),
        ({"image": torch.full((8, 1, 16, 16), 255.0)}, "floats in [0, 1] without NaN"),
        ({"finding": torch.full((8,), 7)}, "class index 7 is not in 0..1"),
    ],
)
def test_batches_that_make_no_sense_are_refused(change, expected):
    batch = {k: v for k, v in (chest_batch() | change).items() if v is not None}
    with pytest.raises(GraphError) as caught:
        tiny_scm().abduct(batch)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_effect_is_refused():
    with pytest.raises(GraphError, match="unknown effect 'totl'; did you mean 'total'"):
        tiny_scm().counterfactual(chest_batch(), do={"age": 80}, effect="totl")


def test_batches_are_not_mutated():
    scm, batch = tiny_scm(), chest_batch()
    before = {name: value.clone() for name, value in batch.items()}
    scm.counterfactual(batch, do=[{"age": 80}, {"sex": 0}], seed=0)
    assert set(batch) == set(before) and all(torch.equal(batch[name], before[name]) for name in batch)


def test_labels_and_lists_are_welcome_in_a_batch():
    scm, batch = tiny_scm(), chest_batch(2)
    words = {**batch, "sex": ["female", "male"], "race": "white", "age": [30, 40], "finding": "No Finding"}
    result = scm.counterfactual(words, do={"age": 60}, seed=0)
    assert result["sex"].tolist() == [0, 1] and result["race"].tolist() == [0, 0]


def test_shipped_graphs_build_models():
    for name in ("chest_without_race", "morphomnist"):
        scm = tiny_scm(name)
        batch = scm.sample(3, seed=0)
        assert list(batch) == list(load_graph(name).variables)


def test_arrays_columns_and_lists_are_a_batch_too():
    scm, batch = tiny_scm(), chest_batch(6)
    graph = scm.graph
    table = pd.DataFrame(
        {
            "sex": [graph["sex"].labels[i] for i in batch["sex"]],
            "race": pd.Categorical([graph["race"].labels[i] for i in batch["race"]]),
            "age": batch["age"].numpy(),
            "finding": batch["finding"].numpy().astype(np.uint8),
        }
    )
    frozen = batch["image"].numpy().copy()
    frozen.setflags(write=False)  # as a memory map or a column of a table may be
    expected = scm.counterfactual(batch, {"age": 80}, seed=0)
    for image in (frozen, batch["image"].tolist(), frozen / 255):
        columns = {name: table[name] for name in table.columns}
        found = scm.counterfactual({**columns, "image": image}, {"age": np.full(6, 80)}, seed=0)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)  # 255ths, once in float64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "chest.png"}, "'image': expected images Bx1x16x16 .* got str"),
        ({"image": np.zeros((2, 16, 17), np.uint8)}, "'image': expected images Bx1x16x16 .* got 2x1x16x17"),
        ({"age": pd.Series(["old"] * 900)}, "'age': expected a number in years, got .{0,90}$"),
        ({"sex": pd.Series(["f"] * 900)}, "'sex' has no label 'f'; .*female"),
    ],
)
def test_what_is_no_batch_is_one_short_line(change, message):
    with pytest.raises(GraphError, match=message) as caught:
        tiny_scm().abduct({**chest_batch(2), **change})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda scm, batch: scm.sample(2, do=[{"age": 80}]), "do: expected names and values, such as"),
        (lambda scm, batch: scm.sample(2, do="age=80"), "do: expected names and values, such as"),
        (lambda scm, batch: scm.counterfactual(batch, do="age=80"), "do: expected names and values, such as"),
        (lambda scm, batch: scm.counterfactual(batch, do=None), "do: expected names and values, such as"),
        (lambda scm, batch: scm.counterfactual(batch, do=["age"]), "do: expected names and values, such as"),
        (lambda scm, batch: scm.counterfactual(batch, do={"sex": 2**70}), "'sex': class index .* is not in 0..1"),
        (lambda scm, batch: scm.counterfactual(batch, do={"age": 10**400}), "'age': expected a number in years"),
        (lambda scm, batch: scm.abduct(5), "expected a batch of sex, race, age, finding, image by name, got int"),
        (lambda scm, batch: scm.log_prob(batch, draws=1.5), "draws: expected a whole number"),
        (lambda scm, batch: scm.abduct(batch | {"image": np.zeros((2, 16, 16, 3))}), "; convert them to grey"),
        (lambda scm, batch: scm.abduct(batch | {"image": np.zeros((2, 1, 32, 32))}), "; resize them to 16 x 16"),
        (lambda scm, batch: scm.abduct(batch | {"image": np.zeros((16, 16))}), "; put a single one into a list"),
        (
            lambda scm, batch: scm.abduct(batch | {"image": np.full((2, 16, 16), 9000)}),
            "; divide them by the highest",
        ),
    ],
)
def test_a_question_that_is_none_is_one_line_with_the_mend(ask, message):
    with pytest.raises(GraphError, match=message) as caught:
        ask(tiny_scm(), chest_batch(2))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("seed", ["a", 1.5, True, 2**64])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(ConfigError, match="seed: expected None or a whole number of at most 64 bits, got"):
        tiny_scm().sample(1, seed=seed)


def test_numpy_s_whole_numbers_are_seeds_and_labels_may_be_in_another_case():
    scm = tiny_scm()
    assert torch.equal(scm.sample(3, seed=np.int64(3))["image"], scm.sample(3, seed=3)["image"])
    assert scm.sample(2, do={"sex": "MALE"}, seed=0)["sex"].tolist() == [1, 1]


def test_the_model_and_its_abduction_print_in_a_few_lines():
    scm = tiny_scm()
    text = repr(scm).splitlines()
    assert len(text) == 6 and "finding" in text[4] and "<- age" in text[4] and "categorical" in text[4]
    assert len(repr(scm.abduct(chest_batch(2)))) < 100


def test_grey_pictures_need_no_channel():
    scm, batch = tiny_scm(), chest_batch(3)
    pictures = [Image.fromarray(image[0].numpy()) for image in batch["image"]]
    for image in (pictures, batch["image"][:, 0]):
        found = scm.abduct({**batch, "image": image}, seed=0)
        assert torch.equal(found.factual["image"], batch["image"] / 255)


def test_no_rows_give_no_rows():
    scm, none = tiny_scm(), {name: value[:0] for name, value in chest_batch(2).items()}
    sampled = scm.sample(0, do={"age": 80}, seed=0)
    abduction = scm.abduct(none, seed=0)
    found = scm.counterfactual(abduction, [{"age": 80}, {"sex": "male"}])
    for batch in (sampled, *found, scm.counterfactual(none, {"age": []})):
        assert {name: tuple(value.shape) for name, value in batch.items()} == {
            **dict.fromkeys(scm.graph.attributes, (0,)),
            "image": (0, 1, 16, 16),
        }
    assert scm.log_prob(none).shape == (0,) and len(abduction) == 0


@pytest.mark.parametrize("n", [-1, 2.0, "3", None])
def test_a_number_of_rows_that_is_none_is_refused(n):
    with pytest.raises(GraphError, match=r"n: expected a whole number of rows, 0 or more"):
        tiny_scm().sample(n)
    assert len(tiny_scm().sample(np.int64(2))["age"]) == 2


def test_ends_of_a_range_survive_rounding():
    """Age is from 18 to 100; rounding is a millionth of that, 0.000082."""
    scm, batch = tiny_scm(), chest_batch(2)
    for written, meant in ((100.0000001, 100), (17.9999999, 18), (np.float32(100.00001), 100)):
        assert (scm.sample(2, do={"age": written}, seed=0)["age"] == meant).all()
        assert (scm.counterfactual(batch, {"age": written}, seed=0)["age"] == meant).all()
    with pytest.raises(GraphError, match=r"'age': 100\.0001 is not in \[18, 100\] years"):
        scm.sample(2, do={"age": 100.0001})


@pytest.mark.parametrize(
    ("do", "effect", "stays"),
    [
        ({"a": "yes"}, "direct", True),  # a -> b -> image
        ({"a": "yes"}, "total", None),  # as b follows
        ({"a": "yes"}, "indirect", None),
        ({"b": "yes"}, "direct", False),
        ({"b": "yes"}, "indirect", True),
        ({"c": "yes"}, "total", True),  # c has no path
    ],
)
def test_an_effect_without_a_path_is_the_identity_bit_for_bit(do, effect, stays):
    labels = ["no", "yes"]
    variables = {
        "a": {"kind": "binary", "labels": labels},
        "b": {"kind": "binary", "labels": labels, "parents": ["a"]},
        "c": {"kind": "binary", "labels": labels, "parents": ["b"]},
        "image": {"kind": "image", "parents": ["b"]},
    }
    scm = tiny_scm(graph_from_dict({"variables": variables}))
    generator = torch.Generator().manual_seed(0)
    noise = scm.abduct({**dict.fromkeys("abc", [0] * 8), "image": torch.rand(8, 1, 16, 16, generator=generator)})
    made = scm.counterfactual(noise, do, effect=effect)
    kept = (made["image"] == noise.factual["image"]).flatten(1).all(dim=1)
    assert torch.equal(kept, made["b"] == noise.factual["b"])
    assert stays is None or (kept == stays).all()


def test_more_draws_tighten_the_bound_and_leave_attributes_alone():
    """Ten draws of an importance-weighted bound lie above the mean of ten of one; attributes have no draws."""
    scm, batch = tiny_scm(), chest_batch(4)
    one = torch.stack([scm.log_prob(batch, seed=s) for s in range(10)]).mean(dim=0)
    many = scm.log_prob(batch, seed=0, draws=10)
    assert (many > one).all()
    scm, attributes = scm.double(), list(scm.graph.attributes)
    image_alone = scm.log_prob(batch, seed=3, do=attributes)
    whole = scm.log_prob(batch, seed=3)
    expected = sum(scm.mechanism(name).log_prob(batch[name], batch) for name in attributes)
    torch.testing.assert_close(whole - image_alone, expected.double(), atol=1e-4, rtol=0)
    with pytest.raises(GraphError, match="draws: expected"):
        scm.log_prob(batch, draws=0)
