"""Embeddings and tables from files: every format the same, every row accounted for."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from causalcxr.debias.parts import parts_given, split_patients
from causalcxr.debias.tables import Wanted, join, read_embeddings, read_table
from causalcxr.support.errors import DataError

Z = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
IDS = np.array(["007", "b", "c", "d", "e", "f"])
WANTED = Wanted(erase=["sex"], keep=["finding"])


def table(**changed: Any) -> pd.DataFrame:
    columns = {"id": IDS, "patient_id": list("ppqrst"), "sex": list("mfmfmf"), "finding": [0, 1, 0, 1, 0, 1]}
    return pd.DataFrame(columns | changed)


def write(path: Path) -> None:
    features = pd.DataFrame(Z, columns=["x", "y", "z"])
    writers = {
        ".npy": lambda: np.save(path, Z),
        ".npz": lambda: np.savez(path, embeddings=Z, ids=IDS),
        ".safetensors": lambda: save_file({"embeddings": torch.from_numpy(Z)}, path),
        ".csv": lambda: features.assign(id=IDS).to_csv(path, index=False),
        ".parquet": lambda: features.assign(id=IDS).to_parquet(path),
    }
    writers[path.suffix]()


@pytest.mark.parametrize("kind", [".npy", ".npz", ".safetensors", ".csv", ".parquet"])
def test_every_format_says_the_same(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"embeddings{kind}"
    write(path)
    z, ids = read_embeddings(path)
    np.testing.assert_allclose(z, Z, rtol=1e-6)
    assert ids is None if kind in (".npy", ".safetensors") else ids.tolist() == IDS.tolist()


@pytest.mark.parametrize("kind", [".npy", ".safetensors"])
def test_what_the_format_allows_stays_on_disk(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"embeddings{kind}"
    write(path)
    z, _ = read_embeddings(path)
    while z is not None and not isinstance(z, np.memmap):
        z = z.base
    assert isinstance(z, np.memmap)


def test_rows_are_found_by_id_and_accounted_for() -> None:
    """One embedding without a row, one row without an embedding, one without its sex; 007 is no 7."""
    given = table(id=["e", "d", "c", "b", "007", "x"], sex=["m", None, "f", "f", "m", "f"])
    found = join(Z, IDS, given, WANTED)
    assert found.ids.tolist() == ["007", "b", "c", "e"]
    assert found.erase["sex"].tolist() == ["m", "f", "f", "m"]
    assert found.patients.tolist() == ["s", "r", "q", "p"]
    np.testing.assert_array_equal(found.z, Z[[0, 1, 2, 4]])
    assert found.lost == {
        "an embedding without a row of the table": 1,
        "a row of the table without an embedding": 1,
        "an attribute, or whose it is, is missing": 1,
    }


def test_in_order_without_ids() -> None:
    found = join(Z, None, table(), WANTED)
    assert found.z is Z and found.ids.tolist() == IDS.tolist() and not found.lost
    with pytest.raises(DataError, match="6 embeddings without ids and a table of 5 rows"):
        join(Z, None, table()[:5], WANTED)


def test_whole_numbers_with_gaps_are_still_labels() -> None:
    found = join(Z, IDS, table(sex=[0, 1, np.nan, 1, 0, 1]), WANTED)
    assert found.erase["sex"].tolist() == [0, 1, 1, 0, 1] and found.erase["sex"].dtype == np.int64
    as_number = join(Z, IDS, table(sex=[0, 1, 2, 1, 0, 1]), Wanted(erase=["sex"], numbers=["sex"]))
    assert as_number.erase["sex"].dtype == np.float64


@pytest.mark.parametrize(
    ("given", "ids", "expected"),
    [
        (
            table(id=list("uvwxyz")),
            IDS,
            "no id is in both: the embeddings have such as '007', the table such as 'u'",
        ),
        (table(id=list("bbcdef")), IDS, "1 ids of the table are there more than once, such as 'b'"),
        (table(), IDS[[0, 0, 1, 2, 3, 4]], "1 ids of the embeddings are there more than once, such as '007'"),
        (table().drop(columns="id"), IDS, "no column 'id'.*--id"),
        (table().drop(columns="sex"), IDS, "no column 'sex'"),
        (table(sex=[None] * 6), IDS, "no row has all of sex, finding"),
    ],
)
def test_what_does_not_fit_together(given: pd.DataFrame, ids: np.ndarray, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        join(Z, ids, given, WANTED)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(["sex"], ["finding"], patient="person"), "no column 'person'"),
        (Wanted(["sex"], ["sex"]), "'sex' is named twice"),
        (Wanted(["sex", "sex"]), "'sex' is named twice"),
        (Wanted(["sex"], numbers=["age"]), "'age' is called a number or labels, and is neither erased nor kept"),
        (Wanted(["sex"], parts="fold"), "no column 'fold'"),
    ],
)
def test_columns_that_cannot_be(wanted: Wanted, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        join(Z, IDS, table(), wanted)


def test_what_is_taken_for_granted_is_said() -> None:
    """Order instead of ids, and rows that are patients; a row without a patient is left out."""
    found = join(Z, None, table().drop(columns="patient_id"), WANTED)
    assert [remark[:28] for remark in found.remarks] == [
        "the embeddings have no ids: ",
        "the table has no column 'pat",
    ]
    assert join(Z, IDS, table(patient_id=["p", None, "q", "q", "r", "s"]), WANTED).lost == {
        "an attribute, or whose it is, is missing": 1
    }


def test_ids_that_do_not_fit_the_embeddings(tmp_path: Path) -> None:
    np.savez(tmp_path / "z.npz", embeddings=Z, ids=IDS[:4])
    with pytest.raises(DataError, match=r"has 6 embeddings, and ids of the shape \(4,\)"):
        read_embeddings(tmp_path / "z.npz")
    ids = torch.arange(6, dtype=torch.int16)
    save_file({"embeddings": torch.from_numpy(Z), "ids": ids.flip(0).contiguous()}, tmp_path / "z.safetensors")
    assert read_embeddings(tmp_path / "z.safetensors")[1].tolist() == list("543210")
    pd.DataFrame(Z, index=pd.Index(IDS, name="id")).rename(columns=str).to_parquet(tmp_path / "z.parquet")
    assert read_embeddings(tmp_path / "z.parquet")[1].tolist() == IDS.tolist()


def test_none_may_be_a_label(tmp_path: Path) -> None:
    table(sex=["None", "f", "None", "f", "", "NA"]).to_csv(tmp_path / "t.csv", index=False)
    assert read_table(tmp_path / "t.csv")["sex"].isna().tolist() == [False] * 4 + [True] * 2


def test_nan_embeddings_and_wrong_pairs() -> None:
    z = Z.copy()
    z[1, 1] = np.nan
    with pytest.raises(DataError, match="1 embeddings hold NaN or infinity, such as that of 'b'"):
        join(z, IDS, table(), WANTED)
    with pytest.raises(DataError, match=r"pairs are float64 \(6, 2\); expected \(6, counterfactuals, 3\)"):
        join(Z, IDS, table(), WANTED, np.zeros((6, 2)))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("z.npy", b"not numpy", "can't be read"),
        ("z.npz", b"not a zip", "can't be read"),
        ("z.safetensors", b"\xff" * 20, "can't be read as safetensors"),
        ("z.csv", b"id,x\na,red\nb,2", "column 'x' is no number"),
        ("z.pickle", b"", "expected one of: .npy, .npz"),
        ("z.txt", b"", "expected one of: .npy"),
    ],
)
def test_files_that_cannot_be_read(name: str, content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=expected):
        read_embeddings(tmp_path / name)


def test_no_pickle_is_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "z.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="can't be read"):
        read_embeddings(tmp_path / "z.npy")
    np.save(tmp_path / "whole.npy", np.ones((3, 2), dtype=int))
    with pytest.raises(DataError, match=r"holds int64 \(3, 2\); expected decimals"):
        read_embeddings(tmp_path / "whole.npy")
    with pytest.raises(DataError, match="no file"):
        read_table(tmp_path / "none.csv")


def test_no_patient_is_in_two_parts() -> None:
    patients = np.random.default_rng(0).integers(0, 300, 1000).astype(str)
    parts = split_patients(patients, seed=1)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(1000))
    whose = [set(patients[rows]) for rows in parts.values()]
    assert sum(map(len, whose)) == len(set(patients))
    assert not np.array_equal(parts["fit"], split_patients(patients, seed=2)["fit"])


def test_parts_that_a_table_gives() -> None:
    patients = np.array(list("aabbccddeeffgghhiijj"))
    labels = np.repeat(["train", "val", "test"], [8, 8, 4])
    parts = parts_given(labels, patients)
    assert parts["fit"].tolist() == list(range(8)) and parts["score"].tolist() == [16, 17, 18, 19]
    assert len(parts["threshold"]) == 2 and len(parts["probe"]) == 6
    assert len(set(patients[parts["threshold"]])) == 1
    with pytest.raises(ValueError, match="patient 'd' is in the parts fit and probe"):
        parts_given(np.repeat(["train", "val", "test"], [7, 9, 4]), patients)
    with pytest.raises(ValueError, match="part 'holdout' is none of fit, probe, threshold, score"):
        parts_given(np.repeat(["train", "holdout"], 10), patients)
    with pytest.raises(ValueError, match="no row is in the part 'score'"):
        parts_given(np.repeat(["train", "val"], 10), patients)
