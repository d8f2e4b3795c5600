"""Writes a study across hospitals down: report.html, study.json, and scores.csv for other tools."""

import re
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalcxr.config import to_yaml
from causalcxr.federation.config import site_attribute
from causalcxr.federation.pictures import by_site, curves, strategies
from causalcxr.federation.scores import DEFINITIONS, unit_of
from causalcxr.federation.study import Study
from causalcxr.metrics.intervals import seed_interval
from causalcxr.report.figures import save_png
from causalcxr.support.files import write_atomically, write_json
from causalcxr.support.html import interval_text, page_template

__all__ = ["as_json", "conclusions", "write_report"]

NO_WORD = r"\W+"  # what no name of a file has


def write_report(study: Study) -> Path:
    """Write everything into the study's folder; returns the report's path."""
    folder, parts = study.opened.folder, _parts(study)
    drawn = {f"curve of {part}": curves(study, part) for part in parts}
    if study.trained[0].scores:
        drawn["strategies"] = strategies(study)
        drawn |= {
            f"sites, {name}": by_site(study, name) for name in study.opened.predicted if _has_sites(study, name)
        }
    paths = {name: folder / "figures" / f"{re.sub(NO_WORD, '_', name)}.png" for name in drawn}
    for name, path in paths.items():
        save_png(drawn[name], path)
    write_json(folder / "study.json", as_json(study))
    if study.trained[0].scores:
        write_atomically(folder / "scores.csv", _score_table(study).to_csv(index=False))
    page = page_template("causalcxr.federation", "report.html.j2").render(
        **_shown(study), figures=paths, date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    )
    write_atomically(folder / "report.html", page)
    return folder / "report.html"


def as_json(study: Study) -> dict[str, Any]:
    """All numbers, under names that say what they are."""
    opened = study.opened
    return {
        "definitions": DEFINITIONS,
        "sites": [
            {"name": s.name, "train": len(s.train), "val": len(s.val), "test": len(s.test)} for s in opened.sites
        ],
        "strategies": {
            strategy: {name: asdict(measured) for name, measured in found.items()}
            for strategy, found in study.measured.items()
        },
        "losses": {strategy: _test_losses(study, strategy) for strategy in study.measured},
        "models": [
            {"name": each.job.name, "strategy": each.job.strategy, "seed": each.job.seed, "seconds": each.seconds}
            | {"parts": {part: asdict(history) for part, history in each.histories.items()}}
            for each in study.trained
        ],
    }


def conclusions(study: Study) -> list[str]:
    """The study in a few sentences."""
    found = []
    for name in study.opened.predicted if study.trained[0].scores else []:
        variable = study.opened.graph[name]
        values = [f"{s} {interval_text(asdict(m[name].overall), 3)}" for s, m in study.measured.items()]
        unit = f" in {variable.unit}" if variable.unit else ""
        found.append(f"{unit_of(variable)} of {name}{unit}: {'; '.join(values)}.")
    for part in _parts(study):
        if part not in ("predictor", "evaluator"):
            values = [f"{s} {sum(_test_losses(study, s)[part].values()):.4f}" for s in study.measured]
            found.append(f"test loss of {part}: {'; '.join(values)}.")
    return found


def _parts(study: Study) -> list[str]:
    return list(study.trained[0].histories)


def _has_sites(study: Study, name: str) -> bool:
    return any(found[name].by_group["site"] for found in study.measured.values())


def _test_losses(study: Study, strategy: str) -> dict[str, dict[str, float]]:
    """Mean over a strategy's models, by part and variable."""
    found = [each.histories for each in study.of(strategy)]
    return {
        part: {name: float(np.mean([h[part].test[name] for h in found])) for name in found[0][part].test}
        for part in found[0]
    }


def _score_table(study: Study) -> pd.DataFrame:
    """One row a model and test film: what it said, and what is so."""
    opened, blocks = study.opened, []
    test, groups = opened.test, opened.groups()
    for each in study.trained:
        table: dict[str, Any] = {"strategy": each.job.strategy, "model": each.job.name, "seed": each.job.seed}
        table |= {"row": test.ids, "patient_id": test.patients, "site": groups["site"]}
        for name, output in each.scores.items():
            variable = opened.graph[name]
            table[f"{name}_true"] = test.attributes[name].numpy()
            if variable.is_discrete:
                chances = output.softmax(dim=1).numpy()
                table |= {f"{name}={label}": chances[:, i] for i, label in enumerate(variable.labels)}
            else:
                table[name] = output.numpy()
        blocks.append(pd.DataFrame(table))
    return pd.concat(blocks)


def _shown(study: Study) -> dict[str, Any]:
    """What the page shows."""
    opened, config = study.opened, study.opened.config
    parts = _parts(study)
    measured = [
        {"attribute": name, "statistic": unit_of(opened.graph[name]), "strategy": strategy}
        | {"overall": asdict(found[name].overall), "models": len(found[name].by_seed)}
        | {"seeds": asdict(seed_interval(found[name].by_seed))}
        | {"disparity": {group: asdict(interval) for group, interval in found[name].disparity.items()}}
        for name in opened.predicted
        for strategy, found in study.measured.items()
        if found
    ]
    groups = sorted({group for row in measured for group in row["disparity"]})
    return {
        "title": opened.folder.name,
        "conclusions": conclusions(study),
        "simulated": opened.cohort.source.get("source") == "simulator",
        "race": "race" in opened.graph.attributes,
        "by": site_attribute(config),
        "parts": parts,
        "measured": measured,
        "groups": groups,
        "losses": [
            {"strategy": s, "part": part, "losses": _test_losses(study, s)[part]}
            for part in parts
            for s in study.measured
        ],
        "moved": [_moved(study, strategy) for strategy in study.measured],
        "sites": _site_rows(study),
        "config": config,
        "definitions": DEFINITIONS,
        "settings": to_yaml(config),
        "minutes": sum(each.seconds for each in study.trained) / 60,
    }


def _moved(study: Study, strategy: str) -> dict[str, Any]:
    """What went over the wire for one model, the mean over seeds."""
    histories = [h for each in study.of(strategy) for h in each.histories.values()]
    models = len(study.of(strategy))
    visits = sum(sum(h.visits) for h in histories) / models
    alone = strategy in ("central", "local")
    return {
        "strategy": strategy,
        "visits": visits,
        "rows": sum(sum(h.trained_rows) for h in histories) / models,
        "out": None if alone else sum(h.bytes_out for h in histories) / models / 1e6,
        "back": None if alone else sum(h.bytes_in for h in histories) / models / 1e6,
    }


def _site_rows(study: Study) -> list[dict[str, Any]]:
    """The sites by size, with how often each was visited by every strategy (first seed, all parts)."""
    opened, rows = study.opened, []
    shared = [s for s in study.measured if s not in ("central", "local")]
    first = {s: study.of(s)[0].histories.values() for s in shared}
    for i, site in sorted(enumerate(opened.sites), key=lambda pair: -len(pair[1].train)):
        visits = {s: sum(h.visits[i] for h in histories) for s, histories in first.items()}
        seen = {s: sum(h.trained_rows[i] for h in histories) for s, histories in first.items()}
        rows.append({"name": site.name, "train": len(site.train), "val": len(site.val), "test": len(site.test)})
        rows[-1] |= {"visits": visits, "seen": seen}
    return rows
