"""Answers the page's questions: every run abducts a patient once, and each question costs it one decoder pass."""

import base64
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from causalcxr.answers import Answer, abduct_patient, answer_abducted
from causalcxr.explorer.patients import Patients, nearness_text
from causalcxr.explorer.python_lines import python_lines
from causalcxr.explorer.question import Question, parse_question
from causalcxr.explorer.readings import read, readings
from causalcxr.graph import Graph
from causalcxr.mechanisms.likelihood import image_to_float
from causalcxr.metrics.exact import error_norms, relative_error
from causalcxr.metrics.truth import Truth, find_truth
from causalcxr.predictors.predictor import Prediction, Predictor
from causalcxr.scm import Abduction, StructuralCausalModel
from causalcxr.values import Batch, decode, encode, readable

__all__ = ["DRAWS_SHOWN", "Explored", "Explorer", "packed"]

REMEMBERED = 256  # abducted patients of all runs; an uploaded film is never among them
DRAWS_SHOWN = 4  # of several draws, beside their mean


@dataclass(frozen=True)
class Explored:
    """A run that the page shows. `evaluator` is None where the run has none."""

    name: str
    folder: Path
    scm: StructuralCausalModel
    evaluator: Predictor | None


@dataclass(frozen=True)
class _Known:
    """What does not change while a patient's attributes are moved."""

    abduction: Abduction
    factual: Tensor  # (C, H, W) in [0, 1]
    null: Tensor  # (C, H, W): the mean image that the patient's own attributes make of the abducted noise
    read: Prediction | None


class Explorer:
    """Several runs of one graph on the patients of one split, and the truth where it is known."""

    def __init__(self, runs: Sequence[Explored], patients: Patients):
        self.runs, self.patients = list(runs), patients
        self.graph: Graph = self.runs[0].scm.graph
        self.truth: Truth | None = find_truth(patients.cohort)
        self._remembered = lru_cache(REMEMBERED)(self._know_row)
        self._true_factual = lru_cache(REMEMBERED)(lambda row: self._exact_image(row, {}, "direct"))
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
        """The answer of every run, and the exact one, as JSON; images are packed (see `packed`)."""
        with self._lock:  # one at a time: torch uses all cores for one
            asked = self._beside.submit(self._exact, question) if self.truth and question.row is not None else None
            known = [self._know(i, question) for i in range(len(self.runs))]
            found = [
                answer_abducted(run.scm, one.abduction, question.do, question.effect)
                for run, one in zip(self.runs, known, strict=True)
            ]
            moved = self._moved(question)
            exact = asked.result() if asked is not None else None
            shown = [self._shown(*of, question, moved, exact) for of in zip(self.runs, known, found, strict=True)]
            near = self.patients.near(_attributes(found[0]))
        return {
            "question": question.settings(),
            "factual": {"image": packed(known[0].factual), "attributes": self._words(found[0].row())},
            "exact": exact and {key: exact[key] for key in ("image", "attributes")},
            "runs": shown,
            "moved": sorted(moved),
            "near": near,
            "warning": nearness_text(self.graph, near),
            "python": python_lines(
                question, {run.name: run.folder for run in self.runs}, self.patients.split.name
            ),
        }

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
        abduction = abduct_patient(scm, film, given, draws, seed, pixel_noise)
        null = scm.image_mechanism(abduction.noise[scm.image_mechanism.variable.name], abduction.factual).mean(0)
        factual = image_to_float(film.to(scm.device), scm.dtype)
        return _Known(abduction, factual, null, None if evaluator is None else read(evaluator, factual))

    def _moved(self, question: Question) -> set[str]:
        """The attributes that are intervened on, and those that follow by this effect."""
        follow = set() if question.effect == "direct" else set(self.graph.descendants(*question.do))
        return (set(question.do) | follow) & set(self.graph.attributes)

    def _shown(
        self,
        run: Explored,
        known: _Known,
        found: Answer,
        question: Question,
        moved: set[str],
        exact: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        image, draws = found.image, found.drawn[run.scm.image_mechanism.variable.name]
        shown = {
            "name": run.name,
            "image": packed(image),
            "draws": [packed(draw) for draw in draws[:DRAWS_SHOWN]] if len(draws) > 1 else [],
            "attributes": self._words(found.attributes),
            "change": _size(image - known.factual),
            "null": {"image": packed(known.null), "change": _size(known.null - known.factual)},
            "spread": found.spread if len(draws) > 1 else None,
            "reads": {},
            "error": None,
        }
        if exact is not None:
            norms = error_norms((image - known.factual).cpu()[None], exact["effect"][None])
            error = float(relative_error(*norms, image.numel()))
            shown["error"] = error if error == error else None
        if run.evaluator is not None and known.read is not None:
            now = read(run.evaluator, image)
            shown["reads"] = readings(self.graph, known.read, now, _attributes(found), moved)
        return shown

    def _exact(self, question: Question) -> dict[str, Any]:
        """What the simulator says of the patient; direct and indirect effects change the same attributes."""
        assert self.truth is not None and question.row is not None
        image = self._exact_image(question.row, question.do, question.effect)
        ids = self._ids(question.row)
        factual, followed = self.truth.attributes(ids), self.truth.attributes(ids, question.do)
        after = {"total": followed, "direct": factual | _pick(followed, question.do)}.get(
            question.effect, followed | _pick(factual, question.do)
        )
        words = {name: decode(self.graph[name], after[name])[0] for name in self.graph.attributes}
        effect = image - self._true_factual(question.row)
        return {"effect": effect, "image": packed(image), "attributes": self._words(words)}

    def _exact_image(self, row: int, do: Mapping[str, Any], effect: str) -> Tensor:
        assert self.truth is not None
        return self.truth.images(self._ids(row), do, effect)[0]

    def _ids(self, row: int) -> Tensor:
        return torch.tensor([int(self.patients.split.ids[row])])

    def _words(self, values: Mapping[str, Any]) -> dict[str, str]:
        return {name: readable(self.graph[name], value) for name, value in values.items()}


def packed(image: Tensor) -> dict[str, Any]:
    """An image `(C, H, W)` in [0, 1] in 8 bits: channels, height, width, and base64 of the bytes in this order.

    The browser draws these very levels: no picture format lies between.
    """
    levels = (255 * image.detach().cpu().double()).round().clamp(0, 255).to(torch.uint8).numpy()
    return {"shape": list(levels.shape), "data": base64.b64encode(levels.tobytes()).decode()}


def _attributes(found: Answer) -> Batch:
    """The counterfactual's attributes as the page words them, `(1,)` each."""
    return {name: encode(found.scm.graph[name], value, 1) for name, value in found.attributes.items()}


def _pick(values: Batch, names: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: values[name] for name in names}


def _size(change: Tensor) -> dict[str, float]:
    """Mean and largest absolute change, grey levels."""
    levels = 255 * change.abs()
    return {"mean": float(levels.mean()), "largest": float(levels.max())}
