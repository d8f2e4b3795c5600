"""The coordinator's side: takes every part of a model through its rounds, over whatever engine carries messages.

After every round its state is kept, so that a killed process goes on from there, bit for bit.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from causalcxr.building import ROLES
from causalcxr.federation.config import SitesConfig
from causalcxr.federation.learner import Visiting, visit_shape
from causalcxr.federation.messages import Message, size_of, weights_of
from causalcxr.federation.models import parts_of, settings_of
from causalcxr.federation.strategies import STRATEGIES, Plan, State, Trained, Visit, average, averages
from causalcxr.federation.worker import Worker
from causalcxr.runs import Run
from causalcxr.support.files import load_metadata, load_tensors, save_tensors
from causalcxr.support.progress import progress_bar

__all__ = ["Coordinator", "Engine", "History", "histories_of"]
ENOUGH = 100  # films from which a site's own regression on the parents counts


class Engine(Protocol):
    """Carries messages between the coordinator and the sites."""

    def ask(self, questions: Sequence[tuple[int, Message]]) -> Iterable[Message]:
        """Ask sites by number, each its own question and by itself; their answers in the same order."""
        ...

    def tell(self, message: Message) -> None:
        """Let every site take in a message, and the coordinator's own worker."""
        ...


@dataclass
class History:
    """What happened in a part: rounds done, visits and rows by site, bytes each way, losses by round."""

    rounds: int = 0
    visits: list[int] = field(default_factory=list)
    trained_rows: list[int] = field(default_factory=list)
    bytes_out: int = 0
    bytes_in: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    test: dict[str, float] = field(default_factory=dict)


