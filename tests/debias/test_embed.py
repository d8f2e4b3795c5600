"""Embeddings of a cohort's images, whole or at a layer, and of its patients under other attributes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causalcxr import simulator
from causalcxr.commands import embed as command
from causalcxr.data.preparation import open_cohort
from causalcxr.debias.embedding import (
    QUANTILES,
    combinations_of,
    counterfactual_embeddings,
    embed_split,
    embedder_of,
    values_to_average,
)
from causalcxr.graph import graph_from_dict
from causalcxr.mechanisms.likelihood import image_to_float
from causalcxr.metrics.truth import Truth, find_truth
from causalcxr.predictors.adapters import AdaptedPredictor
from causalcxr.runs import load, open_run
from causalcxr.support.errors import ConfigError, DataError, GraphError

SEX = {"sex": ["female", "male"]}


@pytest.fixture(scope="module")
def cohort(tiny_run):
    run = open_run(tiny_run)
    return open_cohort(run.config.data, run.graph)


@pytest.fixture(scope="module")
def test_rows(cohort):
    return cohort.split("test")


@pytest.fixture(scope="module")
def films(test_rows) -> Tensor:
    return torch.cat([image_to_float(images) for images in test_rows.images()])


@pytest.fixture(scope="module")
def truth(cohort) -> Truth:
    found = find_truth(cohort)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def predictor(tiny_run):
    return open_run(tiny_run).load_predictor("predictor")


def small(images: Tensor) -> Tensor:
    """An embedding that shows most of an image: 8 x 8 means."""
    return F.adaptive_avg_pool2d(images, 8).flatten(1)


def in_8_bits(images: Tensor) -> Tensor:
    return (255 * images).round() / 255


class Net(nn.Module):
    """Two convolutions; the second's output is changed in place afterwards, and dropout is on until eval()."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, stride=2), nn.Dropout(0.5))
        self.tokens = nn.Linear(6, 5)
        self.unused = nn.Linear(1, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.block(self.first(images)).relu_()
        tokens = self.tokens(maps.flatten(2).mT)
        return {"logits": tokens.amax(dim=1)}


@pytest.fixture
def net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net()


def test_a_predictor_gives_its_features(predictor, test_rows, films):
    found = embed_split(predictor, test_rows, batch_size=10)
    assert found.dtype == np.float32 and found.shape == (24, 24)
    np.testing.assert_allclose(found, predictor.features(films), atol=1e-5)
    assert np.std(found, axis=0).max() > 1e-3, "all images alike: the comparison above would show nothing"


def test_a_predictors_layer_is_the_mean_of_its_map(predictor, test_rows, films):
    with torch.no_grad():
        by_hand = predictor.trunk[:3](films).mean(dim=(2, 3))
    np.testing.assert_allclose(embed_split(predictor, test_rows, "trunk.2"), by_hand, atol=1e-5)
    assert embed_split(predictor, test_rows, "linear.1").shape == (
        24,
        3,
    )  # a head, which features alone don't reach


def test_a_layer_is_pooled_as_it_comes_out_without_dropout(net, test_rows, films):
    with torch.no_grad():
        maps = net.block[0](net.first(films))
        tokens = net.tokens(maps.relu().flatten(2).mT)
    assert (maps.mean(dim=(2, 3)) < 0).any(), "a map after relu would look the same"
    np.testing.assert_allclose(embed_split(net, test_rows, "block"), maps.mean(dim=(2, 3)), atol=1e-5)
    np.testing.assert_allclose(embed_split(net, test_rows, "tokens"), tokens.mean(dim=1), atol=1e-5)


def test_a_flat_layer_is_not_changed_by_what_follows_in_place(test_rows, films):
    model = nn.Sequential(nn.Flatten(), nn.Linear(1024, 4), nn.ReLU(inplace=True))
    with torch.no_grad():
        before = model[1](films.flatten(1))
    assert (before < 0).any()
    np.testing.assert_allclose(embed_split(model, test_rows, "1"), before, atol=1e-5)


def test_hooks_are_removed_even_where_the_model_fails(net, test_rows):
    embed_split(net, test_rows, "tokens")
    net.tokens = nn.Linear(7, 5)
    with pytest.raises(DataError, match=r"fails on images 24x1x32x32 in \[0, 1\] with RuntimeError: .*; wrap it"):
        embed_split(net, test_rows, "block")
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("blok", "no layer 'blok'; did you mean 'block'"),
        ("block.7", "no layer 'block.7'; did you mean 'block.1'|did you mean 'block.0'"),
        ("zzz", "expected one of: first, block, block.0, block.1, tokens, unused"),
        ("unused", "layer 'unused' of the model is not used"),
    ],
)
def test_a_wrong_layer_names_the_nearest(net, test_rows, layer, message):
    with pytest.raises(ConfigError, match=message):
        embed_split(net, test_rows, layer)


