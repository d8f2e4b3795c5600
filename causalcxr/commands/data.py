"""`causalcxr data prepare SOURCE ROOT OUT`: a cohort of any source, at one size or several, with its card."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from causalcxr.commands.arguments import Parser, say
from causalcxr.data.config import SOURCES
from causalcxr.support.errors import ConfigError, nearest

if TYPE_CHECKING:
    from causalcxr.config import Config

__all__ = ["HELP", "SECTIONS", "prepare_cohort", "run"]

VERBS = ("prepare",)
SECTIONS = ("data",)
HELP = f"""usage: causalcxr data prepare SOURCE ROOT OUT [--sizes N ...] [key=value ...]

Prepares a cohort in OUT/SIZE for each size, with its card (card.html), and says how to train on it.
SOURCE: {", ".join(SOURCES)}
"""
GIVEN = {"data.source": "SOURCE", "data.root": "ROOT", "data.cache": "OUT", "data.prepared": "OUT", "run": "OUT"}


def run(arguments: list[str]) -> None:
    """`prepare` is the one command of `data`."""
    verb = arguments[0] if arguments else ""
    if verb not in VERBS:
        raise ConfigError(f"data: unknown command '{verb}'; {nearest(verb, VERBS)}")
    _prepare(arguments[1:])


def _prepare(arguments: list[str]) -> None:
    places = ["source", "out"] if arguments[:1] == ["simulator"] else ["source", "root", "out"]
    parser = Parser("causalcxr data prepare", epilog="then key=value settings, such as preset=NAME")
    for place in places:
        parser.add_argument(place)
    parser.add_argument("--sizes", nargs="+", type=int, default=[], help="pixels a side; without, data.size")
    first, rest = arguments[: len(places)], arguments[len(places) :]  # a path may have a = in it
    settings = [word for word in rest if "=" in word and not word.startswith("-")]
    options = parser.parse_args([*first, *(word for word in rest if word not in settings)])
    root = getattr(options, "root", "")
    for folder, command in prepare_cohort(options.source, root, options.out, settings, options.sizes):
        say(f"card: {folder / 'card.html'}\nnext: {command}")


def prepare_cohort(
    source: str, root: str, out: str, settings: Sequence[str] = (), sizes: Sequence[int] = ()
) -> list[tuple[Path, str]]:
    """The folder of each size, and the command that trains on it. `settings` are `key=value`, presets included.

    Raises ConfigError: an unknown source or key, an impossible value. Raises DataError: see `prepare_into`.
    """
    from causalcxr.building import open_graph  # slow to import, and help needs none of it
    from causalcxr.config import load_config
    from causalcxr.data import prepare_into

    for setting in settings:
        if key := GIVEN.get(setting.partition("=")[0]):
            raise ConfigError(f"data prepare: '{setting}' has no place here; it is given by {key}")
    config = load_config(settings)
    config.data.source, config.data.root = source, root
    config, graph = open_graph(config)
    folders = prepare_into(out, config.data, graph, sizes)
    return [(folder, _train_command(config, settings, out, int(folder.name))) for folder in folders]


def _train_command(config: "Config", settings: Sequence[str], out: str, size: int) -> str:
    from causalcxr.config import shipped_presets

    words = [word for word in settings if word.startswith(("preset=", "graph=", "model."))]
    remark = ""
    if config.data.size != size or not any(word.startswith("preset=") for word in words):
        if config.model.image == "hvae" and f"hvae{size}" in shipped_presets():
            words.append(f"preset=hvae{size}")
        else:
            words.append(f"data.size={size}")
            remark = _unfit(config, size)
    words += [f"data.prepared={out}", f"run=runs/{Path(out).name}-{size}"]
    return shlex.join(["causalcxr", "train", *words]) + remark


def _unfit(config: "Config", size: int) -> str:
    """A remark where the image's network, as it is set, takes no images of this size."""
    from causalcxr.mechanisms.hvae_network import check_config

    if config.model.image != "hvae":
        return ""
    try:
        check_config(config.model.hvae, size)
    except ConfigError as error:
        return f"    # and, since {error}"
    return ""
