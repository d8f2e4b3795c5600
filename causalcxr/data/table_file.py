"""A table's file to text cells: separators, encodings, Excel; nothing is guessed where two readings fit."""

import codecs
import csv
import datetime
import gzip
import io
import re
import warnings
import zlib
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd

from causalcxr.support.errors import DataError

__all__ = ["read_table"]

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
KNOWN = ("path", "patient_id", "split", "sex", "age", "race", "finding")  # names that a header is expected to have
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
EXCEL, OLD_EXCEL, PARQUET = b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"PAR1"  # first bytes of a file
ENDINGS = (".csv", ".csv.gz", ".xlsx", ".tsv", ".txt")
ANNOUNCED = re.compile(r'"?sep=(.)"?\r?\n')  # a first line that Excel writes and understands


def read_table(path: Path) -> pd.DataFrame:
    """A CSV, one compressed as `.csv.gz`, or an Excel sheet, as text cells: `(rows, columns)`, no type guessed.

    Commas, semicolons, tabs or bars separate, whichever the header and all lines agree on; quoted cells keep them.
    UTF-8 and UTF-16. Empty columns at the end are dropped. Raises DataError: missing, not a table, cut short,
    empty, a line of another length, a column named twice, several sheets, or two separators that fit.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise DataError(f"no table '{path}'; {_beside(path) or 'set data.root and data.table'}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from None
    if content.startswith(OLD_EXCEL):
        raise DataError(f"table '{path}' is an old Excel file (.xls); save it as .xlsx or as CSV")
    if content.startswith(PARQUET):
        raise DataError(f"table '{path}' is a Parquet file; save it as CSV")
    excel = path.suffix.lower() in (".xlsx", ".xlsm") or content.startswith(EXCEL)
    cells = _without_empty_end(_read_excel(path, content) if excel else _read_csv(path, content))
    header = [str(name).strip() for name in cells.iloc[0]]
    for name in header:
        if header.count(name) > 1:
            twice = f"has the column '{name}' twice; rename one" if name else "has two columns without a name"
            raise DataError(f"table '{path}' {twice}")
    table = cells.iloc[1:].reset_index(drop=True)
    table.columns = header
    if table.empty:
        raise DataError(f"table '{path}' has a header and no rows")
    return table


def _beside(path: Path) -> str:
    """A hint at the one table of this name and another ending, if there is one."""
    stem = path.name.partition(".")[0]
    there = [f"{stem}{ending}" for ending in ENDINGS if (path.parent / f"{stem}{ending}").is_file()]
    return f"there is '{there[0]}': data.table={there[0]}" if len(there) == 1 else ""


def _unreadable(path: Path, error: object, kind: str = "CSV") -> DataError:
    return DataError(f"table '{path}' can't be read as {kind}: {' '.join(str(error).split())}")


def _without_empty_end(cells: pd.DataFrame) -> pd.DataFrame:
    """Without the last columns that have neither a name nor any value, as trailing separators make them."""
    width = cells.shape[1]
    while width > 1 and (cells.iloc[:, width - 1].str.strip() == "").all():
        width -= 1
    return cells.iloc[:, :width]


def _read_csv(path: Path, content: bytes) -> pd.DataFrame:
    encoding = _encoding(path, content)
    start = _head(content, encoding)
    announced = ANNOUNCED.match(start)
    separator = announced[1] if announced else _separator(path, content, encoding, start)
    settings: dict[str, Any] = {"sep": separator, "skiprows": 1 if announced else 0}
    try:
        cells = pd.read_csv(
            io.BytesIO(content), header=None, dtype=str, keep_default_na=False, encoding=encoding, **settings
        )
    except UnicodeDecodeError as error:
        raise _not_unicode(path, content, error) from None
    except ValueError as error:  # pandas' own errors are ValueErrors: a line that is longer than the header
        if "expected" not in str(error).lower():
            raise _unreadable(path, error) from None
        return _read_ragged(path, content, encoding, separator, bool(announced))
    width = cells.shape[1]
    may_be_short = (cells.iloc[:, -1] == "").any()  # pandas fills a short line with empty cells
    if may_be_short and any(len(line) != width for _, line in _lines(content, encoding, separator)):
        return _read_ragged(path, content, encoding, separator, bool(announced))
    return cells


def _encoding(path: Path, content: bytes) -> str:
    """By its mark; UTF-16 without one by its zeros. Raises DataError: zeros in a text of another encoding."""
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            return encoding
    if b"\0" not in content:
        return "utf-8"
    start = content[:4096]
    zeros = {first: start[first::2].count(0) / max(1, len(start[first::2])) for first in (0, 1)}
    if max(zeros.values()) > 0.5 and min(zeros.values()) < 0.05 and len(content) % 2 == 0:
        return "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"
    line = content[: content.index(b"\0")].count(b"\n") + 1
    raise _unreadable(path, f"a NUL byte in line {line}; the file is damaged, export or download it again")


def _not_unicode(path: Path, content: bytes, error: UnicodeDecodeError) -> DataError:
    if error.encoding.startswith("utf-16"):
        return _unreadable(path, "it is cut off, or not UTF-16; save it as 'CSV UTF-8'")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as first:  # pandas decodes in blocks, and counts from the start of one
        line, byte = content[: first.start].count(b"\n") + 1, content[first.start]
        return _unreadable(path, f"byte 0x{byte:02x} in line {line} is not UTF-8; save it as 'CSV UTF-8'")
    return _unreadable(path, error)


def _head(content: bytes, encoding: str) -> str:
    """The first lines; a character that the end of the block cuts is left out."""
    return content[: 1 << 16].decode(encoding, errors="ignore")


def _separator(path: Path, content: bytes, encoding: str, start: str) -> str:
    """The one that splits the header into names, and every line into as many cells.

    Raises DataError: two do.
    """
    header = next(csv.reader(io.StringIO(start, newline=None)), [""])
    if len(header) > 1 and not any(mark in name for mark in SEPARATORS for name in header):
        return ","  # nothing else could
    names = {mark: next(csv.reader(io.StringIO(start, newline=None), delimiter=mark), [""]) for mark in SEPARATORS}
    found = [mark for mark, each in names.items() if len(each) > 1]
    if len(found) > 1:
        knows = [mark for mark in found if {name.strip().lower() for name in names[mark]} & set(KNOWN)]
        found = knows or found
    if len(found) > 1:
        found = [mark for mark in found if _agrees(content, encoding, mark)] or found
    if len(found) > 1:
        marks = " or ".join(SEPARATORS[mark] for mark in found)
        raise DataError(
            f"table '{path}' could be separated by {marks}; put cells that have one of them in quotes, "
            "or take another separator"
        )
    return found[0] if found else ","


def _agrees(content: bytes, encoding: str, separator: str) -> bool:
    """Whether every line has as many cells as the header, empty ones at the end aside."""
    try:
        lines = _lines(content, encoding, separator)
        width = len(_stripped(next(lines)[1]))
        return all(len(_stripped(cells)) <= width <= len(cells) for _, cells in lines)
    except csv.Error:
        return False


def _lines(content: bytes, encoding: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of every line that isn't blank, with its number in the file."""
    text = io.TextIOWrapper(io.BytesIO(content), encoding, errors="replace", newline="")
    reader, begins = csv.reader(text, delimiter=separator), 1
    for cells in reader:
        if cells and cells != [""]:
            yield begins, cells
        begins = reader.line_num + 1


