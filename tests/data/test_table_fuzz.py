"""Damaged tables of every kind: rows that an independent reader has too, or one line that says why not."""

import csv
import gzip
import io

import numpy as np
import pytest

from causalcxr.data import DataConfig
from causalcxr.data.source import Source
from causalcxr.data.table import usable_rows
from causalcxr.data.table_file import read_table
from causalcxr.graph import load_graph
from causalcxr.support.errors import CausalCXRError

TRIES = 250  # of each kind
CHEST = load_graph("chest_without_race").without_image()
CONFIG = DataConfig(labels={"sex": {"F": "female", "M": "male"}})
LINES = [["path", "patient_id", "sex", "age", "finding", "split"]] + [
    [
        f"w/{i}.png",
        f"p{i // 2}",
        "MF"[i % 2],
        f"{40 + i:03d}Y",
        "No Finding|x",
        ("train", "val", "test")[i // 2 % 3],
    ]
    for i in range(12)
]
INSERTED = [b'"', b",", b";", b"\n", b"\r", b"\0", b"\t", b"|", b"\xff", b"=", b"'", b" "]


def text(separator: str) -> str:
    return "".join(separator.join(line) + "\r\n" for line in LINES)


def workbook() -> bytes:
    book = pytest.importorskip("openpyxl", reason="openpyxl (extra cxr) is not installed").Workbook()
    for line in LINES:
        book.active.append(line)
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


KINDS = {
    "semicolons.csv": lambda: text(";").encode(),
    "commas.csv": lambda: text(",").encode(),
    "tabs.csv": lambda: text("\t").encode("utf-8-sig"),
    "utf16.csv": lambda: text(";").encode("utf-16"),
    "packed.csv.gz": lambda: gzip.compress(text(",").encode(), mtime=0),
    "sheet.xlsx": workbook,
}


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """One to three bytes or runs changed, left out, put in, repeated, or all behind them lost."""
    data = bytearray(content)
    for _ in range(random.integers(1, 4)):
        at, n = int(random.integers(0, len(data) or 1)), int(random.integers(1, 5))
        match int(random.integers(0, 5)):
            case 0:
                data[at : at + 1] = random.bytes(1)
            case 1:
                del data[at : at + n]
            case 2:
                data[at:at] = INSERTED[random.integers(len(INSERTED))] * n
            case 3:
                data[at:at] = data[max(0, at - 30) : at]
            case 4:
                data = data[: at + 1] if random.random() < 0.2 else data
    return bytes(data)


@pytest.mark.parametrize("name", KINDS)
def test_damaged_tables(tmp_path, name):
    random, whole, path = np.random.default_rng(list(name.encode())), KINDS[name](), tmp_path / name
    read = 0
    for _ in range(TRIES):
        path.write_bytes(damaged(whole, random))
        try:
            table = read_table(path)
            source = Source("a table", {}, {}, lambda table=table: table, lambda rows, sizes: [])
            rows, rejected = usable_rows(CONFIG, CHEST, source)
        except CausalCXRError as error:
            assert "\n" not in str(error)
            continue
        read += 1
        assert len(rows) + len(rejected) == len(table)
        if name == "semicolons.csv":
            agree(path.read_bytes(), rows)
    assert read > 0  # damage that leaves a table is met too


def agree(content: bytes, rows) -> None:
    """Python's own reader has the same people, sexes and ages in the rows kept."""
    header, *lines = (
        line for line in csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter=";") if line
    )
    columns = {name.strip().lower(): place for place, name in enumerate(header)}
    for row in rows.itertuples():
        line = [cell.strip() for cell in lines[row.row]]
        assert line[columns["patient_id"]].lower() == row.patient_id.lower()
        assert {"m": "male", "f": "female"}[line[columns["sex"]].lower()] == row.sex
        assert float(line[columns["age"]].lower().rstrip("y ").replace(",", ".")) == pytest.approx(row.age)