def test_a_function_may_give_vectors_maps_or_arrays_but_has_no_layers(test_rows, films):
    sizes = []

    def model(images: Tensor) -> np.ndarray:
        sizes.append(len(images))
        return small(images).numpy().astype(np.float64)

    found = embed_split(model, test_rows, batch_size=10)
    assert sizes == [10, 10, 4]
    np.testing.assert_allclose(found, small(films), atol=1e-6)
    maps = embed_split(lambda images: images * torch.ones(1, 3, 1, 1), test_rows)
    np.testing.assert_allclose(maps, films.mean(dim=(2, 3)).expand(-1, 3), atol=1e-6)
    with pytest.raises(ConfigError, match="layer 'first': the model is a function"):
        embed_split(model, test_rows, "first")


def test_half_precision_is_embedded_as_float32(test_rows, films):
    model = nn.Sequential(nn.Flatten(), nn.Linear(1024, 4)).to(torch.bfloat16)
    found = embed_split(model, test_rows)
    expected = model(films.to(torch.bfloat16)).detach().float()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda images: images.mean(dim=(1, 2, 3)), r"the model gives Tensor \(24,\) for 24 images; expected"),
        (lambda images: images[1:].flatten(1), r"gives Tensor \(23, 1024\) for 24 images"),
        (lambda images: {"features": images}, "gives dict for 24 images"),
        (lambda images: np.full((24, 2), "x"), r"gives ndarray \(24, 2\)"),
        (lambda images: images[:, 4], r"fails on images 24x1x32x32 in \[0, 1\] with IndexError"),
    ],
)
def test_what_is_no_embedding_is_refused(test_rows, model, message):
    with pytest.raises(DataError, match=message):
        embed_split(model, test_rows)


def test_embeddings_keep_their_length(test_rows):
    with pytest.raises(DataError, match="gives 10 numbers for an image, and then 4"):
        embed_split(lambda images: torch.zeros(len(images), len(images)), test_rows, batch_size=10)


def test_numbers_that_are_not_finite_are_counted(test_rows, films, truth):
    limit = float(small(films[:1]).mean())

    def model(images: Tensor) -> Tensor:
        """One number is infinite of films that are brighter than the first one."""
        found = small(images)
        found[found.mean(dim=1) > limit + 1e-4, 7] = torch.inf
        return found

    bad = np.flatnonzero(~np.isfinite(model(films).numpy()).all(axis=1))
    assert 0 < len(bad) < 24 and bad[0] > 0
    with pytest.raises(DataError, match=f"{len(bad)} of 24 rows .* id {test_rows.ids[bad[0]]};"):
        embed_split(model, test_rows, batch_size=5)
    with pytest.raises(DataError, match="of 24 rows have numbers that are not finite"):
        counterfactual_embeddings(None, test_rows, model, SEX, truth)


def test_nothing_to_embed_is_refused(test_rows):
    with pytest.raises(DataError, match="split 'test' is empty"):
        embed_split(small, test_rows.subset(np.arange(0)))


def test_torchvision_networks_in_their_own_range(cohort, test_rows, films):
    """Their channels, size and levels come with the adapter; layers are named through it."""
    from torchvision.models import resnet18

    network = resnet18(weights=None).eval()
    variables = [cohort.graph[name] for name in cohort.graph.attributes]
    model = AdaptedPredictor(variables, network, {}, pixel_range=(-2.0, 2.0), size=48, channels=3)
    found = embed_split(model, test_rows.subset(range(3)), "model.avgpool")
    grown = F.interpolate(films[:3], (48, 48), mode="bilinear", align_corners=False, antialias=True)
    network.fc = nn.Identity()
    with torch.no_grad():
        by_hand = network((4 * grown - 2).expand(-1, 3, -1, -1))
    assert found.shape == (3, 512)
    np.testing.assert_allclose(found, by_hand, atol=1e-4)
    with pytest.raises(ConfigError, match=r"no layer 'avgpool'; did you mean 'model.avgpool'"):
        embedder_of(model, "avgpool")


def test_values_are_labels_and_quantiles_of_the_training_split(cohort):
    train = cohort.split("train").attributes
    found = values_to_average(cohort.graph, ["race", "age"], train)
    assert list(found) == ["race", "age"] and found["race"] == ["white", "asian", "black"]
    np.testing.assert_allclose(found["age"], np.quantile(train["age"].numpy(), QUANTILES), rtol=1e-6)
    with pytest.raises(ConfigError, match="no attribute 'gender' to average over; expected one of: sex"):
        values_to_average(cohort.graph, ["gender"], train)
    assert combinations_of({**SEX, "age": [40.0, 60.0]})[:3] == [
        {"sex": "female", "age": 40.0},
        {"sex": "female", "age": 60.0},
        {"sex": "male", "age": 40.0},
    ]


