"""What a preparation says of the pixels it keeps: films that are alike, or use little of their range."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from causalcxr.data import DataConfig, open_cohort, prepare, prepare_into
from causalcxr.data.partial import PartialImages
from causalcxr.data.shared_pixels import same_pictures
from causalcxr.data.source import Source, Unusable
from causalcxr.graph import Graph
from causalcxr.support.errors import DataError


def copy(config: DataConfig, source: int, target: int) -> None:
    """Give a row the file of another, under its own name."""
    shutil.copy(Path(config.root, f"images/{source}.png"), Path(config.root, f"images/{target}.png"))


def pixels_told(folder: Path) -> dict[str, int]:
    return json.loads((folder / "cohort.json").read_text())["pixels"]


def test_a_picture_in_two_splits_is_refused_unless_it_is_allowed(make_folder, rows, chest):
    config = make_folder(rows)
    copy(config, 1, 6)
    with pytest.raises(DataError) as error:
        prepare(config, chest)
    assert str(error.value) == (
        f"table '{config.root}/metadata.csv': 'images/1.png' (train) and 'images/6.png' (test) have the same "
        "pixels; a picture belongs to one split: change the split column, leave rows out, or allow it by "
        "data.shared_pixels=keep"
    )
    folder = prepare(dataclasses.replace(config, shared_pixels="keep"), chest)
    assert pixels_told(folder) == {
        "same pixels as another film": 2,
        "same pixels under several patients": 1,
        "same pixels in several splits": 1,
    }
    with pytest.raises(DataError, match="have the same pixels"):  # a cohort that was allowed is not let in later
        prepare(config, chest)
    listed = pd.read_csv(folder / "shared_pixels.csv")
    assert listed.values.tolist() == [[1, "images/1.png", "p1", "train", 1], [6, "images/6.png", "p6", "test", 1]]


def test_more_pictures_in_two_splits_are_listed(make_folder, rows, chest):
    config = make_folder(rows)
    copy(config, 1, 6)
    copy(config, 2, 7)
    copy(config, 2, 4)
    with pytest.raises(DataError, match=r"\('(.*shared_pixels.csv)' lists all 2 such pictures\)") as error:
        prepare(config, chest)
    file = str(error.value).split("('")[1].split("'")[0]
    assert pd.read_csv(file)[["row", "picture"]].values.tolist() == [[1, 1], [6, 1], [2, 2], [4, 2], [7, 2]]


def test_pixels_are_compared_at_the_prepared_size_and_not_by_their_files(make_folder, rows, chest):
    config = make_folder(rows)
    first = Path(config.root, "images/0.png")
    Image.open(first).save(first.with_suffix(".tif"))
    rows[1]["path"] = "images/0.tif"  # another file of the same picture
    table = pd.DataFrame(rows)
    table.to_csv(Path(config.root, "metadata.csv"), index=False)
    told = pixels_told(prepare(config, chest))
    assert told == {"same pixels as another film": 2, "same pixels under several patients": 1}


def test_the_same_patient_may_have_a_film_twice(make_folder, rows, chest):
    rows[1]["patient_id"] = rows[0]["patient_id"]
    config = make_folder(rows)
    copy(config, 0, 1)
    assert pixels_told(prepare(config, chest)) == {"same pixels as another film": 2}


def test_films_of_little_range_are_kept_and_counted(make_folder, rows, chest):
    config = make_folder(rows)
    for row, top in ((0, 63), (1, 64)):  # under a quarter of 256 levels, and not
        levels = np.rint(np.linspace(100, 100 + top, 16 * 16)).reshape(16, 16).astype(np.uint8)
        Image.fromarray(levels).save(Path(config.root, f"images/{row}.png"))
    dark = np.rint(np.linspace(0, 4095, 16 * 16)).reshape(16, 16).astype(np.uint16)  # 12 bits in 16
    Image.fromarray(dark).save(Path(config.root, "images/2.png"))
    folder = prepare(config, chest)
    assert pixels_told(folder) == {"little of the stated range": 2}
    assert open_cohort(config, chest).images.shape[0] == len(rows)


def test_equal_checksums_of_other_pixels_are_no_shared_picture():
    images = np.arange(24, dtype=np.uint8).reshape(6, 1, 2, 2)
    images[4] = images[1]
    assert same_pictures(np.zeros(6, np.uint32), images).tolist() == [0, 1, 2, 3, 1, 5]
    assert same_pictures(np.array([5, 2, 3, 4, 2, 9], np.uint32), images).tolist() == [0, 1, 2, 3, 1, 5]


def rows_of_pictures(tmp_path: Path, n: int, of: list[int]) -> tuple[Source, list[int]]:
    read: list[int] = []

    def pixels(chosen, sizes):
        read.extend(chosen)
        return [
            [np.random.default_rng(of[row]).integers(0, 256, (1, s, s), np.uint8) for s in sizes] for row in chosen
        ]

    table = pd.DataFrame(
        {
            "path": [str(i) for i in range(n)],
            "patient_id": [f"p{i}" for i in range(n)],
            "sex": ["female", "male"] * (n // 2),
            "age": ["40"] * n,
            "finding": ["No Finding"] * n,
            "split": ["train"] * (n - 20) + ["val"] * 10 + ["test"] * 10,
        }
    )
    return Source("rows", {"source": "rows"}, {}, lambda: table, pixels), read


def test_nothing_is_read_twice_to_compare_it(tmp_path, chest):
    n = 200
    source, read = rows_of_pictures(tmp_path, n, [i % 90 for i in range(n - 20)] + list(range(n - 20, n)))
    folder = prepare_into(tmp_path / "out", DataConfig(size=8, workers=1), chest, [8, 12], source)[0]
    assert sorted(read) == list(range(n))
    assert pixels_told(folder)["same pixels as another film"] == n - 20


def test_checksums_outlive_a_kill(tmp_path):
    """The journal keeps them: what is taken over is told as what is read."""
    images = np.random.default_rng(0).integers(0, 256, (8, 1, 4, 4), np.uint8)
    images[5], images[3] = images[2], 7
    images[3, 0, 0, 0] = 8

    def open_partial() -> PartialImages:
        return PartialImages(tmp_path / "images.npy", tmp_path / "journal.jsonl", 8, (1, 4, 4))

    partial = open_partial()
    partial.append(0, [*images[:3], Unusable("broken image", "why"), images[3]])
    partial.close()
    partial = open_partial()
    partial.append(5, list(images[5:]))
    partial.finish()
    kept = np.load(tmp_path / "images.npy")
    assert np.array_equal(kept, images[[0, 1, 2, 3, 5, 6, 7]]) and partial.dim == 1
    assert same_pictures(partial.checksums, kept).tolist() == [0, 1, 2, 3, 2, 5, 6]
    partial.close()


def test_a_remark_of_the_reader_counts_rows_that_are_kept(tmp_path, chest: Graph):
    source, _ = rows_of_pictures(tmp_path, 60, list(range(60)))
    rejected = {3: Unusable("other view", "L")}
    source = dataclasses.replace(
        source, unusable=lambda: rejected, remarks=lambda: {"doubtful": [3, 4, 59], "no": []}
    )
    folder = prepare_into(tmp_path / "out", DataConfig(size=8), chest, source=source)[0]
    assert pixels_told(folder) == {"doubtful": 2}
