"""An audit from a run's folder: opens model, data and evaluator, audits, and writes the report."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from causalcxr.audit.audit import Audit, audit_model
from causalcxr.audit.config import AuditConfig
from causalcxr.audit.exchange import export_images, read_scores
from causalcxr.audit.report import write_report
from causalcxr.audit.scores import threshold_on_scale
from causalcxr.config import Config, override_config
from causalcxr.data.cohort import Cohort
from causalcxr.data.preparation import open_cohort
from causalcxr.evaluation.evaluate import DATA_PLACES, device_of
from causalcxr.predictors.predictor import Predictor
from causalcxr.runs import Run, load, open_run
from causalcxr.scm import StructuralCausalModel
from causalcxr.support.bounds import check_bounds
from causalcxr.support.errors import ConfigError, RunError, nearest
from causalcxr.support.user_code import call_function

__all__ = ["audit", "export", "read"]

OWN = ("predictor", "evaluator")
READ = ("finding", "margin", "alpha", "splits", "shown")  # settings that reading scores may change


def audit(
    run: str | Path,
    model: Any = "predictor",
    kind: str = "probabilities",
    thresholds: Mapping[str, float] | None = None,
    out: str | Path | None = None,
    words: Sequence[str] = (),
    **settings: Any,
) -> Audit:
    """Audit a model with the counterfactuals of a run, on its test split; writes a report.

    `model`: `predictor` or `evaluator` of the run, a `Predictor` (see predictors/adapters.py), a function from
    images `(B, C, H, W)` in [0, 1] to scores (`(B,)`, `(B, M)`, or `{name: (B,)}`), or `FILE.py:FUNCTION`, which
    is called with the graph's attributes and returns one of these. `kind`: `probabilities` or `values`.
    `thresholds`: operating points by score; without one it is chosen on the validation split, where sensitivity
    plus specificity is largest. `out`: folder of the report. `settings`: of `AuditConfig`, such as `rows=500`;
    `words`: these and `data.root` as on the command line.

    >>> found = causalcxr.audit("runs/demo", model, contrasts=["sex=female..male"])
    >>> found.report, [one.verdict.word for one in found.found]

    Raises ConfigError, RunError, DataError: one line that says what to do.
    """
    if unknown := [name for name in settings if name not in vars(AuditConfig())]:
        raise ConfigError(f"audit: no setting '{unknown[0]}'; {nearest(unknown[0], vars(AuditConfig()))}")
    opened = _open(run, words)
    config = replace(opened.config.audit, **settings)
    check_bounds(config, "audit.")
    name = model if isinstance(model, str) else getattr(model, "__name__", type(model).__name__)
    asked = _model(opened, model)
    if isinstance(asked, Predictor) and asked.fingerprint() == opened.run.finetuned().get("predictor"):
        raise RunError(
            f"run '{run}' was fine-tuned with this very predictor, which would be judged by what it taught; audit "
            "with the run before fine-tuning, or another model (--model evaluator)"
        )
    scale = "probabilities" if isinstance(asked, Predictor) else kind
    chosen = {of: threshold_on_scale(of, value, scale) for of, value in dict(thresholds or {}).items()}
    found = audit_model(opened.scm, opened.cohort, asked, config, opened.evaluator, kind, chosen)
    title = re.sub(r"[^\w.-]+", "-", Path(name).name.replace(".py:", "-")).strip("-") or "model"
    folder = Path(out) if out else opened.run.folder / "audit" / title
    return replace(found, report=write_report(found, folder, title, {"model": title, **_about(opened)}))


def export(run: str | Path, out: Path, words: Sequence[str] = (), kind: str = "png8") -> int:
    """Write the images for a product that can't be opened; returns how many."""
    opened = _open(run, words)
    return export_images(
        opened.scm, opened.cohort, out, opened.config.audit, opened.evaluator, kind, _about(opened)
    )


def read(
    out: Path,
    table: Path,
    words: Sequence[str] = (),
    kind: str = "probabilities",
    thresholds: Mapping[str, float] | None = None,
    report: Path | None = None,
) -> Audit:
    """Audit the scores that came back; writes a report, `OUT/report` unless it is named."""
    _refuse_others(words, ("audit.",))
    changed = {word.partition("=")[0].removeprefix("audit."): None for word in words}
    for name in changed:
        if name not in READ:
            raise ConfigError(
                f"audit read: 'audit.{name}' was settled by the export; what can be set now: {', '.join(READ)}"
            )
    asked = vars(override_config(Config(), words).audit)
    found, about = read_scores(out, table, kind, thresholds, {key: asked[key] for key in changed})
    facts = {"model": table.stem, "scores": table.name, **about}
    return replace(found, report=write_report(found, report or out / "report", table.stem, facts))


def _about(opened: "_Opened") -> dict[str, str]:
    """What the report says of the generator and the data."""
    return {"generator": opened.run.folder.name, "data_hash": opened.cohort.data_hash[:16]}


@dataclass(frozen=True)
class _Opened:
    run: Run
    config: Config
    scm: StructuralCausalModel
    cohort: Cohort
    evaluator: Predictor | None


def _open(folder: str | Path, words: Sequence[str]) -> _Opened:
    _refuse_others(words, ("audit.", *DATA_PLACES))
    run = open_run(folder)
    if run.graph.image is None or "image" not in run.finished_stages():
        raise RunError(f"run '{folder}' has no trained image mechanism; an audit needs one (train.stages)")
    config = override_config(run.config, words)
    device, evaluator = device_of(config), None
    if "predictors" in run.finished_stages():
        evaluator = run.load_predictor("evaluator").to(device)
    return _Opened(run, config, load(folder, device), open_cohort(config.data, run.graph), evaluator)


def _refuse_others(words: Sequence[str], allowed: Sequence[str]) -> None:
    known = [*(f"audit.{name}" for name in vars(AuditConfig())), *(name for name in allowed if name != "audit.")]
    for word in words:
        key = word.partition("=")[0]
        if not key.startswith(tuple(allowed)):
            raise ConfigError(f"audit: '{key}' can't be set here; {nearest(key, known)}")


def _model(opened: _Opened, model: Any) -> Any:
    if not isinstance(model, str):
        return model
    if model in OWN:
        return opened.run.load_predictor(model).to(opened.scm.device)
    if ":" not in model:
        raise ConfigError(f"--model '{model}': expected {' or '.join(OWN)}, or FILE.py:FUNCTION")
    return call_function(model, "--model", [opened.run.graph[name] for name in opened.run.graph.attributes])