def test_exact_pairs_are_the_simulators_in_the_order_of_the_combinations(test_rows, truth):
    values = {"sex": ["male", "female"], "age": [30.0, 70.0]}
    found = counterfactual_embeddings(None, test_rows, small, values, truth, batch_size=9)
    assert found.shape == (24, 4, 64) and found.dtype == np.float32
    u = simulator.noise(truth.seed, torch.from_numpy(test_rows.ids))
    for i, do in enumerate(combinations_of(values)):
        image = simulator.counterfactual(u, do, 32, "direct", truth.knobs)
        np.testing.assert_allclose(found[:, i], small(in_8_bits(image)), atol=1e-6)
    assert np.abs(found[:, 0] - found[:, 3]).mean() > 1e-3


def test_under_their_own_values_patients_stay_as_they_are(tiny_run, test_rows, films, truth):
    """By the simulator, whose images are stored in 8 bits, and by the model, which reconstructs its own images."""
    values = {**SEX, "race": ["white", "asian", "black"]}
    rows, own = np.arange(24), test_rows.attributes
    for scm, exact in ((None, truth), (load(tiny_run), None)):
        found = counterfactual_embeddings(scm, test_rows, small, values, exact)
        assert found.shape == (24, 6, 64)
        np.testing.assert_allclose(found[rows, 3 * own["sex"] + own["race"]], small(films), atol=1e-5)
        other = np.abs(found[rows, 3 * (1 - own["sex"]) + own["race"]] - small(films).numpy())
        assert other.max(axis=1).min() > 1e-3


class Twins(Truth):
    """The same subjects, born with the other sex."""

    def images(self, ids, do=None, effect="direct"):
        born = self.attributes(ids)["sex"]
        return super().images(ids, {"sex": 1 - born, **(do or {})}, effect)


def test_twins_that_differ_in_sex_alone_have_one_average(test_rows, films, truth):
    twins = Twins(truth.graph, truth.seed, truth.size, truth.knobs, truth.columns)
    factual = embed_split(lambda _: small(in_8_bits(twins.images(test_rows.ids))), test_rows)
    assert np.abs(factual - small(films).numpy()).max(axis=1).min() > 1e-3
    one, other = (counterfactual_embeddings(None, test_rows, small, SEX, who) for who in (truth, twins))
    np.testing.assert_allclose(one.mean(axis=1), other.mean(axis=1), atol=1e-6)


def test_the_models_pairs_are_its_counterfactuals(tiny_run, test_rows):
    """Asked for one by one, from the same draw of the noise."""
    from causalcxr.randomness import seed_of

    scm, values = load(tiny_run), {"age": [30.0, 80.0], **SEX}
    found = counterfactual_embeddings(scm, test_rows, small, values, batch_size=40, seed=5)  # 10 patients at once
    rows = np.arange(10, 20)
    abduction = scm.abduct(test_rows.batch(rows), seed_of(5, "test", 10))
    for i, do in enumerate(combinations_of(values)):
        image = scm.counterfactual(abduction, do, "direct")["image"]
        np.testing.assert_allclose(
            found[rows, i], small(in_8_bits(image)), atol=2e-3
        )  # a pixel may round otherwise
    again = counterfactual_embeddings(scm, test_rows, small, values, batch_size=40, seed=5)
    assert np.array_equal(found, again)


def test_nothing_is_abducted_or_shown_twice(tiny_run, test_rows, truth, monkeypatch):
    """Race changes no film here, and so its combinations are those of sex."""
    scm = load(tiny_run)
    abducted, shown = [], []
    abduct = scm.abduct
    monkeypatch.setattr(
        scm, "abduct", lambda batch, seed: (abducted.append(len(batch["sex"])), abduct(batch, seed))[1]
    )
    declared = scm.graph.to_dict()
    declared["variables"]["image"]["parents"].remove("race")
    monkeypatch.setattr(test_rows, "graph", graph_from_dict(declared))

    def model(images: Tensor) -> Tensor:
        shown.append(len(images))
        return small(images)

    values = {"race": ["white", "asian", "black"], **SEX}
    found = counterfactual_embeddings(scm, test_rows, model, values)
    assert abducted == [24] and shown == [48] and found.shape == (24, 6, 64)
    assert np.array_equal(found[:, :2], found[:, 2:4]) and np.array_equal(found[:, :2], found[:, 4:])
    assert not np.array_equal(found[:, 0], found[:, 1])


@pytest.mark.parametrize("values", [{"gender": ["x"]}, {"sex": ["woman"]}, {"image": ["x"]}])
def test_unknown_values_are_refused(test_rows, truth, values):
    with pytest.raises(GraphError):
        counterfactual_embeddings(None, test_rows, small, values, truth)


