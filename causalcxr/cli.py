"""The command line: train, evaluate, counterfactual, graph, simulate, data prepare."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from causalcxr.data.config import SOURCES
from causalcxr.errors import CausalCXRError, ConfigError, nearest

__all__ = ["main"]

DRY_RUN = "--dry-run"

USAGE = """usage: causalcxr COMMAND ...

  causalcxr train preset=quickstart run=runs/demo      train a model (run it again to go on after a kill)
  causalcxr train preset=mimic192 --dry-run            a few steps: seconds, memory, projected hours
  causalcxr train base=runs/demo finetune.targets=soft fine-tune a trained model into runs/demo-soft
  causalcxr evaluate run=runs/demo                     metrics.json and report.html of a trained model
  causalcxr counterfactual runs/demo chest.png --with sex=female age=63 --do age=80
  causalcxr graph check chest table.csv                what the graph claims, tested against the data
  causalcxr simulate OUT --n 100 --size 128            simulated X-rays with known truth
  causalcxr data prepare SOURCE ROOT OUT --sizes 64 192  a cohort with its card (SOURCE: {sources})

train, evaluate and data prepare take key=value arguments; see docs/architecture.md for the keys."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0 done, 1 the data contradict the graph that is checked, 2 an error that the user can mend, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _set_up_logging()
    try:
        if not arguments or arguments[0] in ("-h", "--help", "help"):
            sys.stdout.write(USAGE.format(sources=", ".join(SOURCES)) + "\n")
            return 0
        name, rest = arguments[0], arguments[1:]
        if name not in COMMANDS:
            raise ConfigError(f"unknown command '{name}'; {nearest(name, COMMANDS)}")
        return COMMANDS[name](rest) or 0
    except CausalCXRError as error:
        sys.stderr.write(f"causalcxr: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("causalcxr: interrupted; the same command goes on from the last checkpoint\n")
        return 130


def _train(arguments: list[str]) -> None:
    from causalcxr.config import load_config
    from causalcxr.dry_run import dry_run, in_words
    from causalcxr.train import train

    if DRY_RUN in arguments:
        _say(in_words(dry_run(load_config([argument for argument in arguments if argument != DRY_RUN]))))
        return
    folder = train(load_config(arguments))
    _say(f"trained: {folder}\nnext: causalcxr evaluate run={folder}")


def _evaluate(arguments: list[str]) -> None:
    from causalcxr.evaluate import evaluate

    report = evaluate(arguments)
    _say(f"report: {report}")


def _counterfactual(arguments: list[str]) -> None:
    from causalcxr.ask import ask

    parser = _Parser("causalcxr counterfactual")
    parser.add_argument("run", help="folder of a trained run")
    parser.add_argument("image", help="image file of one patient")
    parser.add_argument("--with", dest="given", nargs="+", default=[], metavar="NAME=VALUE", help="its attributes")
    parser.add_argument("--do", nargs="+", required=True, metavar="NAME=VALUE", help="the intervention")
    parser.add_argument("--effect", default="total", help="total, direct or indirect")
    parser.add_argument("--seed", type=int, default=0, help="of the abduction")
    parser.add_argument("--draws", type=int, default=1, help="of the noise; several: their mean, and the first")
    parser.add_argument("--out", default="counterfactual.png", help="picture; the numbers go beside it as JSON")
    options = parser.parse_args(arguments)
    picture, numbers = ask(**vars(options))
    _say(f"wrote {picture} and {numbers}")


def _graph(arguments: list[str]) -> int:
    from causalcxr.check.check import check_graph
    from causalcxr.check.words import as_json, as_text
    from causalcxr.files import write_json

    parser = _Parser("causalcxr graph")
    check = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "check", help="test what a graph claims against data; status 1 if they contradict it"
    )
    check.add_argument("graph", help="a shipped graph's name, or a YAML file")
    check.add_argument(
        "cohort",
        nargs="+",
        help="a CSV or the folder of a prepared cohort, or neither; then key=value as in train",
    )
    check.add_argument("--json", metavar="FILE", help="also write all that was tested as JSON")
    options = parser.parse_args(arguments)
    findings = check_graph(options.graph, options.cohort)
    if options.json:
        write_json(Path(options.json), as_json(findings))
    _say(as_text(findings))
    return int(findings.contradicted)


def _simulate(arguments: list[str]) -> None:
    from causalcxr.simulate import simulate

    parser = _Parser("causalcxr simulate")
    parser.add_argument("out", help="folder to write: images, metadata.csv, contact sheet, counterfactual grid")
    parser.add_argument("--n", type=int, default=100, help="subjects")
    parser.add_argument("--size", type=int, default=128, help="pixels a side, 32 to 256")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--do", nargs="+", default=[], metavar="NAME=VALUE", help="an intervention on everyone")
    options = parser.parse_args(arguments)
    folder = simulate(options.out, options.n, options.size, options.seed, options.do)
    _say(f"wrote {options.n} X-rays to {folder}")


def _data(arguments: list[str]) -> None:
    verb = arguments[0] if arguments else ""
    if verb not in DATA_COMMANDS:
        raise ConfigError(f"data: unknown command '{verb}'; {nearest(verb, DATA_COMMANDS)}")
    DATA_COMMANDS[verb](arguments[1:])


def _data_prepare(arguments: list[str]) -> None:
    from causalcxr.prepare import prepare_cohort

    places = ["source", "out"] if arguments[:1] == ["simulator"] else ["source", "root", "out"]
    parser = _Parser("causalcxr data prepare", epilog="then key=value settings, such as preset=NAME")
    for place in places:
        parser.add_argument(place)
    parser.add_argument("--sizes", nargs="+", type=int, default=[], help="pixels a side; without, data.size")
    first, rest = arguments[: len(places)], arguments[len(places) :]  # a path may have a = in it
    settings = [word for word in rest if "=" in word and not word.startswith("-")]
    options = parser.parse_args([*first, *(word for word in rest if word not in settings)])
    root = getattr(options, "root", "")
    for folder, command in prepare_cohort(options.source, root, options.out, settings, options.sizes):
        _say(f"card: {folder / 'card.html'}\nnext: {command}")


DATA_COMMANDS: dict[str, Callable[[list[str]], None]] = {"prepare": _data_prepare}
COMMANDS: dict[str, Callable[[list[str]], int | None]] = {
    "train": _train,
    "evaluate": _evaluate,
    "counterfactual": _counterfactual,
    "graph": _graph,
    "simulate": _simulate,
    "data": _data,
}


class _Parser(argparse.ArgumentParser):
    """Argument errors in one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog.removeprefix('causalcxr ')}: {message}; see {self.prog} --help")


def _set_up_logging() -> None:
    first_process = int(os.environ.get("RANK", 0)) == 0
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
    logging.getLogger("causalcxr").setLevel(logging.INFO if first_process else logging.ERROR)


def _say(text: str) -> None:
    if int(os.environ.get("RANK", 0)) == 0:
        sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
