"""`causalcxr train key=value ...`: train or fine-tune a run; with --dry-run, estimate what it would take."""

from causalcxr.commands.arguments import say
from causalcxr.config import load_config
from causalcxr.training.dry_run import as_text, dry_run
from causalcxr.training.pipeline import train

__all__ = ["run"]

DRY_RUN = "--dry-run"


def run(arguments: list[str]) -> None:
    """Train every stage that is not finished yet, or take a few steps of each."""
    if DRY_RUN in arguments:
        say(as_text(dry_run(load_config([argument for argument in arguments if argument != DRY_RUN]))))
        return
    folder = train(load_config(arguments))
    say(f"trained: {folder}\nnext: causalcxr evaluate run={folder}")
