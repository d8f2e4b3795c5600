"""`causalcxr debias`: take attributes out of embeddings, and measure what is left of them."""

from pathlib import Path
from typing import Any

from causalcxr.commands.arguments import Parser, refuse_replacing, say
from causalcxr.support.errors import ConfigError

__all__ = ["HELP", "run"]

HELP = """usage: causalcxr debias fit EMBEDDINGS --table TABLE --erase A [B ...] [--keep C ...] --out DIR
       causalcxr debias report DIR
       causalcxr debias apply DIR/erasers/NAME.safetensors EMBEDDINGS OUT.npy [--table TABLE] [--pairs PAIRS]

fit: erasers, on a third of the patients, into DIR. report: what fresh probes tell afterwards, on patients that
neither eraser nor probe has seen; writes DIR/report.html and debias.json. apply: erase from other embeddings.

EMBEDDINGS             .npy, .npz, .safetensors, .csv or .parquet: rows by features, with ids if there are any
--table TABLE          .csv or .parquet with the attributes; without ids in EMBEDDINGS a row for each, in order
--erase, --keep        columns: attributes to erase, labels that shall stay as they are
--erasers NAME ...     leace, splince, transport, residual, independence, distilled, span, counterfactual,
                       published, noise; one after another: counterfactual+leace (leace splince transport residual
                       independence; with pairs also counterfactual distilled)
--pairs PAIRS          .npy (rows, counterfactuals, features), as causalcxr embed --over writes it
--numbers, --labels    columns of whole numbers that are numbers (age in years), or labels of more than 20 kinds
--id, --patient        columns of the table: the embeddings' id (id), whose it is (patient_id)
--parts COLUMN         the parts of the rows: fit, probe, threshold, score; or train, val, test
--seed N               of parts and probes (0)
"""
DEFAULT = ("leace", "splince", "transport", "residual", "independence")
WITH_PAIRS = ("counterfactual", "distilled")
_OF_FIT = (
    "table",
    "pairs",
    "out",
    "erase",
    "keep",
    "erasers",
    "numbers",
    "labels",
    "id",
    "patient",
    "parts",
    "seed",
)


def run(arguments: list[str]) -> None:
    """Fit, report, or apply."""
    parser = Parser("causalcxr debias", add_help=False)
    parser.add_argument("action", nargs="?", choices=["fit", "report", "apply"])
    parser.add_argument("places", nargs="*", type=Path)
    for name in ("--erase", "--keep", "--erasers", "--numbers", "--labels"):
        parser.add_argument(name, nargs="+", action="extend", default=[])
    for name in ("--table", "--pairs", "--out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--id", default="id")
    parser.add_argument("--patient", default="patient_id")
    parser.add_argument("--parts", default="")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    expected = {"fit": 1, "report": 1, "apply": 3}
    if options.action is None or len(options.places) != expected[options.action]:
        raise ConfigError(
            "debias: expected fit EMBEDDINGS, report DIR, or apply ERASER EMBEDDINGS OUT; see --help"
        )
    if options.seed < 0:
        raise ConfigError(f"debias: --seed {options.seed}; expected 0 or more")
    unused = {
        "fit": (),
        "report": _OF_FIT,
        "apply": [name for name in _OF_FIT if name not in ("table", "pairs", "id")],
    }
    for name in unused[options.action]:
        if getattr(options, name) != parser.get_default(name):
            raise ConfigError(f"debias {options.action}: --{name} has no place here; see causalcxr debias --help")
    {"fit": _fit, "report": _report, "apply": _apply}[options.action](options)


def _fit(options: Any) -> None:
    for name in ("table", "erase", "out"):
        if not getattr(options, name):
            raise ConfigError(f"debias fit: --{name} is missing; see causalcxr debias --help")
    from causalcxr.debias.study import Where, fit  # slow to import, and help needs none of it
    from causalcxr.debias.tables import Wanted
    from causalcxr.support.progress import progress_bar

    wanted = Wanted(
        options.erase, options.keep, options.numbers, options.labels, options.id, options.patient, options.parts
    )
    (embeddings,) = options.places
    where = Where(str(embeddings), str(options.table), str(options.pairs or ""))
    names = options.erasers or [*(WITH_PAIRS if options.pairs else ()), *DEFAULT]
    names = [name for name in names if options.keep or name != "splince"]
    with progress_bar("fit", len(names)) as advance:
        subject, refused = fit(where, wanted, names, options.out, options.seed, advance)
    rows = subject.rows
    say(f"{len(rows.z):,} embeddings of {rows.z.shape[1]} features, {len(set(rows.patients)):,} patients")
    for remark in rows.remarks:
        say(remark)
    for reason, count in rows.lost.items():
        say(f"left out, {reason}: {count:,}")
    for attribute in (*subject.erase, *subject.keep):
        labels = ", ".join([*attribute.labels[:8], *(["..."] if len(attribute.labels) > 8 else [])])
        what = f"{len(attribute.labels)} labels, {labels}" if attribute.is_discrete else "a number"
        say(f"{attribute.name}: {what}")
    for name, reason in refused.items():
        say(f"{name} refused: {reason}")
    say(f"wrote {len(names) - len(refused)} erasers; next: causalcxr debias report {options.out}")


def _report(options: Any) -> None:
    from causalcxr.debias.report import conclusions, write_report
    from causalcxr.debias.study import count_of, study_of
    from causalcxr.support.progress import progress_bar

    (folder,) = options.places
    with progress_bar("measure", count_of(folder)) as advance:
        study = study_of(folder, advance)
    report = write_report(study, folder)
    for sentence in conclusions(study):
        say(sentence)
    say(f"report: {report}")


def _apply(options: Any) -> None:
    from causalcxr.debias.study import apply

    eraser, embeddings, out = options.places
    refuse_replacing([out], [path for path in (eraser, embeddings, options.table, options.pairs) if path])
    rows = apply(eraser, embeddings, out, options.table, options.pairs, options.id)
    say(f"wrote {rows:,} embeddings into {out}")
