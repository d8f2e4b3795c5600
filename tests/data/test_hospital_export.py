"""README's example of own data, on a table as a hospital exports it: from nothing to a cohort by the ten lines."""

import csv
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from causalcxr.commands.data import prepare_cohort
from causalcxr.commands.main import main
from causalcxr.data import DataConfig, open_cohort
from causalcxr.data.images import read_image
from causalcxr.graph import load_graph
from causalcxr.support.errors import DataError

README = Path(__file__).parents[2] / "README.md"
FILMS = 48
AGES = ("{:03d}Y", "{}Y", "{:03d}", "{},5", "{} years")
FINDINGS = ("Effusion|Atelectasis", "No Finding", "effusion", "NO FINDING", "Nodule", "Effusion")
HEADER = "Path;Patient_ID;Sex;AGE;finding;;"  # as a spreadsheet leaves it, with empty columns
BROKEN = {5: b"", 17: b"\x89PNG\r\n\x1a\nhalf of"}  # film -> what came of it


def made_up(i: int, file: Path) -> None:
    """A grey film of 8 bits with broad structure."""
    y, x = np.mgrid[0:60, 0:50] / 60
    a, b = np.random.default_rng(i).uniform(0, 6, 2)
    Image.fromarray(np.rint(127 + 60 * np.sin(5 * x + a) + 60 * np.cos(4 * y + b)).astype(np.uint8)).save(file)


def real(i: int, file: Path) -> None:
    """A real film, stored as PNG."""
    root = Path(os.environ["CAUSALCXR_DATA"], "real-cxr")
    with (root / "metadata.csv").open(newline="", encoding="utf-8") as table:
        film = [row["path"] for row in csv.DictReader(table)][20 * i]
    Image.open(root / film).save(file)


def rows() -> list[tuple[str, str, str, int, str, str]]:
    """Film, patient, sex, age in whole years, age as written, finding: two films a person, written in two ways."""
    found = []
    for i in range(FILMS):
        person, age = i // 2, 20 + i
        name = f"{person:04d}" if i % 2 else f"{person}"
        sex = "MmFf"[person % 2 * 2 + i % 2]
        film = f"ward {'AB'[i % 2]}/2026/film{i:03d}.png"
        found.append((film, name, sex, age, AGES[i % 5].format(age), FINDINGS[i % 6]))
    return found


def export(root: Path, film: Callable[[int, Path], None], encoding: str) -> None:
    lines = [HEADER, *(f"{path};{name};{sex};{age};{said};;" for path, name, sex, _, age, said in rows())]
    for i, (path, *_) in enumerate(rows()):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        film(i, root / path)
        if i in BROKEN:
            (root / path).write_bytes(BROKEN[i])
    (root / "metadata.csv").write_text("\r\n".join(lines) + "\r\n", encoding)


real_films = [
    pytest.mark.realdata,
    pytest.mark.skipif("CAUSALCXR_DATA" not in os.environ, reason="CAUSALCXR_DATA does not name the real data"),
]


