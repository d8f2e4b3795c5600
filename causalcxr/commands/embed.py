"""`causalcxr embed RUN OUT`: the embeddings of a cohort's images, and of its patients under other attributes."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalcxr.commands.arguments import Parser, say
from causalcxr.support.errors import ConfigError, RunError

if TYPE_CHECKING:
    import numpy as np

    from causalcxr.config import Config
    from causalcxr.data.cohort import Cohort, Split
    from causalcxr.metrics.truth import Truth
    from causalcxr.runs import Run
    from causalcxr.scm import StructuralCausalModel

__all__ = ["HELP", "run"]

OWN = ("predictor", "evaluator")
HELP = """usage: causalcxr embed RUN OUT [--model MODEL] [--layer NAME] [--over ATTRIBUTE ...] [options]

Embeds the images of RUN's cohort. Writes OUT/embeddings.npy, float32 (images, numbers), and OUT/table.csv, which
has for every row its id, patient_id, split and attributes.

--model MODEL          predictor or evaluator of the run (predictor), whose features are taken, or
                       FILE.py:FUNCTION, which is called with the graph's attributes and returns a predictor, a
                       network or a function from images (B, C, H, W) in [0, 1] to embeddings (B, D); nothing is
                       downloaded
--layer NAME           take the output of this layer of the network, averaged over the image
--splits SPLIT ...     train, val, test (all)
--over ATTRIBUTE ...   also every patient's embeddings under all combinations of these attributes' values (of a
                       number five quantiles), made by the run: OUT/pairs.npy (images, combinations, numbers);
                       OUT/pairs.json lists the combinations
--exact                these by the simulator in place of the run; for simulated cohorts
data.root=FOLDER, data.prepared=FOLDER where the data lie elsewhere by now; all other settings of the data were
settled when RUN was trained
"""


def run(arguments: list[str]) -> None:
    """Embed, write, and say what was written."""
    words = [word for word in arguments if word.startswith("data.") and "=" in word]
    options = _parse([word for word in arguments if word not in words])
    out = Path(options.out)
    _refuse(options, out)
    opened, config, cohort = _open(options.run, words)
    from causalcxr.debias.embedding import embed_split, embedder_of  # slow to import, and help needs none of it
    from causalcxr.support.progress import progress_bar

    splits = [cohort.split(name) for name in dict.fromkeys(options.splits)]
    pairs = _Pairs(opened, config, cohort, options) if options.over else None
    model, total = _model(opened, config, options.model), sum(map(len, splits))
    embed, found, under = embedder_of(model, options.layer), [], []
    with progress_bar("embed", total * (2 if pairs else 1)) as advance:
        for split in splits:
            found.append(embed_split(embed, split, progress=advance))
            if pairs is not None:
                under.append(pairs.of(split, embed, advance))
    _write(out, splits, found, under, pairs)
    also = "" if pairs is None else f", pairs.npy under {len(pairs.combinations)} combinations and pairs.json"
    say(f"{total:,} images, {found[0].shape[1]:,} numbers each: wrote embeddings.npy, table.csv{also} to {out}")


class _Pairs:
    """Embeds patients under all combinations of the values of some attributes."""

    def __init__(self, opened: "Run", config: "Config", cohort: "Cohort", options: Namespace):
        from causalcxr.debias.embedding import combinations_of, values_to_average

        train = cohort.split("train").attributes
        self.values: Mapping[str, Sequence[Any]] = values_to_average(opened.graph, options.over, train)
        self.combinations = combinations_of(self.values)
        self.truth = _truth(cohort) if options.exact else None
        self.scm = None if options.exact else _trained(opened, config)

    def of(self, split: "Split", embed: Any, advance: Any) -> "np.ndarray":
        """The embeddings `(N, G, D)` of one split."""
        from causalcxr.debias.embedding import counterfactual_embeddings

        return counterfactual_embeddings(self.scm, split, embed, self.values, self.truth, progress=advance)


def _parse(arguments: list[str]) -> Namespace:
    parser = Parser("causalcxr embed", add_help=False)
    parser.add_argument("run")
    parser.add_argument("out")
    parser.add_argument("--model", default=OWN[0])
    parser.add_argument("--layer", default="")
    parser.add_argument("--splits", nargs="+", default=["train", "val", "test"])
    parser.add_argument("--over", nargs="+", default=[])
    parser.add_argument("--exact", action="store_true")
    return parser.parse_args(arguments)


def _refuse(options: Namespace, out: Path) -> None:
    """What can't be done, before anything is computed."""
    if options.exact and not options.over:
        raise ConfigError("embed: --exact says how --over is made; say over which attributes, such as --over sex")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"embed: '{out}' is a file; expected a folder to write into")
    if (out / "pairs.npy").exists() and not options.over:
        raise ConfigError(
            f"embed: '{out}' has the pairs of another call, which may not fit; choose another folder, delete "
            "pairs.npy, or say --over again"
        )