def _stripped(cells: list[str]) -> list[str]:
    """Without the empty cells at the end."""
    width = len(cells)
    while width and not cells[width - 1].strip():
        width -= 1
    return cells[:width]


def _read_ragged(path: Path, content: bytes, encoding: str, separator: str, announced: bool) -> pd.DataFrame:
    """Lines of differing lengths, where all that differs is empty cells at the end.

    Raises DataError: any other line that is longer or shorter than the header.
    """
    try:
        lines = list(_lines(content, encoding, separator))[1 if announced else 0 :]
    except csv.Error as error:
        raise _unreadable(path, error) from None
    width = len(_stripped(lines[0][1]))
    for number, cells in lines:
        if len(_stripped(cells)) > width or len(cells) < width:
            marks = SEPARATORS.get(separator, f"'{separator}'")
            wrong = f"line {number} has {len(cells)} cells between {marks}, the header {width}"
            raise _unreadable(path, f"{wrong}; mend it, or put a cell with {marks} in it in quotes")
    return pd.DataFrame([cells[:width] for _, cells in lines], dtype=str)


def _read_excel(path: Path, content: bytes) -> pd.DataFrame:
    """The one sheet that has rows. Raises DataError: openpyxl missing, several sheets, or none."""
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise DataError(
            f"'{path}' needs openpyxl: pip install 'causalcxr[cxr]', or save the sheet as CSV"
        ) from None
    try:
        with warnings.catch_warnings():  # openpyxl warns of styles and extensions, which don't matter here
            warnings.simplefilter("ignore")
            book = load_workbook(io.BytesIO(content), read_only=True, data_only=True)
            sheets = {sheet.title: _sheet(sheet) for sheet in book.worksheets}
    except Exception as error:  # what a damaged archive makes of the libraries below is without limit
        raise _unreadable(path, error, "XLSX") from None
    filled = {title: rows for title, rows in sheets.items() if rows}
    if len(filled) > 1:
        listed = ", ".join(f"'{title}'" for title in filled)
        raise DataError(f"table '{path}' has {len(filled)} sheets with rows ({listed}); save the one meant as CSV")
    if not filled:
        raise _unreadable(path, "no sheet has rows", "XLSX")
    (rows,) = filled.values()
    columns = list(zip_longest(*rows, fillvalue=""))
    return pd.DataFrame({place: pd.Series(column, dtype=str) for place, column in enumerate(columns)})


def _sheet(sheet: Any) -> list[list[str]]:
    """The rows of a sheet as text, those without any value left out."""
    sheet.reset_dimensions()  # some programs write wrong ones
    rows = ([_excel_text(value) for value in row] for row in sheet.iter_rows(values_only=True))
    return [row for row in rows if any(row)]


def _excel_text(value: Any) -> str:
    """A cell as it would stand in a CSV: whole numbers without a point, days without a time of day."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    return str(value)
