"""The pages that the tests of this folder read, and what stands in their code blocks."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))

COMMAND = re.compile(r"(causalcxr|python|torchrun|make|pip|\.venv/bin/\w+) \S")


class Block(NamedTuple):
    """A fenced block: its page (relative to the root), its number there, its language and its text."""

    page: str
    number: int
    language: str
    text: str


def fenced(language: str) -> list[Block]:
    """All blocks of one language, of all pages."""
    return [block for page in PAGES for block in _blocks(page) if block.language == language]


def commands() -> list[tuple[str, str]]:
    """Page and text of every line of a code block, or of inline code, that begins with a command."""
    found = []
    for page in PAGES:
        text, name = page.read_text("utf-8"), str(page.relative_to(ROOT))
        lines = [line for block in _blocks(page) for line in _joined(block.text)]
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)
        lines += [line for line in _joined(prose) if line.startswith("    ")]
        lines += re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose)
        found += [(name, line.strip()) for line in lines if COMMAND.match(line.strip())]
    return list(dict.fromkeys(found))


def _joined(text: str) -> list[str]:
    return re.sub(r"\\\n\s*", "", text).splitlines()


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for number, (language, inside) in enumerate(re.findall(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M)):
        yield Block(str(page.relative_to(ROOT)), number, language, inside)
