"""How much of an attribute every eraser leaves: a toy with known answers, simulated X-rays, and NIH films.

    python benchmarks/debias/run.py toy                              a few minutes a seed
    python benchmarks/debias/run.py simulated --runs runs/demo0-counterfactual runs/demo1-counterfactual ...
    python benchmarks/debias/run.py nih                              films in CAUSALCXR_DATA
    python benchmarks/debias/run.py stream                           LEACE on a million rows, beside its peer

Three seeds of everything that is drawn or trained. `simulated`: a classifier of the finding with 64 features is
trained on the run's training subjects, and embeds 8,000 others; counterfactuals are exact ones of the simulator,
and those of the runs' models, one run a seed. Each part writes its key of results.json.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from stream import measure_stream
from toy import draw

from causalcxr.building import open_graph
from causalcxr.config import Config, load_config
from causalcxr.data.cohort import Cohort, Split
from causalcxr.data.preparation import open_cohort
from causalcxr.debias.embedding import counterfactual_embeddings, embed_split, values_to_average
from causalcxr.debias.errors import EmbeddingsError
from causalcxr.debias.parts import split_patients
from causalcxr.debias.protocol import RAW, Measured, Subject, accuracy_at_budget, floors, measure
from causalcxr.debias.registry import make_eraser
from causalcxr.debias.tables import Embedded
from causalcxr.graph import Variable
from causalcxr.metrics.exact import error_norms, relative_error
from causalcxr.metrics.intervals import seed_interval
from causalcxr.metrics.truth import find_truth
from causalcxr.predictors.networks import PredictorConfig
from causalcxr.predictors.predictor import NetworkPredictor
from causalcxr.randomness import seeded
from causalcxr.runs import load, open_run
from causalcxr.support.files import write_json
from causalcxr.training.config import StageConfig
from causalcxr.training.loop import Fit
from causalcxr.training.objectives import PredictorObjective
from causalcxr.training.pipeline import launch
from causalcxr.values import decode

HERE = Path(__file__).parent
ALONE = ("leace", "splince", "transport", "residual", "independence", "published", "noise")
BY_PAIRS = ("counterfactual", "counterfactual+leace", "counterfactual+independence", "distilled", "span")
SUBJECTS, ERASED, KEPT = 8000, ("sex", "race"), "finding"
NETWORK = PredictorConfig(widths=[16, 32, 32])  # 64 features
CLASSIFIER = StageConfig(steps=700, batch_size=64, clip_norm=5, validate_every=350)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["toy", "simulated", "nih", "stream"])
    parser.add_argument("--runs", type=Path, nargs="+", default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/debias"))
    options = parser.parse_args()
    if options.what == "stream":
        keep({"stream": measure_stream()})
        return
    makers = {"toy": toy, "nih": nih, "simulated": lambda seed: simulated(options.runs[seed], seed)}
    found = [
        once(options.folder / f"{options.what}-{seed}.json", makers[options.what], seed) for seed in options.seeds
    ]
    keep({options.what: over_seeds([one["erasers"] for one in found])})
    keep({"floor": {options.what: over_seeds([one["floor"] for one in found])}})
    if options.what == "simulated":
        keep({"exact_error": over_seeds([one["exact_error"] for one in found])})


def once(path: Path, make: Callable[[int], dict[str, Any]], seed: int) -> dict[str, Any]:
    """What a seed gave, measured if it is not there."""
    if not path.exists():
        write_json(path, make(seed))
    return json.loads(path.read_text())


def toy(seed: int) -> dict[str, Any]:
    """All erasers on the toy; its counterfactuals are exact."""
    of = draw(seed=seed)
    rows = embedded(of.z, {"sex": words(of.sex)}, {"finding": words(of.disease)}, of.pairs)
    return measured(rows, dict.fromkeys((*ALONE, *BY_PAIRS), rows), seed)


def simulated(run: Path, seed: int) -> dict[str, Any]:
    """All erasers on embeddings of simulated films; counterfactuals are the simulator's, and the run's model's."""
    opened = open_run(run)
    cohort = open_cohort(replace(opened.config.data, test=SUBJECTS), opened.graph)
    test, truth = cohort.split("test"), find_truth(cohort)
    assert truth is not None
    network = classifier(opened.config, cohort, opened.graph[KEPT], cohort.split("train"), seed)
    values = values_to_average(opened.graph, ERASED, cohort.split("train").attributes)
    exact = counterfactual_embeddings(None, test, network, values, truth)
    scm = load(run)
    learnt = counterfactual_embeddings(scm, test, network, values)
    columns = {name: np.array(decode(opened.graph[name], test.attributes[name])) for name in (*ERASED, KEPT)}
    erase, kept = {name: columns[name] for name in ERASED}, {KEPT: columns[KEPT]}
    z = embed_split(network, test)
    by_truth, by_model = embedded(z, erase, kept, exact), embedded(z, erase, kept, learnt)
    subjects = dict.fromkeys((*ALONE, *BY_PAIRS), by_model)
    subjects |= {f"{name}_exact": by_truth for name in ("counterfactual", "distilled", "span")}
    found = measured(by_model, subjects, seed)
    return found | {"exact_error": {name: exact_error(scm, test, name) for name in ERASED}}


