"""Exact error of what parents alone predict of a change, beside that of the whole model.

    python benchmarks/template.py runs/demo

`brightness`: the template's effects added to the factual film. `movement`: the factual film moved by its fields.
`both`: moved, and then made brighter. `model`: one counterfactual of the run. Direct effects of drawn other values
on test subjects; sums of norms, as `exact/model/A/error`. The run needs a model with a template.
"""

import argparse
import json
import sys

import torch
from finding_direction import error

import causalcxr
from causalcxr.data.preparation import open_cohort
from causalcxr.interventions import draw_other_values
from causalcxr.metrics.truth import find_truth
from causalcxr.runs import open_run


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--rows", type=int, default=500)
    options = parser.parse_args()
    run, scm = open_run(options.run), causalcxr.load(options.run)
    cohort = open_cohort(run.config.data, run.graph)
    test, truth, template = cohort.split("test"), find_truth(cohort), scm.image_mechanism.template
    if truth is None or not template.of:
        parser.error(f"'{options.run}' is no run of simulated X-rays with parents in model.template.of")
    rows = range(min(options.rows, len(test)))
    abduction = scm.abduct(test.batch(rows), seed=0)
    factual, ids = abduction.factual, test.ids[: len(rows)]
    image, before = factual["image"], scm.image_mechanism.parent_encoder(factual)
    drawn, results = draw_other_values(run.graph, factual, cohort.split("train").attributes, 0), {}
    for name in run.graph["image"].parents:
        do = {name: drawn[name]}
        after = scm.image_mechanism.parent_encoder({**factual, **do})
        moved = template.carry(image, before, after)
        brighter = template.warp(template(after) - template(before), after)
        answers = {"brightness": image + brighter, "movement": moved, "both": moved + brighter}
        answers["model"] = scm.counterfactual(abduction, do, effect="direct")["image"]
        exact = truth.images(ids, do) - truth.images(ids)
        results[name] = {who: error(made.clamp(0, 1) - image, exact) for who, made in answers.items()}
    sys.stdout.write(json.dumps({"n": len(rows), "error": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
