"""What goes wrong for users: each case is one clear line, a non-zero exit, and nothing half-written."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from causalcxr.commands.main import main
from causalcxr.support.files import save_tensors

PATIENT = ["--with", "sex=female", "race=asian", "age=63", "finding=No Finding"]


@pytest.fixture
def fails(capsys, tmp_path, monkeypatch):
    """Run a command in an empty folder; check that it fails in one line; return that line."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> str:
        before = sorted(p for p in tmp_path.rglob("*") if p.is_file() and p.parent.name != ".locks")
        assert main([str(a) for a in arguments]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("causalcxr: ")]
        assert len(lines) == 1
        left = sorted(p for p in tmp_path.rglob("*") if p.is_file() and p.parent.name != ".locks")
        assert left == before, "something half-written was left"
        return lines[0].removeprefix("causalcxr: ")

    return run


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder of 12 small images with a table, ready for source=folder."""
    root, rng = tmp_path / "xrays", np.random.default_rng(0)
    root.mkdir()
    rows = []
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(root / f"{i}.png")
        split = ["train", "val", "test"][i % 3]
        rows.append([f"{i}.png", f"p{i}", split, "FM"[i % 2], 30 + i, ["No Finding", "Effusion"][i % 2]])
    columns = ["path", "patient_id", "split", "sex", "age", "finding"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "metadata.csv", index=False)
    return root


def train_folder(root: Path, *more: str) -> list[str]:
    return [
        *("train", "graph=chest_without_race", "data.source=folder", f"data.root={root}", "run=run"),
        *("data.labels.sex={F: female, M: male}", "train.stages=[attributes]", "train.attributes.steps=2"),
        *("data.labels.finding={Effusion: Pleural Effusion, No Finding: No Finding}", "train.device=cpu", *more),
    ]


PREPARED = [
    "graph=chest_without_race",
    "data.labels.sex={F: female, M: male}",
    "data.labels.finding={Effusion: Pleural Effusion, No Finding: No Finding}",
]


def edit(root: Path, change) -> None:
    table = pd.read_csv(root / "metadata.csv", dtype=object)
    change(table).to_csv(root / "metadata.csv", index=False)


def test_the_folder_of_these_tests_is_good(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(train_folder(folder)) == 0


def test_configuration(fails):
    assert "unknown key 'train.sed' on the command line; did you mean 'train.seed'?" in fails(
        "train", "train.sed=1"
    )
    assert "'train.seed' on the command line is 'x'; expected a whole number" in fails("train", "train.seed=x")
    assert "no graph 'chst'" in fails("train", "graph=chst")
    assert "no preset 'nope'" in fails("train", "preset=nope")
    assert "unknown command 'evalute'; did you mean 'evaluate'?" in fails("evalute")


def test_graph_with_a_cycle(fails, tmp_path):
    text = "variables:\n  a: {kind: binary, labels: [x, y], parents: [b]}\n"
    text += "  b: {kind: binary, labels: [x, y], parents: [a]}\n"
    (tmp_path / "loop.yaml").write_text(text)
    assert "has a cycle: a -> b -> a; remove one of these edges" in fails("train", f"graph={tmp_path}/loop.yaml")


def test_missing_folder_and_table(fails, folder):
    assert "nowhere" in fails(*train_folder(Path("nowhere")))
    assert "labels.csv" in fails(*train_folder(folder, "data.table=labels.csv"))


def test_missing_column(fails, folder):
    edit(folder, lambda t: t.rename(columns={"age": "agee"}))
    line = fails(*train_folder(folder))
    assert "'age'" in line and "'agee'" in line


def test_patient_in_two_splits(fails, folder):
    edit(folder, lambda t: t.assign(patient_id="p0"))
    assert "p0" in fails(*train_folder(folder))


def test_empty_split(fails, folder):
    edit(folder, lambda t: t[t["split"] != "val"])
    assert "val" in fails(*train_folder(folder))


@pytest.mark.parametrize(
    ("column", "value"), [("age", "413"), ("age", ""), ("age", "old"), ("finding", "Cardiomegaly"), ("sex", "X")]
)
def test_no_usable_row(fails, folder, column, value):
    edit(folder, lambda t: t.assign(**{column: value}))
    line = fails(*train_folder(folder))
    assert "12" in line and column in line


@pytest.mark.parametrize("damage", ["truncated", "black", "missing"])
def test_no_usable_image(fails, folder, damage):
    for path in folder.glob("*.png"):
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[:200])
        elif damage == "black":
            Image.new("L", (40, 40)).save(path)
        else:
            path.unlink()
    line = fails(*train_folder(folder))
    assert {"truncated": "broken image", "black": "constant image", "missing": "missing file"}[damage] in line


def test_no_gpu(fails, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "train.device is 'cuda' but no GPU is to be seen; set train.device=cpu" in fails(
        "train", "preset=quickstart", "train.device=cuda"
    )


def test_disk_full_while_saving_keeps_what_was_there(capsys, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(train_folder(folder)) == 0
    model = tmp_path / "run" / "model.safetensors"
    before = model.read_bytes()
    (tmp_path / "run" / "state" / "attributes.safetensors").unlink()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        capsys.readouterr()
        assert main(["train", *train_folder(folder)[1:-1], "run=other", "data.cache=cache"]) == 2
        lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("causalcxr: ") and "No space left on device" in lines[-1]
    assert model.read_bytes() == before
    assert not list(tmp_path.rglob("*.part"))


def ask(run: Path, image: Path, *more: str) -> list[str]:
    return ["counterfactual", str(run), str(image), *PATIENT, "--do", "age=80", "--out", "out.png", *more]


@pytest.fixture
def xray(tmp_path) -> Path:
    path = tmp_path / "patient.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def copied_run(tiny_run, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "copied"))


def test_run_folders(fails, xray, tmp_path, copied_run):
    assert "no run folder 'nothing'; train one with" in fails(*ask(Path("nothing"), xray))
    (tmp_path / "empty").mkdir()
    assert "'empty' is not a run folder: it has no 'config.yaml'" in fails(*ask(Path("empty"), xray))
    (copied_run / "config.yaml").write_text("train: {sed: 1}")
    assert "can't be read: unknown key 'train.sed'" in fails(*ask(copied_run, xray))


def test_truncated_checkpoint(fails, xray, copied_run):
    path = copied_run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    assert "is damaged or none of ours" in fails(*ask(copied_run, xray))


def test_checkpoint_of_another_graph(fails, xray, copied_run):
    (copied_run / "graph.yaml").write_text((copied_run / "graph.yaml").read_text().replace("asian", "Asian"))
    assert "holds a model of another graph" in fails(*ask(copied_run, xray))


def test_checkpoint_that_does_not_fit_its_configuration(fails, xray, copied_run):
    text = (copied_run / "config.yaml").read_text()
    (copied_run / "config.yaml").write_text(text.replace("bins: 8", "bins: 6"))
    assert "does not fit its configuration" in fails(*ask(copied_run, xray))


def test_unfinished_run(fails, xray, copied_run):

    from causalcxr.support.files import load_tensors

    tensors, metadata = load_tensors(copied_run / "model.safetensors")
    save_tensors(copied_run / "model.safetensors", tensors, {**metadata, "stages": ["attributes", "predictors"]})
    assert "has not finished stage 'image'" in fails(*ask(copied_run, xray))
    assert "has not finished stage 'image'" in fails("evaluate", f"run={copied_run}")


def test_images_that_cannot_be_asked_about(fails, tiny_run, xray, tmp_path):
    assert "no file 'gone.png'" in fails(*ask(tiny_run, Path("gone.png")))
    broken = tmp_path / "broken.jpg"
    Image.open(xray).save(broken)
    broken.write_bytes(broken.read_bytes()[:300])
    assert "broken.jpg" in fails(*ask(tiny_run, broken))
    Image.new("L", (64, 64)).save(tmp_path / "black.png")
    assert "every pixel is 0" in fails(*ask(tiny_run, tmp_path / "black.png"))
    (tmp_path / "text.png").write_text("not an image")
    assert "text.png" in fails(*ask(tiny_run, tmp_path / "text.png"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--do", "age=413"], "'age': 413 is not in [18, 100] years"),
        (["--do", "age=nan"], "'age': nan is not in [18, 100]"),
        (["--do", "sex=femal"], "no label 'femal'; did you mean 'female'?"),
        (["--do", "agee=40"], "no variable 'agee': did you mean 'age'?"),
        (["--do", "image=1"], "the image is an effect"),
        (["--do", "age"], "--do 'age': expected NAME=VALUE"),
        (["--with", "sex=female"], "--with lacks 'race'; the model needs all of: sex, race, age, finding"),
        (["--seed", "99999999999999999999"], "seed: expected None or a whole number of at most 64 bits, got"),
        (["--out", ""], "--out '.' is no picture; expected an ending of"),
        (["--effect", "totl"], "unknown effect 'totl'; did you mean 'total'?"),
        (["--draws", "0"], "draws: expected a whole number of at least 1, got 0"),
    ],
)
def test_questions_that_make_no_sense(fails, tiny_run, xray, arguments, expected):
    assert expected in fails(*ask(tiny_run, xray, *arguments))


def test_evaluate_needs_a_run(fails):
    assert "run=" in fails("evaluate")
    assert "no run folder 'runs/none'" in fails("evaluate", "run=runs/none")


def test_a_sixteen_bit_image_is_no_mistake(tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    deep = np.random.default_rng(0).integers(0, 65536, (48, 48)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert main(ask(tiny_run, tmp_path / "deep.png")) == 0
    assert (tmp_path / "out.png").exists() and (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["foldr", "xrays", "out"], "'data.source' is 'foldr'; expected one of: "),
        (["folder", "nowhere", "out"], "data.root: no folder '"),
        (
            ["folder", "xrays"],
            "data prepare: the following arguments are required: out; see",
        ),
        (
            ["folder", "xrays", "out", "data.sise=8"],
            "unknown key 'data.sise' on the command line; did you mean",
        ),
        (
            ["folder", "xrays", "out", "data.root=b"],
            "data prepare: 'data.root=b' has no place here; it is given",
        ),
        (
            ["folder", "xrays", "out", "data.cache=b"],
            "data prepare: 'data.cache=b' has no place here; it is given",
        ),
        (["folder", "xrays", "out", "--sizes", "x"], "data prepare: argument --sizes: invalid int value: 'x'"),
        (["folder", "xrays", "out", "--sizes", "0"], "'data.size' is 0; expected a number of at least 1"),
        (["folder", "xrays", "out", "--size", "8", "graph=chst"], "no graph 'chst'"),
        (["folder", "xrays", "xrays/0.png", *PREPARED], "could not prepare '"),
        (["folder", "xrays", "out", "graph=chest"], "has no column 'race'"),
        (["folder", "xrays", "out", "graph=chest_without_race"], "none of 12 rows can be used: other value 12"),
    ],
)
def test_data_prepare(fails, folder, words, named):
    line = fails("data", "prepare", *words)
    assert named in line


def test_data_has_one_command(fails):
    assert fails("data") == "data: unknown command ''; expected one of: prepare"
    assert fails("data", "prepar") == "data: unknown command 'prepar'; did you mean 'prepare'?"


def test_data_prepare_into_a_read_only_folder(fails, folder, tmp_path, monkeypatch):
    locked, make = tmp_path / "locked", os.mkdir
    locked.mkdir()

    def refuse(path, *arguments, **options):
        """As the system does it, whoever asks: a read-only folder does not stop the superuser."""
        if locked in Path(path).absolute().parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        make(path, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", refuse)
    line = fails("data", "prepare", "folder", folder, "locked/out", *PREPARED)
    assert "Permission denied; free room or choose" in line
    assert not list(locked.iterdir())
