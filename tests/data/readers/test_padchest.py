"""PadChest as published: lists of findings as text, 16 bits, missing sexes, years of birth as 1961.0."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from causalcxr.data import DataConfig, open_cohort, prepare
from causalcxr.graph import load_graph
from causalcxr.support.errors import DataError

TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
IMAGES = [  # part, patient, born, sex, projection, labels, bits, photometric interpretation, what becomes of it
    (0, "839860488694292331637988235681460987", "1961.0", "F", "PA", "['normal']", 12, "MONOCHROME2", "kept"),
    (0, "839860488694292331637988235681460987", "1961.0", "F", "L", "['normal']", 12, "MONOCHROME2", "other view"),
    (1, "p2", "1930.0", "M", "AP_horizontal", "['pleural effusion']", 15, "MONOCHROME2", "other view"),
    (1, "p3", "1940.0", "M", "AP", "['pleural effusion', ' cardiomegaly', '']", 16, "MONOCHROME2", "kept"),
    (2, "p4", "1950.0", "", "PA", "['normal']", 12, "MONOCHROME2", "blank value"),
    (2, "p5", "1950.0", "O", "PA", "['normal']", 12, "MONOCHROME2", "other value"),
    (54, "p6", "", "M", "PA", "['normal']", 12, "MONOCHROME2", "blank value"),
    (54, "p7", "1950.0", "M", "PA", "['loculated pleural effusion']", 12, "MONOCHROME2", "other finding"),
    (54, "p8", "1950.0", "M", "PA", "", 12, "MONOCHROME2", "other finding"),
    (54, "p9", "1950.0", "M", "PA", "['normal', 'pleural effusion']", 12, "MONOCHROME2", "ambiguous"),
    (54, "p10", "1950.0", "M", "EXCLUDE", "['exclude']", 12, "MONOCHROME2", "other view"),
    (54, "p11", "1950.0", "M", "PA", "['pleural effusion']", 12, "MONOCHROME1", "kept"),
    (54, "p12", "1950.0", "M", "COSTAL", "['normal']", 12, "MONOCHROME2", "other view"),
]
REJECTED = {"other view": 4, "blank value": 2, "other value": 1, "other finding": 2, "ambiguous": 1}


def ramp(row: int) -> np.ndarray:
    """12 bits of 16, another picture for every row."""
    return np.roll(np.linspace(0, 4095, 256).round().astype(np.uint16), 7 * row).reshape(16, 16)


@pytest.fixture
def padchest(tmp_path, write_csv):
    """Make a copy of the collection; `places` says where the image of each part lies."""

    def make(table=TABLE, place="{part}/{name}", name="root"):
        root = tmp_path / name
        rows = []
        for i, (part, patient, born, sex, view, labels, bits, photometric, _) in enumerate(IMAGES):
            file = f"216840111366964012{i:05}_00-071-090.png"
            path = root / place.format(part=part, name=file)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(ramp(i) * (16 if bits == 16 else 1)).save(path)
            rows.append(
                {"": i, "ImageID": file, "ImageDir": part, "StudyDate_DICOM": 20140915 + i, "StudyID": f"s{i}"}
                | {"PatientID": patient, "PatientBirth": born, "PatientSex_DICOM": sex}
                | {"ViewPosition_DICOM": "POSTEROANTERIOR", "Projection": view, "BitsStored_DICOM": f"{bits}.0"}
                | {"PhotometricInterpretation_DICOM": photometric, "Labels": labels}
            )
        write_csv(root / table, rows)
        return DataConfig(
            source="padchest", root=str(root), cache=str(tmp_path / "cache"), size=16, split_seed=1,
            validation_fraction=0.3, test_fraction=0.3,
        )  # fmt: skip

    return make


def test_every_image_is_kept_or_rejected_for_its_reason(padchest, check_every_row):
    cohort = open_cohort(padchest(), load_graph("chest_without_race"))
    check_every_row(cohort, len(IMAGES), REJECTED)
    assert cohort.manifest[["row", "sex", "age", "finding"]].values.tolist() == [
        [0, "female", 53, "No Finding"],
        [3, "male", 74, "Pleural Effusion"],
        [11, "male", 64, "Pleural Effusion"],
    ]
    assert cohort.manifest["patient_id"][0] == "839860488694292331637988235681460987"  # text, no digit is lost


def test_levels_are_scaled_by_the_bits_stated_and_bones_are_white(padchest):
    images = open_cohort(padchest(), load_graph("chest_without_race")).images
    twelve, sixteen, dark = (image[0].astype(int) for image in images)
    assert np.array_equal(twelve, np.rint(ramp(0) / 4095 * 255))
    assert np.array_equal(sixteen, np.rint(ramp(3) * 16.0 / 65535 * 255))
    assert np.array_equal(dark, 255 - np.rint(ramp(11) / 4095 * 255))


def test_levels_above_the_bits_stated_mean_all_sixteen(padchest):
    config = padchest()
    first = next(Path(config.root).rglob("*00000_00-071-090.png"))
    Image.fromarray(ramp(0) * 16).save(first)
    image = open_cohort(config, load_graph("chest_without_race")).images[0, 0]
    assert np.array_equal(image, np.rint(ramp(0) * 16.0 / 65535 * 255))


@pytest.mark.parametrize("table", [TABLE, f"{TABLE}.gz"])
@pytest.mark.parametrize("place", ["{part}/{name}", "images/{part}/{name}", "images/{name}", "{name}"])
def test_images_are_found_where_the_archives_were_unpacked(padchest, table, place):
    first = open_cohort(padchest(), load_graph("chest_without_race"))
    other = open_cohort(padchest(table, place, name="other"), load_graph("chest_without_race"))
    assert np.array_equal(first.images, other.images) and first.rejected == other.rejected


def test_images_of_lying_people_can_be_kept(padchest):
    config = padchest()
    config.views = ["PA", "AP", "AP_horizontal"]
    assert open_cohort(config, load_graph("chest_without_race")).manifest["row"].tolist() == [0, 2, 3, 11]


def test_race_is_not_recorded(padchest):
    with pytest.raises(DataError, match="PadChest doesn't record race"):
        prepare(padchest(), load_graph("chest"))


def test_a_list_of_findings_is_read_and_not_run(padchest):
    config = padchest()
    table = Path(config.root, TABLE)
    table.write_text(table.read_text().replace("['normal', 'pleural effusion']", "[__import__('os').abort()]"))
    cohort = open_cohort(config, load_graph("chest_without_race"))
    assert cohort.rejected["other finding"] == 3 and "ambiguous" not in cohort.rejected
