"""An audit from a run's folder: opens model, data and evaluator, audits, and writes the report."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causalcxr.audit.audit import audit_model
from causalcxr.audit.config import AuditConfig
from causalcxr.audit.exchange import export_images, read_scores
from causalcxr.audit.report import write_report
from causalcxr.config import Config, override_config
from causalcxr.data.cohort import Cohort
from causalcxr.data.preparation import open_cohort
from causalcxr.evaluation.evaluate import DATA_PLACES, device_of
from causalcxr.predictors.predictor import Predictor
from causalcxr.runs import Run, load, open_run
from causalcxr.scm import StructuralCausalModel
from causalcxr.support.errors import CausalCXRError, ConfigError, RunError, nearest

__all__ = ["audit", "export", "read"]

OWN = ("predictor", "evaluator")


def audit(
    run: str | Path,
    model: Any = "predictor",
    kind: str = "probabilities",
    thresholds: Mapping[str, float] | None = None,
    out: str | Path | None = None,
    settings: Sequence[str] = (),
) -> Path:
    """Audit a model with the counterfactuals of a run, on its test split; returns the path of report.html.

    `model`: `predictor` or `evaluator` of the run, a `Predictor` (see predictors/adapters.py), a function from
    images `(B, C, H, W)` in [0, 1] to scores `(B,)` or `(B, M)`, or `FILE.py:FUNCTION`, which is called with the
    graph's attributes and returns one of these. `kind`: of the scores, `probabilities` or `values`. `thresholds`:
    operating points by score; without one it is chosen on the validation split. `settings`: `audit.key=value`.
    Raises ConfigError, RunError, DataError: one line that says what to do.
    """
    opened = _open(run, settings)
    name = model if isinstance(model, str) else getattr(model, "__name__", type(model).__name__)
    asked = _model(opened, model)
    if isinstance(asked, Predictor) and asked.fingerprint() == opened.run.finetuned().get("predictor"):
        raise RunError(
            f"run '{run}' was fine-tuned with this very predictor, which would be judged by what "
            "it taught; audit with the run before fine-tuning, or another model (--model evaluator)"
        )
    on_scale = {} if thresholds is None else _log_odds(thresholds, kind, asked)
    found = audit_model(opened.scm, opened.cohort, asked, opened.config.audit, opened.evaluator, kind, on_scale)
    folder = Path(out) if out else opened.run.folder / "audit" / Path(name.partition(":")[0]).stem
    about = {
        "model": Path(name).name,
        "generator": opened.run.folder.name,
        "data_hash": opened.cohort.data_hash[:16],
    }
    return write_report(found, folder, Path(name).name, about)


def export(run: str | Path, out: Path, settings: Sequence[str] = (), kind: str = "png8") -> int:
    """Write the images for a product that can't be opened; returns how many."""
    opened = _open(run, settings)
    return export_images(opened.scm, opened.cohort, out, opened.config.audit, opened.evaluator, kind)


def read(
    out: Path,
    table: Path,
    settings: Sequence[str] = (),
    kind: str = "probabilities",
    thresholds: Mapping[str, float] | None = None,
    report: Path | None = None,
) -> Path:
    """Audit the scores that came back; returns the path of report.html."""
    _refuse_others(settings, ("audit.",))
    changed = {word.partition("=")[0].removeprefix("audit."): None for word in settings}
    asked = vars(override_config(Config(), settings).audit)
    for fixed in ("attributes", "contrasts", "effect", "rows", "summary", "seed", "batch_size"):
        if fixed in changed:
            raise ConfigError(f"audit read: 'audit.{fixed}' was settled by the export; export anew to change it")
    found = read_scores(out, table, kind, thresholds, {key: asked[key] for key in changed})
    about = {"model": table.stem, "scores": f"{len(found.scores)} from '{table.name}'"}
    return write_report(found, report or out / "report", table.stem, about)


@dataclass(frozen=True)
class _Opened:
    run: Run
    config: Config
    scm: StructuralCausalModel
    cohort: Cohort
    evaluator: Predictor | None


def _open(folder: str | Path, settings: Sequence[str]) -> _Opened:
    _refuse_others(settings, ("audit.", *DATA_PLACES))
    run = open_run(folder)
    if run.graph.image is None or "image" not in run.finished_stages():
        raise RunError(f"run '{folder}' has no trained image mechanism; an audit needs one (train.stages)")
    config = override_config(run.config, settings)
    device, evaluator = device_of(config), None
    if "predictors" in run.finished_stages():
        evaluator = run.load_predictor("evaluator").to(device)
    return _Opened(run, config, load(folder, device), open_cohort(config.data, run.graph), evaluator)


def _refuse_others(settings: Sequence[str], allowed: Sequence[str]) -> None:
    known = [*(f"audit.{name}" for name in vars(AuditConfig())), *(name for name in allowed if name != "audit.")]
    for word in settings:
        key = word.partition("=")[0]
        if not key.startswith(tuple(allowed)):
            raise ConfigError(f"audit: '{key}' can't be set here; {nearest(key, known)}")


def _model(opened: _Opened, model: Any) -> Any:
    if not isinstance(model, str):
        return model
    if model in OWN:
        return opened.run.load_predictor(model).to(opened.scm.device)
    file, colon, function = model.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise ConfigError(f"--model '{model}': expected {' or '.join(OWN)}, or FILE.py:FUNCTION")
    build = _function(Path(file), function)
    variables = [opened.run.graph[name] for name in opened.run.graph.attributes]
    return build(variables)


def _function(path: Path, name: str) -> Callable[..., Any]:
    """A function of the user's own file."""
    if not path.is_file():
        raise ConfigError(f"--model: no file '{path}'")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except CausalCXRError:
        raise
    except Exception as error:
        raise ConfigError(f"--model: '{path}' fails with {type(error).__name__}: {error}") from error
    if not callable(found := getattr(module, name, None)):
        raise ConfigError(f"--model: '{path}' has no function '{name}'")
    return found


def _log_odds(thresholds: Mapping[str, float], kind: str, model: Any) -> dict[str, float]:
    """Operating points on the scale on which scores are compared; a predictor's are probabilities."""
    import numpy as np

    from causalcxr.audit.scores import on_scale

    kind = "probabilities" if isinstance(model, Predictor) else kind
    return {name: float(on_scale(name, np.array([value]), kind)[0]) for name, value in thresholds.items()}
