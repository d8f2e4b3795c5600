"""A folder of images with a table: which rows are used, which are rejected and why, and what is an error."""

import dataclasses
import gzip
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from causalcxr.data import open_cohort, prepare
from causalcxr.data.files import locate
from causalcxr.data.images import read_image
from causalcxr.graph import graph_from_dict
from causalcxr.support.errors import ConfigError, DataError

LABELS = {
    "sex": {"F": "female", "M": "male"},
    "finding": {"Effusion": "Pleural Effusion", "Fluid": "Pleural Effusion", "No Finding": "No Finding"},
}


def read_rejected(cohort) -> pd.DataFrame:
    return pd.read_csv(cohort.folder / "rejected.csv", keep_default_na=False)


def test_rows_become_batches_in_natural_units(make_folder, rows, chest):
    config = make_folder(rows)
    cohort = open_cohort(config, chest)
    assert cohort.rejected == {} and len(read_rejected(cohort)) == 0
    train = cohort.split("train")
    assert [len(cohort.split(name)) for name in ("train", "val", "test")] == [4, 2, 2]
    assert train.patients.tolist() == ["p0", "p1", "p2", "p3"] and train.ids.tolist() == [0, 1, 2, 3]
    assert train.attributes["sex"].tolist() == [0, 1, 0, 1]
    assert train.attributes["age"].tolist() == [30, 35.5, 41, 46.5]
    assert train.attributes["finding"].tolist() == [0, 0, 1, 1]
    test = cohort.split("test").batch([1, 0])
    assert set(test) == {"sex", "age", "finding", "image"}
    for image, row in zip(test["image"].numpy(), (7, 6), strict=True):
        assert np.array_equal(image, read_image(Path(config.root, f"images/{row}.png"), 16, 1))


def test_manifest_has_labels_and_natural_units(make_folder, rows, chest):
    rows[2]["age"] = "41.123456789"
    cohort = open_cohort(make_folder(rows), chest)
    written = pd.read_csv(cohort.folder / "manifest.csv")
    assert list(written) == ["row", "path", "patient_id", "split", "sex", "age", "finding"]
    assert written.loc[2, ["path", "sex", "finding"]].tolist() == ["images/2.png", "female", "Pleural Effusion"]
    assert cohort.split("train").attributes["age"][2].item() == np.float32(41.123456789)


@pytest.mark.parametrize("written", [r"images\1.png", "Images/1.PNG", r"IMAGES\1.Png", "images/../Images/1.png"])
def test_a_path_as_a_table_from_windows_has_it_is_found(make_folder, rows, chest, written):
    config = make_folder(rows)
    as_they_lie = open_cohort(config, chest).split("train").batch([1])["image"]
    table = Path(config.root, "metadata.csv")
    table.write_text(table.read_text().replace("images/1.png", written))
    cohort = open_cohort(config, chest)
    assert cohort.rejected == {} and cohort.manifest["path"][1].endswith("images/1.png")  # as it lies there
    assert torch.equal(cohort.split("train").batch([1])["image"], as_they_lie)


def test_a_path_that_two_files_fit_is_missing(make_folder, rows, chest):
    config = make_folder(rows)
    for name in ("A.png", "a.PNG"):
        shutil.copy(Path(config.root, "images/1.png"), Path(config.root, "images", name))
    table = Path(config.root, "metadata.csv")
    table.write_text(table.read_text().replace("images/1.png", "images/a.png"))
    assert open_cohort(config, chest).rejected == {"missing file": 1}
    table.write_text(table.read_text().replace("images/a.png", "images/A.png"))
    assert open_cohort(config, chest).rejected == {}


def test_a_path_in_another_case_is_no_file_that_another_row_names(make_folder, rows, chest):
    """Names of hospitals may differ in case alone; a film that was not sent must not be another patient's."""
    rows[1]["path"] = "images/F0aQ.png"
    config = make_folder(rows)
    table = Path(config.root, "metadata.csv")
    table.write_text(table.read_text().replace("images/2.png", "images/F0Aq.png"))
    cohort = open_cohort(config, chest)
    assert (
        cohort.rejected == {"missing file": 1} and cohort.manifest["path"].tolist().count("images/F0aQ.png") == 1
    )


def test_two_folders_that_differ_in_case_are_both_looked_into(make_folder, rows, chest):
    rows[1]["path"], rows[2]["path"] = "Images/A.png", "images/b.png"
    config = make_folder(rows)
    table = Path(config.root, "metadata.csv")
    text = table.read_text().replace("Images/A.png", r"IMAGES\A.png").replace("images/b.png", "Images/b.png")
    table.write_text(text)
    assert open_cohort(config, chest).rejected == {}