def test_pairs_need_a_model_or_the_truth(test_rows):
    with pytest.raises(ConfigError, match="expected a model, or exact=Truth"):
        counterfactual_embeddings(None, test_rows, small, SEX)


def test_the_command_writes_embeddings_and_their_table(tiny_run, cohort, predictor, tmp_path, capsys):
    command.run([str(tiny_run), str(tmp_path / "out"), "--splits", "test", "val"])
    z = np.load(tmp_path / "out" / "embeddings.npy")
    table = pd.read_csv(tmp_path / "out" / "table.csv", dtype={"id": str, "patient_id": str, "age": np.float32})
    assert z.dtype == np.float32 and z.shape == (48, 24)
    assert list(table) == ["id", "patient_id", "split", "sex", "race", "age", "finding"]
    assert list(table["split"]) == ["test"] * 24 + ["val"] * 24 and table["id"].is_unique
    for start, name in ((0, "test"), (24, "val")):
        split = cohort.split(name)
        rows = table.iloc[start : start + 24]
        assert [cohort.graph["sex"].labels[i] for i in split.attributes["sex"]] == list(rows["sex"])
        assert np.array_equal(split.attributes["age"], rows["age"])
        assert list(split.patients) == list(rows["patient_id"])
        np.testing.assert_allclose(z[start : start + 24], embed_split(predictor, split), atol=1e-5)
    assert not (tmp_path / "out" / "pairs.npy").exists()
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and said.startswith(
        "48 images, 24 numbers each: wrote embeddings.npy, table.csv to"
    )


USER = """
import torch
from torch import nn


def build(variables):
    assert [v.name for v in variables] == ["sex", "race", "age", "finding"]
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 7, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


@pytest.fixture
def user_file(tmp_path) -> Path:
    (tmp_path / "mine.py").write_text(USER)
    return tmp_path / "mine.py"


@pytest.mark.parametrize("exact", [[], ["--exact"]])
def test_the_command_writes_pairs_of_a_users_network(tiny_run, cohort, user_file, tmp_path, capsys, exact):
    out, model = tmp_path / "out", f"{user_file}:build"
    shutil.copytree(cohort.folder, tmp_path / "moved" / "32")
    words = ["--model", model, "--layer", "0", "--over", "sex", "race", "--splits", "val", "test", *exact]
    command.run([str(tiny_run), str(out), *words, f"data.prepared={tmp_path / 'moved'}"])
    z, pairs = np.load(out / "embeddings.npy"), np.load(out / "pairs.npy")
    combinations = json.loads((out / "pairs.json").read_text())
    table = pd.read_csv(out / "table.csv")
    assert pairs.shape == (48, 6, 7) and pairs.dtype == np.float32 and z.min() < 0  # before the ReLU
    assert combinations[0] == {"sex": "female", "race": "white"} and combinations[5]["race"] == "black"
    own = [combinations.index({"sex": row.sex, "race": row.race}) for row in table.itertuples()]
    np.testing.assert_allclose(pairs[np.arange(48), own], z, atol=1e-5)
    assert "pairs.npy under 6 combinations and pairs.json to" in capsys.readouterr().out
    assert not list(out.glob(".*")), "a temporary file is left"
    with pytest.raises(ConfigError, match="has the pairs of another call"):
        command.run([str(tiny_run), str(out)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--exact"], "--exact says how --over is made"),
        (["--model", "resnet"], "--model 'resnet': expected predictor or evaluator, or FILE.py:FUNCTION"),
        (["--model", "none.py:build"], "no file 'none.py'"),
        (["--layer", "trunc"], "no layer 'trunc'; did you mean 'trunk'"),
        (["--splits", "tset"], "no split 'tset'; did you mean 'test'"),
        (["--over", "sexx"], "no attribute 'sexx' to average over; did you mean 'sex'"),
        (["data.size=64"], "'data.size' can't be set here"),
        (["--loyer", "x"], "embed: .*--loyer.*; see causalcxr embed --help"),
    ],
)
def test_the_command_says_what_is_wrong(tiny_run, tmp_path, words, message):
    with pytest.raises((ConfigError, DataError), match=message):
        command.run([str(tiny_run), str(tmp_path / "out"), *words])
    assert not (tmp_path / "out").exists()


def test_exact_is_for_simulated_cohorts(tiny_run, cohort, tmp_path):
    folder = tmp_path / "prepared" / "32"
    shutil.copytree(cohort.folder, folder)
    described = json.loads((folder / "cohort.json").read_text())
    described["source"] = {"source": "folder"}
    (folder / "cohort.json").write_text(json.dumps(described))
    words = ["--over", "sex", "--exact", f"data.prepared={folder.parent}"]
    with pytest.raises(ConfigError, match="--exact needs a simulated cohort"):
        command.run([str(tiny_run), str(tmp_path / "out"), *words])
