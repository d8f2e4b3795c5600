"""What every eraser promises, against closed forms and toys with known answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from causalcxr.debias.adversary import Adversary
from causalcxr.debias.base import Eraser, Fitting
from causalcxr.debias.linear import LEACE, SPLINCE
from causalcxr.debias.noise import Noise
from causalcxr.debias.probes import PROBES, fit_probe
from causalcxr.debias.protocol import auroc_of
from causalcxr.debias.registry import ERASERS, load_eraser, make_eraser, save_eraser
from causalcxr.debias.transport import Transport
from causalcxr.support.errors import ConfigError, RunError
from tests.debias.toys import Toy, toy

QUICK: dict[str, dict[str, Any]] = {
    "independence": {"steps": 20},
    "published": {"steps": 20},
    "distilled": {"steps": 20},
    "residual": {"steps": 20},
}


@pytest.fixture(scope="module")
def drawn() -> Toy:
    return toy()


def mixed(n: int = 3000, d: int = 10, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Correlated features that sex, three races, age and a label move, each in its own direction."""
    random = np.random.default_rng(seed)
    sex, race = random.choice(["female", "male"], n), random.integers(0, 3, n)
    age = random.normal(60, 10, n)
    label = (random.random(n) < 0.2 + 0.3 * (sex == "male")).astype(int)
    z = random.normal(size=(n, d)) @ random.normal(size=(d, d))
    z[:, 0] += 2 * (sex == "male")
    z[:, 1] += np.array([0.0, 3.0, 1.0])[race]
    z[:, 2] += 0.2 * age
    z[:, 3] += 2 * label + (sex == "male")
    return z, {"sex": sex, "race": race, "age": age}, label