@pytest.mark.parametrize("film", [made_up, pytest.param(real, marks=real_films)])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_the_preset_of_readme_prepares_it(tmp_path, monkeypatch, film, encoding):
    monkeypatch.chdir(tmp_path)
    preset = re.findall(r"```yaml\n(.*?)```", README.read_text("utf-8"), re.S)[0]
    Path("my-hospital.yaml").write_text(preset.replace("~/xrays", str(tmp_path / "xrays")))
    export(tmp_path / "xrays", film, encoding)
    settings = ["preset=my-hospital.yaml", "data.split_seed=3"]
    ((folder, command),) = prepare_cohort("folder", str(tmp_path / "xrays"), "prepared", settings)
    assert "preset=my-hospital.yaml" in command and "data.prepared=prepared" in command

    cohort = open_cohort(DataConfig(prepared="prepared", size=64), load_graph("chest_without_race"))
    nodules = {i for i in range(FILMS) if i % 6 == 4}
    assert cohort.rejected == {"other value": len(nodules), "broken image": len(BROKEN)}
    kept = [i for i in range(FILMS) if i not in nodules and i not in BROKEN]
    assert cohort.manifest["row"].tolist() == kept
    for i, row in zip(kept, cohort.manifest.itertuples(), strict=True):
        path, _, sex, age, _, said = rows()[i]
        assert (row.path, row.patient_id) == (path, str(i // 2))
        assert row.sex == {"m": "male", "f": "female"}[sex.lower()]
        assert row.age == age + (0.5 if i % 5 == 3 else 0)
        assert row.finding == ("Pleural Effusion" if said.lower().startswith("effusion") else "No Finding")
    assert cohort.manifest.groupby("patient_id")["split"].nunique().max() == 1
    assert np.array_equal(cohort.images[0], read_image(tmp_path / "xrays" / rows()[0][0], 64, 1))
    card = (folder / "card.html").read_text("utf-8")
    assert "people whose id is written in several ways, such as 123 and 0123, each taken as one: " in card


FEW = [*(f"train.{stage}.steps=2" for stage in ("attributes", "predictors", "image", "outputs", "finetune"))]
FEW += ["train.device=cpu", "train.image.batch_size=4", "train.image.validate_rows=4"]
FEW += ["train.finetune.batch_size=4", "train.finetune.validate_rows=4"]
MEASURED = ["evaluate.rows=4", "evaluate.samples=2", "evaluate.draws=1", "evaluate.cycles=1"]


@pytest.mark.parametrize("film", [pytest.param(real, marks=real_films)])
def test_the_commands_of_readme_lead_to_a_report_of_real_films(tmp_path, monkeypatch, film):
    """The three commands as README has them, with fewer steps."""
    monkeypatch.chdir(tmp_path)
    readme = README.read_text("utf-8")
    preset = re.findall(r"```yaml\n(.*?)```", readme, re.S)[0]
    Path("my-hospital.yaml").write_text(preset.replace("~/xrays", str(tmp_path / "xrays")))
    export(tmp_path / "xrays", film, "utf-8-sig")
    commands = re.findall(r"^causalcxr ((?:train|evaluate) .*(?:my-hospital|runs/mine)\S*)", readme, re.M)
    assert [command.split()[0] for command in commands] == ["train", "train", "evaluate"]
    for command in commands:
        verb, *arguments = command.partition("  ")[0].split()
        fewer = MEASURED if verb == "evaluate" else FEW
        split = ["data.split_seed=3"] if "preset=my-hospital.yaml" in arguments else []
        assert main([verb, *arguments, *fewer, *split]) == 0
    report = Path("runs/mine-counterfactual/report.html").read_text("utf-8")
    assert "chest_without_race" in report and "Fine-tuned with <b>counterfactual</b> targets" in report
    assert {"before", "counterfactual"} <= set(re.findall(r"<tr><td>(\w+)</td><td><b>", report))


def test_a_person_in_two_splits_under_two_spellings_stops_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    preset = re.findall(r"```yaml\n(.*?)```", README.read_text("utf-8"), re.S)[0]
    Path("my-hospital.yaml").write_text(preset.replace("~/xrays", str(tmp_path / "xrays")))
    export(tmp_path / "xrays", made_up, "utf-8")
    table = tmp_path / "xrays" / "metadata.csv"
    lines = table.read_text("utf-8").splitlines()
    splits = ["split", *(["train", "test", "val"][i % 3] for i in range(FILMS))]
    table.write_text("\n".join(f"{line}{split}" for line, split in zip(lines, splits, strict=True)), "utf-8")
    with pytest.raises(DataError, match=r"patient '0' is in train and, written '0000', in test"):
        prepare_cohort("folder", str(tmp_path / "xrays"), "prepared", ["preset=my-hospital.yaml"])
    assert not Path("prepared/64").exists()
