"""Sums up what `synthetic.py` and `truth.py` have found, in results.json beside this file.

python benchmarks/audit/summary.py              level, power, and effects against the truth
python benchmarks/audit/summary.py --speed      also times the images of an audit (benchmarks/speed.py)
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from synthetic import RESULTS, TESTS
from truth import summary as of_run

from causalcxr.support.files import write_json


def summed_up(results: dict[str, Any]) -> dict[str, Any]:
    """Rejections by test, rows and kind; power; correlation and coverage by attribute; invariant classifiers."""
    cells = results.get("synthetic", {})
    level: dict[str, Any] = {}
    for key, cell in cells.items():
        what, *place = key.split("/")
        if what == "level":
            kind, n = place
            for test in TESTS:
                level.setdefault(test, {}).setdefault(n, {})[kind] = cell[test]
    power = {test: cells["power/1000"][test] for test in TESTS} if "power/1000" in cells else {}
    runs = [of_run(lines) for lines in results.get("classifiers", {}).values()]
    found: dict[str, Any] = {"level": level, "power": power}
    if runs:
        keys = ("spearman", "spearman_of_checked", "coverage", "coverage_of_shift", "slope", "n")
        found["truth"] = {
            name: {key: float(np.mean([run[name][key] for run in runs])) for key in keys}
            | {"spearman_by_run": [run[name]["spearman"] for run in runs]}
            for name in ("race", "sex", "age")
        }
        words: dict[str, int] = {}
        for run in runs:
            for word, count in run["invariant"].items():
                words[word] = words.get(word, 0) + count
        found["invariant"] = words
        found["invariant_flagged"] = words.get("dependence", 0) / sum(words.values())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--speed", action="store_true", help="time the images of an audit")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text())
    results |= summed_up(results)
    if options.speed:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from speed import audit_images

        results["speed"] = audit_images()
        results["speed_ratio"] = results["speed"]["ratio"]
    write_json(RESULTS, results)
    shown = {key: results[key] for key in ("level", "power", "truth", "invariant", "speed") if key in results}
    sys.stdout.write(json.dumps(shown, indent=2) + "\n")


if __name__ == "__main__":
    main()
