"""Audits a product that nobody may look into: images go out, scores come back in a table.

`OUT/send` is for the vendor: images under random numbers, and a table of these. `OUT/keep` is for the
auditor: which image is whose, and all that the audit needs besides the scores.
"""

import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from causalcxr.audit.audit import Audit, Moved
from causalcxr.audit.conclusion import conclude
from causalcxr.audit.config import AuditConfig
from causalcxr.audit.contrasts import Contrast, choose_contrasts
from causalcxr.audit.image_files import FORMATS, read_image, write_image
from causalcxr.audit.making import MadeBatch
from causalcxr.audit.material import Material, gather
from causalcxr.audit.scores import Scores, on_scale, threshold_on_scale
from causalcxr.data.cohort import Cohort
from causalcxr.graph import graph_from_dict
from causalcxr.metrics.intervals import Interval
from causalcxr.predictors.predictor import Predictor
from causalcxr.scm import StructuralCausalModel
from causalcxr.support.errors import ConfigError, DataError, nearest
from causalcxr.support.files import load_tensors, save_tensors, write_atomically
from causalcxr.values import readable

__all__ = ["export_images", "read_scores"]

README = """Please score every image in the folder 'images', each on its own, and send back one CSV table:

    image,{finding}
    {image},0.37

The column 'image' is as in images.csv. Every further column is a score, a number for every image; the one above is
the probability of '{finding}'. All images are of research subjects or made from such; none may be used for care.
"""


