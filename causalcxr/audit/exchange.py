"""Audits a product that nobody may look into: images go out, scores come back in a table.

`OUT/send` is for the vendor: images under numbers that say nothing, and a table of these. `OUT/keep` is for the
auditor: which image is whose, and all that the audit needs besides the scores.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from causalcxr.audit.audit import Audit, Moved
from causalcxr.audit.conclusion import conclude
from causalcxr.audit.config import AuditConfig
from causalcxr.audit.contrasts import Contrast, choose_contrasts, levels_of
from causalcxr.audit.image_files import FORMATS, read_image, write_image
from causalcxr.audit.making import MadeBatch
from causalcxr.audit.material import Material, gather
from causalcxr.audit.scores import Scores, on_scale
from causalcxr.data.cohort import Cohort
from causalcxr.graph import graph_from_dict
from causalcxr.predictors.predictor import Predictor
from causalcxr.scm import StructuralCausalModel
from causalcxr.support.errors import ConfigError, DataError, nearest
from causalcxr.support.files import load_tensors, save_tensors, write_atomically

__all__ = ["export_images", "read_scores"]

README = """Please score every image in the folder 'images', each on its own, and send back one table (CSV): the
column 'image' as in images.csv, and one column for each score, named after the finding. All images are of
research subjects or made from such; none may be used for care.
"""


def export_images(
    scm: StructuralCausalModel,
    cohort: Cohort,
    out: Path,
    config: AuditConfig,
    evaluator: Predictor | None = None,
    kind: str = "png8",
) -> int:
    """Write real images, counterfactuals and placebos into `out`; returns how many.

    `kind`: `png8`, `png16` or `dicom` (extra `dicom`).

    Raises ConfigError: a folder with something in it.
    """
    if kind not in FORMATS:
        raise ConfigError(f"--format '{kind}'; {nearest(kind, FORMATS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"audit export: '{out}' holds something already; choose another folder or delete it")
    contrasts = choose_contrasts(scm.graph, config, cohort.split("train").attributes)
    sink = _Written(out / "send" / "images", kind, len(levels_of(contrasts)), config)
    material = gather(scm, cohort, contrasts, evaluator, config, sink)
    _save(material, config, kind, out / "keep" / "material.safetensors")
    key = sink.table(material)
    write_atomically(out / "keep" / "key.csv", key.to_csv(index=False))
    shuffled = pd.DataFrame({"image": key["image"], "file": key["file"]}).sort_values(by="image")
    write_atomically(out / "send" / "images.csv", shuffled.to_csv(index=False))
    write_atomically(out / "send" / "README.txt", README)
    return len(key)


def read_scores(
    out: Path,
    table: Path,
    kind: str = "probabilities",
    thresholds: Mapping[str, float] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Audit:
    """Audit the scores that came back. With those of the real images alone, only the route "encode" runs.

    `thresholds`: operating points by score, on its scale as sent; without one 0.5 of probabilities, else the
    median of the real images. `settings`: of `AuditConfig`, where they shall differ from those of the export.
    Raises DataError: no export, or a table that doesn't fit it.
    """
    material, config, stored = _load(out / "keep" / "material.safetensors")
    config = AuditConfig(**{**asdict(config), **(settings or {})})
    key = pd.read_csv(out / "keep" / "key.csv", dtype={"image": str, "file": str, "set": int, "row": int})
    images, sent = _scores_by_image(table, key)
    scores, chosen = {}, {}
    for name, values in sent.items():
        scores[name] = _by_row(on_scale(name, values, kind), images, key, material)
        given = (thresholds or {}).get(name, 0.5 if kind == "probabilities" else None)
        if given is None:
            chosen[name] = float(np.median(scores[name].real))
        else:
            chosen[name] = float(on_scale(name, np.array([given], dtype=float), kind)[0])
    if unknown := [name for name in thresholds or {} if name not in scores]:
        raise ConfigError(f"threshold: no score '{unknown[0]}'; {nearest(unknown[0], scores)}")
    found = conclude(material, scores, chosen, config)
    moved = _moved(out / "send" / "images", stored, key, material, next(iter(scores.values())), config.shown)
    return Audit(config, material, scores, found, moved)


class _Written:
    """Writes every image under a number that tells nothing about it."""

    def __init__(self, folder: Path, kind: str, levels: int, config: AuditConfig):
        self.folder, self.kind, self.sets = folder, kind, 1 + 2 * levels
        self.names: list[list[str]] = []
        self.used: set[int] = set()
        self.generator = np.random.default_rng(config.seed)

    def __call__(self, made: MadeBatch) -> None:
        for i in range(len(made.rows)):
            names = [self._name() for _ in range(self.sets)]
            for name, images in zip(names, made.all_images, strict=True):
                write_image(self.folder / f"{name}{FORMATS[self.kind]}", images[i], self.kind, name)
            self.names.append(names)

    def _name(self) -> str:
        while (number := int(self.generator.integers(10**9))) in self.used:
            pass
        self.used.add(number)
        return f"{number:09d}"

    def table(self, material: Material) -> pd.DataFrame:
        """`image`, `file`, `row` (of the audit), `set` (0 real, then made, then placebo)."""
        assert len(self.names) == len(material.ids)
        flat = [(name, i, j) for i, names in enumerate(self.names) for j, name in enumerate(names)]
        images, rows, sets = zip(*flat, strict=True)
        files = [f"images/{name}{FORMATS[self.kind]}" for name in images]
        return pd.DataFrame({"image": images, "file": files, "row": rows, "set": sets})


def _scores_by_image(path: Path, key: pd.DataFrame) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The table that came back: images `(M,)` and scores `(M,)` by name. Raises DataError: what does not fit."""
    try:
        sent = pd.read_csv(path, dtype={"image": str})
    except (OSError, ValueError) as error:
        raise DataError(f"'{path}' can't be read as CSV: {' '.join(str(error).split())}") from None
    if "image" not in sent:
        raise DataError(f"'{path}' has no column 'image', only {', '.join(map(str, sent.columns))}")
    images = np.array([Path(str(text).strip()).stem for text in sent["image"]], dtype=str)
    names, counts = np.unique(images, return_counts=True)
    if len(twice := names[counts > 1]):
        raise DataError(f"'{path}': {len(twice)} images are there twice, such as '{twice[0]}'; keep one score")
    if len(unknown := np.setdiff1d(names, key["image"].to_numpy(str))):
        raise DataError(f"'{path}': {len(unknown)} images are not of this export, such as '{unknown[0]}'")
    columns = [str(name) for name in sent.columns if name not in ("image", "file")]
    if not columns or not len(sent):
        raise DataError(f"'{path}' has no score: expected a column for each beside 'image'")
    scores = {name: _numbers(path, name, pd.Series(sent[name]), images) for name in columns}
    _refuse_gaps(path, names, key)
    return images, scores


