"""A product that can't be opened: images out, scores back."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from causalcxr.audit.image_files import FORMATS, read_image, write_image
from causalcxr.audit.runs import audit, export, read
from causalcxr.commands.main import main
from causalcxr.support.errors import CausalCXRError, DataError

from .conftest import brightness

SETTINGS = ["audit.contrasts=[sex=female..male]", "audit.rows=100", "audit.splits=1", "audit.summary=4"]


@pytest.fixture(scope="module")
def exported(audit_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "out"
    assert export(audit_run, out, SETTINGS) == 100 * 3  # each patient's own sex is the real image
    return out


def vendor(out, kind="png8") -> pd.DataFrame:
    """Scores every image that was sent, and knows nothing else."""
    table = pd.read_csv(out / "send" / "images.csv", dtype={"image": str})
    images = torch.stack([torch.from_numpy(read_image(out / "send" / f, kind))[None] for f in table["file"]])
    return pd.DataFrame({"image": table["image"], "Pleural Effusion": brightness(images).double()})


@pytest.fixture(scope="module")
def scored(exported):
    return vendor(exported)


def wrote(table: pd.DataFrame, folder) -> object:
    path = folder / "scores.csv"
    table.to_csv(path, index=False)
    return path


def test_what_is_sent_tells_nothing_about_the_patients(exported):
    sent = sorted(path.relative_to(exported / "send") for path in (exported / "send").rglob("*") if path.is_file())
    assert len(sent) == 100 * 3 + 2
    table = pd.read_csv(exported / "send" / "images.csv", dtype=str)
    assert list(table) == ["image", "file"] and table["image"].is_monotonic_increasing
    key = pd.read_csv(exported / "keep" / "key.csv", dtype={"image": str})
    assert set(key["what"]) == {
        "real",
        *(f"{kind}: sex = {sex}" for kind in ("made", "placebo") for sex in ("female", "male")),
    }
    order = key.drop_duplicates("image")["image"].astype(int).to_numpy()
    assert abs(np.corrcoef(np.arange(len(order)), order)[0, 1]) < 0.3  # of 300, by chance 0.06
    assert not table["image"].str.startswith("0").any()
    assert len({path.stat().st_mtime for path in (exported / "send" / "images").iterdir()}) == 1


def test_two_exports_have_other_numbers(audit_run, exported, tmp_path):
    export(audit_run, tmp_path / "again", SETTINGS)
    first, second = (set(pd.read_csv(o / "send" / "images.csv")["image"]) for o in (exported, tmp_path / "again"))
    assert len(first & second) < 3


def test_the_scores_that_come_back_give_the_audit_of_the_open_model(audit_run, exported, scored, tmp_path):
    """8 bits are what an open model sees too, so every number is the same but for what a CSV rounds."""
    report = read(
        exported, wrote(scored, tmp_path), [], thresholds={"Pleural Effusion": 0.5}, report=tmp_path / "r"
    ).report
    closed = json.loads((report.parent / "audit.json").read_text())["found"][0]
    open_report = audit(
        audit_run, brightness, thresholds={"score": 0.5}, out=tmp_path / "open", words=SETTINGS
    ).report
    opened = json.loads((open_report.parent / "audit.json").read_text())["found"][0]
    for name, interval in opened["generate"]["statistics"].items():
        if name in closed["generate"]["statistics"]:
            assert closed["generate"]["statistics"][name]["value"] == pytest.approx(interval["value"], abs=1e-3)
    assert closed["encode"]["p"] == pytest.approx(opened["encode"]["p"], abs=1e-3)
    assert closed["gates"] == opened["gates"]
    assert "sensitivity" in closed["generate"]["statistics"]


def test_with_real_images_alone_one_route_runs_and_the_report_says_so(exported, scored, tmp_path):
    key = pd.read_csv(exported / "keep" / "key.csv", dtype={"image": str})
    real = scored[scored["image"].isin(key.loc[key["what"] == "real", "image"])]
    report = read(exported, wrote(real, tmp_path), ["audit.alpha=0.01"], report=tmp_path / "r").report
    found = json.loads((report.parent / "audit.json").read_text())["found"][0]
    assert found["generate"] is None and set(found["adjusted_p"]) == {"encode"}
    assert set(found["gates"]) == {"leakage", "overlap"}
    page = report.read_text()
    assert "Only real images were scored" in page and "percentage points, and its score" not in page


def change(column: str, row: int, value: object):
    def apply(table: pd.DataFrame) -> pd.DataFrame:
        table = table.astype({column: object})
        table.loc[row, column] = value
        return table

    return apply


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda t: t.iloc[1:], "lacks 1 of 300 images, such as"),
        (lambda t: pd.concat([t, t.iloc[:2]]), "2 images have several rows, such as"),
        (change("image", 3, "999"), "1 images are not of this export, such as '999'"),
        (
            change("Pleural Effusion", 0, "high"),
            "1 values of 'Pleural Effusion' are no numbers, such as that of image",
        ),
        (change("Pleural Effusion", 0, None), "1 values of 'Pleural Effusion' are no numbers"),
        (change("Pleural Effusion", 0, 1.5), r"expected probabilities in \[0, 1\], got"),
        (lambda t: t.assign(**{"Pleural Effusion": 0.4}), "is constant over 100 images"),
        (lambda t: t.drop(columns="image"), "has no column 'image'"),
        (lambda t: t[["image"]], "has no score"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_in_one_line(exported, scored, tmp_path, break_it, message):
    with pytest.raises(DataError, match=message) as error:
        read(exported, wrote(break_it(scored), tmp_path))
    assert "\n" not in str(error.value)
    assert not (exported / "report").exists()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda out, run, tmp: export(run, out, SETTINGS), "holds something already"),
        (lambda out, run, tmp: export(run, tmp / "x", SETTINGS, "jpeg"), "--format 'jpeg'"),
        (lambda out, run, tmp: export(run, tmp / "x", ["audit.rows=2"]), "2 patients; expected at least 30"),
        (
            lambda out, run, tmp: read(tmp, tmp / "no.csv"),
            "expected the folder that 'causalcxr audit export' wrote",
        ),
        (lambda out, run, tmp: read(out, tmp / "no.csv"), "no file"),
        (lambda out, run, tmp: read(out, tmp / "no.csv", ["audit.rows=3"]), "settled by the export"),
        (lambda out, run, tmp: read(out, tmp / "no.csv", ["train.seed=3"]), "can't be set here"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(exported, audit_run, tmp_path, call, message):
    with pytest.raises(CausalCXRError, match=message):
        call(exported, audit_run, tmp_path)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_image_comes_back_as_it_was_written(kind, tmp_path):
    image = torch.rand(1, 9, 7)
    path = tmp_path / f"x{FORMATS[kind]}"
    write_image(path, image, kind, "17")
    levels = 255 if kind == "png8" else 65535
    assert np.abs(read_image(path, kind) - image[0].numpy()).max() <= 0.5 / levels + 1e-6


def test_a_dicom_is_valid_and_read_as_any_film(tmp_path):
    from causalcxr.data.film import read_film

    image = torch.linspace(0, 1, 64 * 64).reshape(1, 64, 64)
    write_image(tmp_path / "x.dcm", image, "dicom", "17")
    read_back = read_film(tmp_path / "x.dcm", 64, 1)
    assert isinstance(read_back, np.ndarray)
    assert np.abs(read_back[0].astype(float) - 255 * image[0].numpy()).max() <= 1.5


def test_the_command_exports_and_reads(audit_run, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["audit", "export", str(audit_run), str(out), "--format", "png16", *SETTINGS]) == 0
    assert "wrote 300 images to" in capsys.readouterr().out
    table = wrote(vendor(out, "png16"), tmp_path)
    assert (
        main(["audit", "read", str(out), str(table), "--threshold", "Pleural Effusion=0.4", "audit.margin=0.3"])
        == 0
    )
    assert "report.html" in capsys.readouterr().out
    found = json.loads((out / "report" / "audit.json").read_text())["found"][0]
    assert found["threshold"] == pytest.approx(0.4) and found["margin"] > 0
    for words, message in (
        (["audit"], "expected causalcxr audit RUN, got 0 places"),
        (["audit", "read", str(out)], "expected causalcxr audit read OUT SCORES.csv"),
        (["audit", "read", str(out), str(table), "--threshold", "Effusion=0.4"], "threshold: no score 'Effusion'"),
        (["audit", str(audit_run), "--threshold", "x=high"], "expected SCORE=NUMBER"),
        (["audit", "export", str(audit_run), "x", "--kind", "values"], "--kind has no place here"),
        (["audit", "export", str(audit_run), "x", "--threshold", "x=0.4"], "--threshold has no place here"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err


def as_excel_writes_it(table: pd.DataFrame, path) -> None:
    """Semicolons, a byte order mark, capitals, blank lines, and a row number."""
    table = table.rename(columns={"image": "Image "})
    path.write_text("\ufeff" + table.to_csv(sep=";") + ";;\n;;\n", encoding="utf-8")


def with_windows_paths(table: pd.DataFrame, path) -> None:
    table.assign(image="C:\\films\\" + table["image"] + ".PNG").to_csv(path, index=False)


@pytest.mark.parametrize("write", [as_excel_writes_it, with_windows_paths])
def test_tables_as_vendors_write_them_are_read(exported, scored, tmp_path, write):
    path = tmp_path / "scores.csv"
    write(scored, path)
    assert list(read(exported, path, report=tmp_path / "r").scores) == ["Pleural Effusion"]


def test_a_score_of_something_else_has_no_sensitivity(exported, scored, tmp_path):
    table = scored.assign(Nodule=np.random.default_rng(0).random(len(scored)))
    found = read(exported, wrote(table, tmp_path), report=tmp_path / "r").found
    by_name = {one.score: one.effect for one in found}
    assert (
        "sensitivity" in by_name["Pleural Effusion"].statistics
        and "sensitivity" not in by_name["Nodule"].statistics
    )


def test_without_the_images_the_report_has_no_patients(exported, scored, tmp_path):
    shutil.copytree(exported / "keep", tmp_path / "out" / "keep")
    found = read(tmp_path / "out", wrote(scored, tmp_path))
    assert found.report.exists() and found.moved == []