def _open(folder: str, words: Sequence[str]) -> tuple["Run", "Config", "Cohort"]:
    """The run, its settings and its cohort."""
    from causalcxr.config import override_config
    from causalcxr.data.preparation import open_cohort
    from causalcxr.evaluation.evaluate import refuse_settings
    from causalcxr.runs import open_run

    refuse_settings(words, "embed")
    opened = open_run(folder)
    if opened.graph.image is None:
        raise RunError(f"run '{folder}' is of graph '{opened.graph.name}', which has no image to embed")
    config = override_config(opened.config, words)
    return opened, config, open_cohort(config.data, opened.graph)


def _model(opened: "Run", config: "Config", model: str) -> Any:
    from causalcxr.evaluation.evaluate import device_of
    from causalcxr.support.user_code import call_function

    if model in OWN:
        return opened.load_predictor(model).to(device_of(config))
    if ":" not in model:
        raise ConfigError(f"--model '{model}': expected {' or '.join(OWN)}, or FILE.py:FUNCTION")
    return call_function(model, "--model", [opened.graph[name] for name in opened.graph.attributes])


def _trained(opened: "Run", config: "Config") -> "StructuralCausalModel":
    from causalcxr.evaluation.evaluate import device_of
    from causalcxr.runs import load

    if "image" not in opened.finished_stages():
        raise RunError(f"run '{opened.folder}' has no trained image mechanism; --over needs one (train.stages)")
    return load(opened.folder, device_of(config))


def _truth(cohort: "Cohort") -> "Truth":
    from causalcxr.metrics.truth import find_truth

    if (truth := find_truth(cohort)) is None:
        raise ConfigError("embed: --exact needs a simulated cohort with the simulator's labels; leave it away")
    return truth


def _write(
    out: Path,
    splits: Sequence["Split"],
    found: Sequence["np.ndarray"],
    under: Sequence["np.ndarray"],
    pairs: _Pairs | None,
) -> None:
    """The files, each whole or not at all; rows of all splits one after the other."""
    import numpy as np
    import pandas as pd

    from causalcxr.support.files import write_atomically, write_json

    arrays = {"embeddings.npy": found, "pairs.npy": under}
    for name, parts in arrays.items():
        if parts:
            joined = np.concatenate(list(parts))
            write_atomically(out / name, lambda file, array=joined: np.save(file, array, allow_pickle=False))
    if pairs is not None:
        write_json(out / "pairs.json", pairs.combinations)
    table = pd.concat([pd.DataFrame(_columns(split)) for split in splits])
    write_atomically(out / "table.csv", table.to_csv(index=False))


def _columns(split: "Split") -> dict[str, Any]:
    """A split's table: who each row is, and its attributes in words and natural units."""
    import numpy as np

    about = {"id": split.ids.astype(str), "patient_id": split.patients, "split": split.name}
    values = {name: value.numpy() for name, value in split.attributes.items()}
    labels = {name: np.array(split.graph[name].labels) for name in values if split.graph[name].is_discrete}
    return about | {name: labels[name][value] if name in labels else value for name, value in values.items()}