def covariance(z: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return (z - z.mean(0)).T @ (columns - columns.mean(0)) / len(z)


@pytest.mark.parametrize("name", ["leace", "splince"])
def test_no_linear_probe_can_tell(name: str) -> None:
    """The covariance with every attribute, labels and numbers, is 0 to rounding."""
    z, attributes, label = mixed()
    eraser = make_eraser(name).fit(z, attributes, keep=label)
    codes = eraser.coding_.encode(attributes)
    assert np.abs(covariance(z, codes)).max() > 0.1
    assert np.abs(covariance(eraser.transform(z), codes)).max() < 1e-10


def test_leace_is_the_projection_of_its_paper() -> None:
    """erased = z - W^+ P W (z - mean), P on the range of W C (Belrose et al. 2023), written in another way."""
    z, attributes, _ = mixed()
    codes = LEACE().fit(z, attributes).coding_.encode(attributes)
    values, vectors = np.linalg.eigh(np.cov(z.T, bias=True))
    white, back = (vectors * values**-0.5) @ vectors.T, (vectors * values**0.5) @ vectors.T
    left, sizes, _ = np.linalg.svd(white @ covariance(z, codes))
    left = left[:, : int((sizes > 1e-8).sum())]
    expected = z - (z - z.mean(0)) @ (back @ left @ left.T @ white).T
    np.testing.assert_allclose(LEACE().fit(z, attributes).transform(z), expected, atol=1e-9)


def test_leace_is_the_smallest_affine_change() -> None:
    """Plain least squares, which takes the same directions out at right angles, moves the embeddings more."""
    z, attributes, _ = mixed()
    eraser = LEACE().fit(z, attributes)
    directions = np.linalg.qr(covariance(z, eraser.coding_.encode(attributes)))[0][:, :4]
    orthogonal = z - (z - z.mean(0)) @ directions @ directions.T
    edits = [((made - z) ** 2).sum(1).mean() for made in (eraser.transform(z), orthogonal)]
    assert edits[0] < 0.95 * edits[1]


def test_splince_keeps_the_covariance_with_the_label() -> None:
    z, attributes, label = mixed()
    before = covariance(z, label)
    moved = [
        covariance(make_eraser(n).fit(z, attributes, keep=label).transform(z), label) for n in ("splince", "leace")
    ]
    np.testing.assert_allclose(moved[0], before, atol=1e-10)
    assert np.abs(moved[1] - before).max() > 0.01
    np.testing.assert_allclose(SPLINCE().fit(z, attributes).transform(z), LEACE().fit(z, attributes).transform(z))


def test_what_points_the_same_way_is_refused() -> None:
    random = np.random.default_rng(0)
    sex = random.integers(0, 2, 2000)
    z = random.normal(size=(2000, 4))
    z[:, 0] += 3 * sex
    with pytest.raises(ValueError, match="lie in the same direction"):
        SPLINCE().fit(z, sex, keep=np.where(sex, "ill", "well"))


def test_a_rare_group_is_moved_too() -> None:
    """2 rows in 1,000, 3 standard deviations away: no mean is left apart, as an absolute threshold does."""
    random = np.random.default_rng(0)
    rare = np.arange(20_000) % 500 == 0
    z = random.normal(size=(20_000, 8))
    z[rare, 0] += 3
    made = LEACE().fit(z, rare).transform(z)
    assert np.abs(made[rare].mean(0) - made[~rare].mean(0)).max() < 1e-10


def test_whole_numbers_are_labels_and_not_numbers() -> None:
    """Three groups whose means do not lie on a line in the order of their codes."""
    z, attributes, _ = mixed()
    made = LEACE().fit(z, attributes["race"]).transform(z)
    means = [made[attributes["race"] == code].mean(0) for code in range(3)]
    assert max(np.abs(mean - means[0]).max() for mean in means) < 1e-10
    with pytest.raises(ValueError, match="40 different whole numbers"):
        LEACE().fit(z, np.arange(3000) % 40)


def test_more_features_than_rows() -> None:
    random = np.random.default_rng(0)
    z, sex = random.normal(size=(60, 200)), np.arange(60) % 2
    z[:, :5] += sex[:, None]
    made = LEACE().fit(z, sex).transform(z)
    assert np.isfinite(made).all()
    assert np.abs(covariance(made, sex[:, None])).max() < 1e-10


def test_redundant_and_constant_features() -> None:
    z, attributes, _ = mixed()
    wide = np.hstack([z, z[:, :3], np.ones((len(z), 1))])
    made = LEACE().fit(wide, attributes["sex"]).transform(wide)
    assert np.abs(covariance(made, (attributes["sex"] == "male")[:, None])).max() < 1e-8
    np.testing.assert_array_equal(made[:, -1], 1)


def test_transport_makes_the_groups_alike() -> None:
    """Means, covariances and the correlation with age, on the rows that it was fitted to."""
    z, attributes, _ = mixed()
    z[attributes["sex"] == "male", 4] *= 2
    made = Transport().fit(z, attributes).transform(z, attributes)
    groups = [
        made[(attributes["sex"] == sex) & (attributes["race"] == race)]
        for sex in ("female", "male")
        for race in range(3)
    ]
    scale = made.std(0)
    for group in groups:
        assert (np.abs(group.mean(0) - made.mean(0)) < 0.1 * scale).all()
        np.testing.assert_allclose(np.cov(group.T), np.cov(groups[0].T), atol=0.15 * scale.max() ** 2)
    inside = [np.corrcoef(column, attributes["age"])[0, 1] for column in made.T]
    assert np.abs(inside).max() < 0.03


def test_transport_of_one_feature_is_known() -> None:
    """Normal laws with deviations 1 and 3 are carried to one with the mean of both; means are LEACE's."""
    random = np.random.default_rng(0)
    group = np.repeat([0, 1], 20_000)
    z = random.normal(size=(40_000, 2)) * np.where(group == 0, 1, 3)[:, None] * [0, 1] + random.normal(
        size=(40_000, 2)
    ) * [1, 0]
    z[:, 0] += 4 * group
    made = Transport().fit(z, group).transform(z, group)
    for code in (0, 1):
        assert made[group == code].mean(0) == pytest.approx(z.mean(0), abs=0.05)
        assert made[group == code, 1].std() == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize(("features", "share"), [(64, 0.03), (128, 0.5)])
def test_transport_writes_no_group_into_embeddings_without_one(features: int, share: float) -> None:
    """Fitted to 1,000 rows that say nothing of the group; AUROC on new rows within four standard errors of 0.5."""
    random = np.random.default_rng(2)
    z, group = random.normal(size=(7000, features)), (random.random(7000) < share).astype(int)
    made = Transport().fit(z[:1000], group[:1000]).transform(z, group)
    told = auroc_of(
        fit_probe("linear", made[1000:4000], group[1000:4000])(made[4000:]), group[4000:], np.arange(3000)
    )
    assert abs(told.value - 0.5) < 4 * (1 / 12 / (3000 * share) + 1 / 12 / (3000 * (1 - share))) ** 0.5


def test_transport_refuses_what_it_cannot_do(drawn: Toy) -> None:
    few = np.where(np.arange(len(drawn.z)) < 5, "rare", "other")
    with pytest.raises(ValueError, match="have 5 to 3995 rows; transport needs two of 10 or more"):
        Transport().fit(drawn.z, few)
    with pytest.raises(ValueError, match="feature 3 is 0 in 44% of the rows"):
        Transport().fit(np.where(np.arange(12) == 2, drawn.z.clip(0), drawn.z), drawn.sex)
    fitted = Transport().fit(drawn.z, drawn.sex)
    with pytest.raises(ValueError, match="needs the attributes"):
        fitted.transform(drawn.z)
    with pytest.raises(Exception, match="labels that the fit had not, such as '7'"):
        fitted.transform(drawn.z[:2], [0, 7])
    with pytest.raises(ValueError, match="X has 5 features, but Transport is expecting 12"):
        fitted.transform(drawn.z[:, :5], drawn.sex)


def test_a_rare_combination_is_moved_as_leace_moves_it(drawn: Toy) -> None:
    site = np.where(np.arange(len(drawn.z)) < 5, "rare", np.where(np.arange(len(drawn.z)) % 2, "a", "b"))
    both = [make_eraser(name).fit(drawn.z, site).transform(drawn.z, site) for name in ("transport", "leace")]
    np.testing.assert_allclose(both[0][:5], both[1][:5], atol=1e-9)


@pytest.mark.parametrize("name", ["counterfactual", "span"])
def test_what_counterfactuals_show_is_gone_for_every_probe(name: str, drawn: Toy) -> None:
    """At most what disease tells, and three standard errors; disease as before. LEACE leaves the exclusive-or."""
    fit, probe, score = np.split(np.arange(len(drawn.z)), [1500, 2500])
    eraser = make_eraser(name).fit(drawn.z[fit], drawn.sex[fit], pairs=drawn.pairs[fit])
    made = eraser.transform(drawn.z, pairs=drawn.pairs)
    linear = LEACE().fit(drawn.z[fit], drawn.sex[fit]).transform(drawn.z)
    for kind in PROBES:
        told = auroc_of(fit_probe(kind, made[probe], drawn.sex[probe])(made[score]), drawn.sex[score], score)
        assert told.value < 0.5 + 0.05 + 0.03, kind  # the disease itself tells 0.55 at most
    told = auroc_of(fit_probe("mlp", linear[probe], drawn.sex[probe])(linear[score]), drawn.sex[score], score)
    assert told.value > 0.9
    kept = auroc_of(
        fit_probe("linear", made[probe], drawn.disease[probe])(made[score]), drawn.disease[score], score
    )
    assert kept.value > 0.99


@pytest.mark.parametrize("penalty", ["hsic", "adversary"])
def test_independent_codes(penalty: str) -> None:
    """Most of the exclusive-or is gone too, which LEACE leaves at above 0.9, and the disease is still told.

    Here sex causes no disease: where it does, a code that is independent of it can't hold all of the disease.
    """
    drawn = toy(effect=0.0)
    fit, probe, score = np.split(np.arange(len(drawn.z)), [1500, 2500])
    eraser = make_eraser("independence", penalty=penalty, latent=4, hidden=64, steps=400, batch=512)
    eraser.fit(drawn.z[fit], drawn.sex[fit], keep=drawn.disease[fit])
    made = eraser.transform(drawn.z)
    told = auroc_of(fit_probe("mlp", made[probe], drawn.sex[probe])(made[score]), drawn.sex[score], score)
    kept = auroc_of(
        fit_probe("linear", made[probe], drawn.disease[probe])(made[score]), drawn.disease[score], score
    )
    assert told.value < 0.7
    assert kept.value > 0.95


def test_codes_tell_no_more_than_the_label_that_they_keep() -> None:
    """Sex causes the disease: every fresh probe within 0.03 of the floor, and three standard errors (0.045)."""
    drawn = toy(effect=0.4)
    fit, probe, score = np.split(np.arange(len(drawn.z)), [1500, 2500])
    eraser = make_eraser("independence", latent=4, hidden=64, steps=400, batch=512)
    made = eraser.fit(drawn.z[fit], drawn.sex[fit], keep=drawn.disease[fit]).transform(drawn.z)
    floor = auroc_of(np.eye(2)[drawn.disease[score]], drawn.sex[score], score).value
    assert floor > 0.65
    for kind in PROBES:
        read = auroc_of(fit_probe(kind, made[probe], drawn.sex[probe])(made[score]), drawn.sex[score], score)
        assert read.value < floor + 0.03 + 0.045, kind
    kept = fit_probe("linear", made[probe], drawn.disease[probe])
    assert auroc_of(kept(made[score]), drawn.disease[score], score).value > 0.99


def test_a_residual_takes_away_more_than_leace_for_the_same_edit(drawn: Toy) -> None:
    """On rows that neither was fitted to; the budget may be exceeded by a tenth there."""
    fit, probe, score = np.split(np.arange(len(drawn.z)), [1500, 2500])
    accuracy, edit, kept = {}, {}, {}
    for name, settings in {"leace": {}, "residual": {"hidden": 64, "steps": 400, "batch": 750}}.items():
        eraser = make_eraser(name, **settings).fit(drawn.z[fit], drawn.sex[fit], keep=drawn.disease[fit])
        made = eraser.transform(drawn.z)
        scores = fit_probe("rbf", made[probe], drawn.sex[probe])(made[score])
        accuracy[name] = (scores.argmax(axis=1) == drawn.sex[score]).mean()
        edit[name] = ((made[score] - drawn.z[score]) ** 2).sum(axis=1).mean()
        of_disease = fit_probe("linear", made[probe], drawn.disease[probe])(made[score])
        kept[name] = auroc_of(of_disease, drawn.disease[score], score).value
    assert accuracy["residual"] < accuracy["leace"] - 0.15
    assert edit["residual"] < 1.1 * edit["leace"]
    assert kept["residual"] > kept["leace"] - 0.005


def test_a_residual_keeps_to_its_budget(drawn: Toy) -> None:
    """As a share of the variance; the smaller one moves less and is easier to read."""
    edits = []
    for budget in (0.02, 0.1):
        eraser = make_eraser("residual", budget=budget, hidden=64, steps=200, batch=750).fit(drawn.z, drawn.sex)
        moved = eraser.transform(drawn.z) - drawn.z
        edits.append((moved**2).sum(axis=1).mean() / drawn.z.var(axis=0).sum())
    assert 0.01 < edits[0] < 0.024 and 0.05 < edits[1] < 0.12


@pytest.mark.parametrize("name", ["independence", "residual", "distilled"])
def test_the_seed_settles_everything(name: str, drawn: Toy) -> None:
    made = []
    for seed in (0, 0, 1):
        eraser = make_eraser(name, steps=5, seed=seed)
        eraser.fit(drawn.z[:500], drawn.sex[:500], drawn.disease[:500], pairs=drawn.pairs[:500])
        made.append(eraser.transform(drawn.z[500:600]))
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.allclose(made[0], made[2])


def explained(
    values: np.ndarray, attribute: np.ndarray, keep: np.ndarray | None = None, features: int = 64
) -> float:
    given = Fitting(values, attribute, keep, None, None)
    rows = torch.arange(len(values))
    return float(Adversary(given, features, 0).explained(torch.from_numpy(values).float(), rows))


def test_what_the_adversary_reads_is_known() -> None:
    """An exclusive-or, which no line reads; of noise what features explain by chance, a share of the rows."""
    random = np.random.default_rng(0)
    values, sex = random.normal(size=(4000, 2)), random.integers(0, 2, 4000)
    either = (values[:, 0] * values[:, 1] > 0).astype(int)
    assert explained(values, sex) < 0.04
    assert explained(values, either) > 0.4
    assert explained(np.hstack([values, sex[:, None]]), sex) > 0.99
    assert explained(np.eye(100)[random.integers(0, 100, 4000)], sex) < 0.06  # more values than features


def test_the_adversary_asks_for_nothing_that_the_labels_to_keep_say() -> None:
    """Disease that says all of sex leaves nothing to read; of values that are the disease, nothing beyond it."""
    random = np.random.default_rng(0)
    sex = random.integers(0, 2, 4000)
    disease = (random.random(4000) < 0.2 + 0.5 * sex).astype(int)
    values = np.stack([disease + 0.1 * random.normal(size=4000), random.normal(size=4000)], axis=1)
    assert explained(values, sex) > 0.2
    assert explained(values, sex, disease) < 0.04
    assert explained(values, sex, sex) < 1e-6


def test_the_published_loop_and_noise_look_good_in_sample_alone() -> None:
    """With 200 features and 300 rows a probe of noise is right on its own rows, and guesses on others."""
    of = toy(rows=1500, features=200)
    fit, probe, score = np.split(np.arange(1500), [600, 900])
    for name in ("published", "noise"):
        eraser = make_eraser(name, **({"steps": 400} if name == "published" else {})).fit(of.z[fit], of.sex[fit])
        made = eraser.transform(of.z)
        scores = fit_probe("linear", made[probe], of.disease[probe])
        assert auroc_of(scores(made[probe]), of.disease[probe], probe).value > 0.9
        assert abs(auroc_of(scores(made[score]), of.disease[score], score).value - 0.5) < 0.1


def test_noise_follows_from_the_embedding_and_tells_nothing(drawn: Toy) -> None:
    made = Noise().fit(drawn.z, drawn.sex).transform(drawn.z)
    np.testing.assert_allclose(made.mean(0), drawn.z.mean(0), atol=0.1)
    np.testing.assert_allclose(made.std(0), drawn.z.std(0), rtol=0.1)
    assert np.abs(np.corrcoef(made.T, drawn.z.T)[:12, 12:]).max() < 0.08
    np.testing.assert_array_equal(Noise().fit(drawn.z, drawn.sex).transform(drawn.z[10:20]), made[10:20])


def fitted(name: str, of: Toy) -> Eraser:
    return make_eraser(name, **QUICK.get(name, {})).fit(
        of.z[:500], of.sex[:500], of.disease[:500], pairs=of.pairs[:500]
    )


@pytest.mark.parametrize("name", [*ERASERS, "counterfactual+leace", "splince+transport"])
def test_saved_and_loaded_it_does_the_same(name: str, drawn: Toy, tmp_path: Path) -> None:
    """To rounding, also one after another; every eraser keeps shape and precision, and does something."""
    eraser = fitted(name, drawn)
    save_eraser(eraser, tmp_path / "eraser.safetensors")
    for dtype in (np.float64, np.float32):
        z, pairs = drawn.z[500:600].astype(dtype), drawn.pairs[500:600].astype(dtype)
        made = eraser.transform(z, drawn.sex[500:600], pairs)
        again = load_eraser(tmp_path / "eraser.safetensors").transform(z, drawn.sex[500:600], pairs)
        assert made.dtype == dtype and made.shape == z.shape
        assert not np.allclose(made, z)
        tolerance = 1e-10 if dtype == np.float64 else 1e-4
        np.testing.assert_allclose(made, again, rtol=tolerance, atol=tolerance)


def test_a_changed_file_is_refused(drawn: Toy, tmp_path: Path) -> None:
    path = tmp_path / "eraser.safetensors"
    save_eraser(fitted("leace", drawn), path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match="damaged or none of ours"):
        load_eraser(path)
    with pytest.raises(ConfigError, match="no eraser 'leaze'; did you mean 'leace'"):
        make_eraser("leaze")


@pytest.mark.parametrize("name", ["leace", "splince", "noise", "independence", "residual"])
def test_scikit_learn_finds_its_conventions_kept(name: str) -> None:
    failed = [
        one
        for one in check_estimator(make_eraser(name, **QUICK.get(name, {})), on_fail=None, on_skip=None)
        if one["status"] == "failed"
    ]
    assert not failed, [(one["check_name"], one["exception"]) for one in failed]


def test_in_a_pipeline_and_as_a_clone(drawn: Toy) -> None:
    pipeline = clone(make_pipeline(StandardScaler(), LEACE(shrinkage=0.1)))
    made = pipeline.fit_transform(drawn.z, drawn.sex)
    assert pipeline[1].get_params() == {"shrinkage": 0.1}
    assert np.abs(covariance(made, drawn.sex[:, None])).max() < 1e-10


def test_from_disk_as_from_memory(drawn: Toy, tmp_path: Path) -> None:
    """The same file read in blocks gives the same eraser as the array does."""
    z = np.tile(drawn.z, (3, 1)).astype(np.float32)
    np.save(tmp_path / "z.npy", z)
    sex = np.tile(drawn.sex, 3)
    mapped = np.load(tmp_path / "z.npy", mmap_mode="r")
    np.testing.assert_array_equal(LEACE().fit(mapped, sex).transform(mapped), LEACE().fit(z, sex).transform(z))


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        (np.full(50, "female"), "'attribute' is 'female' in all 50 rows"),
        (np.array([None, *["a", "b"] * 24, "a"], dtype=object), "missing in 1 of 50 rows"),
        (np.arange(50), "50 different whole numbers; say whether they are labels or a number"),
        (np.r_[np.inf, np.arange(49.0)], "not finite in 1 rows"),
        (np.arange(49) % 2, r"has the shape \(49,\); expected \(50,\)"),
        (None, "requires y"),
        (np.array([str(i) for i in range(50)]), "'attribute' has 50 labels in 50 rows"),
        (np.arange(50) * 1e-200, "standard deviation"),
        ({}, "no attribute is given"),
    ],
)
def test_attributes_that_cannot_be(attribute: Any, expected: str) -> None:
    z = np.random.default_rng(0).normal(size=(50, 3))
    with pytest.raises(ValueError, match=expected):
        LEACE().fit(z, attribute)


