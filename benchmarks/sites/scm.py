"""Exact errors of a causal model learned over 8 hospitals, against the same model with all films in one place.

    python benchmarks/sites/scm.py                 train what is left (about an hour), measure, write results.json

The error is `||made - exact|| / ||exact - factual||` of direct effects, mean over test subjects: over all, and by
the patients' sex, recorded race and site. `without_site` is the same model of a graph without the site, trained as
usual on all films. `exposure` is the mean brightness (grey levels) that do(race = black)
adds for white patients, made and exact: a model that lays a site's exposure to race adds more than is true.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from run import keep

import causalcxr
from causalcxr.config import Config, read_settings
from causalcxr.data.cohort import Cohort
from causalcxr.data.preparation import open_cohort
from causalcxr.federation.config import SitesConfig, shipped_studies
from causalcxr.federation.study import run_study
from causalcxr.metrics.exact import error_norms, relative_error
from causalcxr.metrics.intervals import mean_interval
from causalcxr.metrics.truth import find_truth
from causalcxr.randomness import Draws
from causalcxr.scm import StructuralCausalModel
from causalcxr.training import pipeline
from causalcxr.values import decode

ATTRIBUTES, GROUPS, AT_ONCE = ("sex", "race", "age", "finding"), ("sex", "race", "site"), 200
SUBJECTS = 2400  # of the test split, so that the smallest site has some eighty


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("settings", nargs="*")
    config = read_settings(SitesConfig, shipped_studies()["hospitals8"], parser.parse_args().settings)
    study = run_study(config)
    cohort = open_cohort(replace(config.data, test=SUBJECTS), study.opened.graph)
    found: dict[str, dict[str, Any]] = {}
    for strategy in config.strategies:
        folders = [study.opened.folder / each.job.name for each in study.of(strategy)]
        found[strategy] = average([measure(causalcxr.load(folder), cohort) for folder in folders])
    found["without_site"] = measure(causalcxr.load(train_without_site(config)), cohort)
    ratios = {strategy: compare(found["central"], found[strategy]) for strategy in config.strategies[1:]}
    result = {"seeds": config.seeds, "exact_error": found, "ratio_to_central": ratios}
    keep({"scm": result})
    for strategy, values in found.items():
        print(strategy, {name: round(values[name]["all"]["error"], 3) for name in ATTRIBUTES}, values["exposure"])
    print({strategy: max(ratio.values()) for strategy, ratio in ratios.items()})


def train_without_site(config: SitesConfig) -> Path:
    """The run folder of a model that does not know the site; as many steps as central has."""
    steps = config.rounds.image * config.data.train // config.train.image.batch_size
    image = replace(config.train.image, steps=steps, validate_every=steps)
    attributes = replace(config.train.attributes, steps=config.rounds.attributes * 31)
    train = replace(config.train, image=image, attributes=attributes)
    run = str(Path(config.run) / "without-site")
    return pipeline.train(Config(run=run, graph="chest", data=config.data, model=config.model, train=train))


@torch.no_grad()
def measure(scm: StructuralCausalModel, cohort: Cohort) -> dict[str, Any]:
    """Errors by attribute intervened on and by group of patients, one model."""
    rows, truth = cohort.split("test"), find_truth(cohort)
    assert truth is not None
    draws = Draws(0)
    do = {
        name: values[torch.randperm(len(rows), generator=draws.generator)]
        for name, values in rows.attributes.items()
    }
    errors: dict[str, list[torch.Tensor]] = {name: [] for name in ATTRIBUTES}
    brighter: list[torch.Tensor] = []
    for start in range(0, len(rows), AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, len(rows)))
        batch, ids = rows.batch(numbers), rows.ids[list(numbers)]
        factual, noise = truth.images(ids), scm.abduct(batch)
        seen = batch["image"].float() / 255
        for name in ATTRIBUTES:
            values = do[name][list(numbers)]
            made = scm.counterfactual(noise, do={name: values}, effect="direct")["image"]
            exact = truth.images(ids, {name: values}) - factual
            distance, size = error_norms(made - seen, exact)
            errors[name].append(relative_error(distance, size, exact[0].numel()))
        white = batch["race"] == 0
        made = scm.counterfactual(noise, do={"race": "black"}, effect="direct")["image"] - seen
        exact = truth.images(ids, {"race": "black"}) - factual
        brighter.append(255 * torch.stack([made[white].mean((1, 2, 3)), exact[white].mean((1, 2, 3))], dim=1))
    labels = {name: np.array([str(v) for v in decode(scm.graph[name], rows.attributes[name])]) for name in GROUPS}
    found: dict[str, Any] = {
        name: by_group(torch.cat(errors[name]).numpy(), labels, rows.patients) for name in ATTRIBUTES
    }
    means = torch.cat(brighter).mean(dim=0).tolist()
    return found | {"exposure": {"made": means[0], "exact": means[1]}}


def by_group(
    errors: np.ndarray, labels: dict[str, np.ndarray], patients: np.ndarray
) -> dict[str, dict[str, float]]:
    masks = {"all": np.ones(len(errors), dtype=bool)}
    masks |= {f"{name} = {label}": of == label for name, of in labels.items() for label in np.unique(of)}
    found = {}
    for name, mask in masks.items():
        interval = mean_interval(errors[mask], patients[mask])
        found[name] = {"error": interval.value, "low": interval.low, "high": interval.high, "n": interval.n}
    return found


def average(runs: Sequence[Any]) -> Any:
    """The mean over seeds of every number."""
    if isinstance(runs[0], dict):
        return {key: average([run[key] for run in runs]) for key in runs[0]}
    return float(np.mean(runs))


def compare(central: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Errors in units of central's, by attribute and group."""
    return {
        f"{name}, {group}": other[name][group]["error"] / central[name][group]["error"]
        for name in ATTRIBUTES
        for group in central[name]
    }


if __name__ == "__main__":
    main()
