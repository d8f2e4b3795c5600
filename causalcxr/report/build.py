"""Draws every figure of a run into its folder and writes the report beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from causalcxr.config import Config, to_yaml
from causalcxr.data.cohort import Cohort
from causalcxr.mechanisms.registry import IMAGE_MECHANISMS
from causalcxr.metrics.entries import Metrics
from causalcxr.predictors.calibration import Reliability
from causalcxr.report.charts import attribute_chart, curves_chart, graph_picture
from causalcxr.report.contrast import contrast_figure, reliability_figure
from causalcxr.report.figures import save_png
from causalcxr.report.gallery import Gallery, draw_contrast, draw_gallery, draw_reconstructions, draw_samples
from causalcxr.report.page import Report, render
from causalcxr.runs import Run
from causalcxr.support.files import write_atomically
from causalcxr.support.html import number_text
from causalcxr.training.config import TARGETS

__all__ = ["Compared", "Results", "build_report"]

ORDER = ("before", *TARGETS)  # of runs that are compared
GUESSING = 8.0  # bits per dimension of a model that gives every grey level the same probability


@dataclass(frozen=True)
class Compared:
    """Another run, measured on the same rows by the same evaluator."""

    run: Run
    metrics: Metrics
    gallery: Gallery | None


@dataclass(frozen=True)
class Results:
    """Everything that the report shows of one evaluation."""

    run: Run
    config: Config
    cohort: Cohort
    simulated: bool
    metrics: Metrics
    gallery: Gallery | None
    samples: Mapping[str, Tensor] | None
    real: Mapping[str, Tensor] | None
    attributes: Mapping[str, Tensor]
    curves: Sequence[Mapping[str, Any]]
    rows: int
    compared: Sequence[Compared] = ()
    diagrams: Mapping[tuple[str, str], Reliability] = field(default_factory=dict)


def build_report(results: Results) -> Path:
    """Write figures/*.png and report.html into the run's folder; returns the report's path.

    Raises RunError: the disk is full or the folder can't be written.
    """
    folder = results.run.folder / "figures"
    runs = _by_title(results)
    figures = _draw_figures(results, runs, folder)
    gallery = draw_gallery(results.run.graph, results.gallery, folder) if results.gallery else []
    provenance = results.run.provenance
    page = Report(
        title=results.run.folder.name,
        graph=results.run.graph,
        facts=_facts(results, provenance),
        metrics=results.metrics,
        figures=figures,
        gallery=gallery,
        warnings=_warnings(results, provenance),
        cycles=results.config.evaluate.cycles,
        settings=_settings(results.config),
        versions=provenance.get("versions", {}),
        seconds=provenance["seconds"],
        simulated=results.simulated,
        runs={title: one.metrics for title, one in runs.items()},
        finetune=results.run.finetuned(),
    )
    path = results.run.folder / "report.html"
    write_atomically(path, render(page))
    return path


def _draw_figures(results: Results, runs: Mapping[str, Compared], folder: Path) -> dict[str, Path]:
    graph, figures = results.run.graph, {}
    attributes = {name: values.cpu().numpy() for name, values in results.attributes.items()}
    shown = (*graph.variables, "constraint", "multiplier", "slack")
    unit = IMAGE_MECHANISMS[graph[graph.image].mechanism].loss_unit if graph.image else ""
    charts = {
        "graph": graph_picture(graph),
        "attributes": attribute_chart(graph, results.cohort.split("test").attributes, attributes),
        "curves": curves_chart(results.curves, shown, unit),
        "contrast": contrast_figure({title: one.metrics for title, one in runs.items()}),
        "reliability": reliability_figure(graph, results.diagrams),
    }
    for name, figure in charts.items():
        if figure is not None:
            figures[name] = folder / f"{name}.png"
            save_png(figure, figures[name])
    if results.gallery is not None:
        figures["reconstructions"] = folder / "reconstructions.png"
        draw_reconstructions(graph, results.gallery, figures["reconstructions"])
    known = {title: one.gallery for title, one in runs.items() if one.gallery is not None}
    if len(known) > 1:
        figures["contrast_gallery"] = folder / "contrast_gallery.png"
        draw_contrast(graph, known, 0, figures["contrast_gallery"])
    if results.samples is not None and results.real is not None:
        figures["samples"] = folder / "samples.png"
        draw_samples(graph, results.samples, results.real, figures["samples"])
    return figures


def _by_title(results: Results) -> dict[str, Compared]:
    """All runs by how they were fine-tuned (`before`: not at all), in a fixed order; by folder where that is not
    enough to tell them apart."""
    runs = [Compared(results.run, results.metrics, results.gallery), *results.compared]
    targets = [one.run.finetuned().get("targets", "before") for one in runs]
    titles = [t if targets.count(t) == 1 else one.run.folder.name for t, one in zip(targets, runs, strict=True)]
    order = sorted(range(len(runs)), key=lambda i: ORDER.index(targets[i]))
    return {titles[i]: runs[i] for i in order}


def _facts(results: Results, provenance: Mapping[str, Any]) -> dict[str, str]:
    cohort, graph = results.cohort, results.run.graph
    sizes = ", ".join(f"{split} {len(cohort.split(split)):,}" for split in ("train", "val", "test"))
    pixels = f", {cohort.size} x {cohort.size} pixels" if graph.image else ""
    rejected = sum(cohort.rejected.values())
    return {
        "Graph": f"{graph.name}: {', '.join(graph.variables)}",
        "Data": f"{cohort.source.get('source', 'unknown')}{pixels}; {sizes}",
        "Rejected rows": ", ".join(f"{why} {n:,}" for why, n in cohort.rejected.items()) if rejected else "none",
        "Measured on": f"{results.rows:,} rows of the test split",
        "Stages": ", ".join(
            f"{stage} ({getattr(results.config.train, stage).steps:,} steps)"
            for stage in results.config.train.stages
        ),
        "Parameters": number_text(provenance.get("parameters")),
        "Trained on": str(provenance.get("device", "unknown")),
        "Seed": str(results.config.train.seed),
        "causalcxr": str(provenance.get("versions", {}).get("causalcxr", "unknown")),
        "Data hash": cohort.data_hash[:16],
    }


def _warnings(results: Results, provenance: Mapping[str, Any]) -> list[str]:
    found = []
    if provenance.get("data_hash") not in (None, results.cohort.data_hash):
        found.append(
            "These are not the data that the model was trained on: the hash of the prepared cohort differs."
        )
    bits = results.metrics.get(("image", "bits_per_dimension"))
    if bits is not None and not bits["value"] < GUESSING:
        found.append(
            f"The image model is no better than a guess: {number_text(bits['value'])} bits per dimension, where "
            f"a uniform guess has {GUESSING:g}. Train it for longer before you read a counterfactual."
        )
    return found


def _settings(config: Config) -> str:
    """The configuration without the places where things lie on this machine."""
    settings = yaml.safe_load(to_yaml(config))
    for section, *keys in ((None, "run", "graph", "base"), ("data", "root", "cache", "prepared")):
        for key in keys:
            (settings[section] if section else settings).pop(key)
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
