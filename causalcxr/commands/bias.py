"""`causalcxr bias STUDY.yaml`: plant a bias, train twins with and without, and see what networks make of it."""

from pathlib import Path

from causalcxr.commands.arguments import Parser, say
from causalcxr.support.errors import ConfigError

__all__ = ["HELP", "ROOT", "SECTIONS", "run"]

SECTIONS = ()
ROOT = "StudyConfig"
HELP = """usage: causalcxr bias STUDY.yaml [key=value ...]

Trains every network of the study and its twin without the bias; writes report.html, study.json and scores.csv into
its folder. Killed, it goes on by the same command; a larger grid trains only what is new.

Such a study:
  run: runs/bias
  data: {train: 4000, val: 500, test: 2000, knobs: {finding_odds: 0, finding_age: 0, finding_volume: 4}}
  plant: {marker: {marker: 1.0}, far: {far: 0.2}}        # kind: {channel: strength}
  q: [0.5, 0.7, 0.9]                                     # share of group B among those with the finding
"""


def run(arguments: list[str]) -> None:
    """Run a study and write its report."""
    settings = [word for word in arguments if "=" in word]
    parser = Parser("causalcxr bias", add_help=False)
    parser.add_argument("study", nargs="?")
    options = parser.parse_args([word for word in arguments if "=" not in word])
    if options.study is None:
        raise ConfigError("bias: expected causalcxr bias STUDY.yaml; see causalcxr bias --help")
    if not Path(options.study).is_file():
        raise ConfigError(f"bias: no study '{options.study}'; expected a YAML file")
    from causalcxr.bias.config import StudyConfig  # slow to import, and help needs none of it
    from causalcxr.bias.report import conclusions, write_report
    from causalcxr.bias.study import run_study
    from causalcxr.config import read_settings

    study = run_study(read_settings(StudyConfig, Path(options.study), settings))
    report = write_report(study)
    for sentence in conclusions(study):
        say(sentence)
    say(f"report: {report}")