@pytest.mark.parametrize("name", ["leace", "transport", "span", "noise", "independence", "distilled", "residual"])
def test_embeddings_with_nan_are_refused(name: str, drawn: Toy) -> None:
    z = drawn.z[:500].copy()
    z[17, 2] = np.nan
    with pytest.raises(ValueError, match=r"NaN or infinity in row 17"):
        make_eraser(name, **QUICK.get(name, {})).fit(z, drawn.sex[:500], pairs=drawn.pairs[:500])


def test_without_pairs_or_with_wrong_ones(drawn: Toy) -> None:
    with pytest.raises(ValueError, match="none is given"):
        make_eraser("span").fit(drawn.z, drawn.sex)
    with pytest.raises(ValueError, match=r"expected \(4000, counterfactuals, 12\)"):
        make_eraser("counterfactual").fit(drawn.z, drawn.sex, pairs=drawn.pairs[:, :, :5])
    with pytest.raises(ValueError, match="put it first"):
        make_eraser("leace+counterfactual").fit(drawn.z, drawn.sex, pairs=drawn.pairs)


def test_pairs_and_numbers_that_are_missing(drawn: Toy) -> None:
    pairs = drawn.pairs.copy()
    pairs[7, 0, 0] = np.nan
    with pytest.raises(ValueError, match="pairs hold NaN"):
        make_eraser("counterfactual").fit(drawn.z, drawn.sex, pairs=pairs)
    age = np.random.default_rng(0).normal(60, 10, len(drawn.z))
    fitted = Transport().fit(drawn.z, {"sex": drawn.sex, "age": age})
    with pytest.raises(ValueError, match="'sex' has the shape"):
        fitted.transform(drawn.z[:3], {"sex": drawn.sex[:2], "age": age[:3]})


