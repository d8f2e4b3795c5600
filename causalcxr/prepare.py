"""Prepare a cohort of any source into a folder, at one size or several, and say how to train on it."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from causalcxr.config import Config, load_config, shipped_presets
from causalcxr.data import prepare_into
from causalcxr.errors import ConfigError
from causalcxr.graph import load_graph

__all__ = ["prepare_cohort"]

GIVEN = {"data.source": "SOURCE", "data.root": "ROOT", "data.cache": "OUT", "data.prepared": "OUT", "run": "OUT"}


def prepare_cohort(
    source: str, root: str, out: str, settings: Sequence[str] = (), sizes: Sequence[int] = ()
) -> list[tuple[Path, str]]:
    """The folder of each size, and the command that trains on it. `settings` are `key=value`, presets included.

    Raises ConfigError: an unknown source or key, an impossible value. Raises DataError: see `prepare_into`.
    """
    for setting in settings:
        if key := GIVEN.get(setting.partition("=")[0]):
            raise ConfigError(f"data prepare: '{setting}' has no place here; it is given by {key}")
    config = load_config(settings, trains=False)
    config.data.source, config.data.root = source, root
    folders = prepare_into(out, config.data, load_graph(config.graph), sizes)
    return [(folder, _train_command(config, settings, out, int(folder.name))) for folder in folders]


def _train_command(config: Config, settings: Sequence[str], out: str, size: int) -> str:
    words = [word for word in settings if word.partition("=")[0] in ("preset", "graph")]
    if config.model.image.size != size or not any(word.startswith("preset=") for word in words):
        shipped = f"hvae{size}" in shipped_presets()
        words += [f"preset=hvae{size}"] if shipped else [f"data.size={size}", f"model.image.size={size}"]
    return shlex.join(["causalcxr", "train", *words, f"data.prepared={out}", f"run=runs/{Path(out).name}-{size}"])