@dataclass
class Coordinator:
    """Trains all parts of one run by one strategy, `worker.run` being its folder.

    `sizes`: training films of every site that there is. Those that are asked are all of them; `central` has one
    place with all films, and `local` one site. `shares`: films by label of the site's attribute, if there is one.
    Every part leaves its last state and its History in the run's state folder.
    """

    worker: Worker
    engine: Engine
    config: SitesConfig
    strategy: str
    sizes: Sequence[int]
    shares: Sequence[float] = ()

    @property
    def rows(self) -> list[int]:
        """Training films of those that are asked."""
        return [sum(self.sizes)] if self.strategy == "central" else list(self.sizes)

    def train(self) -> None:
        """All parts; those that are done are taken from the run's state folder."""
        for part in parts_of(self.worker.run.config):
            self._train_part(part)
        self.engine.tell(Message("save", ""))

    def _train_part(self, part: str) -> None:
        path = self.worker.run.state / f"{part}.safetensors"
        if path.exists():
            state, about = load_tensors(path)
            history, done, facts = History(**about["history"]), about["done"], about["facts"]
        else:
            facts, state = self._prepared(part)
            history, done = History(visits=[0] * len(self.rows), trained_rows=[0] * len(self.rows)), False
        self.engine.tell(Message("begin", part, facts))
        state = state or self.worker.state()
        if not done:
            state = self._train_rounds(part, state, history, facts, path)
        law = {"site_shares": list(self.shares)} if part == "attributes" and self.shares else {}
        self.engine.tell(Message("keep", part, law, state))

    def _prepared(self, part: str) -> tuple[dict[str, Any], State]:
        """What every site must know to begin, and the state to begin with where it is solved for.

        What is found are buffers of the model, and travel as weights do. Templates, which are regressions, are
        averaged over the sites with films enough; what has no mean is solved for at the site with most films.
        """
        facts: dict[str, Any] = {"rounds": getattr(self.config.rounds, settings_of(part))}
        if part in ("image", "outputs"):
            largest = max(range(len(self.rows)), key=lambda site: self.rows[site])
            enough = [site for site in range(len(self.rows)) if self.rows[site] >= ENOUGH] or [largest]
            template = self._templates(enough) if part == "image" else {}
            (answer,) = self.engine.ask([(largest, Message("prepare", part, state=template))])
            return {**facts, **answer.facts}, answer.state
        if part == "finetune":
            answers = [a.facts for a in self._ask_all(Message("bound", part))]
            facts["bound"] = _mean([(a["loss"], a["rows"]) for a in answers])
            facts["bounds"] = [a["loss"] for a in answers]  # every site's own, to which its films are held
        return facts, {}

    def _templates(self, sites: Sequence[int]) -> State:
        answers = self.engine.ask([(site, Message("template", "image")) for site in sites])
        return average((answer.state, answer.facts["rows"]) for answer in answers)

    def _train_rounds(
        self, part: str, state: State, history: History, facts: Mapping[str, Any], path: Path
    ) -> State:
        rounds, every, seed = facts["rounds"], self.config.validate_every, self.worker.run.config.train.seed
        plan = Plan(self.rows, seed, rounds, self.config.weighted, self.config.enough)
        # central and local are one model that travels to one place
        strategy = self.strategy if self.strategy in STRATEGIES else "travelling"
        shapes = self._shapes(part)

        def save(done: bool) -> None:
            save_tensors(path, state, {"history": asdict(history), "done": done, "facts": dict(facts)})

        with progress_bar(f"{self.worker.run.folder.name} {part}", rounds, history.rounds) as advance:
            for round_ in range(history.rounds, rounds):
                visit = self._visit(part, history, shapes, averages(strategy, plan, round_), facts.get("bounds"))
                state = STRATEGIES[strategy](visit, state, plan, round_)
                history.rounds, shown = round_ + 1, ""
                if (round_ + 1) % every == 0 or round_ + 1 == rounds:
                    losses = self._losses(part, state, "val")
                    history.curve.append({"round": round_ + 1, "losses": losses})
                    shown = " ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
                save(done=False)
                advance(shown)
        state = self._finished(part, state)
        history.test = self._losses(part, state, "test")
        save(done=True)
        return state

    def _shapes(self, part: str) -> list[tuple[int, int]]:
        """Steps and rows of a step of every visit; `central` takes as many steps as all sites together."""
        batch = self.worker.models.settings(part).batch_size
        shapes = [visit_shape(n, batch, self.config.epochs, self.config.steps) for n in self.sizes]
        if self.strategy != "central":
            return shapes
        steps = sum(steps for steps, _ in shapes)
        return [(steps, max(1, round(sum(steps * rows for steps, rows in shapes) / steps)))]

    def _visit(
        self,
        part: str,
        history: History,
        shapes: Sequence[tuple[int, int]],
        averaged: bool,
        bounds: Sequence[float] | None,
    ) -> Visit:
        total = sum(steps for steps, _ in shapes)
        mu = self.config.mu if self.strategy == "fedprox" else 0.0

        def visit(sites: Sequence[int], state: State, round_: int) -> Iterator[Trained]:
            questions = []
            for site in sites:
                steps, batch = shapes[site]
                bound = None if bounds is None else bounds[site]
                facts = asdict(Visiting(round_, steps, batch, mu, averaged, steps / total, bound))
                questions.append((site, Message("visit", part, facts, state)))
            for site, answer in zip(sites, self.engine.ask(questions), strict=True):
                history.visits[site] += 1
                history.trained_rows[site] += answer.facts["rows"] and shapes[site][0] * shapes[site][1]
                history.bytes_out += size_of(state)
                history.bytes_in += size_of(answer.state)
                yield Trained(answer.state, answer.facts["rows"])

        return visit

    def _losses(self, part: str, state: State, split: str) -> dict[str, float]:
        """Mean over all sites' rows, which every site measures on its own."""
        weights = weights_of(state)
        answers = [
            a.facts for a in self._ask_all(Message("losses", part, {"split": split}, weights)) if a.facts["rows"]
        ]
        names = answers[0]["losses"] if answers else {}
        return {name: _mean([(a["losses"][name], a["rows"]) for a in answers]) for name in names}

    def _finished(self, part: str, state: State) -> State:
        """Without moments, and of a predictor calibrated: the mean of what every site finds on its own."""
        weights = weights_of(state)
        if part in ROLES:
            answers = self._ask_all(Message("calibrate", part, {}, weights))
            weights |= average((a.state, a.facts["rows"]) for a in answers if a.facts["rows"])
        return weights

    def _ask_all(self, message: Message) -> list[Message]:
        return list(self.engine.ask([(site, message) for site in range(len(self.rows))]))


def histories_of(run: Run) -> dict[str, History]:
    """What happened in every part of a run."""
    metadata = {part: load_metadata(run.state / f"{part}.safetensors") for part in parts_of(run.config)}
    return {part: History(**about["history"]) for part, about in metadata.items()}


def _mean(pairs: Sequence[tuple[float, int]]) -> float:
    return sum(value * rows for value, rows in pairs) / sum(rows for _, rows in pairs)
