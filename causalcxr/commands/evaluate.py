"""`causalcxr evaluate run=FOLDER key=value ...`: measure a trained run."""

from causalcxr.commands.arguments import say
from causalcxr.evaluation.evaluate import evaluate

__all__ = ["run"]


def run(arguments: list[str]) -> None:
    """Write metrics.json, figures and report.html into the run's folder."""
    say(f"report: {evaluate(arguments)}")
