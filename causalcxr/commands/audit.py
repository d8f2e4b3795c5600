"""`causalcxr audit RUN`: would a model's answer change if the patient were of another sex, race or age?"""

from pathlib import Path

from causalcxr.commands.arguments import Parser, assignments, say
from causalcxr.support.errors import ConfigError

__all__ = ["HELP", "SECTIONS", "run"]

SECTIONS = ("audit",)
HELP = """usage: causalcxr audit RUN [--model MODEL] [--out FOLDER] [audit.key=value ...]
       causalcxr audit export RUN OUT [--format png8|png16|dicom] [audit.key=value ...]
       causalcxr audit read OUT SCORES.csv [audit.key=value ...]

Audits a model with the counterfactuals of RUN, on its test split; writes report.html, audit.json and scores.csv.
export writes images for a product that can't be opened, and read audits the scores that come back.

--model MODEL          predictor or evaluator of the run (predictor), or FILE.py:FUNCTION, which is called with
                       the graph's attributes and returns a predictor or a function from images to scores
--kind KIND            of the scores: probabilities (compared as log-odds), or values
--threshold SCORE=VALUE ...  operating point; without it where sensitivity plus specificity is largest on the
                       validation split, and of a product's probabilities 0.5
--out FOLDER           of the report (RUN/audit/MODEL, OUT/report)
--format FORMAT        of exported images: png8, png16, dicom
data.root=FOLDER, data.prepared=FOLDER where the data lie elsewhere by now
read may change audit.finding, margin, alpha, splits and shown; the rest was settled by the export
"""


def run(arguments: list[str]) -> None:
    """Audit, export, or read."""
    settings = [word for word in arguments if word.startswith(("audit.", "data.")) and "=" in word]
    rest = [word for word in arguments if word not in settings]
    plain, named = assignments(rest, "--threshold")
    thresholds = _numbers(named.get("--threshold", []))
    parser = Parser("causalcxr audit", add_help=False)
    parser.add_argument("places", nargs="*")
    parser.add_argument("--model", default="predictor")
    parser.add_argument("--kind", default="probabilities", choices=("probabilities", "values"))
    parser.add_argument("--out", default="")
    parser.add_argument("--format", default="png8")
    options = parser.parse_args(plain)
    action = options.places[0] if options.places[:1] in (["export"], ["read"]) else ""
    places = options.places[1:] if action else options.places
    expected = {"": ["RUN"], "export": ["RUN", "OUT"], "read": ["OUT", "SCORES.csv"]}[action]
    if len(places) != len(expected):
        command = " ".join(["causalcxr audit", *([action] if action else []), *expected])
        raise ConfigError(f"audit: expected {command}, got {len(places)} places; see causalcxr audit --help")
    unused = {"export": ("model", "kind", "out"), "read": ("model", "format"), "": ("format",)}[action]
    for name in unused:
        if getattr(options, name) != parser.get_default(name):
            raise ConfigError(f"audit: --{name} has no place here; see causalcxr audit --help")
    if action == "export" and thresholds:
        raise ConfigError("audit export: --threshold has no place here; give it to audit read")
    from causalcxr.audit import runs  # slow to import, and help needs none of it

    if action == "export":
        out = Path(places[1])
        count = runs.export(places[0], out, settings, options.format)
        say(f"wrote {count:,} images to {out / 'send'}; keep {out / 'keep'} to yourself")
        return
    report = Path(options.out) if options.out else None
    if action == "read":
        found = runs.read(Path(places[0]), Path(places[1]), settings, options.kind, thresholds, report)
    else:
        found = runs.audit(places[0], options.model, options.kind, thresholds, report, settings)
    for one in found.found:
        say(f"{one.score}, {one.contrast.text(found.material.graph)}: {one.verdict.word} ({one.verdict.reason})")
    say(f"report: {found.report}")


def _numbers(pairs: list[str]) -> dict[str, float]:
    found = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise ConfigError(f"--threshold '{pair}': expected SCORE=NUMBER") from None
    return found
