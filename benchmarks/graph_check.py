"""How often `causalcxr graph check` contradicts a graph that is right, and whether it names a missing edge.

    python benchmarks/graph_check.py                 200 repeats of each, into results/graph_check.json

Every repeat simulates another cohort's attributes and fits every mechanism as training does. Killed, the same
command goes on with the repeats that are left.
"""

import argparse
import json
import logging
import math
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from causalcxr.check.check import LEVEL, check_graph
from causalcxr.graph import load_graph
from causalcxr.support.files import write_json
from causalcxr.support.progress import progress_bar

RESULTS = Path(__file__).parent / "results" / "graph_check.json"
EDGE = ("age", "finding")  # taken out of the graph to see whether it is missed
COHORT = [
    *("data.source=simulator", "data.train=4000", "data.val=500", "data.test=2000"),
    *("train.threads=1", "train.attributes.steps=1000"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    logging.disable(logging.INFO)
    begun = time.process_time()
    results = json.loads(options.out.read_text()) if options.out.exists() else {"cohort": COHORT, "repeats": []}
    with (
        TemporaryDirectory() as folder,
        progress_bar("graph check", options.repeats, len(results["repeats"])) as bar,
    ):
        without = graph_without(EDGE, Path(folder))
        for seed in range(len(results["repeats"]), options.repeats):
            results["repeats"].append(one_cohort(seed, without))
            write_json(options.out, results | summary(results["repeats"]))
            bar("")
    sys.stdout.write(json.dumps(summary(results["repeats"]), indent=2) + "\n")
    sys.stdout.write(f"{time.process_time() - begun:.0f} processor seconds\n")


def graph_without(edge: tuple[str, str], folder: Path) -> str:
    """The graph `chest` with one edge less, as a file."""
    cause, effect = edge
    graph = load_graph("chest").to_dict()
    graph["variables"][effect]["parents"].remove(cause)
    path = folder / "without.yaml"
    path.write_text(yaml.safe_dump(graph, sort_keys=False))
    return str(path)


def one_cohort(seed: int, without: str) -> dict[str, object]:
    """What the check says of the right graph, and which edges it wants in the other one."""
    cohort = [*COHORT, f"data.seed={seed}", f"train.seed={seed}"]
    right, wrong = check_graph("chest", cohort), check_graph(without, cohort)
    fitted = [one for one in right.mechanisms if one.adjusted <= LEVEL]
    return {
        "contradicted": right.contradicted,
        "mechanisms": [one.variable for one in fitted],
        "smallest_p": min(one.adjusted for one in [*right.independences, *right.mechanisms]),
        "named": [[claim.earlier, claim.later] for claim in wrong.missing],
    }


def summary(repeats: list[dict]) -> dict[str, object]:
    """Counts, and the 95 % interval (Wilson) of the share of cohorts in which the right graph is contradicted."""
    n, complaints = len(repeats), sum(one["contradicted"] for one in repeats)
    return {
        "n": n,
        "contradicted": complaints,
        "contradicted_share": wilson(complaints, n),
        "by_a_mechanism": sum(bool(one["mechanisms"]) for one in repeats),
        "edge_named": sum(list(EDGE) in one["named"] for one in repeats),
        "only_that_edge_named": sum(one["named"] == [list(EDGE)] for one in repeats),
    }


def wilson(k: int, n: int) -> dict[str, float]:
    """A share with its 95 % interval."""
    z = 1.959964
    middle, half = (k + z * z / 2) / (n + z * z), z * math.sqrt(k * (n - k) / n + z * z / 4) / (n + z * z)
    return {"value": k / n, "low": middle - half, "high": middle + half}


if __name__ == "__main__":
    main()