def test_numbers_that_objects_hold_are_numbers(drawn: Toy) -> None:
    """Categories are labels, also those of decimals; objects that are all numbers are these."""
    age = np.random.default_rng(0).normal(60, 10, len(drawn.z))
    coded = LEACE().fit(drawn.z, {"age": age.astype(object), "code": pd.Categorical(drawn.sex * 1.0)}).coding_
    assert not coded.attributes[0].is_discrete and coded.attributes[1].labels == ("0.0", "1.0")


def test_too_large_for_float32(drawn: Toy) -> None:
    z = (drawn.z * 1e30).astype(np.float32)
    with pytest.raises(ValueError, match="too large or too small"):
        LEACE().fit(z, drawn.sex)
    assert (
        np.abs(
            covariance(LEACE().fit(drawn.z * 1e30, drawn.sex).transform(drawn.z * 1e30), drawn.sex[:, None])
        ).max()
        < 1e18
    )


def test_attributes_as_a_table_or_a_mapping(drawn: Toy) -> None:
    sex = np.where(drawn.sex == 1, "male", "female")
    made = [
        LEACE().fit(drawn.z, y).transform(drawn.z)
        for y in (sex, {"sex": sex}, pd.DataFrame({"sex": sex}), pd.Series(sex))
    ]
    for other in made[1:]:
        np.testing.assert_array_equal(made[0], other)