def export_images(
    scm: StructuralCausalModel,
    cohort: Cohort,
    out: Path,
    config: AuditConfig,
    evaluator: Predictor | None = None,
    kind: str = "png8",
    about: Mapping[str, Any] | None = None,
) -> int:
    """Write real images, counterfactuals and placebos into `out`; returns how many.

    Every image has 8 bits of content, whatever the `kind` of file: `png8`, `png16` or `dicom` (extra `dicom`). Of
    images that are the same one is written. `about`: facts for the report.
    Raises ConfigError: a folder with something in it, or an unknown kind. Raises DataError: too few patients.
    """
    if kind not in FORMATS:
        raise ConfigError(f"--format '{kind}'; {nearest(kind, FORMATS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"audit export: '{out}' holds something already; choose another folder or delete it")
    contrasts = choose_contrasts(scm.graph, config, cohort.split("train").attributes)
    sink = _Written(out / "send" / "images", kind)
    material = gather(scm, cohort, contrasts, evaluator, config, sink)
    _save(material, config, {"format": kind, **(about or {})}, out / "keep" / "material.safetensors")
    key = sink.key(material)
    write_atomically(out / "keep" / "key.csv", key.to_csv(index=False))
    images = sorted(set(key["image"]))
    sent = pd.DataFrame({"image": images, "file": [f"images/{name}{FORMATS[kind]}" for name in images]})
    write_atomically(out / "send" / "images.csv", sent.to_csv(index=False))
    finding = scm.graph[config.finding].labels[-1:] if config.finding in scm.graph.attributes else ()
    readme = README.format(finding=finding[0] if finding else config.finding, image=images[0])
    write_atomically(out / "send" / "README.txt", readme)
    return len(images)


def read_scores(
    out: Path,
    table: Path,
    kind: str = "probabilities",
    thresholds: Mapping[str, float] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[Audit, dict[str, Any]]:
    """Audit the scores that came back; also gives the facts that the export stored.

    With scores of the real images alone, only the route "encode" runs. `thresholds`: operating points by score, as
    sent; without one 0.5 of probabilities, else the median of the real images. `settings`: of `AuditConfig`, where
    they shall differ from those of the export. Raises DataError: no export, or a table that doesn't fit it.
    """
    material, config, about = _load(out / "keep" / "material.safetensors")
    config = AuditConfig(**{**asdict(config), **(settings or {})})
    key = _read_key(out / "keep" / "key.csv", material)
    images, sent = _scores_by_image(table, key)
    scores = {name: _by_row(on_scale(name, values, kind), images, key, material) for name, values in sent.items()}
    if unknown := [name for name in thresholds or {} if name not in scores]:
        raise ConfigError(f"threshold: no score '{unknown[0]}'; {nearest(unknown[0], scores)}")
    chosen = {name: 0.0 if kind == "probabilities" else float(np.median(of.real)) for name, of in scores.items()}
    chosen |= {name: threshold_on_scale(name, value, kind) for name, value in (thresholds or {}).items()}
    found = conclude(material, scores, chosen, config)
    folder, stored = out / "send" / "images", about["format"]
    moved = _moved(folder, stored, key, next(iter(scores.values())), config.shown) if folder.is_dir() else []
    return Audit(config, material, scores, found, moved, kind == "probabilities"), about


class _Written:
    """Writes every image under a number that nobody can guess, in an order that tells nothing either."""

    def __init__(self, folder: Path, kind: str):
        self.folder, self.kind = folder, kind
        self.names: list[list[str]] = []  # by row, by set
        self.used: set[str] = set()

    def __call__(self, made: MadeBatch) -> None:
        sets = [(255 * images).round().cpu() / 255 for images in made.all_images]
        waiting: list[tuple[str, Tensor]] = []
        for i in range(len(made.rows)):
            known: dict[bytes, str] = {}
            for images in sets:
                content = images[i].numpy().tobytes()
                if content not in known:
                    known[content] = self._name()
                    waiting.append((known[content], images[i]))
            self.names.append([known[images[i].numpy().tobytes()] for images in sets])
        for name, image in sorted(waiting, key=lambda one: one[0]):
            path = self.folder / f"{name}{FORMATS[self.kind]}"
            write_image(path, image, self.kind, name)
            os.utime(path, (0, 0))

    def _name(self) -> str:
        while (name := str(10**8 + secrets.randbelow(9 * 10**8))) in self.used:
            pass
        self.used.add(name)
        return name

    def key(self, material: Material) -> pd.DataFrame:
        """`row` of the audit, `what` is shown, and the `image` that shows it; several rows may name one."""
        sets = _sets(material)
        pairs = ((i, zip(sets, names, strict=True)) for i, names in enumerate(self.names))
        flat = [(i, what, name) for i, of_row in pairs for what, name in of_row]
        rows, whats, images = zip(*flat, strict=True)
        return pd.DataFrame({"row": rows, "what": whats, "image": images})


def _sets(material: Material) -> list[str]:
    """What the sets of images show, in order: `real`, `made: sex = male` ..., `placebo: sex = male` ..."""
    levels = [f"{name} = {readable(material.graph[name], value)}" for name, value in material.levels]
    return ["real", *(f"made: {level}" for level in levels), *(f"placebo: {level}" for level in levels)]


def _read_key(path: Path, material: Material) -> pd.DataFrame:
    """With the number of each set, `set`."""
    key = pd.read_csv(path, dtype={"image": str, "what": str, "row": int})
    return key.assign(set=[_sets(material).index(what) for what in key["what"]])


def _scores_by_image(path: Path, key: pd.DataFrame) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The table that came back: images `(M,)` and scores `(M,)` by name. Raises DataError: what does not fit."""
    sent = _read_table(path)
    images = np.array([PureWindowsPath(str(text).strip()).stem for text in sent["image"]], dtype=str)
    names, counts = np.unique(images, return_counts=True)
    if len(twice := names[counts > 1]):
        raise DataError(f"'{path}': {len(twice)} images have several rows, such as '{twice[0]}'; keep one")
    if len(unknown := np.setdiff1d(names, key["image"].to_numpy(str))):
        raise DataError(
            f"'{path}': {len(unknown)} images are not of this export, such as '{unknown[0]}'; their names are in "
            "send/images.csv"
        )
    columns = [name for name in sent.columns if name not in ("image", "file") and not name.startswith("Unnamed:")]
    if not columns or not len(sent):
        raise DataError(f"'{path}' has no score: expected a column for each beside 'image'")
    scores = {name: _numbers(path, name, pd.Series(sent[name]), images) for name in columns}
    _refuse_gaps(path, names, key)
    return images, scores


def _read_table(path: Path) -> pd.DataFrame:
    """With commas, semicolons or tabs; blank lines are left out, and `image` may be written in capitals."""
    header: list[str] = []
    for separator in ",;\t":
        try:
            sent = pd.read_csv(path, dtype=str, sep=separator, encoding="utf-8-sig").dropna(how="all")
        except FileNotFoundError:
            raise DataError(f"no file '{path}'") from None
        except (OSError, ValueError) as error:
            raise DataError(f"'{path}' can't be read as CSV: {' '.join(str(error).split())}") from None
        names = [str(name).strip() for name in sent.columns]
        header = header or names
        lowered = [name.lower() for name in names]
        if "image" in lowered:
            names[lowered.index("image")] = "image"
            return sent.set_axis(names, axis=1)
    raise DataError(f"'{path}' has no column 'image', only {', '.join(header)}")


def _numbers(path: Path, name: str, column: pd.Series, images: np.ndarray) -> np.ndarray:
    numbers = np.asarray(pd.to_numeric(column, errors="coerce"), dtype=float)
    if len(bad := np.flatnonzero(np.isnan(numbers))):
        raise DataError(
            f"'{path}': {len(bad)} values of '{name}' are no numbers, such as that of image '{images[bad[0]]}'; "
            "every image needs its score, and a column that is none has to go"
        )
    return numbers


def _refuse_gaps(path: Path, there: np.ndarray, key: pd.DataFrame) -> None:
    """Either all images have a score, or all real ones and no other."""
    names, real = key["image"].to_numpy(str), key["set"].to_numpy() == 0
    only_real = not np.setdiff1d(there, names[real]).size
    wanted = np.unique(names[real] if only_real else names)
    if len(missing := np.setdiff1d(wanted, there)):
        which = "real images" if only_real else "images"
        raise DataError(
            f"'{path}' lacks {len(missing)} of {len(wanted)} {which}, such as '{missing[0]}'; every one needs its "
            "score"
        )


def _by_row(values: np.ndarray, images: np.ndarray, key: pd.DataFrame, material: Material) -> Scores:
    levels, names = len(material.levels), key["image"].to_numpy(str)
    order = np.argsort(images)
    places = np.searchsorted(images[order], names).clip(max=len(images) - 1)
    there = images[order][places] == names
    table = np.full((len(material.ids), 1 + 2 * levels), np.nan)
    rows, sets = key["row"].to_numpy()[there], key["set"].to_numpy()[there]
    table[rows, sets] = values[order][places[there]]
    if np.isnan(table).any():  # the real ones, and what is the same
        return Scores(table[:, 0])
    return Scores(table[:, 0], table[:, 1 : 1 + levels], table[:, 1 + levels :])


def _moved(folder: Path, kind: str, key: pd.DataFrame, scores: Scores, shown: int) -> list[Moved]:
    """The patients whose score moves most, with the images that were sent."""
    if scores.made is None:
        return []
    change, sets = np.abs(scores.made - scores.real[:, None]).max(axis=1), 1 + scores.made.shape[1]
    names = {(int(r), int(s)): str(n) for n, r, s in zip(key["image"], key["row"], key["set"], strict=True)}
    found = []
    for row in map(int, np.argsort(-change)[:shown]):
        files = [folder / f"{names[row, j]}{FORMATS[kind]}" for j in range(sets)]
        if all(file.is_file() for file in files):
            images = [torch.from_numpy(read_image(file, kind))[None] for file in files]
            found.append(Moved(row, float(change[row]), images, np.r_[scores.real[row], scores.made[row]]))
    return found


def _save(material: Material, config: AuditConfig, about: Mapping[str, Any], path: Path) -> None:
    tensors: dict[str, Tensor] = {
        f"attribute/{name}": torch.from_numpy(np.ascontiguousarray(values))
        for name, values in material.attributes.items()
    }
    tensors["ids"] = torch.from_numpy(np.ascontiguousarray(material.ids))
    tensors["noise"] = torch.from_numpy(np.ascontiguousarray(material.noise))
    metadata = {
        "graph": material.graph.to_dict(),
        "contrasts": [asdict(contrast) for contrast in material.contrasts],
        "patients": [str(patient) for patient in material.patients],
        "composition": material.composition,
        "quality": {name: {k: asdict(v) for k, v in of.items()} for name, of in material.quality.items()},
        "attributes": list(material.attributes),
        "config": asdict(config),
        "about": dict(about),
    }
    save_tensors(path, tensors, metadata)


def _load(path: Path) -> tuple[Material, AuditConfig, dict[str, Any]]:
    if not path.exists():
        raise DataError(f"no '{path}': expected the folder that 'causalcxr audit export' wrote")
    tensors, about = load_tensors(path)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    material = Material(
        graph_from_dict(about["graph"]),
        [Contrast(**one) for one in about["contrasts"]],
        arrays["ids"],
        np.asarray(about["patients"]),
        {name: arrays[f"attribute/{name}"] for name in about["attributes"]},
        arrays["noise"],
        about["composition"],
        {name: {k: Interval(**v) for k, v in of.items()} for name, of in about["quality"].items()},
    )
    return material, AuditConfig(**about["config"]), about["about"]
