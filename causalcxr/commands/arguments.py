"""What all commands share: a parser whose errors are one line, and how a result is printed."""

import argparse
import os
import sys
from typing import NoReturn

from causalcxr.support.errors import ConfigError

__all__ = ["Parser", "say"]


class Parser(argparse.ArgumentParser):
    """Argument errors in one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog.removeprefix('causalcxr ')}: {message}; see {self.prog} --help")


def say(text: str) -> None:
    """Print a result, on the first process only."""
    if int(os.environ.get("RANK", 0)) == 0:
        sys.stdout.write(text + "\n")
