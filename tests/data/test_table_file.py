"""Tables as other programs write them: read where there is one reading, else refused in one line with the mend."""

import datetime
import gzip
import io

import pytest

from causalcxr.data.table_file import read_table
from causalcxr.support.errors import DataError

ROWS = [
    ["path", "patient_id", "age", "finding"],
    ["a b.png", "0123", "45", "x, y"],
    ["c.png", "7", "", "Fluid|Mass"],
]


def quoted(rows, separator: str) -> str:
    return "".join(separator.join(f'"{cell}"' for cell in row) + "\r\n" for row in rows)


def cells(path) -> list[list[str]]:
    table = read_table(path)
    return [list(table.columns), *table.values.tolist()]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_separators_and_encodings(tmp_path, separator, encoding, ending):
    content = quoted([*ROWS, ["Zürich", "Ä;,|\t", "1", "é"]], separator).encode(encoding)
    path = tmp_path / f"table{ending}"
    path.write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    assert cells(path) == [*ROWS, ["Zürich", "Ä;,|\t", "1", "é"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path;age\na.png;45,5\n", [["path", "age"], ["a.png", "45,5"]]),  # no comma in the header
        ("path;age, years\na.png;45,5\n", [["path", "age, years"], ["a.png", "45,5"]]),  # path is a known name
        ("file;age, years\na.png;45\n", [["file", "age, years"], ["a.png", "45"]]),  # commas don't fit the lines
        ("sep=;\npath;age\na.png;45\n", [["path", "age"], ["a.png", "45"]]),  # as Excel announces it
        ("path,finding\na.png,Fluid|Mass\n", [["path", "finding"], ["a.png", "Fluid|Mass"]]),
        ("path,age,,\na.png,45,,\n", [["path", "age"], ["a.png", "45"]]),  # empty columns at the end
        ("path,age\na.png,45,,\nb.png,46\n", [["path", "age"], ["a.png", "45"], ["b.png", "46"]]),
        ("path,age,,\na.png,45\n", [["path", "age"], ["a.png", "45"]]),
        ("path,age\n\na.png,45\n\n", [["path", "age"], ["a.png", "45"]]),  # blank lines
        ('path,note\na.png,"two\nlines"\n', [["path", "note"], ["a.png", "two\nlines"]]),
        ("path\na.png\n", [["path"], ["a.png"]]),
        ("path,age\ra.png,45\r", [["path", "age"], ["a.png", "45"]]),  # an old Macintosh
    ],
)
def test_what_has_one_reading_is_read(tmp_path, text, expected):
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode())
    assert cells(path) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"file;a,b\nx;1,2\n",
            "could be separated by commas or semicolons; put cells that have one of them in quotes",
        ),
        (b"path,age\na.png,45\nb.png,46,47\n", "line 3 has 3 cells between commas, the header 2; mend it"),
        (b'path;age\n"a\n.png";45\nb.png\n', "line 4 has 1 cells between semicolons, the header 2"),
        (b"path,age\nM\xfcller,45\n", "byte 0xfc in line 2 is not UTF-8; save it as 'CSV UTF-8'"),
        (b"path,age\na.png,45\nb\0.png,4\n", "a NUL byte in line 3; the file is damaged"),
        ("\ufeffpath,age\na.png,45\n".encode("utf-16-le")[:-1], "cut off, or not UTF-16; save it as 'CSV UTF-8'"),
        (b"\xd0\xcf\x11\xe0" + bytes(99), "an old Excel file (.xls); save it as .xlsx or as CSV"),
        (b"PAR1" + bytes(99), "a Parquet file; save it as CSV"),
        (b"PK\x03\x04" + bytes(99), "can't be read as XLSX"),
        (b'path,age\n"a.png,45\n', "can't be read as CSV"),
        (b"path,age,age\na,1,2\n", "has the column 'age' twice; rename one"),
        (b"path,,,x\na,1,2,3\n", "has two columns without a name"),
        (b"path,age\n", "has a header and no rows"),
        (b"\n\n", "can't be read as CSV"),
    ],
)
def test_what_has_none_is_one_line_with_the_mend(tmp_path, content, message):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_table(path)
    assert message in str(error.value) and f"'{path}'" in str(error.value) and "\n" not in str(error.value)


def test_a_table_of_another_ending_is_pointed_at(tmp_path):
    with pytest.raises(DataError, match=r"no table '.*metadata\.csv'; set data\.root and data\.table"):
        read_table(tmp_path / "metadata.csv")
    (tmp_path / "metadata.xlsx").touch()
    with pytest.raises(DataError, match=r"there is 'metadata\.xlsx': data\.table=metadata\.xlsx"):
        read_table(tmp_path / "metadata.csv")


def workbook(*sheets: list[list]) -> bytes:
    book = pytest.importorskip("openpyxl", reason="openpyxl (extra cxr) is not installed").Workbook()
    book.remove(book.active)
    for rows in sheets:
        sheet = book.create_sheet()
        for row in rows:
            sheet.append(row)
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def test_excel(tmp_path):
    day, moment = datetime.datetime(2026, 3, 1), datetime.datetime(2026, 3, 1, 9, 30)
    rows = [["path", "patient_id", "age", "seen", "", None], ["a.png", 123, 45.0, day, None, None], [None] * 6]
    rows += [["b.png", "0123", 45.5, moment, None, None], ["c.png", True, None, "#N/A", None, None]]
    expected = [["path", "patient_id", "age", "seen"], ["a.png", "123", "45", "2026-03-01"]]
    expected += [["b.png", "0123", "45.5", "2026-03-01 09:30:00"], ["c.png", "TRUE", "", "#N/A"]]
    for name in ("table.xlsx", "table.csv"):  # by its content, whatever its name
        (tmp_path / name).write_bytes(workbook([], rows, []))
        assert cells(tmp_path / name) == expected


def test_excel_with_several_sheets_or_none(tmp_path):
    path = tmp_path / "table.xlsx"
    path.write_bytes(workbook([["path"], ["a"]], [["path"], ["b"]]))
    with pytest.raises(DataError, match=r"2 sheets with rows \('Sheet', 'Sheet1'\); save the one meant as CSV"):
        read_table(path)
    path.write_bytes(workbook([]))
    with pytest.raises(DataError, match="no sheet has rows"):
        read_table(path)


def test_excel_without_openpyxl(tmp_path, monkeypatch):
    (tmp_path / "table.xlsx").write_bytes(workbook([["path"], ["a"]]))
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(
        DataError, match=r"needs openpyxl: pip install 'causalcxr\[cxr\]', or save the sheet as CSV"
    ):
        read_table(tmp_path / "table.xlsx")