def _numbers(path: Path, name: str, column: pd.Series, images: np.ndarray) -> np.ndarray:
    numbers = np.asarray(pd.to_numeric(column, errors="coerce"), dtype=float)
    if len(bad := np.flatnonzero(np.isnan(numbers))):
        raise DataError(
            f"'{path}': {len(bad)} values of '{name}' are no numbers, such as '{column.iloc[int(bad[0])]}' "
            f"of image '{images[bad[0]]}'; every image needs its score"
        )
    return numbers


def _refuse_gaps(path: Path, there: np.ndarray, key: pd.DataFrame) -> None:
    """Either all images have a score, or all real ones and no other."""
    all_images, real = key["image"].to_numpy(str), key["set"].to_numpy() == 0
    only_real = not np.isin(all_images[~real], there).any()
    wanted = all_images[real] if only_real else all_images
    if len(missing := np.setdiff1d(wanted, there)):
        which = "real images" if only_real else "images"
        raise DataError(
            f"'{path}' lacks {len(missing)} of {len(wanted)} {which}, such as '{missing[0]}'; every one needs its "
            "score"
        )


def _by_row(values: np.ndarray, images: np.ndarray, key: pd.DataFrame, material: Material) -> Scores:
    levels = len(material.levels)
    order, known = np.argsort(key["image"].to_numpy(str)), np.sort(key["image"].to_numpy(str))
    places = order[np.searchsorted(known, images)]
    table = np.full((len(material.ids), 1 + 2 * levels), np.nan)
    table[key["row"].to_numpy()[places], key["set"].to_numpy()[places]] = values
    if np.isnan(table[:, 1:]).all():
        return Scores(table[:, 0])
    return Scores(table[:, 0], table[:, 1 : 1 + levels], table[:, 1 + levels :])


def _moved(
    folder: Path, kind: str, key: pd.DataFrame, material: Material, scores: Scores, shown: int
) -> list[Moved]:
    """The patients whose score moves most, with the images that were sent."""
    if scores.made is None:
        return []
    change, sets = np.abs(scores.made - scores.real[:, None]).max(axis=1), 1 + len(material.levels)
    of_rows = {(int(r), int(s)): str(n) for n, r, s in zip(key["image"], key["row"], key["set"], strict=True)}
    found = []
    for row in map(int, np.argsort(-change)[:shown]):
        files = [folder / f"{of_rows[row, j]}{FORMATS[kind]}" for j in range(sets)]
        images = [torch.from_numpy(read_image(file, kind))[None] for file in files]
        found.append(Moved(row, float(change[row]), images, np.r_[scores.real[row], scores.made[row]]))
    return found


def _save(material: Material, config: AuditConfig, kind: str, path: Path) -> None:
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
        "quality": material.quality,
        "config": asdict(config),
        "format": kind,
    }
    save_tensors(path, tensors, metadata)


def _load(path: Path) -> tuple[Material, AuditConfig, str]:
    if not path.exists():
        raise DataError(f"no '{path}': expected the folder that 'causalcxr audit export' wrote")
    tensors, about = load_tensors(path)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    prefix = "attribute/"
    material = Material(
        graph_from_dict(about["graph"]),
        [Contrast(**one) for one in about["contrasts"]],
        arrays["ids"],
        np.asarray(about["patients"]),
        {name.removeprefix(prefix): of for name, of in arrays.items() if name.startswith(prefix)},
        arrays["noise"],
        about["composition"],
        about["quality"],
    )
    return material, AuditConfig(**about["config"]), about["format"]
