"""`causalcxr evaluate RUN key=value ...`: measure a trained run."""

from causalcxr.commands.arguments import say

__all__ = ["HELP", "SECTIONS", "run"]

SECTIONS = ("evaluate",)
HELP = """usage: causalcxr evaluate RUN [evaluate.key=value ...] [data.root=FOLDER] [data.prepared=FOLDER]

Measures a trained run on its test split; writes metrics.json, figures/ and report.html into its folder. RUN is the
run's folder; run=RUN is the same.
"""


def run(arguments: list[str]) -> None:
    """Write metrics.json, figures and report.html into the run's folder."""
    from causalcxr.evaluation.evaluate import evaluate  # slow to import, and help needs none of it

    words = [word if "=" in word else f"run={word}" for word in arguments]
    say(f"report: {evaluate(words)}")
