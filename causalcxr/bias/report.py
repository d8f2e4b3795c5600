"""Writes a study down: report.html, study.json, and scores.csv for other tools."""

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalcxr.bias.bayes import optimum
from causalcxr.bias.gaps import DEFINITIONS, seed_interval
from causalcxr.bias.grid import all_biases, all_networks
from causalcxr.bias.pictures import examples, gaps_by_q, heat_map, layers, mitigation
from causalcxr.bias.study import Cell, Study
from causalcxr.config import to_yaml
from causalcxr.report.figures import save_png
from causalcxr.support.files import load_tensors, write_atomically, write_json
from causalcxr.support.html import page_template

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
        "parts": [
            {**vars(p), "pair_shift": vars(p.pair_shift), "pair_gap": vars(p.pair_gap)} for p in study.parts
        ],
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
    """A row for each network and test subject: `score_a`, `score_b` are log-odds under do(group = A) and B."""
    films, opened = study.opened.films, study.opened
    test, blocks = films.rows("test"), []
    for network in all_networks(opened.config):
        scores = load_tensors(opened.place(network) / "scores.safetensors")[0]
        own = [] if network.is_twin else [network.bias.name]
        table: dict[str, Any] = {
            "network": network.name,
            "row": films.ids[test],
            "patient_id": films.patients[test],
        }
        table["y_true"] = films.finding[test].astype(int)
        table["group"] = "" if network.is_twin else np.where(films.group(network.q)[test], "B", "A")
        table["score_a"] = scores["plain"].numpy()
        table["score_b"] = scores[f"biased/{own[0]}"].numpy() if own else ""
        blocks.append(pd.DataFrame(table))
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
            "rows": [_method_row(study, bias.name, q, method, main) for method in methods],
        }
        for bias in all_biases(config)
        for q in config.mitigate_q
        if config.mitigate
    ]
    names = ("gap", "index", "attainable_index", "pair_gap", "pair_shift", "accuracy")
    return {
        "title": opened.folder.name,
        "conclusions": conclusions(study),
        "has_bayes": opened.has_bayes,
        "simulated": opened.cohort.source.get("source") == "simulator",
        "kinds": {kind: _channels(channels) for kind, channels in config.plant.items()},
        "cells": [
            {"bias": c.bias.name, "q": c.q, "auroc": c.measured.auroc, **{n: _interval(c, n) for n in names}}
            for c in plain
        ],
        "twin": {
            "accuracy": vars(plain[0].measured.statistics["twin_accuracy"]),
            "auroc": plain[0].measured.twin_auroc,
            "gaps": {f"{q:g}": _interval(next(c for c in plain if c.q == q), "twin_gap") for q in config.q},
        },
        "bayes": {f"{q:g}": _bayes(q) for q in config.q} if opened.has_bayes else {},
        "mitigated": mitigated,
        "parts": [
            {**vars(p), "pair_shift": vars(p.pair_shift), "pair_gap": vars(p.pair_gap)} for p in study.parts
        ],
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


def _method_row(study: Study, bias: str, q: float, method: str, main: str) -> dict[str, Any]:
    cell = next(c for c in study.cells if c.bias.name == bias and c.q == q and c.method == method)
    seeds = cell.measured.by_seed
    return {
        "method": method.replace("_", " "),
        "main": vars(seed_interval(seeds[main])) if main in seeds else None,
        "pair_gap": vars(seed_interval(seeds["pair_gap"])),
        "accuracy": vars(seed_interval(seeds["accuracy"])),
    }


def conclusions(study: Study) -> list[str]:
    """One sentence a bias: how far the networks follow it at the largest q."""
    main = "index" if _has_index(study) else "gap"
    q, found = max(study.opened.config.q), []
    for cell in study.cells:
        if cell.method != "none" or cell.q != q:
            continue
        interval = cell.measured.statistics[main]
        what = "Shortcut index" if main == "index" else "Gap"
        sure = "its interval has 0 in it" if interval.low <= 0 <= interval.high else "its interval has not 0 in it"
        found.append(
            f"{cell.bias.name}: {what.lower()} {interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}] "
            f"at q = {q:g}; {sure}."
        )
    return found
