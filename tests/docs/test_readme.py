"""README and the pages: how long, what links where, how numbers and words are written."""

import json
import re
from pathlib import Path

import pytest

from tests.docs.pages import NOTEBOOKS, PAGES, README, ROOT

WORDS_AT_MOST = 800
# Words that only somebody who wrote the code would understand; the field has its own for each.
PRIVATE = r"\b(aside|spares?|spared|disguised?|disguises|foretells?|foretold|told|(?<!-)frames?|sittings?)\b"
TABLE = r"^\|[ :|-]+\|$"


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _texts() -> dict[str, str]:
    """What people read, by file: pages, and the text of notebooks."""
    texts = {_name(page): page.read_text("utf-8") for page in PAGES}
    for notebook in NOTEBOOKS:
        cells = json.loads(notebook.read_text("utf-8"))["cells"]
        prose = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        texts[_name(notebook)] = "\n".join(prose)
    return texts


TEXTS = _texts()


def test_the_readme_is_read_in_three_minutes():
    assert len(README.read_text("utf-8").split()) <= WORDS_AT_MOST  # as `wc -w` counts


def test_the_readme_has_one_table_of_five_rows():
    text = README.read_text("utf-8")
    assert len(re.findall(TABLE, text, re.M)) == 1
    assert len(re.findall(r"^\|.*\|$", text, re.M)) == 2 + 5  # heading and line below it


@pytest.mark.parametrize(
    ("what", "answer"),
    [
        ("an own folder", r"train preset=my-hospital\.yaml.*\[Own data\]\(docs/own-data\.md\)"),
        ("the definition of counterfactual targets", r"\(docs/finetuning\.md\): what counterfactual targets are"),
        ("how well do(age) does", r"^\| do\(age\).*exact error 0\.\d\d"),
        ("how to add an image mechanism", r"\(CONTRIBUTING\.md\): how to add an image mechanism"),
    ],
)
def test_the_readme_answers(what, answer):
    assert re.search(answer, README.read_text("utf-8"), re.S | re.M), what


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_local_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)", page.read_text("utf-8"))
    local = [link for link in links if "://" not in link]
    missing = [link for link in local if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_files_that_are_named_exist(page):
    """Paths in code, such as `training/loop.py`, which no link checks; NAME stands for the reader's own."""
    named = re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|yaml|json|md))`", page.read_text("utf-8"))
    places = (ROOT, ROOT / "causalcxr", ROOT / "docs")
    missing = [path for path in named if "NAME" not in path and not any((p / path).exists() for p in places)]
    assert not missing


@pytest.mark.parametrize("name", TEXTS)
def test_numbers_have_a_leading_zero(name):
    assert not re.findall(r"(?<![0-9A-Za-z.\])])\.\d+", TEXTS[name])


@pytest.mark.parametrize("name", TEXTS)
def test_words_are_the_field_s(name):
    assert not re.findall(PRIVATE, TEXTS[name], re.I)
    assert "FiLM" not in TEXTS[name]  # a film is a radiograph


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=_name)
def test_notebooks_are_stored_without_outputs(notebook):
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
