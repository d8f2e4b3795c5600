"""PadChest: images of 16 bits with the year of birth, sex and findings in lists. Race isn't recorded."""

import numpy as np
import pandas as pd

from causalcxr.data.collection import Collection, cells, locate, refuse_race, reject_views, table_in
from causalcxr.data.config import DataConfig
from causalcxr.data.files import existing_root
from causalcxr.data.findings import label_findings, lists
from causalcxr.data.people import numbers, sex, whole_years
from causalcxr.data.source import Source, Unusable
from causalcxr.data.table import read_table
from causalcxr.graph import Graph

__all__ = ["padchest_source"]

NAME = "PadChest"
TABLES = ("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", "PADCHEST_chest_x_ray_images_labels_160K.csv")
RENAMED = {"normal": "No Finding", "pleural effusion": "Pleural Effusion"}  # to the names of the other collections


def padchest_source(config: DataConfig, graph: Graph) -> Source:
    """Columns: sex, age (year of the study - year of birth), finding, view. docs/data/padchest.md has the layout.

    Splits are drawn by patient. Levels are scaled by the bits that the table states, and inverted where it says
    MONOCHROME1. Raises DataError: a missing table or column, a graph with race.
    """
    root = existing_root(config)
    refuse_race(NAME, config, graph)
    path = table_in([root], TABLES, "padchest")
    entries = read_table(path)
    unusable: dict[int, Unusable] = {}
    views = cells(entries, "Projection", path)
    reject_views(unusable, views, config)
    born, studied = cells(entries, "PatientBirth", path), cells(entries, "StudyDate_DICOM", path)
    said = lists(cells(entries, "Labels", path), RENAMED)
    known = set().union(*(mentions.positive for mentions in said.distinct))
    bits = np.nan_to_num(numbers(cells(entries, "BitsStored_DICOM", path)), nan=16).clip(8, 16).astype(int)
    names, parts = cells(entries, "ImageID", path), cells(entries, "ImageDir", path)
    folders = [*sorted(root.glob("[0-9]*")), root / "images", *sorted(root.glob("images/[0-9]*")), root]
    table = pd.DataFrame(
        {
            "path": locate(parts + "/" + names, root, folders),
            "patient_id": cells(entries, "PatientID", path),
            "view": views,
            "sex": sex(cells(entries, "PatientSex_DICOM", path)),
            "age": whole_years(numbers(studied.str[:4]) - numbers(born)),
            "finding": label_findings(unusable, said, known, config, graph, NAME),
        }
    )
    inverted = cells(entries, "PhotometricInterpretation_DICOM", path) == "MONOCHROME1"
    about = {"splits": "by patient"}
    opened = Collection(NAME, root, [path], table, unusable, about, bits=bits.tolist(), inverted=inverted.tolist())
    return opened.source(config, graph)
