"""What all commands share: one grammar, a parser whose errors are one line, and how a result is printed."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from causalcxr.support.errors import ConfigError

__all__ = ["Help", "Parser", "assignments", "refuse_replacing", "say"]


class Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The defaults of every option, and what stands below them as it is written."""


class Parser(argparse.ArgumentParser):
    """Argument errors in one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog.removeprefix('causalcxr ')}: {message}; see {self.prog} --help")


def assignments(arguments: Sequence[str], *options: str) -> tuple[list[str], dict[str, list[str]]]:
    """Take the words NAME=VALUE behind each option out of the arguments; of an option given twice the last counts.

    What follows them is not swallowed: `--do age=80 runs/demo chest.png` has two places behind it.
    Raises ConfigError: an option with another word behind it.
    """
    rest: list[str] = []
    found: dict[str, list[str]] = {}
    option = ""
    for word in arguments:
        if word in options:
            option, found[word] = word, []
        elif option and "=" in word and not word.startswith("-"):
            found[option].append(word)
        elif option and not found[option]:
            raise ConfigError(f"{option} '{word}': expected NAME=VALUE, for example age=80")
        else:
            option = ""
            rest.append(word)
    return rest, found


def refuse_replacing(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Raises ConfigError where a file to write is one that was read, or two to write are one, or one is a folder.

    An input that is a folder stands for its files.
    """
    read = {
        path.resolve(): path for given in inputs for path in ([*given.iterdir()] if given.is_dir() else [given])
    }
    for i, path in enumerate(outputs):
        if not path.name or path.is_dir():
            raise ConfigError(f"'{path}' is a folder; expected a file to write")
        if path.resolve() in read:
            raise ConfigError(
                f"'{path}' would replace '{read[path.resolve()]}', which is read; choose another file"
            )
        if path.resolve() in [other.resolve() for other in outputs[:i]]:
            raise ConfigError(f"'{path}' would be written twice; choose another file")


def say(text: str) -> None:
    """Print a result, on the first process only."""
    if int(os.environ.get("RANK", 0)) == 0:
        sys.stdout.write(text + "\n")
