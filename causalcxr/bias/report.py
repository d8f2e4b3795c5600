"""Writes a study down: report.html, study.json, and scores.csv for other tools."""

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalcxr.bias.bayes import optimum
from causalcxr.bias.gaps import DEFINITIONS
from causalcxr.bias.grid import Bias, all_biases, all_networks, twin_of
from causalcxr.bias.pictures import examples, gaps_by_q, heat_map, layers, mitigation
from causalcxr.bias.study import Cell, Study
from causalcxr.config import to_yaml
from causalcxr.metrics.intervals import seed_interval
from causalcxr.report.figures import save_png
from causalcxr.support.files import load_tensors, write_atomically, write_json
from causalcxr.support.html import interval_text, page_template

__all__ = ["as_json", "conclusions", "write_report"]


def write_report(study: Study) -> Path:
    """Write everything into the study's folder; returns the report's path."""
    folder = study.opened.folder
    drawn = {
        "examples": examples(study),
        "heat_map": heat_map(study, "index" if _has_index(study) else "gap"),
        "gaps": gaps_by_q(study),
        "layers": layers(study),
        "mitigation": mitigation(study),
    }
    paths = {name: folder / "figures" / f"{name}.png" for name, figure in drawn.items() if figure is not None}
    for name, path in paths.items():
        figure = drawn[name]
        assert figure is not None
        save_png(figure, path)
    write_json(folder / "study.json", as_json(study))
    write_atomically(folder / "scores.csv", _score_table(study).to_csv(index=False))
    page = page_template("causalcxr.bias", "report.html.j2").render(
        **_shown(study), figures=paths, date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    )
    write_atomically(folder / "report.html", page)
    return folder / "report.html"


def as_json(study: Study) -> dict[str, Any]:
    """All numbers, under names that say what they are."""
    films, config = study.opened.films, study.opened.config
    return {
        "definitions": DEFINITIONS,
        "subjects": {split: len(films.rows(split)) for split in ("train", "val", "test")},
        "seeds": config.seeds,
        "bayes": {f"{q:g}": _bayes(q) for q in config.q} if study.opened.has_bayes else None,
        "cells": [_cell_json(cell) for cell in study.cells],
        "parts": [asdict(part) for part in study.parts],
        "layers": study.layers,
        "saliency": study.saliency,
        "networks": len(all_networks(config)),
        "training_seconds": study.seconds,
    }


def _has_index(study: Study) -> bool:
    return study.opened.has_bayes and any(q > 0.5 for q in study.opened.config.q)


def _bayes(q: float) -> dict[str, float]:
    best = optimum(q)
    return vars(best) | {"gap": best.gap}


def _cell_json(cell: Cell) -> dict[str, Any]:
    found = cell.measured
    return {
        "bias": cell.bias.kind,
        "strength": cell.bias.strength,
        "q": cell.q,
        "method": cell.method,
        "statistics": {name: vars(interval) for name, interval in found.statistics.items()},
        "by_seed": found.by_seed,
        "auroc": found.auroc,
        "twin_auroc": found.twin_auroc,
    }


def _score_table(study: Study) -> pd.DataFrame:
    """A row for each network and test subject; scores are log-odds, above 0 positive.

    `score_a`, `score_b`: under do(group = A) and do(group = B), `score`: that of the subject's own group,
    `score_twin`: the twin's.
    """
    films, opened = study.opened.films, study.opened
    test, blocks = films.rows("test"), []
    for network in all_networks(opened.config):
        if network.is_twin:
            continue
        places = [opened.place(of) / "scores.safetensors" for of in (network, twin_of(network))]
        own, twin = (load_tensors(place)[0] for place in places)
        in_b = films.group(network.q)[test]
        under_a, under_b = own["plain"].numpy(), own[f"biased/{network.bias.name}"].numpy()
        table: dict[str, Any] = {"kind": network.bias.kind, "strength": network.bias.strength, "q": network.q}
        table |= {"method": network.method, "seed": network.seed}
        table |= {"row": films.ids[test], "patient_id": films.patients[test]}
        table |= {"y_true": films.finding[test].astype(int), "group": np.where(in_b, "B", "A")}
        table |= {"score": np.where(in_b, under_b, under_a), "score_a": under_a, "score_b": under_b}
        blocks.append(pd.DataFrame(table | {"score_twin": twin["plain"].numpy()}))
    return pd.concat(blocks)


