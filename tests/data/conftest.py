"""Small folders of images with a table, and small copies of published collections, made on the spot."""

import csv
import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from causalcxr.data import Cohort, DataConfig
from causalcxr.graph import Graph, load_graph

SPLITS = ("train", "train", "train", "train", "val", "val", "test", "test")


@pytest.fixture
def chest() -> Graph:
    """Sex, age, finding (from age), and a grey image."""
    return load_graph("chest_without_race")


@pytest.fixture
def rows() -> list[dict[str, str]]:
    """Eight good rows, a patient each."""
    return [
        {
            "path": f"images/{i}.png",
            "patient_id": f"p{i}",
            "split": split,
            "sex": ("female", "male")[i % 2],
            "age": f"{30 + 5.5 * i}",
            "finding": ("No Finding", "Pleural Effusion")[i // 2 % 2],
        }
        for i, split in enumerate(SPLITS)
    ]


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., DataConfig]:
    """Write a table and an image for every path in it; return the configuration that reads them at 16 pixels."""

    def make(rows: Iterable[dict[str, str]], absent: str = "", **settings: Any) -> DataConfig:
        root = tmp_path / "source"
        root.mkdir(exist_ok=True)
        rows = list(rows)
        with (root / "metadata.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        for i, row in enumerate(rows):
            if row.get("path") and row["path"] != absent:
                (root / row["path"]).parent.mkdir(exist_ok=True)
                Image.fromarray(smooth(i)).save(root / row["path"])
        config = {"source": "folder", "root": str(root), "cache": str(tmp_path / "cache"), "size": 16}
        return DataConfig(**(config | settings))

    return make


@pytest.fixture
def write_csv() -> Callable[..., None]:
    """Write rows as a CSV, gzipped if its name says so. Missing values are blank."""

    def write(path: Path, rows: list[dict[str, Any]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        open_text = gzip.open if path.suffix == ".gz" else open
        with open_text(path, "wt", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
            writer.writeheader()
            writer.writerows(rows)

    return write


@pytest.fixture
def draw() -> Callable[..., None]:
    """Write an image of 8 bits, another one for every seed."""

    def write(path: Path, seed: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(smooth(seed)).save(path)

    return write


@pytest.fixture
def check_every_row() -> Callable[..., None]:
    """Every row of the source is kept or rejected, and counted with the reasons expected."""

    def check(cohort: Cohort, read: int, rejected: dict[str, int]) -> None:
        with (cohort.folder / "rejected.csv").open(newline="", encoding="utf-8") as file:
            listed = list(csv.DictReader(file))
        assert cohort.rejected == rejected == Counter(row["reason"] for row in listed)
        rows = sorted([*cohort.manifest["row"].tolist(), *(int(row["row"]) for row in listed)])
        assert rows == list(range(read))
        assert json.loads((cohort.folder / "cohort.json").read_text("utf-8"))["read"] == read

    return check


def smooth(seed: int, height: int = 24, width: int = 20) -> np.ndarray:
    """A grey image `uint8 (height, width)` with broad structure, another one for every seed."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    phase = np.random.default_rng(seed).uniform(0, 6, 2)
    return np.rint(127.5 + 60 * np.sin(5 * x + phase[0]) + 60 * np.cos(4 * y + phase[1])).astype(np.uint8)
