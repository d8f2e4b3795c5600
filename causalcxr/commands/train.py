"""`causalcxr train key=value ...`: train or fine-tune a run; with --dry-run, estimate what it would take."""

from causalcxr.commands.arguments import say
from causalcxr.support.errors import ConfigError

__all__ = ["HELP", "SECTIONS", "run"]

DRY_RUN = "--dry-run"
STARTS = ("preset", "base", "run", "graph", "data.source")  # one of these says what to train
SECTIONS = ("run", "base", "graph", "data", "model", "train", "finetune", "evaluate", "log")
HELP = """usage: causalcxr train [preset=NAME|FILE ...] [base=RUN] [run=FOLDER] [key=value ...] [--dry-run]

Trains every stage that is not finished yet; run it again after a kill, and it goes on. base= fine-tunes a copy of
a trained run. Presets are put over one another in their order, then base, then the settings. --dry-run takes a few
steps of each stage and says what all would take.
"""


def run(arguments: list[str]) -> None:
    """Train every stage that is not finished yet, or take a few steps of each."""
    from causalcxr.config import load_config  # slow to import, and help needs none of it
    from causalcxr.training.dry_run import as_text, dry_run
    from causalcxr.training.pipeline import train

    settings = [argument for argument in arguments if argument != DRY_RUN]
    config = load_config(settings)
    if not any(word.partition("=")[0] in STARTS for word in settings):
        raise ConfigError(
            "train: say what to train: preset=NAME (such as preset=quickstart, or a YAML file of yours), base=RUN "
            "to fine-tune a trained run, or run=FOLDER to go on with one; see causalcxr train --help"
        )
    if DRY_RUN in arguments:
        say(as_text(dry_run(config)))
        return
    folder = train(config)
    say(f"trained: {folder}\nnext: causalcxr evaluate {folder}")
