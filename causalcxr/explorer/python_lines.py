"""The Python lines that give exactly what the page shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from causalcxr.explorer.question import Question

__all__ = ["python_lines"]


def python_lines(
    question: Question, folders: Mapping[str, Path], split: str, overrides: Sequence[str] = ()
) -> str:
    """A program that ends with the counterfactual `(C, H, W)` of every run in `found[NAME].image`.

    `folders`: of the runs, by name; the first run's cohort has the patient. `overrides`: where its data are.
    """
    how = f"effect={question.effect!r}, draws={question.draws}, seed={question.seed}"
    how += f", pixel_noise={question.pixel_noise!r}"
    first = next(iter(folders.values()))
    lines = [
        "import causalcxr",
        *(
            _of_the_cohort(question.row, first, split, overrides)
            if question.row is not None
            else _of_a_file(question)
        ),
        "found = {",
        *(
            f"    {name!r}: causalcxr.answer(\n"
            f"        causalcxr.load({str(folder)!r}), image, given, do={dict(question.do)!r}, {how}\n    ),"
            for name, folder in folders.items()
        ),
        "}",
        "for name, answer in found.items():",
        "    print(name, answer.attributes, answer.image.shape, float(answer.change.abs().mean()))",
    ]
    return "\n".join(lines) + "\n"


def _of_the_cohort(row: int, folder: Path, split: str, overrides: Sequence[str]) -> list[str]:
    config = f"override_config(run.config, {list(overrides)!r})" if overrides else "run.config"
    return [
        *(["from causalcxr.config import override_config"] if overrides else []),
        "from causalcxr.data.preparation import open_cohort",
        "from causalcxr.runs import open_run",
        "",
        f"run = open_run({str(folder)!r})",
        f"given = open_cohort({config}.data, run.graph).split({split!r}).batch([{row}])",
        "image = given.pop(run.graph.image)[0]",
    ]


def _of_a_file(question: Question) -> list[str]:
    assert question.pixels is not None
    channels, size, _ = question.pixels.shape
    return [
        "from pathlib import Path",
        "import torch",
        "from causalcxr.data.film import read_film",
        "",
        f"film = read_film(Path({question.name!r}), {size}, {channels})  # the file that was uploaded",
        "image = torch.from_numpy(film.copy())",
        f"given = {dict(question.given)!r}",
    ]
