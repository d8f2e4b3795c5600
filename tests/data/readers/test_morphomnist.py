"""Morpho-MNIST: IDX files, their tables, and what is refused."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from causalcxr.data import DataConfig, open_cohort, prepare
from causalcxr.data.readers.morphomnist import read_idx
from causalcxr.graph import load_graph
from causalcxr.support.errors import ConfigError, DataError


def write_idx(path: Path, values: np.ndarray, magic: bytes = b"\0\0\x08") -> None:
    header = magic + bytes([values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))


@pytest.fixture
def config(tmp_path) -> DataConfig:
    """20 training and 6 test digits, their numbers drawn at random."""
    random = np.random.default_rng(0)
    for part, n in (("train", 20), ("t10k", 6)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", random.integers(0, 256, (n, 28, 28)))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", np.arange(n) % 10)
        rows = [f"{i},{random.uniform(1, 5):.7f},{random.uniform(65, 250):.5f}\n" for i in range(n)]
        (tmp_path / f"{part}-morpho.csv").write_text("index,thickness,intensity\n" + "".join(rows))
    return DataConfig(source="morphomnist", root=str(tmp_path), cache=str(tmp_path / "cache"), size=32)


def test_digits_are_padded_and_split(config):
    cohort = open_cohort(config, load_graph("morphomnist"))
    images = read_idx(Path(config.root, "train-images-idx3-ubyte.gz"))
    assert [cohort.split(name).ids.tolist() for name in ("train", "val", "test")] == [
        list(range(18)),
        [18, 19],  # the last tenth of the training rows
        list(range(20, 26)),
    ]
    assert np.array_equal(cohort.images[:20, 0, 2:30, 2:30], images)
    assert cohort.images.shape == (26, 1, 32, 32)
    assert cohort.images.sum(dtype=int) == cohort.images[:, :, 2:30, 2:30].sum(dtype=int)  # the border is black
    assert cohort.split("val").attributes["digit"].tolist() == [8, 9]
    table = np.loadtxt(Path(config.root, "train-morpho.csv"), delimiter=",", skiprows=1, dtype=np.float32)
    assert np.array_equal(cohort.split("val").attributes["thickness"].numpy(), table[18:, 1])
    assert np.array_equal(cohort.split("val").attributes["intensity"].numpy(), table[18:, 2])
    assert cohort.manifest["path"][19] == "train-images-idx3-ubyte.gz#19"


def test_limit_and_black_digits(config):
    path = Path(config.root, "train-images-idx3-ubyte.gz")
    images = read_idx(path).copy()
    images[3] = 0
    write_idx(path, images)
    config.limit = 5
    cohort = open_cohort(config, load_graph("morphomnist"))
    assert cohort.manifest["row"].tolist() == [0, 1, 2, 4, 18, 19, 20, 21, 22, 23, 24]
    assert cohort.rejected == {"constant image": 1}


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda path: path.unlink(), "no file"),
        (lambda path: path.write_bytes(b"plain"), "not a whole gzip file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "not a whole gzip file"),
        (lambda path: path.write_bytes(gzip.compress(b"\0\0")), "not an IDX file of unsigned bytes"),
        (lambda path: path.write_bytes(gzip.compress(b"\0\0\x08\x03\0")), "truncated"),
        (lambda path: path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1])), "truncated"),
        (lambda path: write_idx(path, np.ones((20, 28, 28)), b"\0\0\x0d"), "not an IDX file of unsigned bytes"),
        (lambda path: write_idx(path, np.ones((20, 28, 27))), "expected images of 28 x 28"),
        (lambda path: write_idx(path, np.ones((19, 28, 28))), "19 images, 20 labels, 20 table rows"),
    ],
)
def test_damaged_files_are_one_line(config, damage, named):
    damage(Path(config.root, "train-images-idx3-ubyte.gz"))
    with pytest.raises(DataError) as error:
        prepare(config, load_graph("morphomnist"))
    assert named in str(error.value) and "\n" not in str(error.value)


def test_settings_that_do_not_fit(config):
    with pytest.raises(DataError, match="has no column 'sex' for 'sex'"):
        prepare(config, load_graph("chest_without_race"))
    config.size = 16
    with pytest.raises(DataError, match=r"data.size: Morpho-MNIST has 28 x 28 pixels .*, got 16"):
        prepare(config, load_graph("morphomnist"))
    config.validation_fraction = 0.0
    with pytest.raises(ConfigError, match=r"data.validation_fraction"):
        prepare(config, load_graph("morphomnist"))


@pytest.mark.realdata
@pytest.mark.skipif("CAUSALCXR_DATA" not in os.environ, reason="CAUSALCXR_DATA does not name the real data")
def test_the_published_files(tmp_path):
    root = os.environ["CAUSALCXR_DATA"] + "/morphomnist"
    config = DataConfig(source="morphomnist", root=root, cache=str(tmp_path), size=32, limit=2000)
    cohort = open_cohort(config, load_graph("morphomnist"))
    assert cohort.rejected == {} and cohort.images.shape == (6000, 1, 32, 32)
    test = cohort.split("test")
    assert test.ids[[0, -1]].tolist() == [60_000, 61_999]
    assert test.attributes["thickness"][0].item() == np.float32(2.2673757)  # first line of t10k-morpho.csv
    assert test.attributes["digit"][:5].tolist() == [7, 2, 1, 0, 4]  # MNIST's test set starts so
    # "Intensity is the median of the pixels at or above half of the image's range", up to 8-bit rounding and noise
    # of the stroke; labels and images in another order would be tens of levels apart.
    images = test.batch(range(500))["image"].numpy().astype(float)
    bright = [np.median(image[image >= image.max() / 2]) for image in images]
    assert np.median(np.abs(bright - test.attributes["intensity"][:500].numpy())) < 3
