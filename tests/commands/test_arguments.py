"""The grammar of the command line: places, assignments, help, and outputs that replace nothing."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

import causalcxr
from causalcxr.commands.arguments import assignments
from causalcxr.commands.main import COMMANDS, main
from causalcxr.commands.settings import list_settings
from causalcxr.config import Config
from causalcxr.support.errors import ConfigError

PATIENT = ["sex=F", "race=asian", "age=63", "finding=No Finding"]


@pytest.fixture
def film(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "film.png")
    return tmp_path / "film.png"


def test_options_swallow_no_places():
    words = ["--with", "sex=F", "age=63", "runs/a", "film.png", "--do", "age=80", "--seed", "3"]
    rest, found = assignments(words, "--with", "--do")
    assert rest == ["runs/a", "film.png", "--seed", "3"]
    assert found == {"--with": ["sex=F", "age=63"], "--do": ["age=80"]}
    with pytest.raises(ConfigError, match=r"--do .film\.png.: expected NAME=VALUE"):
        assignments(["--do", "film.png"], "--do")


@pytest.mark.parametrize("words", [["--version"], ["-V"], ["version"]])
def test_the_version_is_said(words, capsys):
    assert main(words) == 0
    assert capsys.readouterr().out == f"causalcxr {causalcxr.__version__}\n"


@pytest.mark.parametrize("command", [*COMMANDS, "data prepare", "graph check"])
@pytest.mark.parametrize("form", ["{} --help", "help {}", "{} -h"])
def test_every_command_has_help(command, form, capsys):
    words = form.format(command).split()
    try:
        assert main(words) == 0
    except SystemExit as ended:  # argparse prints its help and leaves
        assert ended.code == 0
    assert "usage: causalcxr" in capsys.readouterr().out


def test_help_lists_every_setting_with_its_default():
    """The list is read from the code as text; the configuration itself says the same."""
    config = OmegaConf.structured(Config)
    listed = {setting.key: setting.default for setting in list_settings()}

    def leaves(node, prefix=""):
        for key in node:
            value = node._get_node(key)
            if OmegaConf.is_dict(value) and key not in ("columns", "labels", "other", "knobs", "planted", "sites"):
                yield from leaves(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", OmegaConf.select(node, key)

    known = dict(leaves(config))
    assert listed.keys() == known.keys()
    for key, value in known.items():
        written = listed[key] if isinstance(value, str) else OmegaConf.create(f"x: {listed[key]}")["x"]
        assert written == value, key
    said = [setting for setting in list_settings() if setting.about]
    assert len(said) > 0.6 * len(listed)


def test_help_imports_nothing_heavy():
    """Torch takes seconds to import; help must not wait for it. Modules are counted, not seconds."""
    code = "import sys; from causalcxr.commands.main import main; main(['train', '--help']); "
    code += "sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
    code = "import sys; from causalcxr.commands.main import main; main(['data', '--help']); "
    code += "sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
    code = "import sys, causalcxr; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize("words", [[], ["train.seed=1"]])
def test_training_of_nothing_in_particular_is_refused(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words]) == 2
    assert "say what to train" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("film.png", "would replace"),
        ("./film.png", "would replace"),
        ("answer.dcm", "is no picture; expected an ending of .png, .jpg, .jpeg"),
        ("answer", "is no picture"),
        ("answer.json", "is no picture"),
    ],
)
def test_an_answer_replaces_no_input(tiny_run, film, out, message, capsys, monkeypatch):
    monkeypatch.chdir(film.parent)
    before = film.read_bytes()
    words = ["counterfactual", str(tiny_run), "film.png", "--with", *PATIENT, "--do", "age=80", "--out", out]
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert film.read_bytes() == before and sorted(path.name for path in film.parent.iterdir()) == ["film.png"]


def test_a_patient_whose_table_is_json_is_not_replaced(tiny_run, film, capsys):
    """The numbers go beside the picture, and not over a file that is read."""
    odd = film.with_suffix(".json")
    film.rename(odd)
    words = ["counterfactual", str(tiny_run), str(odd), "--with", *PATIENT, "--do", "age=80"]
    assert main([*words, "--out", str(film)]) == 2
    assert "would replace" in capsys.readouterr().err


def test_a_jpeg_is_a_jpeg_and_labels_of_the_table_are_known(tiny_run, film, tmp_path, monkeypatch):
    """`F` is what the table of a run may call female; options may stand before places."""
    from causalcxr.commands import counterfactual
    from causalcxr.runs import open_run

    def with_labels(folder):
        run = open_run(folder)
        run.config.data.labels = {"sex": {"F": "female", "M": "male"}}
        return run

    monkeypatch.setattr(counterfactual, "open_run", with_labels)
    out = tmp_path / "answer.jpg"
    words = ["counterfactual", "--with", *PATIENT, "--do", "sex=M", "--out", str(out), str(tiny_run), str(film)]
    assert main(words) == 0
    with Image.open(out) as picture:
        assert picture.format == "JPEG"
    answer = json.loads(out.with_suffix(".json").read_text())
    assert (answer["factual"]["sex"], answer["counterfactual"]["sex"]) == ("female", "male")


def test_a_dicom_film_is_asked_about_as_a_picture_is(tiny_run, film, tmp_path):
    pytest.importorskip("pydicom", reason="pydicom (extra dicom) is not installed")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

    file, meta = Dataset(), FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = (
        ExplicitVRLittleEndian,
        DigitalXRayImageStorageForPresentation,
    )
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file.file_meta, file.SOPClassUID = meta, meta.MediaStorageSOPClassUID
    file.SOPInstanceUID, file.PatientID = meta.MediaStorageSOPInstanceUID, "made-up"
    file.Rows = file.Columns = 40
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME2", 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 8, 8, 7
    file.PixelData = np.asarray(Image.open(film)).tobytes()
    file["PixelData"].VR = "OB"
    file.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    answers = []
    for name in ("film.png", "film.dcm"):
        out = tmp_path / f"of-{name}.png"
        patient = ["sex=female", *PATIENT[1:]]
        words = ["counterfactual", str(tiny_run), str(tmp_path / name), "--with", *patient, "--do", "age=80"]
        assert main([*words, "--out", str(out)]) == 0
        answers.append(json.loads(out.with_suffix(".json").read_text()))
    assert all(answers[0][key] == answers[1][key] for key in ("factual", "counterfactual"))
    # A DICOM film is resized before its levels are rounded, a picture after: half a level apart at most.
    change = "mean_absolute_change_grey_levels"
    assert answers[0][change] == pytest.approx(answers[1][change], abs=0.5)


def test_a_folder_is_a_run_for_every_command(tiny_run, capsys):
    assert main(["evaluate", f"{tiny_run}-none"]) == 2
    assert f"no run folder '{tiny_run}-none'" in capsys.readouterr().err


def test_an_answer_replaces_nothing_of_the_run_and_no_other_json(tiny_run, film, tmp_path, capsys):
    own = tmp_path / "film.json"
    own.write_text('{"name": "mine"}')
    for out in (tiny_run / "provenance.png", own.with_suffix(".jpg")):
        before = out.with_suffix(".json").read_bytes()
        assert (
            main(
                [
                    "counterfactual",
                    str(tiny_run),
                    str(film),
                    "--with",
                    *PATIENT,
                    "--do",
                    "age=80",
                    "--out",
                    str(out),
                ]
            )
            == 2
        )
        assert "would replace" in capsys.readouterr().err
        assert out.with_suffix(".json").read_bytes() == before and not out.exists()


@pytest.mark.parametrize("out", ["table.csv", "graph.yaml", "folder/cohort.json", "folder", ""])
def test_a_check_replaces_nothing_that_it_reads(tmp_path, monkeypatch, capsys, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    cohort = "folder" if out.startswith("folder") else "table.csv"
    for name in ("table.csv", "graph.yaml", "folder/cohort.json"):
        (tmp_path / name).write_text("mine")
    assert main(["graph", "check", "graph.yaml", cohort, "--json", out]) == 2
    assert re.search("would replace|is a folder; expected a file", capsys.readouterr().err)
    for name in ("table.csv", "graph.yaml", "folder/cohort.json"):
        assert (tmp_path / name).read_text() == "mine"
