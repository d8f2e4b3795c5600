"""Answers the page's questions: every run abducts a patient once, and each question costs it one decoder pass."""

import base64
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from causalcxr import __version__
from causalcxr.answers import Answer, abduct_patient, answer_abducted
from causalcxr.explorer.exact import Exact, Simulated
from causalcxr.explorer.patients import Patients, nearness_text
from causalcxr.explorer.python_lines import python_lines
from causalcxr.explorer.question import Question, parse_question
from causalcxr.explorer.readings import read, readings
from causalcxr.graph import Graph
from causalcxr.mechanisms.likelihood import image_to_float
from causalcxr.metrics.exact import error_norms, relative_error
from causalcxr.metrics.truth import find_truth
from causalcxr.predictors.predictor import Prediction, Predictor
from causalcxr.scm import Abduction, StructuralCausalModel
from causalcxr.support.errors import GraphError
from causalcxr.values import Batch, decode, encode, readable

__all__ = ["DRAWS_SHOWN", "Explored", "Explorer", "packed", "packed_levels"]

REMEMBERED = 64  # abducted patients of all runs; an uploaded film is never among them
DRAWS_SHOWN = 4  # of several draws, beside their mean


@dataclass(frozen=True)
class Explored:
    """A run that the page shows. `evaluator` is None where the run has none; `quality`: see `readings.quality`."""

    name: str
    folder: Path
    scm: StructuralCausalModel
    evaluator: Predictor | None
    quality: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Known:
    """What does not change while a patient's attributes are moved; images `(C, H, W)` in [0, 1].

    `null`: what the patient's own attributes make of the abducted noise. `read`: what the evaluator reads on the
    image that answers are compared with, which is the film, or `null` without the noise of pixels.
    """

    abduction: Abduction
    film: Tensor
    null: Tensor
    read: Prediction | None


