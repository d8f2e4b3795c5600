"""Shows the examples of docstrings (`>>> ...`) as code; without this they would be quotations in Markdown."""

from typing import Any

import griffe


class Examples(griffe.Extension):
    """Puts a fence around every run of lines that begin with `>>>` or `...`."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _fenced(obj.docstring.value)


def _fenced(text: str) -> str:
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        example = line.lstrip().startswith((">>>", "...")) and (inside or line.lstrip().startswith(">>>"))
        if example != inside:
            lines.append("```pycon" if example else "```")
            inside = example
        lines.append(line)
    return "\n".join([*lines, "```"] if inside else lines)