def exact_error(scm: Any, split: Split, name: str, rows: int = 300) -> float:
    """Of do(name = another value), mean over some subjects: 0 is exact, 1 is doing nothing."""
    truth, numbers = find_truth(split.cohort), np.arange(rows)
    assert truth is not None
    batch, ids = split.batch(numbers), split.ids[numbers]
    values = (batch[name] + 1) % len(scm.graph[name].labels)
    made = scm.counterfactual(scm.abduct(batch), do={name: values}, effect="direct")["image"]
    exact = truth.images(ids, {name: values}) - truth.images(ids)
    distance, size = error_norms(made - batch["image"].float() / 255, exact)
    return float(relative_error(distance, size, exact[0].numel()).nanmean())


def nih(seed: int) -> dict[str, Any]:
    """Erasers of sex and age on embeddings of real films; half of the patients train the network that embeds."""
    config, graph = open_graph(load_config(["preset=real_cxr"]))
    cohort = open_cohort(config.data, graph)
    everyone = Split(cohort, "all", np.arange(len(cohort.manifest)))
    patients = np.unique(everyone.patients)
    learning = np.random.default_rng(seed).permutation(patients)[: len(patients) // 2]
    taken = np.isin(everyone.patients, learning)
    network = classifier(config, cohort, graph[KEPT], everyone.subset(np.flatnonzero(taken)), seed)
    rest = everyone.subset(np.flatnonzero(~taken))
    columns = {name: np.array(decode(graph[name], rest.attributes[name])) for name in ("sex", "age", KEPT)}
    erase = {"sex": columns["sex"], "age": columns["age"].astype(float)}
    ids = np.arange(len(rest)).astype(str)
    rows = Embedded(embed_split(network, rest), ids, rest.patients, erase, {KEPT: columns[KEPT]}, None, None, {})
    return measured(rows, dict.fromkeys(ALONE, rows), seed)


def classifier(config: Config, cohort: Cohort, variable: Variable, rows: Split, seed: int) -> NetworkPredictor:
    """A small network that reads the finding from films."""
    assert cohort.graph.image is not None
    with seeded(seed), TemporaryDirectory() as folder:
        network = NetworkPredictor([variable], NETWORK, cohort.graph[cohort.graph.image].channels)
        network.fit_scaling(rows.attributes)
        train = replace(config.train, seed=seed, device="cpu")
        objective, fabric = PredictorObjective(network, cohort.graph.image), launch(train)
        part = Fit(
            "predictor", objective, rows, cohort.split("val"), CLASSIFIER, train, fabric, Path(folder), ignore
        )
        part.run()
    return network.eval()


def ignore(line: Any) -> None:
    """What training says of its steps."""


def embedded(z: np.ndarray, erase: dict[str, Any], kept: dict[str, Any], pairs: np.ndarray | None) -> Embedded:
    ids = np.arange(len(z)).astype(str)
    return Embedded(z, ids, ids, erase, kept, None, pairs, {})


def measured(rows: Embedded, by_name: dict[str, Embedded], seed: int) -> dict[str, Any]:
    """All erasers of one seed, each on its rows (the same but for the pairs)."""
    parts = split_patients(rows.patients, seed)
    subject = Subject(rows, parts, seed)
    raw = measure(subject, None, more=False)
    found = {RAW: facts(raw, accuracy_at_budget(subject, None, 0.0, raw))}
    budget = 0.0
    for name, of in by_name.items():
        subject = Subject(of, parts, seed)
        try:
            eraser = subject.fit(make_eraser(name.removesuffix("_exact")))
        except EmbeddingsError as refusal:
            print(seed, name, "refused:", refusal, flush=True)
            continue
        one = measure(subject, eraser, more=False)
        budget = one.edit if name == "leace" else budget
        found[name] = facts(one, accuracy_at_budget(subject, eraser, budget, one))
        print(seed, name, json.dumps(found[name]), flush=True)
    return {"erasers": found, "floor": {name: of.value for name, of in floors(subject).items()}}


def facts(one: Measured, accuracy: dict[str, float]) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: {probe: interval.value for probe, interval in of.items()} for name, of in one.leak.items()
    }
    found |= {name: of["linear"].value for name, of in one.utility.items()}
    found |= {f"{name}_in_sample": value for name, value in one.in_sample.items()}
    found["edit"] = one.edit
    return found | {f"{name}_rbf_accuracy_at_budget": value for name, value in accuracy.items()}


def over_seeds(found: list[Any]) -> Any:
    """Every number as its mean over seeds with Student's interval."""
    if isinstance(found[0], dict):
        every = [key for key in found[0] if all(key in one for one in found)]  # an eraser may be refused
        return {key: over_seeds([one[key] for one in found]) for key in every}
    interval = seed_interval(found)
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def words(values: np.ndarray) -> np.ndarray:
    return np.where(values == 1, "yes", "no")


def keep(found: dict[str, Any]) -> None:
    """Into results.json, beside what other parts measured."""
    path = HERE / "results.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    for key, value in found.items():
        known[key] = {**known.get(key, {}), **value} if key == "floor" else value
    path.write_text(json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    main()