class Explorer:
    """Several runs of one graph on the patients of one split, and the truth where it is known."""

    def __init__(self, runs: Sequence[Explored], patients: Patients, overrides: Sequence[str] = ()):
        """`overrides`: where the first run's data lie by now, `data.root=FOLDER`, for the Python lines."""
        self.runs, self.patients, self.overrides = list(runs), patients, list(overrides)
        self.graph: Graph = self.runs[0].scm.graph
        truth = find_truth(patients.cohort)
        self.simulated = None if truth is None else Simulated(truth, patients.split)
        self._remembered = lru_cache(REMEMBERED)(self._know_row)
        self._lock = threading.Lock()
        self._beside = ThreadPoolExecutor(1, "exact")  # the simulator renders while the runs decode

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes of the pixel noise that every run has."""
        of_runs = [run.scm.image_mechanism.pixel_noise for run in self.runs]
        return tuple(mode for mode in of_runs[0] if all(mode in modes for modes in of_runs))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image, `(C, H, W)`."""
        return tuple(self.runs[0].scm.image_mechanism.event_shape)

    def parse(self, asked: Any) -> Question:
        """A question from JSON; see `parse_question`."""
        return parse_question(asked, self.graph, self.shape, len(self.patients), self.modes)

    @torch.no_grad()
    def answer(self, question: Question) -> dict[str, Any]:
        """The answer of every run, and the exact one, as JSON; images are packed (see `packed`).

        Changes and readings are relative to what the same noise makes of the patient as recorded: the film itself,
        or with its pixel noise off the null edit.
        """
        with self._lock:  # one question at a time
            asked = self._ask_simulator(question)
            known = [self._know(i, question) for i in range(len(self.runs))]
            found = [
                answer_abducted(run.scm, one.abduction, question.do, question.effect)
                for run, one in zip(self.runs, known, strict=True)
            ]
            exact, moved = _exact(asked), self._moved(question)
            shown = [self._shown(*of, moved, exact) for of in zip(self.runs, known, found, strict=True)]
            near = self.patients.near(self._coded(found[0].attributes))
        return {
            "question": question.settings(),
            "patient": self.patients.about(question.row),
            "factual": {"image": packed(known[0].film), "attributes": self._words(found[0].row())},
            "exact": exact and {"image": packed(exact.image), "attributes": self._words(self._decoded(exact))},
            "runs": shown,
            "moved": sorted(moved),
            "near": near,
            "warning": nearness_text(self.graph, near),
            "version": __version__,
            "python": self._python(question),
        }

    def _python(self, question: Question) -> str:
        folders = {run.name: run.folder for run in self.runs}
        return python_lines(question, folders, self.patients.split.name, self.overrides)

    def _ask_simulator(self, question: Question) -> "Future[Exact] | None":
        """The exact answer to come; None where nobody knows it."""
        if self.simulated is None or question.row is None:
            return None
        return self._beside.submit(self.simulated.answer, question.row, question.do, question.effect)

    def _know(self, run: int, question: Question) -> _Known:
        how = (question.draws, question.seed, question.pixel_noise)
        if question.row is not None:
            return self._remembered(run, question.row, *how)
        assert question.pixels is not None
        return self._know_film(run, torch.from_numpy(question.pixels), question.given, *how)

    def _know_row(self, run: int, row: int, draws: int, seed: int, pixel_noise: str) -> _Known:
        return self._know_film(run, *self.patients.film(row), draws, seed, pixel_noise)

    def _know_film(
        self, run: int, film: Tensor, given: Mapping[str, Any], draws: int, seed: int, pixel_noise: str
    ) -> _Known:
        scm, evaluator = self.runs[run].scm, self.runs[run].evaluator
        abduction, name = abduct_patient(scm, film, given, draws, seed, pixel_noise), self.graph.image
        assert name is not None
        kept = pixel_noise == scm.image_mechanism.pixel_noise[0]
        null = scm.image_mechanism(abduction.noise[name], abduction.factual) if kept else abduction.factual[name]
        film, null = image_to_float(film.to(scm.device), scm.dtype), null.mean(dim=0)
        return _Known(abduction, film, null, evaluator and read(evaluator, film if kept else null))

    def _moved(self, question: Question) -> set[str]:
        """The attributes of the image that an effect lets change."""
        changed = set(question.do)
        below = set(self.graph.descendants(*changed)) & set(self.graph.attributes)
        if question.effect == "direct":
            return changed
        return below - changed if question.effect == "indirect" else below | changed

    def _shown(
        self, run: Explored, known: _Known, found: Answer, moved: set[str], exact: Exact | None
    ) -> dict[str, Any]:
        image, attributes, several = found.image, found.attributes, len(found) > 1
        coded = self._coded(attributes)
        base = found.factual[run.scm.image_mechanism.variable.name][0]
        return {
            "name": run.name,
            "image": packed(image),
            "base": packed(base),
            "draws": self._draws(found, moved) if several else [],
            "shares": self._shares(found, coded, moved) if several else {},
            "attributes": self._words(attributes),
            "change": _size(image - base),
            "null": {"image": packed(known.null), "change": _size(known.null - known.film)},
            "spread": found.spread if several else None,
            "reads": self._readings(run, known, image, coded, moved),
            "error": _error(image - base, exact),
        }

    def _draws(self, found: Answer, moved: set[str]) -> list[dict[str, Any]]:
        """The first draws, with what follows the intervention in each."""
        name = found.scm.image_mechanism.variable.name
        return [
            {"image": packed(found.drawn[name][i])}
            | {"attributes": {n: word for n, word in self._words(found.row(i)).items() if n in moved}}
            for i in range(min(len(found), DRAWS_SHOWN))
        ]

    def _shares(self, found: Answer, attributes: Batch, moved: set[str]) -> dict[str, str]:
        """In how many draws a label is the one that is shown, where it is not in all."""
        counts = {
            name: int((found.drawn[name] == value[0]).sum())
            for name, value in attributes.items()
            if name in moved and self.graph[name].is_discrete
        }
        return {name: f"{count} of {len(found)}" for name, count in counts.items() if count < len(found)}

    def _readings(
        self, run: Explored, known: _Known, image: Tensor, attributes: Batch, moved: set[str]
    ) -> dict[str, Any]:
        if run.evaluator is None or known.read is None:
            return {}
        reads = readings(self.graph, known.read, read(run.evaluator, image), attributes, moved)
        return {name: one | {"quality": run.quality.get(name, "")} for name, one in reads.items()}

    def _coded(self, values: Mapping[str, Any]) -> dict[str, Tensor]:
        return {name: encode(self.graph[name], value, 1) for name, value in values.items()}

    def _decoded(self, exact: Exact) -> dict[str, Any]:
        return {name: decode(self.graph[name], exact.attributes[name])[0] for name in self.graph.attributes}

    def _words(self, values: Mapping[str, Any]) -> dict[str, str]:
        return {name: readable(self.graph[name], value) for name, value in values.items()}


def _exact(asked: "Future[Exact] | None") -> Exact | None:
    """The exact answer; None where the simulator has no such values, as the graph may allow more than it."""
    try:
        return asked.result() if asked else None
    except GraphError:
        return None


def packed(image: Tensor) -> dict[str, Any]:
    """An image `(C, H, W)` in [0, 1] in 8 bits: channels, height, width, and base64 of the bytes in this order.

    The browser draws these very levels: no picture format lies between.
    """
    return packed_levels((255 * image.detach().cpu().double()).round().clamp(0, 255).to(torch.uint8).numpy())


def packed_levels(levels: np.ndarray) -> dict[str, Any]:
    """Levels `uint8 (C, H, W)`, packed."""
    return {"shape": list(levels.shape), "data": base64.b64encode(levels.tobytes()).decode()}


def _error(effect: Tensor, exact: Exact | None) -> float | None:
    """The exact error of an effect image; None where it is not known, or the true effect is invisible."""
    if exact is None:
        return None
    error = float(relative_error(*error_norms(effect.cpu()[None], exact.effect[None]), effect.numel()))
    return error if error == error else None


def _size(change: Tensor) -> dict[str, float]:
    """Mean and largest absolute change, grey levels."""
    levels = 255 * change.abs()
    return {"mean": float(levels.mean()), "largest": float(levels.max())}
