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
--threshold NAME=VALUE ...  operating point of a score; without it chosen on the validation split, and of a
                       product's probabilities 0.5
--out FOLDER           of the report (RUN/audit/MODEL, OUT/report)
--format FORMAT        of exported images: png8, png16, dicom
data.root=FOLDER, data.prepared=FOLDER where the data lie elsewhere by now
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
    from causalcxr.audit import runs  # slow to import, and help needs none of it

    if action == "export":
        count = runs.export(places[0], Path(places[1]), settings, options.format)
        say(f"wrote {count:,} images to {Path(places[1]) / 'send'}; keep {Path(places[1]) / 'keep'} to yourself")
    elif action == "read":
        out = Path(options.out or Path(places[0]) / "report")
        say(f"report: {runs.read(Path(places[0]), Path(places[1]), settings, options.kind, thresholds, out)}")
    else:
        found = runs.audit(
            places[0], options.model, options.kind, thresholds, options.out or None, settings=settings
        )
        say(f"report: {found}")


def _numbers(pairs: list[str]) -> dict[str, float]:
    found = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise ConfigError(f"--threshold '{pair}': expected SCORE=NUMBER") from None
    return found
