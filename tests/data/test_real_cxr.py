"""Real radiographs: the counts that their description promises."""

import os

import pytest

from causalcxr.data import DataConfig, open_cohort
from causalcxr.graph import load_graph

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif("CAUSALCXR_DATA" not in os.environ, reason="CAUSALCXR_DATA does not name the real data"),
]


def test_counts_of_real_radiographs(tmp_path):
    config = DataConfig(
        source="folder",
        root="$CAUSALCXR_DATA/real-cxr",
        cache=str(tmp_path),
        size=32,
        labels={
            "sex": {"F": "female", "M": "male"},
            "finding": {"Effusion": "Pleural Effusion", "No Finding": "No Finding"},
        },
    )
    cohort = open_cohort(config, load_graph("chest_without_race"))
    assert {name: len(cohort.split(name)) for name in ("train", "val", "test")} == {
        "train": 1329,
        "val": 258,
        "test": 283,
    }
    assert cohort.rejected == {"other value": 2811 - 1329 - 258 - 283}
    assert int(sum(cohort.split(name).attributes["finding"].sum() for name in ("train", "val", "test"))) == 393
    train, test = set(cohort.split("train").patients), set(cohort.split("test").patients)
    assert not train & test
    means = cohort.images.mean((1, 2, 3))
    assert 60 < means.mean() < 190 and means.std() > 5  # pictures, not noise or black