def _shown(study: Study) -> dict[str, Any]:
    """What the page shows."""
    opened, config = study.opened, study.opened.config
    plain = [cell for cell in study.cells if cell.method == "none"]
    methods = ("none", *config.mitigate)
    main = "index" if _has_index(study) else "gap"
    mitigated = [
        {
            "bias": bias.name,
            "q": q,
            "main": "index" if main == "index" and opened.best_known(bias) and q > 0.5 else "gap",
            "rows": [_method_row(study, bias, q, method) for method in methods],
        }
        for bias in all_biases(config)
        for q in config.mitigated_q
        if config.mitigate
    ]
    names = ("gap", "tpr_gap", "fpr_gap", "index", "attainable_index", "pair_gap", "pair_shift", "accuracy")
    return {
        "title": opened.folder.name,
        "conclusions": conclusions(study),
        "has_bayes": opened.has_bayes,
        "simulated": opened.cohort.source.get("source") == "simulator",
        "kinds": {kind: _channels(channels) for kind, channels in config.plant.items()},
        "cells": [
            {"bias": c.bias.name, "q": c.q, "auroc": c.measured.auroc}
            | {"best": _bayes(c.q) if opened.best_known(c.bias) else {}}
            | {n: _interval(c, n) for n in names}
            for c in plain
        ],
        "twin": {
            "accuracy": vars(plain[0].measured.statistics["twin_accuracy"]),
            "auroc": plain[0].measured.twin_auroc,
            "gaps": {f"{q:g}": _interval(next(c for c in plain if c.q == q), "twin_gap") for q in config.q},
        },
        "mitigated": mitigated,
        "parts": [asdict(part) for part in study.parts],
        "main": main,
        "saliency": study.saliency,
        "definitions": DEFINITIONS,
        "subjects": {split: len(opened.films.rows(split)) for split in ("train", "val", "test")},
        "seeds": len(config.seeds),
        "networks": len(all_networks(config)),
        "minutes": study.seconds / 60,
        "settings": to_yaml(config),
    }


def _interval(cell: Cell, name: str) -> dict[str, Any] | None:
    found = cell.measured.statistics.get(name)
    return None if found is None else vars(found)


def _channels(channels: dict[str, float]) -> str:
    return ", ".join(f"{name} {strength:g}" for name, strength in channels.items())


def _method_row(study: Study, bias: Bias, q: float, method: str) -> dict[str, Any]:
    """What a method does, and how much less of the gap it leaves than none, over seeds."""
    found = {c.method: c.measured for c in study.cells if c.bias == bias and c.q == q}
    own, none = found[method], found["none"]
    name = "index" if "index" in own.statistics else "gap"
    less = [b - a for a, b in zip(own.by_seed[name], none.by_seed[name], strict=True)]
    return {
        "method": method.replace("_", " "),
        "main": vars(own.statistics[name]),
        "less": None if method == "none" else vars(seed_interval(less)),
        # Group models score the two films by two networks: that is no change of the film alone.
        "pair_gap": None if method == "group_models" else vars(own.statistics["pair_gap"]),
        "accuracy": vars(own.statistics["accuracy"]),
    }


def conclusions(study: Study) -> list[str]:
    """One sentence a bias: how far the networks follow it at the largest q."""
    q, found = max(study.opened.config.q), []
    for cell in study.cells:
        if cell.method != "none" or cell.q != q:
            continue
        name = "index" if "index" in cell.measured.statistics else "gap"
        interval = cell.measured.statistics[name]
        what = "shortcut index" if name == "index" else "gap"
        if interval.value != interval.value:
            found.append(f"{cell.bias.name}: no gap at q = {q:g}, for a group has nobody to take a share of.")
            continue
        sure = "includes" if interval.low <= 0 <= interval.high else "excludes"
        over = "patients and networks" if len(study.opened.config.seeds) > 1 else "patients; one network"
        shown = interval_text(vars(interval), 2)
        found.append(f"{cell.bias.name}: {what} {shown} at q = {q:g}; the interval (over {over}) {sure} 0.")
    return found
