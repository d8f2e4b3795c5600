"""`causalcxr explore RUN ...`: a page where one moves an attribute and the X-ray follows."""

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from causalcxr.commands.arguments import Parser, refuse_replacing, say
from causalcxr.support.errors import ConfigError, RunError, nearest

if TYPE_CHECKING:
    from causalcxr.explorer.explorer import Explored, Explorer
    from causalcxr.runs import Run

__all__ = ["HELP", "open_explorer", "run"]

HELP = """usage: causalcxr explore RUN [RUN ...] [--port N] [--host ADDRESS] [--split test]
       causalcxr explore RUN [RUN ...] --static OUT.html [--patients 6]

Serves a page on this machine and prints its address: choose a patient or upload a film, move an attribute, and the
X-ray follows. Several runs (before and after fine-tuning) stand side by side on the same patient. Needs
pip install 'causalcxr[explorer]'; Ctrl-C ends it.

--host ADDRESS         127.0.0.1: nobody else reaches it. 0.0.0.0 serves the whole network, without a password
--port N               by default the first that is free from 7860 on
--split SPLIT          whose patients are shown: train, val or test (test)
--static OUT.html      write one file that needs no server: some patients, one attribute at a time
--patients N           how many of them (6)
data.root=FOLDER, data.prepared=FOLDER, data.cache=FOLDER where the data lie elsewhere by now
"""
SHOWN = 6  # patients of a page that is written


def run(arguments: list[str]) -> None:
    """Open the runs, and serve the page until it is interrupted, or write it."""
    words = [word for word in arguments if word.startswith("data.") and "=" in word]
    options = _parse([word for word in arguments if word not in words])
    if options.static:
        _refuse_place(Path(options.static), options.runs)
    explorer = open_explorer(options.runs, words, options.split)
    if options.static:
        from causalcxr.explorer.gallery import write_gallery

        try:
            write_gallery(explorer, Path(options.static), options.patients or SHOWN)
        except KeyboardInterrupt:
            raise ConfigError("explore: interrupted; nothing was written") from None
        say(f"wrote {options.static}, {Path(options.static).stat().st_size / 2**20:.1f} MiB")
        return
    from causalcxr.explorer.server import listening, serve

    with listening(options.host, options.port) as at, suppress(KeyboardInterrupt):
        host = f"[{options.host}]" if ":" in options.host and "[" not in options.host else options.host
        say(f"explore: http://{host}:{at.getsockname()[1]}/ shows {', '.join(options.runs)}; Ctrl-C ends it")
        sys.stdout.flush()
        serve(explorer, at, options.host)
    say("explore: ended")


def _parse(arguments: list[str]) -> Namespace:
    parser = Parser("causalcxr explore", add_help=False)
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int)
    parser.add_argument("--split", default="test")
    parser.add_argument("--static", default="")
    parser.add_argument("--patients", type=int)
    options = parser.parse_args(arguments)
    if not options.runs:
        raise ConfigError("explore: expected causalcxr explore RUN; see causalcxr explore --help")
    if not options.host.strip():
        raise ConfigError("explore: --host is empty; expected an address, such as 127.0.0.1")
    if options.port is not None and not 0 < options.port < 65536:
        raise ConfigError(f"explore: --port expects 1 to 65535, got {options.port}")
    if options.patients is not None and not options.static:
        raise ConfigError("explore: --patients is of a page that is written; say --static OUT.html with it")
    if options.patients is not None and options.patients < 1:
        raise ConfigError(f"explore: --patients expects at least 1, got {options.patients}")
    if options.static and not options.static.lower().endswith((".html", ".htm")):
        raise ConfigError(f"explore: --static '{options.static}' is no page; expected an ending of .html")
    return options


def _refuse_place(path: Path, runs: Sequence[str]) -> None:
    """Raises ConfigError where the page can't be written, before all of its answers are worked out."""
    refuse_replacing([path], [Path(folder) for folder in runs])
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConfigError(f"explore: --static '{path}' is in no folder that can be written to; make it first")


def open_explorer(folders: Sequence[str], words: Sequence[str] = (), split: str = "test") -> "Explorer":
    """The runs on the first one's cohort."""
    from causalcxr.config import override_config
    from causalcxr.data.preparation import open_cohort
    from causalcxr.evaluation.evaluate import DATA_PLACES, refuse_settings
    from causalcxr.explorer.explorer import Explorer
    from causalcxr.explorer.patients import Patients
    from causalcxr.runs import open_run

    refuse_settings(words, "explore")
    if odd := [folder for folder in folders if "=" in folder]:
        raise ConfigError(
            f"explore: '{odd[0]}' can't be set here; {nearest(odd[0].partition('=')[0], DATA_PLACES)}"
        )
    once = {Path(folder).resolve(): folder for folder in folders}.values()
    opened = [open_run(folder) for folder in once]
    _refuse_others(opened)
    names = _short_names([one.folder for one in opened])
    explored = [_explored(*one) for one in zip(opened, names, strict=True)]
    config = override_config(opened[0].config, words)
    return Explorer(explored, Patients(open_cohort(config.data, opened[0].graph), split), words)


def _short_names(folders: Sequence[Path]) -> list[str]:
    """The last parts of the folders' paths, as few as tell them apart."""
    parts, length = [folder.resolve().parts for folder in folders], 1
    while len({one[-length:] for one in parts}) < len(parts):
        length += 1
    return ["/".join(one[-length:]) for one in parts]


def _refuse_others(opened: Sequence["Run"]) -> None:
    """Runs stand side by side if they are of one graph, of one image size and of the same data."""
    first = opened[0]
    if first.graph.image is None:
        raise RunError(f"run '{first.folder}' is of graph '{first.graph.name}', which has no image to show")
    for other in opened[1:]:
        if other.graph.with_image_mechanism("") != first.graph.with_image_mechanism(""):
            raise RunError(
                f"runs '{first.folder}' and '{other.folder}' have different graphs; show them one by one"
            )
        if other.config.data.size != first.config.data.size:
            sizes = f"{first.config.data.size} and {other.config.data.size}"
            raise RunError(
                f"runs '{first.folder}' and '{other.folder}' have images of {sizes} pixels; show them one by one"
            )
        if len({_data_hash(one) for one in (first, other)} - {""}) > 1:
            raise RunError(
                f"runs '{first.folder}' and '{other.folder}' were trained on different data: who is new to one "
                "may be known to the other; show them one by one"
            )


def _data_hash(opened: "Run") -> str:
    """Of the cohort that a run began with; "" where that is not known any more."""
    with suppress(RunError):  # the run that it fine-tunes has gone
        return opened.begun.provenance.get("data_hash", "")
    return ""


def _explored(opened: "Run", name: str) -> "Explored":
    from causalcxr.evaluation.evaluate import device_of
    from causalcxr.explorer.explorer import Explored
    from causalcxr.explorer.readings import quality
    from causalcxr.runs import load

    if "image" not in opened.finished_stages():
        raise RunError(f"run '{opened.folder}' has no trained image mechanism; train its stage 'image' first")
    device = device_of(opened.config)
    has_evaluator = (opened.folder / "evaluator.safetensors").exists()
    evaluator = opened.load_predictor("evaluator").to(device) if has_evaluator else None
    return Explored(
        name, opened.folder, load(opened.folder, device), evaluator, quality(opened.graph, opened.folder)
    )
