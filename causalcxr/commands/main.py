"""The command line: finds the command, runs it, and turns errors into one line and an exit status."""

import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import causalcxr
from causalcxr.commands.settings import list_settings
from causalcxr.support.errors import CausalCXRError, ConfigError, nearest

__all__ = ["main"]

COMMANDS = (
    "train",
    "evaluate",
    "audit",
    "bias",
    "sites",
    "embed",
    "debias",
    "counterfactual",
    "explore",
    "graph",
    "simulate",
    "data",
)  # modules of this folder

USAGE = """usage: causalcxr COMMAND ...

  causalcxr COMMAND --help                             what a command takes, with every setting
  causalcxr --version

  causalcxr train preset=quickstart run=runs/demo      train a model (run it again to go on after a kill)
  causalcxr train preset=mimic192 --dry-run            a few steps: seconds, memory, projected hours
  causalcxr train base=runs/demo finetune.targets=soft fine-tune a trained model into runs/demo-soft
  causalcxr evaluate runs/demo                         metrics.json and report.html of a trained model
  causalcxr audit runs/demo --model predictor          would its answer change with the patient's sex, race, age?
  causalcxr bias STUDY.yaml                            plant a bias, and see what networks make of it
  causalcxr sites train STUDY.yaml                     learn across hospitals whose images stay where they are
  causalcxr embed runs/demo OUT                        embeddings of a cohort's films, for debias
  causalcxr debias fit EMBEDDINGS --table T.csv --erase sex race --keep finding --out DIR
  causalcxr counterfactual runs/demo chest.png --with sex=female age=63 --do age=80
  causalcxr explore runs/demo                          a page where one moves an attribute and the X-ray follows
  causalcxr graph check chest table.csv                what the graph claims, tested against the data
  causalcxr simulate OUT --n 100 --size 128            simulated X-rays with known truth
  causalcxr data prepare SOURCE ROOT OUT --sizes 64 192  a cohort with its card

These but graph, simulate and counterfactual take key=value settings: causalcxr train --help lists them all."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0 done, 1 the data contradict the graph that is checked, 2 an error that the user can mend, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _set_up_logging()
    try:
        if arguments[:1] == ["help"]:
            arguments = [*arguments[1:], "--help"]
        if not arguments or arguments[0] in ("-h", "--help"):
            sys.stdout.write(USAGE + "\n")
            return 0
        if arguments[0] in ("-V", "--version", "version"):
            sys.stdout.write(f"causalcxr {causalcxr.__version__}\n")
            return 0
        name, rest = arguments[0], arguments[1:]
        if name not in COMMANDS:
            raise ConfigError(f"unknown command '{name}'; {nearest(name, COMMANDS)}")
        command = import_module(f"causalcxr.commands.{name}")
        if rest[-1:] in (["-h"], ["--help"]) and hasattr(command, "HELP"):
            sections = getattr(command, "SECTIONS", None)  # without them it takes no key=value
            settings = "" if sections is None else settings_text(sections, getattr(command, "ROOT", "Config"))
            sys.stdout.write(f"{command.HELP}\n{settings}\n".replace("\n\n\n", "\n"))
            return 0
        return command.run(rest) or 0
    except CausalCXRError as error:
        sys.stderr.write(f"causalcxr: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("causalcxr: interrupted; the same command goes on from the last checkpoint\n")
        return 130


def settings_text(sections: tuple[str, ...], root: str) -> str:
    """All settings of these sections, a line each."""
    found = list_settings(sections, root)
    lines = [f"  {setting.key}={setting.default}" for setting in found]
    width = min(48, max(map(len, lines)))
    both = zip(lines, found, strict=True)
    return "\n".join(["settings, with their defaults:", *(f"{a:{width}}  {b.about}".rstrip() for a, b in both)])


def _set_up_logging() -> None:
    first_process = int(os.environ.get("RANK", 0)) == 0
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
    logging.getLogger("causalcxr").setLevel(logging.INFO if first_process else logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