def test_a_folder_that_cannot_be_listed_has_no_files(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(folder)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert locate(tmp_path, [r"a\b.png", "/c.png"]) == [r"a\b.png", "/c.png"]


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"path": "images/none.png"}, "missing file", "images/none.png"),
        ({"path": ""}, "blank value", "path"),
        ({"patient_id": " "}, "blank value", "patient_id"),
        ({"split": ""}, "blank value", "split"),
        ({"sex": "other"}, "other value", "'other'"),
        ({"sex": ""}, "blank value", "sex"),
        ({"finding": "Nodule|Mass"}, "other value", "Nodule|Mass"),
        ({"finding": "No Finding|Pleural Effusion"}, "ambiguous", "No Finding and Pleural Effusion"),
        ({"age": "413"}, "out of range", "413 is not in [0, 100] years"),
        ({"age": "-inf"}, "out of range", "-inf"),
        ({"age": "NaN"}, "blank value", "age"),
        ({"age": ""}, "blank value", "age"),
        ({"age": "58 or so"}, "not a number", "'58 or so'"),
    ],
)
def test_an_unusable_row_is_counted_and_listed(make_folder, rows, chest, change, reason, detail):
    rows[1] |= change
    cohort = open_cohort(make_folder(rows, absent="images/none.png"), chest)
    assert cohort.rejected == {reason: 1}
    listed = read_rejected(cohort)
    assert listed[["row", "reason"]].values.tolist() == [[1, reason]]
    assert detail in listed["detail"][0]
    assert len(cohort.manifest) + len(listed) == len(rows)
    assert cohort.split("train").ids.tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    ("content", "reason", "detail"),
    [
        (lambda whole: whole[: len(whole) // 2], "broken image", "truncated"),
        (lambda whole: b"<html>not an image</html>", "broken image", "no image of a known format"),
        (lambda whole: b"", "broken image", "no image of a known format"),
        (lambda whole: whole[:60] + bytes(40) + whole[100:], "broken image", "broken"),
        (lambda whole: black(), "constant image", "every pixel is 0"),
    ],
)
def test_an_unusable_image_is_counted_and_listed(make_folder, rows, chest, content, reason, detail):
    config = make_folder(rows)
    file = Path(config.root, "images/5.png")
    file.write_bytes(content(file.read_bytes()))
    cohort = open_cohort(config, chest)
    listed = read_rejected(cohort)
    assert cohort.rejected == {reason: 1} and listed["path"].tolist() == ["images/5.png"]
    assert detail in listed["detail"][0] and "images/5.png" in listed["detail"][0]
    assert cohort.split("val").ids.tolist() == [4]
    assert cohort.images.shape == (7, 1, 16, 16)
    assert np.array_equal(cohort.images[5], read_image(Path(config.root, "images/6.png"), 16, 1))  # no gap


def black() -> bytes:
    file = BytesIO()
    Image.new("L", (24, 20)).save(file, "PNG")
    return file.getvalue()


def test_a_truncated_jpeg_is_broken(make_folder, rows, chest):
    rows[3]["path"] = "images/3.jpg"
    config = make_folder(rows)
    file = Path(config.root, "images/3.jpg")
    file.write_bytes(file.read_bytes()[:-40])
    assert open_cohort(config, chest).rejected == {"broken image": 1}


def test_labels_of_a_table_map_to_those_of_the_graph(make_folder, rows, chest):
    cells = [
        "Effusion|Mass",
        "No Finding",
        " Fluid | Effusion ",
        "Effusion|No Finding",
        "Mass",
        "",
        *["Effusion"] * 2,
    ]
    for row, cell in zip(rows, cells, strict=True):
        row |= {"finding": cell, "sex": row["sex"][0].upper()}
    rows += [rows[0] | {"patient_id": "p8", "split": "val", "path": "images/8.png"}]
    cohort = open_cohort(make_folder(rows, labels=LABELS), chest)
    assert cohort.split("train").attributes["finding"].tolist() == [1, 0, 1]
    assert cohort.rejected == {"ambiguous": 1, "other value": 1, "blank value": 1}


def test_a_compressed_table_is_read_like_a_plain_one(make_folder, rows, chest):
    rows[1]["age"] = "413"
    config = make_folder(rows)
    plain = open_cohort(config, chest)
    table = Path(config.root, "metadata.csv")
    Path(config.root, "table.csv.gz").write_bytes(gzip.compress(table.read_bytes()))
    table.unlink()
    config.table = "table.csv.gz"
    cohort = open_cohort(config, chest)
    assert cohort.rejected == plain.rejected == {"out of range": 1}
    assert read_rejected(cohort)["detail"].tolist() == ["age: 413 is not in [0, 100] years"]
    assert cohort.folder != plain.folder and cohort.data_hash == plain.data_hash


@pytest.mark.parametrize(
    "broken", [lambda whole: whole[:-40], lambda whole: whole[:20] + bytes(20), lambda _: b"x"]
)
def test_a_compressed_table_that_is_not_whole_is_refused(make_folder, rows, chest, broken):
    config = make_folder(rows)
    whole = gzip.compress(Path(config.root, "metadata.csv").read_bytes())
    Path(config.root, "table.csv.gz").write_bytes(broken(whole))
    config.table = "table.csv.gz"
    with pytest.raises(DataError, match=r"table '.*table\.csv\.gz' can't be read as CSV: .") as caught:
        open_cohort(config, chest)
    assert "\n" not in str(caught.value)


def test_without_a_separator_a_cell_is_one_value(make_folder, rows, chest):
    rows[0]["finding"] = "No Finding|Nodule"
    assert open_cohort(make_folder(rows), chest).rejected == {}
    assert open_cohort(make_folder(rows, separator=""), chest).rejected == {"other value": 1}


def test_columns_can_have_other_names(make_folder, rows, chest):
    names = {"path": "file", "age": "years", "split": "Set", "patient_id": "who"}
    renamed = [{names.get(key, key): value for key, value in row.items()} for row in rows]
    for row in renamed:
        row["path"] = row.pop("file")  # the fixture writes images under this key
    names["path"] = "path"
    plain = open_cohort(make_folder(rows), chest)
    cohort = open_cohort(make_folder(renamed, columns=names), chest)
    assert cohort.folder != plain.folder and cohort.data_hash == plain.data_hash


@pytest.mark.parametrize("name", ["val", "valid", "Validate", "validation"])
def test_names_of_splits(make_folder, rows, chest, name):
    for row in rows:
        row["split"] = name if row["split"] == "val" else row["split"].upper()
    assert open_cohort(make_folder(rows), chest).split("val").ids.tolist() == [4, 5]


def test_without_a_split_column_patients_are_drawn(make_folder, rows, chest):
    many = [row | {"patient_id": f"p{i}"} for i in range(60) for row in (rows[0], rows[1])]
    for row in many:
        del row["split"]

    keep = {"shared_pixels": "keep"}  # two pictures serve them all

    def patients(config):
        cohort = open_cohort(config, chest)
        return {name: set(cohort.split(name).patients) for name in ("train", "val", "test")}

    drawn = patients(make_folder(many, **keep))
    assert sum(len(split) for split in drawn.values()) == 60 == len(set.union(*drawn.values()))
    # Binomial(60, .3): outside 6..30 in fewer than 1 of 2,000 seeds.
    assert 6 <= len(drawn["val"] | drawn["test"]) <= 30
    assert patients(make_folder(many, split_seed=1, **keep)) != drawn
    fewer = patients(make_folder(many[:80], **keep))  # a patient keeps its split when the table grows
    assert all(fewer[split] <= drawn[split] for split in drawn)


def test_limit_reads_the_first_rows_of_each_split(make_folder, rows, chest):
    rows[0]["sex"] = "?"
    cohort = open_cohort(make_folder(rows, limit=2), chest)
    assert cohort.manifest["row"].tolist() == [1, 4, 5, 6, 7] and cohort.rejected == {"other value": 1}


def test_absolute_paths_and_home_and_variables(make_folder, rows, chest, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_IMAGES", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    outside = tmp_path / "outside.png"
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(outside)
    make_folder(rows)
    rows[2]["path"] = str(outside)
    config = make_folder(rows, absent=str(outside), root="$MY_IMAGES/source", cache="~/kept")
    cohort = open_cohort(config, chest)
    assert cohort.folder.parent == tmp_path / "kept"
    assert cohort.images[2, 0].ravel().tolist() == list(range(256))


def test_a_graph_without_an_image_needs_no_paths(make_folder, rows):
    declared = {"age": {"kind": "continuous", "range": [0, 100], "unit": "years"}}
    rows = [{key: row[key] for key in ("patient_id", "split", "age")} for row in rows]
    cohort = open_cohort(make_folder(rows), graph_from_dict({"variables": declared}))
    assert cohort.images is None and not (cohort.folder / "images.npy").exists()
    batch = cohort.split("val").batch([1])
    assert set(batch) == {"age"} and batch["age"].tolist() == [57.5]


def test_colour(make_folder, rows, chest):
    declared = chest.to_dict()
    declared["variables"]["image"]["channels"] = 3
    cohort = open_cohort(make_folder(rows), graph_from_dict(declared))
    grey = open_cohort(make_folder(rows), chest)
    assert np.array_equal(cohort.images, np.repeat(grey.images, 3, axis=1))
    declared["variables"]["image"]["channels"] = 2
    with pytest.raises(DataError, match="1 or 3 channels, not 2"):
        prepare(make_folder(rows), graph_from_dict(declared))


def left_in(config) -> list[Path]:
    return [path for path in Path(config.cache).glob("*") if path.name != ".locks"]


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"root": ""}, "data.root is empty"),
        ({"root": "/no/such/folder"}, "/no/such/folder"),
        ({"root": "$NO_SUCH_VARIABLE/x"}, "environment variable is not set"),
        ({"table": "rows.csv"}, "rows.csv"),
        ({"table": "images"}, "images"),
        ({"columns": {"age": "agee"}}, "did you mean 'age'?"),
        ({"columns": {"split": "fold"}}, "no column 'fold' for 'split'"),
        ({"columns": {"agee": "age"}}, "did you mean 'age'?"),
        ({"columns": {"sex": "finding"}}, "'sex' and 'finding' are both read from column 'finding'"),
        ({"labels": {"sx": {"F": "female"}}}, "did you mean 'sex'?"),
        ({"labels": {"sex": {"F": "femal"}}}, "did you mean 'female'?"),
        ({"labels": {"age": {"1": "2"}}}, "'age' is continuous"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(make_folder, rows, chest, settings, named):
    config = dataclasses.replace(make_folder(rows), **settings)
    with pytest.raises(DataError) as error:
        prepare(config, chest)
    assert named in one_line(error)
    assert not left_in(config)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"source": "folders"}, "did you mean 'folder'?"),
        ({"size": 0}, "data.size"),
        ({"workers": -1}, "data.workers"),
        ({"limit": -1}, "data.limit"),
        ({"train": 0}, "data.train"),
        ({"test_fraction": 1.0}, "data.test_fraction"),
        ({"test_fraction": 0.6, "validation_fraction": 0.4}, "must be below 1"),
        ({"knobs": {"sex_breast": float("nan")}}, "data.knobs"),
    ],
)
def test_impossible_settings_are_one_line(make_folder, rows, chest, settings, named):
    with pytest.raises(ConfigError) as error:
        prepare(make_folder(rows, **settings), chest)
    assert named in one_line(error)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({1: {"split": "trian"}}, "unknown split 'trian' in column 'split'; did you mean 'train'?"),
        ({1: {"patient_id": "p6"}}, "patient 'p6' is in train and test"),
        ({4: {"sex": "?"}, 5: {"age": "413"}}, "'val' has no usable row (6 in the others; rejected: "),
        ({i: {"age": "413"} for i in range(8)}, "none of 8 rows can be used: out of range 8"),
        ({i: {"path": "images/none.png"} for i in range(8)}, "none of 8 rows can be used: missing file 8"),
    ],
)
def test_tables_that_cannot_be_split_are_one_line(make_folder, rows, chest, change, named):
    for row, changed in change.items():
        rows[row] |= changed
    config = make_folder(rows, absent="images/none.png")
    with pytest.raises(DataError) as error:
        prepare(config, chest)
    assert named in one_line(error)
    assert not left_in(config)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "can't be read as CSV"),
        (b"path,patient_id\n", "no rows"),
        (b"path,path,age\na,b,1\n", "column 'path' twice"),
        (b"path,age\na,1\nb,2,3,4\n", "can't be read as CSV"),
        (b"path,age\n\xff\xfe,1\n", "can't be read as CSV"),
        (b"path,age\na,1\n", "no column 'patient_id'"),
    ],
)
def test_a_table_that_is_none_is_one_line(make_folder, rows, chest, content, named):
    config = make_folder(rows)
    Path(config.root, "metadata.csv").write_bytes(content)
    with pytest.raises(DataError) as error:
        prepare(config, chest)
    assert named in one_line(error) and "metadata.csv" in str(error.value)


def test_a_reserved_name_of_an_attribute(make_folder, rows):
    declared = {"row": {"kind": "continuous", "range": [0, 1]}}
    with pytest.raises(DataError, match="'row' has the name of a manifest column"):
        prepare(make_folder(rows), graph_from_dict({"variables": declared}))
