"""BRAX: films of one hospital in Brazil, as PNG, with sex, ages in bands of five years and findings. No race."""

import numpy as np
import pandas as pd

from causalcxr.data.collection import (
    Collection,
    attribute_read_from,
    cells,
    refuse_race,
    reject,
    reject_views,
    table_in,
)
from causalcxr.data.config import DataConfig
from causalcxr.data.files import existing_root
from causalcxr.data.findings import CHEXPERT_FINDINGS, label_findings, marks
from causalcxr.data.people import ages_of_bands, sex
from causalcxr.data.source import Source, Unusable
from causalcxr.data.table_file import read_table
from causalcxr.graph import Graph

__all__ = ["brax_source"]

NAME = "BRAX"
TABLES = ("master_spreadsheet_update.csv", "master_spreadsheet.csv")
OPEN = "films whose age is an open band such as '85 or more', read as {:g} years (data.open_age)"


def brax_source(config: DataConfig, graph: Graph) -> Source:
    """Columns: sex, age (the middle of its band), finding, view, study_id. Splits are drawn by patient.

    docs/data/brax.md has the layout. Raises DataError: a missing table or column, a mark that isn't one, a graph
    with race.
    """
    root = existing_root(config)
    refuse_race(NAME, config, graph)
    path = table_in([root], TABLES, "brax")
    entries = read_table(path)
    unusable: dict[int, Unusable] = {}
    views = cells(entries, "ViewPosition", path)
    reject_views(unusable, views, config)
    bands = cells(entries, "PatientAge", path)
    ages, is_open = ages_of_bands(bands, config.open_age)
    said = marks({finding: cells(entries, finding, path) for finding in CHEXPERT_FINDINGS}, f"table '{path}'")
    table = pd.DataFrame(
        {
            "path": cells(entries, "PngPath", path),
            "patient_id": cells(entries, "PatientID", path),
            "study_id": cells(entries, "AccessionNumber", path),  # unique within a patient only
            "view": views,
            "sex": sex(cells(entries, "PatientSex", path)),
            "age": ages,
            "finding": label_findings(unusable, said, CHEXPERT_FINDINGS, config, graph, NAME),
        }
    )
    noted = {}
    if attribute := attribute_read_from("age", config, graph):
        if config.open_age:
            kept = is_open.to_numpy() & ~np.isin(np.arange(len(table)), list(unusable))
            noted[OPEN.format(config.open_age)] = int(kept.sum())
        else:
            detail = f"{attribute.name}: '{{}}' has no middle; data.open_age says what it stands for"
            reject(unusable, is_open, "open age band", detail, bands)
    about = {"splits": "by patient", "open age": config.open_age or "rejected", "ages": "middles of bands"}
    return Collection(NAME, root, [path], table, unusable, about, noted).source(config, graph)
